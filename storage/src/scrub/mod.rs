//! Scrubbing: what is stored is read now and then, so that rot is found while it can be put right.
//!
//! [`pass`] reads everything once, [`walk`] one segment, [`damage`] keeps the list of what is
//! damaged; the worker here lets them run at a pace that clients do not feel.
//! Owns: the worker, its pace, when a pass is due. Does not know: keys; checksums are enough.
//!
//! Invariants
//! - One step runs at a time; it holds the engine, and at most three buffers, no longer than that.
//! - Everything that enters the list goes through the worker.
//!   Steps: docs/ARCHITECTURE.md, "Scrubbing".

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::backup::Progress;
use crate::blob::{ExtentId, Location, SegmentState};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};

pub(crate) mod damage;
mod pass;
pub(crate) mod row;
mod walk;

#[cfg(test)]
mod tests;

pub use damage::{DAMAGE_MAX, DamagedExtent};
pub use row::{DamageKind, DamagePlace};

use damage::{DamageList, Ground};
use pass::{Pass, is_ahead};
use row::{Cursor, Phase};
use walk::{Ended, Seen, Walk, judge};

/// How often the worker looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a node that has just started is left alone by a pass that nobody asked for.
const START_AFTER: Duration = Duration::from_mins(1);
/// How long a failed step is left alone.
const BACK_OFF: Duration = Duration::from_secs(5);
/// Paused beside the rate while clients wait for buffers.
const YIELD_PAUSE: Duration = Duration::from_millis(50);
/// How often entries are looked for whose extents are gone, in nanoseconds.
const TIDY_EVERY_NS: u64 = 5_000_000_000;
/// Extents that reads found damaged and the worker has not looked at. More are found again.
const SUSPECTS_MAX: usize = 64;
/// A pass aims to end in this part of its period: the rest is for nodes that are switched off at
/// times, and for what is written meanwhile.
const PERIOD_DIVISOR: u64 = 2;
/// The least that a pass reads in a second: a tenth of a slow disk, and little volumes are soon
/// done.
const RATE_MIN: u64 = 8 << 20;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// The longest period, in days.
pub const PERIOD_DAYS_MAX: u32 = 365;

/// How scrubbing behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScrubConfig {
    /// Within how many days everything is read once; 0 for never by itself.
    pub period_days: u32,
    /// The repository of metadata checkpoints that is verified, too.
    pub checkpoints: Option<PathBuf>,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { period_days: 7, checkpoints: None }
    }
}

/// How scrubbing stands. Counts are of the pass under way, or else of the last one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ScrubStats {
    /// The number of the pass, counted since the node was made.
    pub pass: u64,
    /// `idle`, `segments`, `metadata` or `checkpoints`.
    pub phase: &'static str,
    /// Segments that were read.
    pub segments_done: u64,
    /// Of how many, as it stands.
    pub segments: u64,
    /// Bytes that records take in those that were read.
    pub bytes: u64,
    /// When the pass began, in Unix milliseconds; 0 for never.
    pub started_ms: u64,
    /// When the last whole pass ended; 0 for never.
    pub ended_ms: u64,
    /// Ranges that were wrong on one copy and put right from another.
    pub repaired: u64,
    /// Ranges that were wrong on one copy and could not be put right.
    pub unrepaired: u64,
    /// Damaged records that belong to nobody any more.
    pub dead_damaged: u64,
    /// Families of the metadata that are damaged.
    pub metadata_faults: u64,
    /// Files of metadata checkpoints that are damaged.
    pub checkpoint_faults: u64,
    /// Extents on the list of damage.
    pub damaged: u64,
    /// Damaged extents for which the list had no place.
    pub unlisted: u64,
    /// The number, as [`Engine::scrub_now`] gives it, of the last pass that was asked for and is
    /// over.
    pub answered: u64,
    /// Bytes read since the node started.
    pub read_bytes: u64,
    /// Ranges put right since the node started.
    pub repaired_ever: u64,
}

/// An extent that somebody found damaged.
struct Suspect {
    id: ExtentId,
    location: Location,
    /// What is wrong with it, where a checksum does not tell.
    kind: Option<DamageKind>,
}

/// The worker's desk.
pub(crate) struct Scrub {
    wanted: Arc<Notify>,
    stopping: AtomicBool,
    list: DamageList,
    suspects: Mutex<VecDeque<Suspect>>,
    /// Passes asked for, and begun because of it.
    asked: watch::Sender<u64>,
    /// Answers: how many of `asked` are done.
    answered: watch::Sender<u64>,
    cursor: Mutex<Cursor>,
    read_bytes: AtomicU64,
    repaired: AtomicU64,
    progress: Arc<Progress>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            wanted: Arc::default(),
            stopping: AtomicBool::new(false),
            list: DamageList::default(),
            suspects: Mutex::default(),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            cursor: Mutex::default(),
            read_bytes: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            progress: Arc::default(),
            worker: Mutex::default(),
        }
    }
}

/// What the worker remembers from step to step.
#[derive(Default)]
struct Work {
    is_loaded: bool,
    pass: Pass,
    /// The neighbours of something bad.
    near: Option<Walk>,
    /// How many of the asked-for passes this one answers: it runs at full speed.
    answering: u64,
    tidied_ns: u64,
    last_error: Option<String>,
}

impl Scrub {
    fn suspects(&self) -> MutexGuard<'_, VecDeque<Suspect>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the worker look at an extent that could not be read. `kind` where checksums do not say
    /// what is wrong with it.
    pub(crate) fn suspect(&self, id: ExtentId, location: &Location, kind: Option<DamageKind>) {
        let mut suspects = self.suspects();
        let is_known = suspects.iter().any(|it| it.location == *location && it.kind == kind);
        if suspects.len() < SUSPECTS_MAX && !is_known {
            suspects.push_back(Suspect { id, location: *location, kind });
            drop(suspects);
            self.wanted.notify_one();
        }
    }

    /// Starts the worker of `inner`.
    pub(crate) fn start(inner: &Arc<Inner>) {
        let wanted = Arc::clone(&inner.scrub.wanted);
        let worker = tokio::spawn(run(Arc::downgrade(inner), wanted));
        *inner.scrub.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Ends the worker after the step that it is at. What it leaves, the next start takes up.
    pub(crate) async fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.progress.stop();
        self.wanted.notify_one();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker
            && worker.await.is_err()
        {
            tracing::error!("the scrubbing worker panicked");
        }
    }
}

impl Engine {
    /// Begins a pass over everything, at full speed; one that was under way is given up for it.
    /// [`Engine::scrubbed`] waits for its end.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: a write failed, so that nothing found could be written down.
    pub fn scrub_now(&self) -> Result<u64> {
        let scrub = &self.inner.scrub;
        if self.inner.is_fenced() {
            return Err(Error::new(ErrorKind::Fenced, "begin a pass of scrubbing")
                .with_advice("restart the node, it recovers"));
        }
        let mut number = 0;
        scrub.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        scrub.wanted.notify_one();
        Ok(number)
    }

    /// Waits for the pass that [`Engine::scrub_now`] gave this number.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the node is closing.
    pub async fn scrubbed(&self, number: u64) -> Result<ScrubStats> {
        let mut answered = self.inner.scrub.answered.subscribe();
        // The sender lives as long as the engine does.
        let closing = || Error::new(ErrorKind::Unavailable, "wait for scrubbing");
        let reached = answered.wait_for(|answered| *answered >= number).await;
        if *reached.map_err(|_| closing())? == u64::MAX {
            return Err(closing());
        }
        Ok(self.inner.scrub_stats())
    }

    /// At most `limit` damaged extents behind `after`, and where to go on if there may be more.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unavailable`]: the metadata could not be read.
    pub async fn damage(
        &self,
        after: Option<DamagePlace>,
        limit: usize,
    ) -> Result<(Vec<DamagedExtent>, Option<DamagePlace>)> {
        self.inner.scrub.list.list(self.inner.scrub_ground(), after, limit).await
    }
}

/// Scrubs until the engine closes.
async fn run(inner: Weak<Inner>, wanted: Arc<Notify>) {
    let started = tokio::time::Instant::now();
    let mut work = Work::default();
    let mut pause = Duration::ZERO;
    loop {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            // A time-out is as good a reason to look as a call.
            drop(tokio::time::timeout(pause, wanted.notified()).await);
        }
        let Some(engine) = inner.upgrade() else { return };
        if engine.scrub.stopping.load(Ordering::SeqCst) {
            engine.scrub.answered.send_replace(u64::MAX);
            return;
        }
        let is_settled = started.elapsed() >= START_AFTER;
        pause = match engine.scrub_step(&mut work, is_settled).await {
            Ok(pause) => pause,
            Err(error) => work.failed(&error),
        };
        *engine.scrub.cursor() = work.pass.cursor;
    }
}

impl Work {
    /// After an error: how long to leave it alone.
    fn failed(&mut self, error: &Error) -> Duration {
        let told = error.to_string();
        if self.last_error.as_ref() != Some(&told) {
            tracing::warn!(%error, "scrubbing stopped; later again");
            self.last_error = Some(told);
        }
        BACK_OFF
    }
}

impl Inner {
    fn scrub_ground(&self) -> Ground<'_> {
        Ground {
            volume: &self.volume,
            reader: &self.reader,
            committer: &self.committer,
            tenants: &self.tenants,
            env: &self.env,
            list: &self.scrub.list,
        }
    }

    /// How scrubbing stands.
    pub(crate) fn scrub_stats(&self) -> ScrubStats {
        let (scrub, cursor) = (&self.scrub, *self.scrub.cursor());
        let ahead = if cursor.phase == Phase::Segments {
            let rows = self.volume.segments();
            rows.iter().filter(|row| is_ahead(row, cursor.next)).count() as u64
        } else {
            0
        };
        ScrubStats {
            pass: cursor.pass,
            phase: cursor.phase.as_str(),
            segments_done: cursor.segments,
            segments: cursor.segments + ahead,
            bytes: cursor.bytes,
            started_ms: cursor.started_ms,
            ended_ms: cursor.ended_ms,
            repaired: cursor.repaired,
            unrepaired: cursor.left,
            dead_damaged: cursor.dead,
            metadata_faults: cursor.metadata_faults,
            checkpoint_faults: cursor.checkpoint_faults,
            damaged: scrub.list.len(),
            unlisted: scrub.list.unlisted(),
            answered: *scrub.answered.borrow(),
            read_bytes: scrub.read_bytes.load(Ordering::Relaxed),
            repaired_ever: scrub.repaired.load(Ordering::Relaxed),
        }
    }

    /// One step of the worker; how long to pause after it.
    async fn scrub_step(&self, work: &mut Work, is_settled: bool) -> Result<Duration> {
        let ground = self.scrub_ground();
        if !work.is_loaded {
            self.scrub.list.load(ground.reader).await?;
            work.pass = Pass::load(ground).await?;
            work.is_loaded = true;
        }
        if self.is_fenced() {
            return Ok(LOOK_EVERY);
        }
        if let Some(pause) = self.look_near(work).await? {
            return Ok(pause);
        }
        let now_ns = self.env.clock.monotonic_ns();
        if self.scrub.list.len() > 0 && now_ns.saturating_sub(work.tidied_ns) >= TIDY_EVERY_NS {
            self.scrub.list.tidy(ground).await?;
            work.tidied_ns = now_ns;
        }
        let asked = *self.scrub.asked.borrow();
        if asked > *self.scrub.answered.borrow() && asked > work.answering {
            work.pass.begin(ground).await?;
            work.answering = asked;
            return Ok(Duration::ZERO);
        }
        let is_asked = work.answering > *self.scrub.answered.borrow();
        if work.pass.cursor.phase == Phase::Idle && !is_asked {
            if !is_settled || !self.is_scrub_due(&work.pass.cursor) {
                return Ok(LOOK_EVERY);
            }
            work.pass.begin(ground).await?;
        } else if !is_asked && (!is_settled || self.config.scrub.period_days == 0) {
            return Ok(LOOK_EVERY);
        }
        let checkpoints = self.config.scrub.checkpoints.as_deref();
        let checkpoints = checkpoints.map(|dir| (dir, &self.scrub.progress));
        let seen = work.pass.step(ground, checkpoints).await?;
        work.last_error = None;
        self.count_scrubbed(&seen);
        if work.pass.cursor.phase == Phase::Idle {
            *self.scrub.cursor() = work.pass.cursor;
            self.scrub.answered.send_replace(work.answering);
        }
        Ok(self.scrub_pace(&seen, is_asked))
    }

    /// Looks at what somebody found bad, and around it; `None` if there is nothing of that.
    async fn look_near(&self, work: &mut Work) -> Result<Option<Duration>> {
        let ground = self.scrub_ground();
        let mut seen = Seen::default();
        if let Some(near) = &mut work.near {
            let ended = near.step(ground, &mut seen).await?;
            if ended != Ended::No {
                work.near = None;
            }
        } else {
            let Some(suspect) = self.scrub.suspects().pop_front() else { return Ok(None) };
            let Suspect { id, location, kind } = suspect;
            let judged = match kind {
                Some(kind) => self.scrub.list.record(ground, id, &location, kind).await.map(|_| ()),
                None => match judge(ground, id, &location, true, &mut seen).await {
                    Ok(true) => self.scrub.list.reads_well(ground, (&location).into()).await,
                    Ok(false) => {
                        work.near = Walk::near(ground, &location).await?;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = judged {
                self.scrub.suspects().push_front(Suspect { id, location, kind });
                return Err(error);
            }
        }
        self.count_scrubbed(&seen);
        Ok(Some(self.scrub_pace(&seen, true)))
    }

    fn count_scrubbed(&self, seen: &Seen) {
        self.scrub.read_bytes.fetch_add(seen.bytes, Ordering::Relaxed);
        self.scrub.repaired.fetch_add(seen.repaired, Ordering::Relaxed);
    }

    /// Whether the period is over. A clock that was set back counts as one that is.
    fn is_scrub_due(&self, cursor: &Cursor) -> bool {
        let period_ms = u64::from(self.config.scrub.period_days) * DAY_MS;
        let now_ms = self.env.clock.now_ms();
        let is_over = now_ms < cursor.started_ms || now_ms - cursor.started_ms >= period_ms;
        period_ms > 0 && is_over
    }

    /// How long to pause after a step.
    fn scrub_pace(&self, seen: &Seen, is_asked: bool) -> Duration {
        let pause = if is_asked || seen.is_hot {
            Duration::ZERO
        } else {
            let rows = self.volume.segments();
            let closed = rows.iter().filter(|row| row.state == SegmentState::Closed);
            let total: u64 = closed.map(|row| row.written_bytes).sum();
            let days = u64::from(self.config.scrub.period_days.max(1));
            let rate = total / (days * DAY_MS / 1_000) * PERIOD_DIVISOR;
            let micros = u128::from(seen.bytes) * 1_000_000 / u128::from(rate.max(RATE_MIN));
            Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
        };
        if self.pool.stats().waiting > 0 { pause + YIELD_PAUSE } else { pause }
    }
}
