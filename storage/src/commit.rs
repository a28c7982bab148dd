//! The commit point: one thread, or in a simulation one task, decides conditions and writes synced
//! batches.
//!
//! Owns: the queue in front of the metadata store, group commit, the decision of every condition.
//! Knows nothing of: what a row means, segments (data is flushed before a commit is asked for).
//!
//! Invariants
//! - Conditions are decided here and nowhere else, one commit after the other, against the rows as
//!   they will be after the commits before it in the same batch. Two commits that contradict each
//!   other never both succeed.
//! - A commit that entered the queue is carried out whether or not its caller still waits.
//! - After a failed write nothing is written again until the node restarts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::blob::Placed;
use crate::bugs::{Bug, seeded};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Condition, MetaStore, RowKey, ScanStep, prefix_end};
use crate::reached::sometimes;

/// Commits that may wait in the queue; a caller beyond it waits to enter.
const QUEUE_MAX: usize = 4_096;
/// Commits in one batch. A larger batch only adds latency: the sync is shared already.
const BATCH_COMMITS_MAX: usize = 512;
/// Bytes of changes in one batch, the limit of RocksDB's own write groups.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What a commit is made of.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) changes: Vec<Change>,
    /// Extents that the commit publishes. Held until it is written, even if its caller leaves:
    /// while they are, their segment is not taken for dead.
    pub(crate) placed: Option<Arc<Vec<Placed>>>,
}

impl Draft {
    /// Changes under conditions, with no extents.
    pub(crate) fn new(conditions: Vec<Condition>, changes: Vec<Change>) -> Self {
        Self { conditions, changes, placed: None }
    }

    /// Puts a row without looking at what it held.
    pub(crate) fn put(&mut self, row: RowKey, value: impl Into<Bytes>) {
        self.changes.push(Change::Put { row, value: value.into() });
    }

    /// Deletes a row that is exactly `held`.
    pub(crate) fn delete_held(&mut self, row: RowKey, held: Bytes) {
        self.expect(row.clone(), Some(held));
        self.changes.push(Change::Delete { row });
    }

    /// Asks for a row to be exactly this.
    pub(crate) fn expect(&mut self, row: RowKey, expected: Option<Bytes>) {
        self.conditions.push(Condition::RowIs { row, expected });
    }
}

struct Request {
    draft: Draft,
    reply: Reply,
}

impl Request {
    fn bytes(&self) -> usize {
        self.draft
            .changes
            .iter()
            .map(|change| match change {
                Change::Put { row, value } => row.bytes.len() + value.len(),
                Change::Delete { row } | Change::Add { row, .. } => row.bytes.len() + 8,
            })
            .sum()
    }
}

/// Counts of what the committer did.
#[derive(Debug, Default)]
pub(crate) struct CommitCounters {
    pub(crate) commits: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) conflicts: AtomicU64,
}

/// The front of the commit queue.
pub(crate) struct Committer {
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    fenced: Arc<AtomicBool>,
    counters: Arc<CommitCounters>,
}

impl Committer {
    /// Starts the committer thread over `store`. After every batch it raises `synced` to the
    /// store's sequence number, which the volumes write down as their watermark.
    pub(crate) fn start(store: Arc<dyn MetaStore>, synced: Arc<AtomicU64>) -> Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let fenced = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(CommitCounters::default());
        let worker =
            Worker { store, synced, fenced: Arc::clone(&fenced), counters: Arc::clone(&counters) };
        let thread = worker.spawn(requests)?;
        Ok(Self { queue: Some(queue), thread, fenced, counters })
    }

    /// Makes the draft's changes if its conditions hold; durable once this returns.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: a condition does not hold; nothing was changed.
    /// - [`ErrorKind::Fenced`]: a write failed, now or before.
    pub(crate) async fn commit(&self, draft: Draft) -> Result<()> {
        let closed = || Error::new(ErrorKind::Unavailable, "commit: the node is closing");
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Request { draft, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Whether a write has failed.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Counts so far.
    pub(crate) fn counters(&self) -> &CommitCounters {
        &self.counters
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Ends the queue; the thread carries out what is in it and stops.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the committer thread panicked");
        }
    }
}

/// A committer that panicked writes nothing any more, and health has to say so.
struct FenceOnPanic(Arc<AtomicBool>);

impl Drop for FenceOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

struct Worker {
    store: Arc<dyn MetaStore>,
    synced: Arc<AtomicU64>,
    fenced: Arc<AtomicBool>,
    counters: Arc<CommitCounters>,
}

/// Who waits for a commit.
type Reply = oneshot::Sender<Result<()>>;

/// A batch that is decided and written, and that nobody has been told of.
struct Answers {
    refused: Vec<(Reply, Error)>,
    /// With the extents that are published by now.
    accepted: Vec<(Reply, Option<Arc<Vec<Placed>>>)>,
    outcome: Result<()>,
}

impl Answers {
    fn send(self) {
        for (reply, error) in self.refused {
            let _ = reply.send(Err(error));
        }
        for (reply, placed) in self.accepted {
            drop(placed);
            let answer = self.outcome.as_ref().copied().map_err(|error: &Error| {
                Error::new(error.kind(), error.during())
                    .with_advice("restart the node, it recovers")
            });
            let _ = reply.send(answer);
        }
    }
}

/// What waits behind `first`, up to the limits of a batch.
fn gather(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMITS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = requests.try_recv() else { break };
        bytes += next.bytes();
        batch.push(next);
    }
    batch
}

impl Worker {
    /// Starts the work; the thread, if it has one.
    fn spawn(self, requests: mpsc::Receiver<Request>) -> Result<Option<JoinHandle<()>>> {
        #[cfg(feature = "sim")]
        if crate::executor::is_inline() {
            tokio::spawn(self.run_inline(requests));
            return Ok(None);
        }
        let thread = std::thread::Builder::new()
            .name("kluis-commit".to_owned())
            .spawn(move || self.run(requests))
            .map_err(|cause| {
                Error::new(ErrorKind::Unavailable, "start the committer thread").with_source(cause)
            })?;
        Ok(Some(thread))
    }

    fn run(self, mut requests: mpsc::Receiver<Request>) {
        let _fence = FenceOnPanic(Arc::clone(&self.fenced));
        while let Some(first) = requests.blocking_recv() {
            let batch = gather(first, &mut requests);
            self.carry_out(batch).send();
        }
    }

    /// As [`Self::run`], in a task: the power may go before a batch is written, and between its
    /// write and its answers.
    #[cfg(feature = "sim")]
    async fn run_inline(self, mut requests: mpsc::Receiver<Request>) {
        use crate::executor::inline::pause;
        let _fence = FenceOnPanic(Arc::clone(&self.fenced));
        while let Some(first) = requests.recv().await {
            pause().await;
            let mut batch = gather(first, &mut requests);
            if seeded(Bug::AckBeforeSync) {
                for request in &mut batch {
                    let told = std::mem::replace(&mut request.reply, oneshot::channel().0);
                    let _ = told.send(Ok(()));
                }
                pause().await;
                pause().await;
            }
            let answers = self.carry_out(batch);
            pause().await;
            answers.send();
        }
    }

    /// Decides and writes one batch.
    fn carry_out(&self, batch: Vec<Request>) -> Answers {
        let mut overlay = Overlay::default();
        let mut changes = Vec::new();
        let mut accepted = Vec::new();
        // Whoever lost is told after the winner is written: it reads again at once, and has to find
        // what it lost to.
        let mut refused = Vec::new();
        for request in batch {
            match self.decide(&request.draft.conditions, &overlay) {
                Ok(()) => {
                    for change in &request.draft.changes {
                        overlay.apply(change);
                    }
                    changes.extend(request.draft.changes);
                    accepted.push((request.reply, request.draft.placed));
                }
                Err(error) => {
                    if error.kind() == ErrorKind::Conflict {
                        sometimes("a commit lost to another");
                        self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    }
                    refused.push((request.reply, error));
                }
            }
        }
        if accepted.len() > 1 {
            sometimes("a batch had several commits");
        }
        let outcome = if accepted.is_empty() { Ok(()) } else { self.write(&changes) };
        self.counters.batches.fetch_add(u64::from(!accepted.is_empty()), Ordering::Relaxed);
        self.counters.commits.fetch_add(accepted.len() as u64, Ordering::Relaxed);
        Answers { refused, accepted, outcome }
    }

    fn write(&self, changes: &[Change]) -> Result<()> {
        if self.fenced.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Fenced, "commit after a failed write"));
        }
        match self.store.write(changes) {
            Ok(sequence) => {
                self.synced.fetch_max(sequence, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                self.fenced.store(true, Ordering::Release);
                tracing::error!(%error, "a metadata write failed; the node takes no more writes");
                Err(error)
            }
        }
    }

    fn decide(&self, conditions: &[Condition], overlay: &Overlay) -> Result<()> {
        for condition in conditions {
            let holds = match condition {
                Condition::RowIs { row, expected } => {
                    let held = match overlay.0.get(row) {
                        Some(pending) => pending.clone(),
                        None => self.store.get(row.family, &row.bytes)?,
                    };
                    held == *expected
                }
                Condition::RowsUnder { prefix, count } => self.counts(prefix, *count, overlay)?,
            };
            if !holds && !seeded(Bug::ConditionsIgnored) {
                return Err(Error::new(ErrorKind::Conflict, "commit: a condition does not hold"));
            }
        }
        Ok(())
    }

    /// Whether exactly `count` rows start with `prefix`.
    fn counts(&self, prefix: &RowKey, count: usize, overlay: &Overlay) -> Result<bool> {
        let under = |row: &RowKey| {
            row.family == prefix.family && row.bytes.starts_with(prefix.bytes.as_slice())
        };
        let pending = overlay.0.iter().filter(|(row, value)| under(row) && value.is_some()).count();
        let mut found = pending;
        let upper = prefix_end(&prefix.bytes);
        self.store.scan(prefix.family, &prefix.bytes, &upper, &mut |row_key, _| {
            let row = RowKey { family: prefix.family, bytes: row_key.to_vec() };
            if !overlay.0.contains_key(&row) {
                found += 1;
            }
            Ok(if found > count { ScanStep::Stop } else { ScanStep::Next })
        })?;
        Ok(found == count)
    }
}

/// Rows as the commits accepted so far in this batch will leave them.
#[derive(Default)]
struct Overlay(HashMap<RowKey, Option<Bytes>>);

impl Overlay {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { row, value } => {
                self.0.insert(row.clone(), Some(value.clone()));
            }
            Change::Delete { row } => {
                self.0.insert(row.clone(), None);
            }
            // Counter rows are never a condition.
            Change::Add { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
