//! Segment files: which there are, which are open, which one is used next.
//!
//! Owns: the table's copy in memory, the holds of readers, the cache of open files, the choice of a
//! segment. Does not know: lanes, records.
//!
//! Invariants
//! - A segment's number is handed out to one taker at a time.
//! - An open file is closed when its last user lets go of it.
//! - A read pin is taken in the same step that compares the use of the segment, and a segment with
//!   read pins is not given to anybody: whoever holds one reads the use that it asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::config::FILES_MAX;
use super::core::Core;
use super::janitor::Desk;
use super::lane::Lane;
use super::location::Location;
use super::table::{SegmentRow, SegmentState};
use crate::bugs::{Bug, seeded};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, FileId, OpenMode};

/// The directory of segment files.
pub(super) const DIRECTORY: &str = "seg";

/// The file of `segment`: eight hexadecimal digits hold every number, and names sort like numbers.
pub(crate) fn file_name(segment: u32) -> String {
    format!("{DIRECTORY}/{segment:08x}.seg")
}

/// The segment of a file's name without its directory, if it is one.
pub(super) fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 8)?;
    let segment = u32::from_str_radix(digits, 16).ok()?;
    (format!("{segment:08x}") == digits).then_some(segment)
}

/// An open file, closed when the last user drops it.
pub(super) struct SegmentFile {
    disk: Arc<dyn Disk>,
    pub(super) id: FileId,
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        // Closing is asynchronous. Without a runtime the process is ending, and the disk with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.disk.close(self.id));
        }
    }
}

/// A segment that is, or was until it was rolled, appended to.
pub(super) struct ActiveSegment {
    pub(super) number: u32,
    pub(super) incarnation: u64,
    pub(super) file: Arc<SegmentFile>,
    /// Bytes of the segment.
    pub(super) bytes: u64,
    /// Bytes reserved so far; moved only by the holder of the lane.
    pub(super) cursor: AtomicU64,
    /// Extents that are not yet published or abandoned, and writes under way: how many at which
    /// offset of a reservation.
    pins: Mutex<BTreeMap<u64, usize>>,
    /// Nothing more will be reserved.
    rolled: AtomicBool,
    /// Flushes begun and done, counted by the flusher: an extent written after `begun` stood at n
    /// is durable once `done` is above n.
    pub(super) sync_begun: AtomicU64,
    pub(super) sync_done: AtomicU64,
    desk: Arc<Desk>,
}

impl ActiveSegment {
    pub(super) fn new(
        number: u32,
        incarnation: u64,
        file: Arc<SegmentFile>,
        core: &Core,
    ) -> Arc<Self> {
        let segment = Arc::new(Self {
            number,
            incarnation,
            file,
            bytes: core.config.segment_bytes,
            cursor: AtomicU64::new(0),
            pins: Mutex::default(),
            rolled: AtomicBool::new(false),
            sync_begun: AtomicU64::new(0),
            sync_done: AtomicU64::new(0),
            desk: Arc::clone(&core.desk),
        });
        core.segments.activate(&segment);
        segment
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are reserved, and how many of them, from the start, will not change.
    pub(super) fn reach(&self) -> (u64, u64) {
        let pins = self.pins();
        let end = self.cursor.load(Ordering::SeqCst);
        (end, pins.keys().next().copied().unwrap_or(end))
    }

    /// Takes `len` bytes, whole blocks, from the front of what is left.
    pub(super) fn bump(self: &Arc<Self>, len: u64) -> Option<(SegmentPin, u64)> {
        let offset = self.cursor.load(Ordering::SeqCst);
        let end = offset.checked_add(len).filter(|end| *end <= self.bytes)?;
        // The pin is there before the cursor moves on, so that nobody takes the range for settled.
        let pin = SegmentPin::new(self, offset);
        self.cursor.store(end, Ordering::SeqCst);
        Some((pin, offset))
    }

    /// Ends the appending; the row to put. To be called by the holder of the lane.
    pub(super) fn roll(&self) -> SegmentRow {
        self.rolled.store(true, Ordering::SeqCst);
        let state = if self.is_pinned() { SegmentState::Closing } else { SegmentState::Closed };
        self.row(state)
    }

    pub(super) fn is_pinned(&self) -> bool {
        !self.pins().is_empty()
    }

    pub(super) fn row(&self, state: SegmentState) -> SegmentRow {
        SegmentRow {
            segment: self.number,
            state,
            incarnation: self.incarnation,
            written_bytes: self.cursor.load(Ordering::SeqCst),
        }
    }
}

/// Keeps a segment from being closed while an extent in it is neither published nor abandoned.
pub(super) struct SegmentPin {
    segment: Arc<ActiveSegment>,
    /// Where the reservation starts that it keeps.
    offset: u64,
}

impl SegmentPin {
    fn new(segment: &Arc<ActiveSegment>, offset: u64) -> Self {
        *segment.pins().entry(offset).or_default() += 1;
        Self { segment: Arc::clone(segment), offset }
    }

    pub(super) fn segment(&self) -> &Arc<ActiveSegment> {
        &self.segment
    }
}

impl Clone for SegmentPin {
    fn clone(&self) -> Self {
        Self::new(&self.segment, self.offset)
    }
}

impl Drop for SegmentPin {
    fn drop(&mut self) {
        let mut pins = self.segment.pins();
        if let Some(count) = pins.get_mut(&self.offset) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.offset);
            }
        }
        let was_last = pins.is_empty();
        drop(pins);
        if was_last && self.segment.rolled.load(Ordering::SeqCst) {
            self.segment.desk.wake();
        }
    }
}

/// Keeps a segment from being used again while somebody reads it.
pub(super) struct ReadPin {
    core: Arc<Core>,
    segment: u32,
}

impl ReadPin {
    /// Pins the use of the segment that `location` names.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: no such range is or was in use.
    /// - [`ErrorKind::Moved`]: that use is over; the extent has moved or is gone.
    pub(super) fn new(core: &Arc<Core>, location: &Location) -> Result<Self> {
        let end = location.offset + u64::from(location.stored_len());
        let mut state = core.segments.lock();
        let row = state.rows.get(&location.segment).copied();
        let row = row.filter(|_| end <= core.config.segment_bytes).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("pin {location:?}"))
                .with_source("the location names a range that is not there")
                .with_advice("run `kluis check`")
        })?;
        let is_over = row.incarnation != location.incarnation
            || row.state == SegmentState::Free
            || state.retired.contains(&row.segment);
        if is_over && !seeded(Bug::NoIncarnationCheck) {
            return Err(Error::new(ErrorKind::Moved, format!("pin {location:?}"))
                .with_source("the location names a use of its segment that is over"));
        }
        *state.readers.entry(row.segment).or_default() += 1;
        drop(state);
        Ok(Self { core: Arc::clone(core), segment: row.segment })
    }
}

impl Drop for ReadPin {
    fn drop(&mut self) {
        let mut state = self.core.segments.lock();
        if let Some(count) = state.readers.get_mut(&self.segment) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&self.segment);
            }
        }
    }
}

/// The segments of a volume.
#[derive(Default)]
pub(super) struct Segments(Mutex<State>);

#[derive(Default)]
struct State {
    /// The table.
    rows: BTreeMap<u32, SegmentRow>,
    /// Rows that say `Free` and nobody has taken.
    free: BTreeSet<u32>,
    /// Read pins, by segment.
    readers: BTreeMap<u32, usize>,
    /// Segments that will be free as soon as nobody reads them: no new reader is let in.
    retired: BTreeSet<u32>,
    /// Files without a row: made, but perhaps not yet zeroed.
    raw: BTreeSet<u32>,
    /// The next number that was never used.
    next: u32,
    /// Segment files, those without a row included.
    files_count: u64,
    /// Segments that are appended to, or were and are still pinned.
    active: BTreeMap<u32, Weak<ActiveSegment>>,
    /// Open files, with the time of their last use.
    open: BTreeMap<u32, (Arc<SegmentFile>, u64)>,
    /// Counts uses of `open`.
    clock: u64,
}

impl Segments {
    /// The segments of a volume whose table and directory were read.
    pub(super) fn new(rows: &[SegmentRow], raw: BTreeSet<u32>, files_count: u64) -> Self {
        let mut state = State { raw, files_count, ..State::default() };
        state.rows = rows.iter().map(|row| (row.segment, *row)).collect();
        let is_free = |row: &&SegmentRow| row.state == SegmentState::Free;
        state.free = rows.iter().filter(is_free).map(|row| row.segment).collect();
        let last = state.rows.keys().chain(&state.raw).max();
        state.next = last.map_or(0, |last| last.saturating_add(1));
        Self(Mutex::new(state))
    }

    /// Leaves the number `segment` out for good.
    pub(super) fn never(&self, segment: u32) {
        let mut state = self.lock();
        state.next = state.next.max(segment.saturating_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rows(&self) -> Vec<SegmentRow> {
        self.lock().rows.values().copied().collect()
    }

    pub(super) fn row(&self, segment: u32) -> Option<SegmentRow> {
        self.lock().rows.get(&segment).copied()
    }

    pub(super) fn files_count(&self) -> u64 {
        self.lock().files_count
    }

    pub(super) fn raw_count(&self) -> u64 {
        self.lock().raw.len() as u64
    }

    /// Files without a row.
    pub(super) fn raw(&self) -> Vec<u32> {
        self.lock().raw.iter().copied().collect()
    }

    /// Leaves the file of `segment` alone, although it has no row.
    pub(super) fn keep_out(&self, segment: u32) {
        self.lock().raw.remove(&segment);
    }

    pub(super) fn free_count(&self) -> usize {
        self.lock().free.len()
    }

    /// Takes note of a segment that is going to be appended to.
    fn activate(&self, segment: &Arc<ActiveSegment>) {
        let mut state = self.lock();
        state.active.retain(|_, active| active.strong_count() > 0);
        state.active.insert(segment.number, Arc::downgrade(segment));
    }

    /// The segment, if it is appended to, or was and is still pinned.
    pub(super) fn active(&self, segment: u32) -> Option<Arc<ActiveSegment>> {
        self.lock().active.get(&segment).and_then(Weak::upgrade)
    }

    /// Takes over rows that were put.
    pub(super) fn apply(&self, rows: &[SegmentRow]) {
        let mut state = self.lock();
        for row in rows {
            state.rows.insert(row.segment, *row);
            if row.state == SegmentState::Free {
                state.retired.remove(&row.segment);
                state.free.insert(row.segment);
            } else {
                state.free.remove(&row.segment);
            }
        }
    }

    /// Lets no new reader into `segment`; whether the last one has left.
    pub(super) fn retire(&self, segment: u32) -> bool {
        let mut state = self.lock();
        state.retired.insert(segment);
        !state.readers.contains_key(&segment)
    }

    /// Segments that can be taken without making a file.
    pub(super) fn ready_count(&self) -> u64 {
        let state = self.lock();
        (state.free.len() + state.raw.len()) as u64
    }

    /// Takes a free segment, a zeroed one if there is one.
    pub(super) fn take_free(&self) -> Option<u32> {
        let mut state = self.lock();
        state.free.pop_first().or_else(|| state.raw.pop_first())
    }

    /// Takes a file that has no row.
    pub(super) fn take_raw(&self) -> Option<u32> {
        self.lock().raw.pop_first()
    }

    /// The open file of `segment`.
    pub(super) async fn file(
        &self,
        disk: &Arc<dyn Disk>,
        segment: u32,
    ) -> io::Result<Arc<SegmentFile>> {
        if let Some(file) = self.cached(segment) {
            return Ok(file);
        }
        let id = disk.open(&file_name(segment), OpenMode::Existing).await?;
        Ok(self.keep(segment, SegmentFile { disk: Arc::clone(disk), id }))
    }

    fn cached(&self, segment: u32) -> Option<Arc<SegmentFile>> {
        let mut state = self.lock();
        state.clock += 1;
        let clock = state.clock;
        let (file, used) = state.open.get_mut(&segment)?;
        *used = clock;
        Some(Arc::clone(file))
    }

    /// Keeps `file` for later users. If somebody else opened it meanwhile, that one is kept.
    fn keep(&self, segment: u32, file: SegmentFile) -> Arc<SegmentFile> {
        if let Some(first) = self.cached(segment) {
            return first;
        }
        let file = Arc::new(file);
        let mut state = self.lock();
        let clock = state.clock;
        state.open.insert(segment, (Arc::clone(&file), clock));
        let evicted = (state.open.len() > FILES_MAX).then(|| evict(&mut state.open));
        drop(state);
        drop(evicted);
        file
    }

    /// Makes the file of a segment that never was.
    ///
    /// # Errors
    /// - [`ErrorKind::Full`]: no space for it.
    /// - [`ErrorKind::Unavailable`]: the disk could not. Nothing that was written depends on the
    ///   file, so neither fences.
    pub(super) async fn make(&self, core: &Core, lane: Lane) -> Result<(u32, Arc<SegmentFile>)> {
        (core.room)(core.config.segment_bytes)?;
        let segment = self.next_number(core, lane)?;
        let during = || format!("make segment {segment}");
        let name = file_name(segment);
        let len = core.config.segment_bytes;
        match core.disk.open(&name, OpenMode::Create { len }).await {
            Ok(id) => {
                Ok((segment, self.keep(segment, SegmentFile { disk: Arc::clone(&core.disk), id })))
            }
            Err(error) => {
                self.lock().files_count -= 1;
                let full = matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                );
                let kind = if full { ErrorKind::Full } else { ErrorKind::Unavailable };
                Err(Error::new(kind, during()).with_source(error))
            }
        }
    }

    fn next_number(&self, core: &Core, lane: Lane) -> Result<u32> {
        let mut state = self.lock();
        if core.makeable_by_number(state.files_count, lane) == 0 || state.next == u32::MAX {
            return Err(Error::new(ErrorKind::Full, "make a segment")
                .with_source("the volume has as many segments as it may"));
        }
        let segment = state.next;
        state.next += 1;
        state.files_count += 1;
        Ok(segment)
    }
}

/// Takes out the file that was not used for longest, of those that nobody is using.
fn evict(open: &mut BTreeMap<u32, (Arc<SegmentFile>, u64)>) -> Option<(Arc<SegmentFile>, u64)> {
    let idle = open.iter().filter(|(_, (file, _))| Arc::strong_count(file) == 1);
    let segment = *idle.min_by_key(|(_, (_, used))| *used)?.0;
    open.remove(&segment)
}
