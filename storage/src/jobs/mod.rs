//! Jobs on tenant keys: started, looked at, ended.
//!
//! Owns: the verbs on jobs, the set of those that run. What a job does is in [`rewrap`],
//! [`objects`], [`reencrypt`] and [`purge`]; how it is driven in [`run`]; what depends on a key is
//! counted in [`impact`]; [`erasure`] destroys keys whose waiting period is over.
//! Knows nothing of: who may start which job.
//!
//! Invariants
//! - A job's row says what is done; a crash costs at most the steps since it was last written, and
//!   doing those again changes nothing.
//! - A job works with permits of its own, in the name of whoever started it, and waits while its
//!   key may not be used.
//! - Work is done in turns, tenant by tenant: no job keeps others from theirs, and one that waits
//!   for its rate, its key or a write has none.
//! - A job is registered before it decides what is old.
//!   Bytes: docs/FORMAT.md, "Rows", table J.

mod erasure;
mod impact;
mod objects;
mod purge;
mod reencrypt;
mod rewrap;
mod row;
mod run;
mod scan;
mod turns;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use kluis_kms::{Access, JobId, KeyUse, Purpose, Reason, Rights, TenantId, TenantKeyId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::commit::Draft;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::{Table, TenantNs};
use row::JobName;
pub(crate) use row::JobRow;
use run::TURN;
use turns::{Turn, Turns};

/// Jobs at work at once on a node; the others wait for their turn. Each takes a core while it
/// encrypts.
const JOBS_AT_ONCE: usize = 4;
/// Purges at work at once, beside the others: no tenant waits for what is given up, nor the other
/// way round.
const PURGES_AT_ONCE: usize = 1;
/// Objects that jobs have open at once for re-encryption, also while they wait for their rate: each
/// holds up to 512 KiB of what was read, so 64 MiB.
const OBJECTS_AT_ONCE: usize = 128;
/// Jobs of one tenant that have not ended, purges not counted: each takes a task and some memory,
/// and whoever has more is served no faster.
const LIVE_MAX: usize = 8;
/// Jobs that are kept on record for a tenant; the oldest that ended make room.
const JOBS_KEPT: usize = 1_000;
/// How long a call that ends a job waits to see it ended.
const END_WAIT: Duration = Duration::from_secs(5);
/// How long a close waits for jobs to come to the end of their steps. What is not there by then is
/// broken off, as a crash would.
const CLOSE_WAIT: Duration = Duration::from_secs(20);
/// How long a close waits then for the tasks to be gone.
const ABORT_WAIT: Duration = Duration::from_secs(2);
/// A job ahead of its rate by less than this goes on: a sleep is not shorter.
const AHEAD_MIN: Duration = Duration::from_millis(1);
/// The byte in front of the rows in `sys` that say which jobs are to be resumed.
const RESUME: u8 = b'J';

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Wraps bucket keys anew under the current material.
    Rewrap,
    /// As `Rewrap`, and binds every object's data key to a bucket key made after the rotation.
    DeepRewrap,
    /// Encrypts every object anew under a new data key.
    Reencrypt,
    /// Gives up what lies under a destroyed key. Started by the node.
    Purge,
}

/// A job to start.
#[derive(Clone, Debug)]
pub struct JobRequest {
    /// What to do.
    pub kind: JobKind,
    /// On which tenant key.
    pub tenant_key: TenantKeyId,
    /// At most so many steps a second: bucket keys, object rows, or MiB of `Reencrypt`.
    pub rate_max: Option<u32>,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Ended by its tenant.
    Cancelled,
    /// Done, verified.
    Completed,
    /// Ended by an error; may be started again.
    Failed,
    /// At work.
    Running,
    /// Waits for its key to be usable again.
    Waiting,
}

/// What is known of a job.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// Its id, 32 hex digits.
    pub job: String,
    /// What it does.
    pub kind: JobKind,
    /// On which tenant key.
    pub tenant_key: TenantKeyId,
    /// The material that everything is moved to.
    pub material: u32,
    /// How it stands.
    pub state: JobState,
    /// Why it waits or failed.
    pub cause: Option<String>,
    /// When it was started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it was last written down.
    pub updated_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Steps done, of how many as counted when it began.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// Bytes read and written again.
    pub bytes: u64,
    /// What the verifying scan at the end found under older materials; none before it ran.
    pub remaining: Option<u64>,
    /// At most so many steps a second.
    pub rate_max: Option<u32>,
}

/// What depends on a tenant key, counted.
#[derive(Clone, Debug)]
pub struct KeyImpact {
    /// Which key.
    pub tenant_key: TenantKeyId,
    /// Bucket keys by material.
    pub bucket_keys: Vec<(u32, u64)>,
    /// Buckets that hold anything under it.
    pub buckets: u64,
    /// Current object versions under it.
    pub objects: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Open uploads under it.
    pub open_uploads: u64,
    /// Names of buckets that name it as their default key.
    pub default_of: Vec<String>,
    /// Ciphertexts of the KMS API by material.
    pub api_ciphertexts: Vec<(u32, u64)>,
    /// Rows that do not decode: what is under them is not known, and not counted.
    pub damaged: u64,
    /// When it was counted, in Unix milliseconds.
    pub counted_ms: u64,
}

/// What is left, and proved, of a destroyed key; JSON of its own, as the tenant gets it.
#[derive(Clone, Debug)]
pub struct ErasureReport {
    /// The document.
    pub json: String,
}

/// A job that is queued, at work or waiting.
pub(crate) struct Live {
    tenant: TenantId,
    name: JobName,
    row: Mutex<JobRow>,
    is_cancelled: AtomicBool,
    /// Told of a cancellation, and of the node closing.
    wake: Notify,
    /// Told of the end.
    ended: Notify,
    /// The turn that it has while it works.
    turn: Mutex<Option<Turn>>,
    /// Until when it has paid for what it read, at its rate.
    paid: Mutex<Instant>,
    task: OnceLock<AbortHandle>,
}

impl Live {
    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paid(&self) -> MutexGuard<'_, Instant> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays so much more.
    fn charge(&self, cost: Duration) {
        let mut paid = self.paid();
        *paid = (*paid).max(Instant::now()) + cost;
    }

    /// Waits in the middle of a step until the job is not ahead of its rate, and until all who have
    /// waited longer had their turn. Returns at once when the job is over.
    async fn rest(&self, jobs: &Jobs) {
        let until = *self.paid();
        let is_ahead = until.saturating_duration_since(Instant::now()) > AHEAD_MIN;
        let lane = jobs.lane(self);
        let is_long = self.turn().as_ref().is_some_and(|turn| turn.age() >= TURN);
        let is_to_rest = is_ahead || (is_long && lane.is_wanted());
        if !is_to_rest {
            return;
        }
        drop(self.turn().take());
        let turn = async {
            tokio::time::sleep_until(until).await;
            lane.take(self.tenant).await
        };
        let mut turn = std::pin::pin!(turn);
        while !jobs.is_over(self) {
            tokio::select! {
                turn = &mut turn => {
                    *self.turn() = Some(turn);
                    return;
                }
                () = self.wake.notified() => {}
            }
        }
    }

    fn row(&self) -> MutexGuard<'_, JobRow> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self) -> JobInfo {
        self.row().info(self.name)
    }
}

/// The jobs of a node.
pub(crate) struct Jobs {
    live: Mutex<HashMap<JobName, Arc<Live>>>,
    turns: Arc<Turns>,
    purges: Arc<Turns>,
    objects: Arc<Turns>,
    /// Tenants for whom all rows are being counted: one scan at a time for each.
    scans: Mutex<HashMap<TenantId, Weak<tokio::sync::Mutex<()>>>>,
    /// One start at a time: it looks whether there is such a job already.
    starting: tokio::sync::Mutex<()>,
    /// One round of what is due at a time.
    due: tokio::sync::Mutex<()>,
    is_closing: AtomicBool,
    /// Commits that jobs may still make: a test lets them die there.
    #[cfg(test)]
    pub(crate) commits_left: std::sync::atomic::AtomicI64,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self {
            live: Mutex::default(),
            turns: Turns::new(JOBS_AT_ONCE),
            purges: Turns::new(PURGES_AT_ONCE),
            objects: Turns::new(OBJECTS_AT_ONCE),
            scans: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            due: tokio::sync::Mutex::default(),
            is_closing: AtomicBool::new(false),
            #[cfg(test)]
            commits_left: std::sync::atomic::AtomicI64::new(i64::MAX),
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<JobName, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turns that a job takes.
    fn lane(&self, live: &Live) -> &Arc<Turns> {
        if live.row().kind == JobKind::Purge { &self.purges } else { &self.turns }
    }

    /// Whether a job is to leave off: it was cancelled, or the node closes.
    fn is_over(&self, live: &Live) -> bool {
        live.is_cancelled.load(Ordering::Acquire) || self.is_closing.load(Ordering::Acquire)
    }

    /// Fails once the node closes: long scans look at it.
    fn check_open(&self) -> Result<()> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "go on: the node is closing"));
        }
        Ok(())
    }

    /// Leave to count all rows of a tenant.
    async fn scan_of(&self, tenant: TenantId) -> tokio::sync::OwnedMutexGuard<()> {
        let scan = {
            let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
            scans.retain(|_, scan| scan.strong_count() > 0);
            let known = scans.get(&tenant).and_then(Weak::upgrade);
            let scan = known.unwrap_or_default();
            scans.insert(tenant, Arc::downgrade(&scan));
            scan
        };
        scan.lock_owned().await
    }

    /// Ends the work of all jobs, and what is being done of what is due; they go on when the
    /// directory is opened again.
    pub(crate) async fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        let until = Instant::now() + CLOSE_WAIT;
        let due = tokio::time::timeout_at(until, self.due.lock()).await;
        if due.is_err() {
            tracing::warn!("closing while a key is being destroyed; it goes on at the next start");
        }
        if self.all_ended(until).await {
            return;
        }
        let live: Vec<_> = self.live().values().map(Arc::clone).collect();
        for live in live {
            tracing::warn!(job = %live.name, "broke a job off: it goes on at the next start");
            live.task.get().into_iter().for_each(AbortHandle::abort);
        }
        self.all_ended(Instant::now() + ABORT_WAIT).await;
    }

    /// Waits for the end of all jobs.
    async fn all_ended(&self, until: Instant) -> bool {
        loop {
            let live: Vec<_> = self.live().values().map(Arc::clone).collect();
            let Some(first) = live.first() else { return true };
            if Instant::now() >= until {
                return false;
            }
            for live in &live {
                live.wake.notify_one();
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), first.ended.notified()).await;
        }
    }

    /// Whether a job of this kind is on record as not ended for the key.
    pub(crate) fn has(&self, tenant_key: TenantKeyId, kind: JobKind) -> bool {
        self.of(tenant_key).iter().any(|live| live.row().kind == kind)
    }

    /// Jobs of a tenant that have not ended, without purges.
    fn count_of(&self, tenant: TenantId) -> usize {
        let live = self.live();
        let is_counted = |row: &JobRow| row.kind != JobKind::Purge && row.ended_ms.is_none();
        let of = live.values().filter(|live| live.tenant == tenant);
        of.filter(|live| is_counted(&live.row())).count()
    }

    /// The jobs of a key that have not ended; one that has may be on the list for a moment more.
    fn of(&self, tenant_key: TenantKeyId) -> Vec<Arc<Live>> {
        let live = self.live();
        let is_of = |row: &JobRow| row.tenant_key == tenant_key && row.ended_ms.is_none();
        live.values().filter(|live| is_of(&live.row())).map(Arc::clone).collect()
    }
}

impl Engine {
    /// Starts a job. A running one that does the same is answered instead.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: a job runs on the key that this one cannot run beside, or the
    ///   tenant has as many jobs as it may.
    /// - [`ErrorKind::KeyDestroyed`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyUnusable`]: of
    ///   the key. [`ErrorKind::NotFound`]: there is none.
    /// - [`ErrorKind::Misuse`]: the node alone starts jobs of this kind, or a rate of 0.
    pub async fn start_job(&self, purpose: &Purpose, request: JobRequest) -> Result<JobInfo> {
        if request.kind == JobKind::Purge || request.rate_max == Some(0) {
            return Err(Error::new(ErrorKind::Misuse, "start a job"));
        }
        let access = Access::direct(KeyUse::Attributes);
        self.inner.kms.permit(purpose, request.tenant_key, access)?;
        self.inner.start(purpose, request).await
    }

    /// What is known of a job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has none of that id.
    pub async fn job(&self, tenant: TenantId, job: &str) -> Result<JobInfo> {
        let inner = &self.inner;
        let name = JobName::parse(job)?;
        let live = inner.jobs.live().get(&name).map(Arc::clone);
        if let Some(live) = live.filter(|live| live.tenant == tenant) {
            return Ok(live.info());
        }
        Ok(read(&inner.tenants.namespace(tenant)?, name).await?.info(name))
    }

    /// A tenant's jobs, newest first, at most 1,000.
    ///
    /// # Errors
    /// Those of reading metadata.
    pub async fn jobs(&self, tenant: TenantId, key: Option<TenantKeyId>) -> Result<Vec<JobInfo>> {
        let inner = &self.inner;
        let mut infos: Vec<_> = all(&inner.tenants.namespace(tenant)?)
            .await?
            .into_iter()
            .filter(|(_, row)| key.is_none_or(|key| row.tenant_key == key))
            .map(|(name, row)| {
                let live = inner.jobs.live().get(&name).map(Arc::clone);
                live.map_or_else(|| row.info(name), |live| live.info())
            })
            .collect();
        infos.reverse();
        infos.truncate(JOBS_KEPT);
        Ok(infos)
    }

    /// Ends a job. What it did stays done.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: it has ended, or it is the node's own.
    /// [`ErrorKind::NotFound`]: the tenant has none of that id.
    pub async fn cancel_job(&self, purpose: &Purpose, job: &str) -> Result<JobInfo> {
        let name = JobName::parse(job)?;
        let live = self.inner.jobs.live().get(&name).map(Arc::clone);
        let Some(live) = live.filter(|live| live.tenant == purpose.tenant) else {
            read(&self.inner.tenants.namespace(purpose.tenant)?, name).await?;
            return Err(Error::new(ErrorKind::Conflict, "cancel a job that has ended"));
        };
        if live.row().kind == JobKind::Purge {
            return Err(Error::new(ErrorKind::Conflict, "cancel a job of the node's own"));
        }
        let ended = live.ended.notified();
        live.is_cancelled.store(true, Ordering::Release);
        live.wake.notify_one();
        let _ = tokio::time::timeout(END_WAIT, ended).await;
        Ok(live.info())
    }
}

impl Inner {
    /// Writes a job down and begins it.
    async fn start(self: &Arc<Self>, purpose: &Purpose, request: JobRequest) -> Result<JobInfo> {
        let _one_at_a_time = self.jobs.starting.lock().await;
        self.jobs.check_open()?;
        let ns = self.tenants.namespace(purpose.tenant)?;
        let material = self.kms.describe(purpose.tenant, request.tenant_key)?.current_material;
        let others = self.jobs.of(request.tenant_key);
        let is_same = |row: &JobRow| {
            let moves_on = matches!(row.kind, JobKind::Rewrap | JobKind::DeepRewrap);
            row.kind == request.kind && (!moves_on || row.material == material)
        };
        if let Some(same) = others.iter().find(|live| is_same(&live.row())) {
            return Ok(same.info());
        }
        // Binding anew would hide from the other which data keys are old.
        let moves = |kind| matches!(kind, JobKind::DeepRewrap | JobKind::Reencrypt);
        if moves(request.kind) && others.iter().any(|live| moves(live.row().kind)) {
            return Err(Error::new(ErrorKind::Conflict, "start a job beside one that is at work")
                .with_advice("let it end, or cancel it"));
        }
        let is_counted = request.kind != JobKind::Purge;
        if is_counted && self.jobs.count_of(purpose.tenant) >= LIVE_MAX {
            let what = format!("start a job beside {LIVE_MAX} of the tenant's");
            return Err(
                Error::new(ErrorKind::Conflict, what).with_advice("let one end, or cancel it")
            );
        }
        let now_ms = self.env.clock.now_ms();
        let name = JobName::new(&*self.env.rng, now_ms);
        let row = JobRow::new(&request, material, now_ms, purpose.principal.as_str());
        let mut draft = Draft::default();
        self.make_room(&ns, &mut draft).await?;
        draft.put(name.row(&ns), row.encode());
        draft.put(resume_row(purpose.tenant, name), vec![crate::rows::ROW_VERSION]);
        self.committer.commit(draft).await?;
        Ok(self.begin_job(purpose.tenant, name, row))
    }

    fn begin_job(self: &Arc<Self>, tenant: TenantId, name: JobName, row: JobRow) -> JobInfo {
        let live = Arc::new(Live {
            tenant,
            name,
            row: Mutex::new(row),
            is_cancelled: AtomicBool::new(false),
            wake: Notify::new(),
            ended: Notify::new(),
            turn: Mutex::default(),
            paid: Mutex::new(Instant::now()),
            task: OnceLock::new(),
        });
        let info = live.info();
        self.jobs.live().insert(name, Arc::clone(&live));
        let task = tokio::spawn(run::run(Arc::downgrade(self), Arc::clone(&live)));
        let _ = live.task.set(task.abort_handle());
        info
    }

    /// Deletes the oldest jobs that ended, so that one more finds room.
    async fn make_room(&self, ns: &TenantNs, draft: &mut Draft) -> Result<()> {
        let kept = all(ns).await?;
        let over = (kept.len() + 1).saturating_sub(JOBS_KEPT);
        let ended = kept.iter().filter(|(_, row)| row.ended_ms.is_some());
        for (name, _) in ended.take(over) {
            draft.changes.push(Change::Delete { row: name.row(ns) });
        }
        Ok(())
    }

    async fn stored_job(&self, tenant: TenantId, name: JobName) -> Result<JobRow> {
        read(&self.tenants.namespace(tenant)?, name).await
    }

    /// Begins the jobs again that had not ended when the directory was closed. Reads no tenant's
    /// rows but theirs.
    pub(crate) async fn resume_jobs(self: &Arc<Self>) -> Result<()> {
        let lower = vec![RESUME];
        let upper = prefix_end(&lower);
        let corrupt = || Error::new(ErrorKind::Corrupt, "read which jobs are to be resumed");
        let found = self
            .reader
            .fold(Family::Sys, lower, upper, Vec::new(), move |found, row_key, _| {
                let ids = row_key.get(1..).ok_or_else(corrupt)?;
                let (tenant, name) = ids.split_first_chunk().ok_or_else(corrupt)?;
                let name = name.first_chunk().ok_or_else(corrupt)?;
                found.push((TenantId::from_bytes(*tenant), JobName(*name)));
                Ok(ScanStep::Next)
            })
            .await?;
        for (tenant, name) in found {
            // A job that cannot be resumed keeps nobody from starting.
            match self.stored_job(tenant, name).await {
                Ok(row) => drop(self.begin_job(tenant, name, row)),
                Err(error) => tracing::error!(job = %name, %error, "a job cannot be resumed"),
            }
        }
        Ok(())
    }
}

/// What a job does as.
fn purpose_of(live: &Live) -> Purpose {
    let row = live.row();
    let job = live.name.to_string();
    Purpose {
        tenant: live.tenant,
        principal: row.principal.as_str().into(),
        reason: Reason::TenantJob { job: JobId::new(job.as_str()) },
        request_id: job.into(),
        action: match row.kind {
            JobKind::Rewrap => "kluis:Rewrap",
            JobKind::DeepRewrap => "kluis:DeepRewrap",
            JobKind::Reencrypt => "kluis:Reencrypt",
            JobKind::Purge => "kluis:Purge",
        },
        rights: Rights::of_tenant(),
    }
}

/// The row in `sys` of a job that has not ended.
fn resume_row(tenant: TenantId, name: JobName) -> RowKey {
    let bytes = [&[RESUME], tenant.as_bytes().as_slice(), &name.0].concat();
    RowKey { family: Family::Sys, bytes }
}

async fn read(ns: &TenantNs, name: JobName) -> Result<JobRow> {
    let value = ns.get(Table::Jobs, &[&name.0]).await?;
    let value = value.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a job"))?;
    JobRow::decode(&value)
}

/// A tenant's jobs, oldest first.
async fn all(ns: &TenantNs) -> Result<Vec<(JobName, JobRow)>> {
    ns.fold(Table::Jobs, &[], &[], Vec::new(), |found, rest, value| {
        let name = rest
            .first_chunk()
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read the id of a job in its row key"))?;
        found.push((JobName(*name), JobRow::decode(value)?));
        Ok(ScanStep::Next)
    })
    .await
}
