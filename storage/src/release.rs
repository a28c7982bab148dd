//! Giving up the extents of streams that nothing lists any more.
//!
//! Owns: the queue of such streams in the family `gc`, the pins of open readers, the worker that
//! deletes location rows in bounded batches and counts their bytes as dead.
//! Knows nothing of: why a stream was given up; keys.
//!
//! Invariants
//! - A location row and its bytes change hands in one commit: while the row is there its bytes
//!   count as live, afterwards as dead.
//! - A stream in the queue stays there until its last location row is gone, so a crash at any point
//!   is taken up again at the next start.
//! - Streams of a content that is being read are left alone until the reader is gone.
//!   Bytes: docs/FORMAT.md, "Rows of gc".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::bugs::{Bug, seeded};
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::{Table, TenantNs};
use crate::reached::sometimes;
use crate::segments::count_dead;
use crate::types::{ContentId, NsId, StreamId};

/// The first byte of a queue row in `gc`.
pub(crate) const QUEUE: u8 = b'Q';
/// Location rows deleted by one commit.
const BATCH_ROWS: usize = 512;
/// Streams looked at in one round; the rest waits for the next.
const ROUND_STREAMS: usize = 256;
/// How long the worker rests between two rounds: what is queued meanwhile shares the next one.
const REST: Duration = Duration::from_millis(500);
/// How often the queue is looked at when nobody asks, for streams that were pinned or whose commit
/// took long.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Contents that are being read.
#[derive(Default)]
pub(crate) struct Pins(Mutex<HashMap<ContentId, usize>>);

impl Pins {
    fn counts(&self) -> MutexGuard<'_, HashMap<ContentId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody reads `content`.
    pub(crate) fn is_pinned(&self, content: ContentId) -> bool {
        self.counts().contains_key(&content) && !seeded(Bug::ForgetPins)
    }
}

/// One reader's hold on a content.
pub(crate) struct ContentPin {
    inner: Arc<Inner>,
    content: ContentId,
}

impl ContentPin {
    /// Pins `content` until dropped.
    pub(crate) fn new(inner: Arc<Inner>, content: ContentId) -> Self {
        *inner.pins.counts().entry(content).or_default() += 1;
        Self { inner, content }
    }
}

impl Drop for ContentPin {
    fn drop(&mut self) {
        let mut counts = self.inner.pins.counts();
        if let Some(count) = counts.get_mut(&self.content) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.content);
                self.inner.release_wanted.notify_one();
            }
        }
    }
}

/// The queue row of a stream.
pub(crate) fn queue_row(ns: &TenantNs, content: ContentId, stream: StreamId) -> (RowKey, Bytes) {
    let bytes = [&[QUEUE], ns.ns().as_bytes().as_slice(), stream.as_bytes()].concat();
    let value = [ns.tenant().as_bytes().as_slice(), content.as_bytes()].concat();
    (RowKey { family: Family::Gc, bytes }, value.into())
}

/// A stream in the queue.
struct Queued {
    row: RowKey,
    /// The row's value: a stream is given up only while it is queued.
    held: Bytes,
    ns: TenantNs,
    content: ContentId,
    stream: StreamId,
}

/// Works the queue off until the engine closes.
pub(crate) async fn run(inner: std::sync::Weak<Inner>) {
    let mut cursor = Vec::new();
    loop {
        let Some(engine) = inner.upgrade() else { return };
        let wanted = Arc::clone(&engine.release_wanted);
        match engine.release_round(&mut cursor).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the release queue cannot be read; later again"),
        }
        drop(engine);
        // A stream is queued by the commit that the caller of `notify_one` is about to make: the
        // rest covers that, and the time-out covers a commit that took longer.
        if cursor.is_empty() {
            let _ = tokio::time::timeout(LOOK_EVERY, wanted.notified()).await;
        }
        tokio::time::sleep(REST).await;
    }
}

impl Inner {
    /// Gives up every stream of the queue that nobody reads.
    pub(crate) async fn release_all(&self) -> Result<()> {
        let mut cursor = Vec::new();
        loop {
            self.release_round(&mut cursor).await?;
            if cursor.is_empty() {
                return Ok(());
            }
        }
    }

    /// Looks at the next streams of the queue. `cursor` is empty again when its end was reached.
    /// Streams that are pinned, and rows that are damaged, are passed over: they hold up nobody.
    async fn release_round(&self, cursor: &mut Vec<u8>) -> Result<()> {
        let first = vec![QUEUE];
        let upper = prefix_end(&first);
        let lower = std::mem::take(cursor).max(first);
        let rows = self
            .reader
            .fold(Family::Gc, lower, upper, Vec::new(), |rows, row_key, value| {
                rows.push((row_key.to_vec(), value.to_vec()));
                Ok(if rows.len() < ROUND_STREAMS { ScanStep::Next } else { ScanStep::Stop })
            })
            .await?;
        if rows.len() == ROUND_STREAMS
            && let Some((last, _)) = rows.last()
        {
            *cursor = [last.as_slice(), &[0]].concat();
        }
        for (row_key, value) in rows {
            let outcome = match self.queued(row_key, &value) {
                Ok(queued) if self.pins.is_pinned(queued.content) => {
                    sometimes("a stream waited for its reader");
                    Ok(())
                }
                Ok(queued) => match self.release_queued(&queued).await {
                    // An object was made of it meanwhile.
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
                    outcome => outcome,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "a stream cannot be given up; it stays in the queue");
            }
        }
        Ok(())
    }

    fn queued(&self, row_key: Vec<u8>, value: &[u8]) -> Result<Queued> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "read a row of the release queue");
        let (tenant, rest) = value.split_first_chunk().ok_or_else(corrupt)?;
        let content = rest.first_chunk().ok_or_else(corrupt)?;
        let ids = row_key.get(1..).ok_or_else(corrupt)?;
        let (ns_id, rest) = ids.split_first_chunk().ok_or_else(corrupt)?;
        let stream = StreamId::from_bytes(*rest.first_chunk().ok_or_else(corrupt)?);
        let ns = self.tenants.namespace(kluis_kms::TenantId::from_bytes(*tenant))?;
        if ns.ns() != NsId::from_bytes(*ns_id) {
            return Err(corrupt());
        }
        let content = ContentId::from_bytes(*content);
        let (row, held) = (RowKey { family: Family::Gc, bytes: row_key }, value.to_vec().into());
        Ok(Queued { row, held, ns, content, stream })
    }

    /// Deletes a stream's location rows batch by batch, and its queue row with the last.
    async fn release_queued(&self, queued: &Queued) -> Result<()> {
        loop {
            let prefix = queued.stream.as_bytes();
            let rows = queued
                .ns
                .fold(Table::Locations, prefix, &[], Vec::new(), |rows, rest, value| {
                    rows.push((rest.to_vec(), Bytes::copy_from_slice(value)));
                    Ok(if rows.len() < BATCH_ROWS { ScanStep::Next } else { ScanStep::Stop })
                })
                .await?;
            let is_last = rows.len() < BATCH_ROWS;
            let mut draft = Draft::default();
            draft.expect(queued.row.clone(), Some(queued.held.clone()));
            for (rest, held) in rows {
                draft.changes.push(count_dead(&held)?);
                draft.delete_held(queued.ns.row(Table::Locations, &[&rest]), held);
            }
            if is_last {
                draft.changes.push(Change::Delete { row: queued.row.clone() });
            }
            self.committer.commit(draft).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}
