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
//! - Work is done in turns: no job keeps others from theirs.
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

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kluis_kms::{Access, JobId, KeyUse, Purpose, Reason, Rights, TenantId, TenantKeyId};
use tokio::sync::{Notify, Semaphore};

use crate::commit::Draft;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::{Table, TenantNs};
use row::JobName;
pub(crate) use row::JobRow;

/// Jobs at work at once on a node; the others wait for their turn. Each takes a core while it
/// encrypts.
const JOBS_AT_ONCE: usize = 4;
/// Jobs that are kept on record for a tenant; the oldest that ended make room.
const JOBS_KEPT: usize = 1_000;
/// How long a call that ends a job waits to see it ended.
const END_WAIT: Duration = Duration::from_secs(5);
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
}

impl Live {
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
    turns: Arc<Semaphore>,
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
            turns: Arc::new(Semaphore::new(JOBS_AT_ONCE)),
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

    /// Ends the work of all jobs at their next step; they go on when the directory is opened again.
    pub(crate) async fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        loop {
            let live: Vec<_> = self.live().values().map(Arc::clone).collect();
            let Some(first) = live.first() else { return };
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

    fn of(&self, tenant_key: TenantKeyId) -> Vec<Arc<Live>> {
        let live = self.live();
        let of = live.values().filter(|live| live.row().tenant_key == tenant_key);
        of.map(Arc::clone).collect()
    }
}

impl Engine {
    /// Starts a job. A running one of the same kind on the same key is answered instead.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: a job runs on the key that this one cannot run beside.
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
        let ns = self.tenants.namespace(purpose.tenant)?;
        let others = self.jobs.of(request.tenant_key);
        if let Some(same) = others.iter().find(|live| live.row().kind == request.kind) {
            return Ok(same.info());
        }
        // Binding anew would hide from the other which data keys are old.
        let moves = |kind| matches!(kind, JobKind::DeepRewrap | JobKind::Reencrypt);
        if moves(request.kind) && others.iter().any(|live| moves(live.row().kind)) {
            return Err(Error::new(ErrorKind::Conflict, "start a job beside one that is at work")
                .with_advice("let it end, or cancel it"));
        }
        let material = self.kms.describe(purpose.tenant, request.tenant_key)?.current_material;
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
        });
        let info = live.info();
        self.jobs.live().insert(name, Arc::clone(&live));
        tokio::spawn(run::run(Arc::downgrade(self), live));
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
