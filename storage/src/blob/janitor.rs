//! The janitor: everything that has to be done after the fact and by nobody in particular.
//!
//! Owns: fillers over abandoned ranges, closing of rolled segments that nothing pins any more, the
//! superblock's note of the metadata's progress. Does not know: who abandoned what, or why.
//!
//! Invariants
//! - A dead range keeps its pin until its filler is written: its segment cannot be closed,
//!   reclaimed and used again while a write to it is under way.
//! - Dead ranges are bounded by the reservations, of which every writer has one.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::config::SUPER_INTERVAL_MS;
use super::core::Core;
use super::segment::{ActiveSegment, SegmentPin};
use super::spare::SpareMaker;
use super::table::SegmentState;
use crate::error::Result;
use crate::format::{BLOCK_BYTES, RecordBody};
use crate::io::BufClass;
use crate::reached::sometimes;

/// A reserved range that will never hold a record.
pub(super) struct DeadRange {
    pub(super) pin: SegmentPin,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Where work for the janitor is left; never waits.
#[derive(Default)]
pub(super) struct Desk {
    work: Notify,
    stopping: AtomicBool,
    abandoned_bytes: AtomicU64,
    trays: Mutex<Trays>,
    /// Held while the trays are worked off.
    tidying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Trays {
    dead: Vec<DeadRange>,
    rolled: Vec<Arc<ActiveSegment>>,
}

impl Desk {
    fn trays(&self) -> MutexGuard<'_, Trays> {
        self.trays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a filler written over `range`.
    pub(super) fn abandon(&self, range: DeadRange) {
        self.abandoned_bytes.fetch_add(range.len, Ordering::Relaxed);
        self.trays().dead.push(range);
        self.wake();
    }

    /// Has `segment`, which was rolled, closed when nothing pins it any more.
    pub(super) fn watch(&self, segment: Arc<ActiveSegment>) {
        self.trays().rolled.push(segment);
        self.wake();
    }

    /// Has the janitor look.
    pub(super) fn wake(&self) {
        self.work.notify_one();
    }

    /// Has the janitor do what is left and end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Bytes abandoned so far.
    pub(super) fn abandoned_bytes(&self) -> u64 {
        self.abandoned_bytes.load(Ordering::Relaxed)
    }
}

/// The janitor: works until the volume is dropped.
pub(super) async fn run(core: Arc<Core>) {
    let mut spare = SpareMaker::default();
    let mut noted_ns = core.env.clock.monotonic_ns();
    loop {
        let stopping = core.desk.stopping.load(Ordering::SeqCst);
        if let Err(error) = tidy(&core).await {
            // The fence is up and has been logged; what is left is for the next start.
            tracing::debug!(%error, "the janitor leaves its work");
        }
        if stopping {
            return;
        }
        noted_ns = note_progress(&core, noted_ns).await;
        let pause = spare.step(&core).await.unwrap_or(Duration::from_millis(SUPER_INTERVAL_MS));
        // A time-out is as good a reason to look as a call.
        drop(tokio::time::timeout(pause, core.desk.work.notified()).await);
    }
}

/// Writes the fillers that are due and closes the segments that nothing pins any more.
pub(super) async fn tidy(core: &Core) -> Result<()> {
    let _tidying = core.desk.tidying.lock().await;
    let dead = mem::take(&mut core.desk.trays().dead);
    for range in dead {
        write_filler(core, range).await?;
    }
    // A segment whose flush may have failed is left to the next start, which reads it.
    core.fence.check_raised(|| "close rolled segments".to_owned())?;
    let rows = {
        let mut trays = core.desk.trays();
        let (pinned, done): (Vec<_>, Vec<_>) =
            mem::take(&mut trays.rolled).into_iter().partition(|segment| segment.is_pinned());
        trays.rolled = pinned;
        done.iter()
            .filter(|segment| {
                let row = core.segments.row(segment.number);
                row.is_some_and(|row| row.state == SegmentState::Closing)
            })
            .map(|segment| segment.row(SegmentState::Closed))
            .collect()
    };
    core.put_rows(rows).await
}

async fn write_filler(core: &Core, range: DeadRange) -> Result<()> {
    let during = format!("write a filler of {} bytes", range.len);
    sometimes("an abandoned range was filled");
    core.fence.check_raised(|| during.clone())?;
    let segment = range.pin.segment();
    let bytes = u32::try_from(range.len).expect("a reservation is at most one extent");
    let header = core.header(segment.number, segment.incarnation, RecordBody::Filler(bytes));
    let mut buf = core.pool.acquire(BufClass::Small).await;
    buf.extend_from_slice(&header.encode(&[]));
    let block = usize::try_from(BLOCK_BYTES).expect("a block is 4 KiB");
    let used = buf.len();
    buf.set_len(block);
    buf.iter_mut().skip(used).for_each(|byte| *byte = 0);
    let (_, written) = core.disk.write_at(segment.file.id, buf, range.offset).await;
    written.map_err(|error| {
        core.fence.raise(format!("{during} to segment {}: {error}", segment.number));
        core.fence.error(during)
    })
}

/// Writes down how far the metadata is, at most once an interval and only if it moved: inline-only
/// load writes no extents that could say so.
async fn note_progress(core: &Core, noted_ns: u64) -> u64 {
    let now_ns = core.env.clock.monotonic_ns();
    if now_ns.saturating_sub(noted_ns) < SUPER_INTERVAL_MS * 1_000_000 {
        return noted_ns;
    }
    let mut supers = core.supers.lock().await;
    let meta_seq = core.meta_seq.load(Ordering::Acquire);
    let may_write = core.fence.check(|| "note the metadata's progress".to_owned()).is_ok();
    if may_write
        && meta_seq != supers.block().meta_seq
        && let Err(error) = supers.note(meta_seq, false, core.env.clock.now_ms()).await
    {
        core.fence.raise(format!("write the superblock: {error}"));
    }
    now_ns
}

/// Marks the volume as closed in order.
pub(super) async fn write_clean(core: &Core) -> Result<()> {
    core.fence.check_raised(|| "write the superblock at close".to_owned())?;
    let meta_seq = core.meta_seq.load(Ordering::Acquire);
    let mut supers = core.supers.lock().await;
    supers.note(meta_seq, true, core.env.clock.now_ms()).await.map_err(|error| {
        core.fence.raise(format!("write the superblock: {error}"));
        core.fence.error("write the superblock at close")
    })
}
