//! Reclaiming: segments with little alive in them are emptied and used again.
//!
//! [`policy`] says which segment, [`cleaner`] empties it step by step; the worker here lets it run
//! at a rate that clients do not feel, or as fast as it can when space is short.
//! Owns: the worker, its pace, what it counts. Does not know: keys; ciphertext is moved as it is.
//!
//! Invariants
//! - One segment is cleaned at a time.
//! - The worker holds the engine for one step at most, so that it is in nobody's way when the
//!   engine closes.
//!   Steps: docs/ARCHITECTURE.md, "Reclaiming"; reasons: ADR 0011.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::blob::SegmentState;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::blocking;
use crate::segments::live_bytes;

pub(crate) mod cleaner;
mod policy;

#[cfg(test)]
pub(crate) mod tests;

use cleaner::{Cleaner, Ground, Step, Tally};
use policy::{Candidate, Field, Why};

/// How often the figures are looked at: a disk that fills at 2.5 GiB/s takes ten segments
/// meanwhile, and the least that is kept available is eight.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a failed attempt is left alone.
const BACK_OFF: Duration = Duration::from_secs(5);
/// Between two looks at a segment that is emptied and still read, which takes milliseconds, or held
/// by a backup, which takes minutes.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// Paused beside the rate while clients wait for buffers.
const YIELD_PAUSE: Duration = Duration::from_millis(50);
/// Callers of [`Engine::reclaim_now`] that may wait.
const ASKED_MAX: usize = 64;
/// Available segments up to which reclaiming does not yield: the next roll of a lane needs one.
const URGENT_SEGMENTS: u64 = 2;

/// Of the bytes walked over, the part that counts for the pace: most of a dead extent is not read.
const WALK_DIVISOR: u64 = 4;
/// Segments from which on a node is worth a ballast.
const BALLAST_SEGMENTS: u64 = 4;

/// How reclaiming behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReclaimConfig {
    /// Whether it runs by itself. [`Engine::reclaim_now`] works in any case.
    pub enabled: bool,
    /// Bytes moved in a second while clients have space.
    pub rate_bytes: u64,
    /// Percent of the closed segments' bytes that may lie idle before space is short.
    pub waste_percent_max: u8,
}

impl Default for ReclaimConfig {
    fn default() -> Self {
        Self { enabled: true, rate_bytes: 64 << 20, waste_percent_max: 25 }
    }
}

/// What reclaiming has done since the node started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReclaimStats {
    /// Segments emptied and made free.
    pub segments_freed: u64,
    /// Segments that could not be emptied, because something in them is damaged.
    pub segments_kept: u64,
    /// Extents moved.
    pub extents_moved: u64,
    /// Bytes that they take.
    pub bytes_moved: u64,
    /// Copies that were in vain, because the object was deleted meanwhile.
    pub races_lost: u64,
    /// Bytes of segments that rows name, when it was last looked.
    pub live_bytes: u64,
    /// The segment being cleaned.
    pub cleaning: Option<u32>,
}

/// The figures behind [`ReclaimStats`].
#[derive(Default)]
struct Counters {
    freed: AtomicU64,
    kept: AtomicU64,
    extents: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    live: AtomicU64,
    /// The segment being cleaned, plus one.
    cleaning: AtomicU64,
}

/// The worker's desk.
#[derive(Default)]
pub(crate) struct Reclaim {
    wanted: Arc<Notify>,
    stopping: AtomicBool,
    counters: Counters,
    asked: Mutex<Vec<Asked>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// A caller that waits for everything to be cleaned.
struct Asked {
    reply: oneshot::Sender<Result<()>>,
    /// The newest incarnation when it asked.
    newest: u64,
}

/// What the worker remembers from step to step.
#[derive(Default)]
struct Work {
    cleaner: Option<(Cleaner, Why)>,
    /// Whether a segment was cleaned, and the reason may still hold.
    cleaning: bool,
    /// Segments that cannot be emptied, with the use that was found so.
    kept: BTreeMap<u32, u64>,
    /// What was told of last: a full disk fails every time in the same way.
    last_error: Option<String>,
}

impl Reclaim {
    /// What has been done so far.
    pub(crate) fn stats(&self) -> ReclaimStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { freed, kept, extents, bytes, lost, live, cleaning } = &self.counters;
        ReclaimStats {
            segments_freed: read(freed),
            segments_kept: read(kept),
            extents_moved: read(extents),
            bytes_moved: read(bytes),
            races_lost: read(lost),
            live_bytes: read(live),
            cleaning: read(cleaning).checked_sub(1).and_then(|segment| segment.try_into().ok()),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the worker of `inner`.
    pub(crate) fn start(inner: &Arc<Inner>) {
        let wanted = Arc::clone(&inner.reclaim.wanted);
        let worker = tokio::spawn(run(Arc::downgrade(inner), wanted));
        *inner.reclaim.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Ends the worker after the step that it is at. What it leaves, the next start takes up.
    pub(crate) async fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wanted.notify_one();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker
            && worker.await.is_err()
        {
            tracing::error!("the reclaiming worker panicked");
        }
    }

    fn count(&self, tally: &Tally) {
        self.counters.extents.fetch_add(tally.extents, Ordering::Relaxed);
        self.counters.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
        self.counters.lost.fetch_add(tally.lost, Ordering::Relaxed);
    }

    /// Answers the first `most` of those who wait; who came later waits for a look of its own.
    fn answer(&self, outcome: &Result<()>, most: usize) {
        let answered: Vec<_> = {
            let mut asked = self.asked();
            let most = most.min(asked.len());
            asked.drain(..most).collect()
        };
        for asked in answered {
            let copy = outcome.as_ref().copied().map_err(|error| {
                Error::new(error.kind(), error.during()).with_source(error.to_string())
            });
            // Whoever asked may have left; the work is done all the same.
            drop(asked.reply.send(copy));
        }
    }
}

impl Engine {
    /// Cleans every segment that is worth it, at full speed; what was done since the node started.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write failed, now or before.
    /// - [`ErrorKind::Full`]: there is no place for what is alive.
    /// - [`ErrorKind::Unavailable`]: the node is closing, or too many wait for this already.
    pub async fn reclaim_now(&self) -> Result<ReclaimStats> {
        let reclaim = &self.inner.reclaim;
        // What was deleted before this call counts as dead.
        self.inner.release_all().await?;
        let (reply, answer) = oneshot::channel();
        let newest = newest(&self.inner);
        {
            let mut asked = reclaim.asked();
            if asked.len() >= ASKED_MAX || reclaim.stopping.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "wait for reclaiming"));
            }
            asked.push(Asked { reply, newest });
        }
        reclaim.wanted.notify_one();
        answer.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "wait for reclaiming: its worker is gone"))
        })?;
        Ok(reclaim.stats())
    }
}

/// The newest incarnation in use.
fn newest(inner: &Inner) -> u64 {
    inner.volume.segments().iter().map(|row| row.incarnation).max().unwrap_or_default()
}

/// Cleans until the engine closes.
async fn run(inner: Weak<Inner>, wanted: Arc<Notify>) {
    let mut work = Work::default();
    let mut pause = LOOK_EVERY;
    loop {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            // A time-out is as good a reason to look as a call.
            drop(tokio::time::timeout(pause, wanted.notified()).await);
        }
        let Some(engine) = inner.upgrade() else { return };
        if engine.reclaim.stopping.load(Ordering::SeqCst) {
            engine.stop_cleaning(&mut work).await;
            let closing = Error::new(ErrorKind::Unavailable, "reclaim: the node is closing");
            engine.reclaim.answer(&Err(closing), ASKED_MAX);
            return;
        }
        pause = match engine.reclaim_step(&mut work).await {
            Ok(pause) => pause,
            Err(error) => engine.reclaim_failed(&mut work, &error).await,
        };
    }
}

impl Inner {
    fn ground(&self) -> Ground<'_> {
        Ground {
            volume: &self.volume,
            reader: &self.reader,
            committer: &self.committer,
            tenants: &self.tenants,
        }
    }

    /// One step of the worker; how long to pause after it.
    async fn reclaim_step(&self, work: &mut Work) -> Result<Duration> {
        let Some((cleaner, why)) = &mut work.cleaner else {
            return self.next_victim(work).await;
        };
        let why = *why;
        let (segment, incarnation) = (cleaner.segment(), cleaner.incarnation());
        let stepped = cleaner.step(self.ground()).await;
        for (id, location) in cleaner.take_suspects() {
            self.scrub.suspect(id, &location, None);
        }
        match stepped? {
            Step::Moved(tally) => {
                self.reclaim.count(&tally);
                return Ok(self.pace(tally.bytes.max(tally.walked / WALK_DIVISOR), why));
            }
            Step::Read => return Ok(READ_PAUSE),
            Step::Freed => {
                tracing::debug!(segment, ?why, "segment reclaimed");
                self.reclaim.counters.freed.fetch_add(1, Ordering::Relaxed);
            }
            Step::Kept(reason) => {
                tracing::error!(segment, %reason, "a segment cannot be emptied; it is kept");
                self.reclaim.counters.kept.fetch_add(1, Ordering::Relaxed);
                work.kept.insert(segment, incarnation);
            }
        }
        work.cleaner = None;
        work.last_error = None;
        self.reclaim.counters.cleaning.store(0, Ordering::Relaxed);
        Ok(Duration::ZERO)
    }

    /// Chooses and begins the next segment, if one is worth it.
    async fn next_victim(&self, work: &mut Work) -> Result<Duration> {
        let (asked, waiting) = {
            let asked = self.reclaim.asked();
            (asked.iter().map(|asked| asked.newest).max(), asked.len())
        };
        let config = self.config.reclaim;
        if self.is_fenced() {
            return Err(Error::new(ErrorKind::Fenced, "clean a segment"));
        }
        let field = self.field(work).await?;
        self.tend_ballast(&field).await?;
        if !config.enabled && asked.is_none() {
            return Ok(LOOK_EVERY);
        }
        let Some((segment, why)) = policy::choose(&field, &config, asked, work.cleaning) else {
            work.cleaning = false;
            self.reclaim.answer(&Ok(()), waiting);
            return Ok(LOOK_EVERY);
        };
        let cleaner = match Cleaner::begin(self.ground(), segment).await {
            // Its file is gone: a start says so, and so does `kluis check`.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(segment, %error, "a segment cannot be emptied; it is kept");
                self.reclaim.counters.kept.fetch_add(1, Ordering::Relaxed);
                let row = self.volume.segments().into_iter().find(|row| row.segment == segment);
                work.kept.extend(row.map(|row| (segment, row.incarnation)));
                return Ok(Duration::ZERO);
            }
            begun => begun?,
        };
        work.cleaner = Some((cleaner, why));
        work.cleaning = true;
        self.reclaim.counters.cleaning.store(u64::from(segment) + 1, Ordering::Relaxed);
        Ok(Duration::ZERO)
    }

    /// The figures as they stand.
    async fn field(&self, work: &mut Work) -> Result<Field> {
        let live = live_bytes(&self.reader).await?;
        let live_of =
            |segment| live.get(segment).map_or(0, |live| u64::try_from(*live).unwrap_or(0));
        self.reclaim.counters.live.store(live.keys().map(live_of).sum(), Ordering::Relaxed);
        let rows = self.volume.segments();
        work.kept.retain(|segment, incarnation| {
            rows.iter().any(|row| row.segment == *segment && row.incarnation == *incarnation)
        });
        let closed = rows.iter().filter(|row| row.state == SegmentState::Closed);
        let candidates = closed
            .filter(|row| !work.kept.contains_key(&row.segment))
            .map(|row| Candidate {
                segment: row.segment,
                incarnation: row.incarnation,
                written: row.written_bytes,
                live: live_of(&row.segment),
            })
            .collect();
        let usage = self.volume.usage();
        let mut field = Field {
            segment_bytes: usage.segment_bytes,
            files: usage.allocated_bytes / usage.segment_bytes,
            available: 0,
            newest: newest(self),
            candidates,
        };
        field.available = self.volume.segments_available(policy::wanted(&field) + 2);
        Ok(field)
    }

    /// Sees to the ballast: what reclaiming frees is inside segments, metadata needs the rest.
    async fn tend_ballast(&self, field: &Field) -> Result<()> {
        let (space, loaded) = (Arc::clone(&self.space), field.files >= BALLAST_SEGMENTS);
        blocking(move || {
            space.tend_ballast(loaded);
            Ok(())
        })
        .await
    }

    /// How long to pause after so many bytes.
    fn pace(&self, bytes: u64, why: Why) -> Duration {
        let is_urgent = why == Why::Asked
            || self.volume.segments_available(URGENT_SEGMENTS + 1) <= URGENT_SEGMENTS;
        if is_urgent {
            return Duration::ZERO;
        }
        let rate = self.config.reclaim.rate_bytes.max(1);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        let pause = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        if self.pool.stats().waiting > 0 { pause + YIELD_PAUSE } else { pause }
    }

    /// Leaves the segment that is being cleaned.
    async fn stop_cleaning(&self, work: &mut Work) {
        self.reclaim.counters.cleaning.store(0, Ordering::Relaxed);
        if let Some((cleaner, _)) = work.cleaner.take()
            && let Err(error) = cleaner.give_up(self.ground()).await
        {
            tracing::debug!(%error, "a segment stays as it is until the next start");
        }
    }

    /// After an error: how long to leave it alone.
    async fn reclaim_failed(&self, work: &mut Work, error: &Error) -> Duration {
        self.stop_cleaning(work).await;
        let told = error.to_string();
        if work.last_error.as_ref() != Some(&told) {
            tracing::warn!(%error, "reclaiming stopped; later again");
            work.last_error = Some(told);
        }
        self.reclaim.answer(&Err(Error::new(error.kind(), error.during())), ASKED_MAX);
        BACK_OFF
    }
}
