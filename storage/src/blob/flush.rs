//! Group flush: one fdatasync per touched segment for everybody who asked meanwhile.
//!
//! Owns: the flusher task, and the proof that an extent's write is covered by a flush. Does not
//! know: metadata; the caller commits after the answer.
//!
//! Invariants
//! - A flush counts for an extent only if it began after the extent's write had been answered.
//! - An error fences and is answered to everybody in the group; it is never tried again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::config::FLUSH_GROUP_MAX;
use super::core::Core;
use super::location::Location;
use super::segment::{ActiveSegment, SegmentPin};
use crate::bugs::{Bug, seeded};

/// An extent that is written and not yet durable. While it is held its segment is not closed, so
/// hold it until the extent is published; dropped earlier, the extent is dead.
pub struct Placed {
    location: Location,
    pin: SegmentPin,
    /// Flushes begun when its write had been answered.
    epoch: u64,
}

impl Placed {
    /// To be called when every write of the extent has been answered.
    pub(super) fn new(location: Location, pin: SegmentPin) -> Self {
        let epoch = pin.segment().sync_begun.load(Ordering::SeqCst);
        Self { location, pin, epoch }
    }

    /// Where it lies. Publish it after [`Volume::flush`](super::Volume::flush) and not before.
    pub fn location(&self) -> &Location {
        &self.location
    }
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Placed").field(&self.location).finish()
    }
}

/// One segment of one request.
pub(super) struct FlushPoint {
    segment: Arc<ActiveSegment>,
    epoch: u64,
}

impl FlushPoint {
    fn is_durable(&self) -> bool {
        let done = self.segment.sync_done.load(Ordering::SeqCst);
        done > self.epoch || seeded(Bug::FlushCountsTooMuch) && done > 0 && done == self.epoch
    }
}

/// One call of [`Volume::flush`](super::Volume::flush); the answer says whether it is durable.
pub(super) struct FlushRequest {
    pub(super) points: Vec<FlushPoint>,
    pub(super) reply: oneshot::Sender<bool>,
}

/// What has to be flushed for `placed`; `None` if all of it is durable already.
pub(super) fn points(placed: &[Placed]) -> Option<Vec<FlushPoint>> {
    let mut latest: BTreeMap<u32, FlushPoint> = BTreeMap::new();
    for extent in placed {
        let segment = Arc::clone(extent.pin.segment());
        let epoch = extent.epoch;
        latest
            .entry(segment.number)
            .and_modify(|point| point.epoch = point.epoch.max(epoch))
            .or_insert(FlushPoint { segment, epoch });
    }
    let points: Vec<_> = latest.into_values().filter(|point| !point.is_durable()).collect();
    (!points.is_empty()).then_some(points)
}

/// The flusher: until the volume is dropped, flushes whatever gathered while it was flushing.
pub(super) async fn run(core: Arc<Core>, mut requests: mpsc::Receiver<FlushRequest>) {
    let mut group = Vec::new();
    while requests.recv_many(&mut group, FLUSH_GROUP_MAX).await > 0 {
        let durable = flush(&core, &group).await;
        for request in group.drain(..) {
            // Whoever asked may have left; the flush was not for nothing, nor can it be undone.
            _ = request.reply.send(durable);
        }
    }
}

async fn flush(core: &Core, group: &[FlushRequest]) -> bool {
    if core.fence.reason().is_some() {
        return false;
    }
    let touched: BTreeMap<u32, &Arc<ActiveSegment>> = group
        .iter()
        .flat_map(|request| &request.points)
        .filter(|point| !point.is_durable())
        .map(|point| (point.segment.number, &point.segment))
        .collect();
    let results = join_all(touched.into_values().map(|segment| sync(core, segment))).await;
    for (number, result) in results {
        if let Err(error) = result {
            core.fence.raise(format!("flush segment {number}: {error}"));
        }
    }
    core.fence.reason().is_none()
}

async fn sync(core: &Core, segment: &ActiveSegment) -> (u32, io::Result<()>) {
    // Counted before the flush begins: a write answered from here on waits for the next one.
    let number = segment.sync_begun.fetch_add(1, Ordering::SeqCst) + 1;
    let result =
        if seeded(Bug::SkipFlush) { Ok(()) } else { core.disk.sync(segment.file.id).await };
    if result.is_ok() {
        segment.sync_done.store(number, Ordering::SeqCst);
    }
    (segment.number, result)
}
