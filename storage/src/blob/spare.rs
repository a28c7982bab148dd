//! Spare segments: made and zeroed in the background, so that rolling a segment costs nothing and
//! flushing it later does not journal the conversion of unwritten extents.
//!
//! Owns: how many spares there should be, the making of one in bounded steps. Does not know: who
//! will use it.
//!
//! Invariants
//! - No spare is made before a lane has used half of its first segment: a new node is light.
//! - A spare gets its row when all of it is zeroed and flushed, not before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::config::{PREWRITE_PAUSE_MS, PREWRITE_STEP_BYTES, SPARE_BACKOFF_MS, SPARES_PER_LANE};
use super::core::Core;
use super::lane::Lane;
use super::segment::SegmentFile;
use super::table::{SegmentRow, SegmentState};
use crate::error::Result;
use crate::io::BufClass;

/// Makes one spare at a time.
#[derive(Default)]
pub(super) struct SpareMaker {
    making: Option<Making>,
    /// When an attempt that failed may be repeated, on the monotonic clock.
    retry_ns: Option<u64>,
}

struct Making {
    segment: u32,
    file: Arc<SegmentFile>,
    zeroed_bytes: u64,
}

impl SpareMaker {
    /// Does one bounded step; when to do the next, or `None` if there is nothing to do.
    pub(super) async fn step(&mut self, core: &Core) -> Option<Duration> {
        let during = || "zero a spare segment".to_owned();
        if !core.config.prewrite || core.fence.check(during).is_err() {
            return None;
        }
        if self.making.is_none() {
            let now_ns = core.env.clock.monotonic_ns();
            let rests = self.retry_ns.is_some_and(|retry_ns| now_ns < retry_ns);
            if rests || core.segments.free_count() >= wanted(core) {
                return None;
            }
            match begin(core).await {
                Ok(making) => self.making = Some(making),
                Err(error) => {
                    if self.retry_ns.is_none() {
                        tracing::warn!(%error, "no spare segment can be made");
                    }
                    // The janitor has other work, and goes about it at its own pace.
                    self.retry_ns = Some(now_ns + SPARE_BACKOFF_MS * 1_000_000);
                    return None;
                }
            }
        }
        self.retry_ns = None;
        let making = self.making.as_mut()?;
        match zero(core, making).await {
            Ok(true) => self.making = None,
            Ok(false) => {}
            Err(error) => {
                core.fence.raise(format!("zero segment {}: {error}", making.segment));
                return None;
            }
        }
        Some(Duration::from_millis(PREWRITE_PAUSE_MS))
    }
}

/// How many spares there should be now.
fn wanted(core: &Core) -> usize {
    let half = core.config.segment_bytes / 2;
    let of_lane = |opened: u64, filled: u64| match opened {
        0 => 0,
        1 => usize::from(filled >= half),
        _ => SPARES_PER_LANE,
    };
    let gauges = core.lanes.gauges();
    gauges
        .map(|gauge| {
            let filled = gauge.filled_bytes.load(Ordering::Relaxed);
            of_lane(gauge.opened.load(Ordering::Relaxed), filled)
        })
        .sum()
}

async fn begin(core: &Core) -> Result<Making> {
    let (segment, file) = match core.segments.take_raw() {
        Some(segment) => match core.segments.file(&core.disk, segment).await {
            Ok(file) => (segment, file),
            Err(error) => {
                tracing::warn!(segment, %error, "a spare segment cannot be opened");
                core.segments.make(core, Lane::Hot).await?
            }
        },
        None => core.segments.make(core, Lane::Hot).await?,
    };
    Ok(Making { segment, file, zeroed_bytes: 0 })
}

/// Zeroes the next step; whether the spare is ready. A step without a buffer is put off: clients
/// come first.
async fn zero(core: &Core, making: &mut Making) -> io::Result<bool> {
    let Some(mut buf) = core.pool.try_acquire(BufClass::Large) else {
        return Ok(false);
    };
    let left = core.config.segment_bytes - making.zeroed_bytes;
    let step = usize::try_from(left).unwrap_or(usize::MAX).min(PREWRITE_STEP_BYTES);
    buf.set_len(step);
    buf.fill(0);
    let (buf, written) = core.disk.write_at(making.file.id, buf, making.zeroed_bytes).await;
    written?;
    drop(buf);
    making.zeroed_bytes += step as u64;
    if making.zeroed_bytes < core.config.segment_bytes {
        return Ok(false);
    }
    core.disk.sync(making.file.id).await?;
    let row = SegmentRow {
        segment: making.segment,
        state: SegmentState::Free,
        incarnation: 0,
        written_bytes: 0,
    };
    core.put_rows(vec![row]).await.map_err(io::Error::other)?;
    Ok(true)
}
