//! Lanes: the open segments, one for each kind of data that dies together.
//!
//! Owns: which segment a lane appends to, reserving a range of it, rolling it when it is full.
//! Does not know: what is written into a range.
//!
//! Invariants
//! - A lane takes no segment before its first extent, so that a new node is light.
//! - A segment is appended to by one lane, and only after its row says so durably.
//! - Ranges do not overlap, and each is whole blocks.
//! - A reservation that is dropped before its header is written becomes a filler.
//! - The last segment that there is goes to the lane of survivors only: without one, reclaiming
//!   could not make room for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::config::RESERVE_SEGMENTS;
use super::core::Core;
use super::janitor::DeadRange;
use super::segment::{ActiveSegment, SegmentFile, SegmentPin};
use super::table::SegmentState;
use crate::error::{Error, ErrorKind, Result};
use crate::reached::sometimes;

/// Extents of one lane share segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Objects put whole.
    Hot,
    /// Parts of multipart uploads: those of an abandoned upload die together.
    Part,
    /// What outlived its segment, and will probably live on.
    Cold,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Part, Self::Cold];
}

/// The lanes of a volume.
#[derive(Default)]
pub(super) struct Lanes {
    hot: LaneSlot,
    part: LaneSlot,
    cold: LaneSlot,
    /// One lane chooses a segment at a time: two must not share the last but one.
    choosing: Mutex<()>,
}

#[derive(Default)]
struct LaneSlot {
    state: Arc<Mutex<LaneState>>,
    gauge: LaneGauge,
}

/// What can be read of a lane without holding it.
#[derive(Default)]
pub(super) struct LaneGauge {
    /// Bytes reserved in the open segment.
    pub(super) filled_bytes: AtomicU64,
    /// Segments opened since the volume was.
    pub(super) opened: AtomicU64,
}

/// The part of a lane that is changed by who holds it.
#[derive(Default)]
pub(super) struct LaneState {
    current: Option<Arc<ActiveSegment>>,
}

impl Lanes {
    fn slot(&self, lane: Lane) -> &LaneSlot {
        match lane {
            Lane::Hot => &self.hot,
            Lane::Part => &self.part,
            Lane::Cold => &self.cold,
        }
    }

    /// Bytes that are left in the open segment of a lane, of `whole`.
    pub(super) fn left_bytes(&self, lane: Lane, whole: u64) -> u64 {
        let gauge = &self.slot(lane).gauge;
        match gauge.filled_bytes.load(Ordering::Relaxed) {
            0 => 0,
            filled => whole.saturating_sub(filled),
        }
    }

    /// Bytes reserved in the open segments.
    pub(super) fn written_bytes(&self) -> u64 {
        self.gauges().map(|gauge| gauge.filled_bytes.load(Ordering::Relaxed)).sum()
    }

    /// The gauges of all lanes.
    pub(super) fn gauges(&self) -> impl Iterator<Item = &LaneGauge> {
        Lane::ALL.into_iter().map(|lane| &self.slot(lane).gauge)
    }
}

/// A range of an open segment, whole blocks, that nobody else will write to.
pub(super) struct Reservation {
    pin: Option<SegmentPin>,
    pub(super) offset: u64,
    pub(super) len: u64,
    core: Arc<Core>,
}

impl Reservation {
    /// Hands over the segment: from here on the range ends as a record, or the volume is fenced.
    pub(super) fn commit(mut self) -> SegmentPin {
        self.pin.take().expect("a reservation has its pin until it is committed or dropped")
    }

    /// The segment.
    pub(super) fn segment(&self) -> &Arc<ActiveSegment> {
        let pin = self.pin.as_ref();
        pin.expect("a reservation has its pin until it is committed or dropped").segment()
    }

    /// Keeps the segment while a write runs whose future may be dropped.
    pub(super) fn pin(&self) -> SegmentPin {
        let pin = self.pin.as_ref();
        pin.expect("a reservation has its pin until it is committed or dropped").clone()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            self.core.desk.abandon(DeadRange { pin, offset: self.offset, len: self.len });
        }
    }
}

/// Reserves `len` bytes, whole blocks, in `lane`; rolls its segment if they do not fit.
///
/// # Errors
/// - [`ErrorKind::Fenced`]: a write or flush failed, or the table did.
/// - [`ErrorKind::Full`]: no segment is free and none can be made.
/// - [`ErrorKind::Misuse`]: more than a segment.
/// - [`ErrorKind::Unavailable`]: the volume is closing, or no file can be opened.
pub(super) async fn reserve(core: &Arc<Core>, lane: Lane, len: u64) -> Result<Reservation> {
    let during = || format!("reserve {len} bytes in lane {lane:?}");
    if len > core.config.segment_bytes {
        return Err(Error::new(ErrorKind::Misuse, during()));
    }
    let slot = core.lanes.slot(lane);
    let guard = Arc::clone(&slot.state).lock_owned().await;
    core.fence.check(during)?;
    if let Some(reservation) = bump(core, lane, &guard, len) {
        return Ok(reservation);
    }
    // A task of its own: a segment that is half opened must be finished even if the caller leaves.
    let rolling = tokio::spawn(roll(Arc::clone(core), lane, guard, len));
    rolling.await.unwrap_or_else(|_| Err(core.fence.stopped("rolling a segment", during())))
}

fn bump(core: &Arc<Core>, lane: Lane, state: &LaneState, len: u64) -> Option<Reservation> {
    let segment = state.current.as_ref()?;
    let (pin, offset) = segment.bump(len)?;
    core.lanes.slot(lane).gauge.filled_bytes.store(offset + len, Ordering::Relaxed);
    Some(Reservation { pin: Some(pin), offset, len, core: Arc::clone(core) })
}

async fn roll(
    core: Arc<Core>,
    lane: Lane,
    mut guard: OwnedMutexGuard<LaneState>,
    len: u64,
) -> Result<Reservation> {
    let (number, file) = choose(&core, lane).await?;
    let incarnation = {
        let mut supers = core.supers.lock().await;
        supers.next_incarnation(core.env.clock.now_ms()).await
    };
    let incarnation = incarnation.map_err(|error| {
        core.fence.raise(format!("write the superblock: {error}"));
        core.fence.error("reserve incarnations")
    })?;
    let next = ActiveSegment::new(number, incarnation, file, &core);
    let old = guard.current.take();
    let mut open = next.row(SegmentState::Open);
    open.written_bytes = 0;
    let rows = old.iter().map(|old| old.roll()).chain([open]).collect();
    core.put_rows(rows).await?;
    if let Some(old) = old {
        tracing::debug!(segment = old.number, "segment rolled");
        sometimes("a segment was rolled");
        if old.is_pinned() {
            sometimes("a segment was rolled under unpublished extents");
        }
        core.desk.watch(old);
    }
    let gauge = &core.lanes.slot(lane).gauge;
    gauge.filled_bytes.store(0, Ordering::Relaxed);
    gauge.opened.fetch_add(1, Ordering::Relaxed);
    guard.current = Some(next);
    core.desk.wake();
    let during = || Error::new(ErrorKind::Misuse, format!("reserve {len} bytes in a new segment"));
    bump(&core, lane, &guard, len).ok_or_else(during)
}

/// A segment to open next: a spare, one that was reclaimed, or a new one.
async fn choose(core: &Core, lane: Lane) -> Result<(u32, Arc<SegmentFile>)> {
    let _choosing = core.lanes.choosing.lock().await;
    if lane != Lane::Cold && core.available(lane, RESERVE_SEGMENTS + 1) <= RESERVE_SEGMENTS {
        return Err(Error::new(ErrorKind::Full, "open a segment")
            .with_source("the last one is kept for reclaiming")
            .with_advice("delete objects or add space"));
    }
    while let Some(segment) = core.segments.take_free() {
        match core.segments.file(&core.disk, segment).await {
            Ok(file) => return Ok((segment, file)),
            Err(error) => {
                // Out of the running until the next start; a new one may still be made.
                tracing::warn!(segment, %error, "a free segment cannot be opened");
            }
        }
    }
    core.segments.make(core, lane).await
}

/// Closes the open segment of every lane; nothing may be reserved any more.
pub(super) async fn close_all(core: &Core) -> Result<()> {
    for lane in Lane::ALL {
        let slot = core.lanes.slot(lane);
        let mut guard = slot.state.lock().await;
        if let Some(old) = guard.current.take() {
            slot.gauge.filled_bytes.store(0, Ordering::Relaxed);
            core.put_rows(vec![old.roll()]).await?;
            core.desk.watch(old);
        }
    }
    Ok(())
}
