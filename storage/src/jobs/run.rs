//! How a job is driven: in turns, at its rate, written down now and then, resumed after a crash.
//!
//! Owns: turns, pacing, the states of a job. Knows nothing of: what a step does.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use kluis_kms::{KeyState, Purpose};

use super::row::{JobRow, Phase};
use super::{JobKind, JobState, Live, purpose_of, resume_row};
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Change;
use crate::namespace::TenantNs;
use crate::types::{BucketId, BucketInfo};

/// Rows looked at in one step.
pub(super) const PAGE_ROWS: usize = 256;
/// How long a job works before others get their turn.
pub(super) const TURN: Duration = Duration::from_secs(1);
/// Progress is written down this often, or after so many steps: what a crash does again.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// See [`WRITE_EVERY`].
const WRITE_STEPS: u64 = 256;
/// How often a job that waits for its key looks again.
const WAIT: Duration = Duration::from_secs(1);
/// How long a job rests after a commit of its was refused; twice as long after each further one,
/// up to [`CONFLICT_MAX`].
const CONFLICT_MIN: Duration = Duration::from_millis(20);
/// See [`CONFLICT_MIN`].
const CONFLICT_MAX: Duration = Duration::from_secs(5);
/// How often a pass is begun over before the job gives up: something writes under old keys faster
/// than they are moved, or keeps doing so.
pub(super) const PASSES_MAX: u8 = 5;
/// Epochs that a job remembers whether they are old: 32 bytes each.
pub(super) const EPOCHS_MAX: usize = 1 << 16;

/// What a step came to.
pub(super) enum Step {
    /// So much was done, in units of the job's rate.
    More(u64),
    /// Nothing can be done yet; again after this long.
    Later(Duration),
    /// The job ended, as its row says.
    Ended,
}

/// What a job keeps in memory between steps.
pub(super) struct Work {
    pub(super) ns: TenantNs,
    pub(super) purpose: Purpose,
    /// The tenant's buckets, looked up by the ids in row keys.
    pub(super) buckets: HashMap<BucketId, BucketInfo>,
    /// Whether an epoch is one to move away from.
    pub(super) old: HashMap<(BucketId, u32), bool>,
    written: Instant,
    unwritten: u64,
    /// Refused commits in a row.
    conflicts: u32,
}

/// What a job does after a turn.
enum Next {
    Ended,
    Sleep(Duration),
    Turn,
}

/// Takes a job off the list when its task is gone, however it went.
struct Registered {
    engine: Weak<Inner>,
    live: Arc<Live>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.live.turn().take());
        if let Some(inner) = self.engine.upgrade() {
            inner.jobs.live().remove(&self.live.name);
        }
        self.live.ended.notify_waiters();
        self.live.ended.notify_one();
    }
}

/// Drives a job until it ends or the engine is gone.
pub(super) async fn run(engine: Weak<Inner>, live: Arc<Live>) {
    let registered = Registered { engine, live };
    if let Err(error) = drive(&registered.engine, &registered.live).await {
        let job = registered.live.name;
        tracing::warn!(%job, %error, "a job stopped; it goes on when the node starts again");
    }
}

async fn drive(engine: &Weak<Inner>, live: &Arc<Live>) -> Result<()> {
    let gone = || Error::new(ErrorKind::Unavailable, "run a job: the node is closing");
    let (ns, lane) = {
        let inner = engine.upgrade().ok_or_else(gone)?;
        (inner.tenants.namespace(live.tenant)?, Arc::clone(inner.jobs.lane(live)))
    };
    let mut work = Work {
        ns,
        purpose: purpose_of(live),
        buckets: HashMap::new(),
        old: HashMap::new(),
        written: Instant::now(),
        unwritten: 0,
        conflicts: 0,
    };
    loop {
        // Whoever is to leave off needs no turn for it.
        if engine.upgrade().ok_or_else(gone)?.interrupted(live, &mut work).await? {
            return Ok(());
        }
        let turn = tokio::select! {
            turn = lane.take(live.tenant) => turn,
            () = live.wake.notified() => continue,
        };
        *live.turn() = Some(turn);
        let next = {
            let inner = engine.upgrade().ok_or_else(gone)?;
            inner.turn(live, &mut work).await
        };
        drop(live.turn().take());
        match next? {
            Next::Ended => return Ok(()),
            Next::Turn => tokio::task::yield_now().await,
            Next::Sleep(time) => {
                let _ = tokio::time::timeout(time, live.wake.notified()).await;
            }
        }
    }
}

impl Inner {
    /// Ends a job that was cancelled or whose node closes.
    async fn interrupted(&self, live: &Live, work: &mut Work) -> Result<bool> {
        if live.is_cancelled.load(Ordering::Acquire) {
            live.row().state = JobState::Cancelled;
            self.end(live, work).await?;
            return Ok(true);
        }
        if self.jobs.is_closing.load(Ordering::Acquire) {
            self.write_down(live, work).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Works for a while.
    async fn turn(self: &Arc<Self>, live: &Live, work: &mut Work) -> Result<Next> {
        let began = Instant::now();
        while began.elapsed() < TURN {
            if self.interrupted(live, work).await? {
                return Ok(Next::Ended);
            }
            let mut row = live.row().clone();
            if row.kind != JobKind::Purge
                && let Some(why) = self.unusable(live, &row)
            {
                return self.wait_or_fail(live, work, why).await;
            }
            if row.state == JobState::Waiting {
                row.state = JobState::Running;
                row.cause.clear();
            }
            let (phase, stepped) = (row.phase, Instant::now());
            let step = match self.step(live, work, &mut row).await {
                Ok(step) => step,
                Err(error) => return self.wait_or_fail(live, work, error).await,
            };
            row.updated_ms = self.env.clock.now_ms();
            let (rate_max, is_new) = (row.rate_max, row.phase != phase);
            *live.row() = row;
            work.conflicts = 0;
            match step {
                Step::Ended => {
                    self.end(live, work).await?;
                    return Ok(Next::Ended);
                }
                Step::Later(time) => return Ok(Next::Sleep(time)),
                Step::More(units) => {
                    work.unwritten += units;
                    let is_due =
                        work.unwritten >= WRITE_STEPS || work.written.elapsed() >= WRITE_EVERY;
                    if is_new || is_due {
                        self.write_down(live, work).await?;
                    }
                    let rest = pause(rate_max, units).saturating_sub(stepped.elapsed());
                    if !rest.is_zero() {
                        return Ok(Next::Sleep(rest));
                    }
                }
            }
        }
        Ok(Next::Turn)
    }

    /// Why the job's key may not be used now.
    fn unusable(&self, live: &Live, row: &JobRow) -> Option<Error> {
        let state = match self.kms.describe(live.tenant, row.tenant_key) {
            Ok(info) => info.state,
            Err(error) => return Some(error.into()),
        };
        let kind = match state {
            KeyState::Enabled => return None,
            KeyState::Destroyed => ErrorKind::KeyDestroyed,
            KeyState::Disabled => ErrorKind::KeyDisabled,
            KeyState::PendingDeletion | KeyState::PendingImport => ErrorKind::KeyUnusable,
            KeyState::Unavailable => ErrorKind::Unavailable,
        };
        Some(Error::new(kind, format!("use a tenant key that is {state}")))
    }

    async fn wait_or_fail(&self, live: &Live, work: &mut Work, why: Error) -> Result<Next> {
        match why.kind() {
            // What is written down is right: the job goes on from there.
            ErrorKind::Fenced => Err(why),
            ErrorKind::KeyDisabled | ErrorKind::KeyUnusable | ErrorKind::Unavailable => {
                let is_new = {
                    let mut row = live.row();
                    row.say(&why.to_string());
                    std::mem::replace(&mut row.state, JobState::Waiting) != JobState::Waiting
                };
                if is_new {
                    self.write_down(live, work).await?;
                }
                Ok(Next::Sleep(WAIT))
            }
            // Its rows change while they are moved: again, from what they are now.
            ErrorKind::Conflict => {
                let rest = CONFLICT_MIN.saturating_mul(1 << work.conflicts.min(16));
                work.conflicts = work.conflicts.saturating_add(1);
                Ok(Next::Sleep(rest.min(CONFLICT_MAX)))
            }
            _ => {
                let mut ended = live.row().clone();
                ended.say(&why.to_string());
                ended.state = JobState::Failed;
                *live.row() = ended;
                tracing::warn!(job = %live.name, error = %why, "a job failed");
                self.end(live, work).await?;
                Ok(Next::Ended)
            }
        }
    }

    async fn step(
        self: &Arc<Self>,
        live: &Live,
        work: &mut Work,
        row: &mut JobRow,
    ) -> Result<Step> {
        match row.phase {
            Phase::Count => self.count_step(work, row).await,
            Phase::Fence => self.fence_step(work, row).await,
            Phase::Index => self.index_step(work, row).await,
            Phase::VerifyKeys => self.verify_keys_step(work, row).await,
            Phase::Close => self.close_step(work, row).await,
            Phase::Drain => self.drain_step(work, row).await,
            Phase::Objects if row.kind == JobKind::Reencrypt => {
                self.reencrypt_step(live, work, row).await
            }
            Phase::Objects | Phase::Uploads => self.move_step(work, row).await,
            Phase::VerifyObjects | Phase::VerifyUploads => self.verify_step(live, work, row).await,
        }
    }

    /// Counts what there is to do.
    async fn count_step(&self, work: &Work, row: &mut JobRow) -> Result<Step> {
        let impact = self.count(&work.ns, row.tenant_key).await?;
        let older = impact.bucket_keys.iter().filter(|(material, _)| **material < row.material);
        let older: u64 = older.map(|(_, count)| *count).sum();
        row.uploads = impact.open_uploads;
        row.total = match row.kind {
            JobKind::Rewrap => older,
            JobKind::DeepRewrap => older + impact.objects + impact.open_uploads,
            JobKind::Reencrypt => impact.objects,
            JobKind::Purge => impact.objects + impact.open_uploads,
        };
        row.enter(match row.kind {
            JobKind::Rewrap | JobKind::DeepRewrap => Phase::Fence,
            JobKind::Reencrypt => Phase::Close,
            JobKind::Purge => Phase::Objects,
        });
        Ok(Step::More(0))
    }

    /// Makes a job's commit.
    pub(super) async fn job_commit(&self, draft: Draft) -> Result<()> {
        #[cfg(test)]
        if self.jobs.commits_left.fetch_sub(1, Ordering::AcqRel) <= 0 {
            return Err(Error::new(ErrorKind::Fenced, "commit in a job that a test lets die"));
        }
        self.committer.commit(draft).await
    }

    async fn write_down(&self, live: &Live, work: &mut Work) -> Result<()> {
        let mut draft = Draft::default();
        draft.put(live.name.row(&work.ns), live.row().encode());
        self.job_commit(draft).await?;
        (work.written, work.unwritten) = (Instant::now(), 0);
        Ok(())
    }

    /// Writes the end of a job down: it is not resumed any more.
    async fn end(&self, live: &Live, work: &Work) -> Result<()> {
        let mut draft = Draft::default();
        let info = {
            let mut row = live.row();
            row.updated_ms = self.env.clock.now_ms();
            row.ended_ms = Some(row.updated_ms);
            draft.put(live.name.row(&work.ns), row.encode());
            row.info(live.name)
        };
        draft.changes.push(Change::Delete { row: resume_row(live.tenant, live.name) });
        self.job_commit(draft).await?;
        let (job, tenant_key) = (info.job, info.tenant_key);
        tracing::info!(job, %tenant_key, kind = ?info.kind, state = ?info.state, "a job ended");
        Ok(())
    }
}

/// How long so many units last at a rate.
pub(super) fn pause(rate_max: Option<u32>, units: u64) -> Duration {
    let Some(rate) = rate_max else { return Duration::ZERO };
    Duration::from_millis(units.saturating_mul(1_000) / u64::from(rate.max(1)))
}
