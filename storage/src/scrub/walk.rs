//! One segment read: every record's checksums, alive or dead.
//!
//! Owns: the steps of it, and the search for what the walk itself cannot find: an extent whose
//! header is gone is known only by its row, and by the count of live bytes, which does not add up.
//! Does not know: keys, which segment comes next, how fast.
//!
//! Invariants
//! - A step reads about one buffer's worth, and holds no buffer when it returns.
//! - A segment counts as read only if every byte that rows name in it was met by the walk, is
//!   listed as damaged, or was looked for row by row.
//! - Nothing is lost by a step that fails: it is done again.

use std::collections::{BTreeSet, VecDeque};

use super::damage::Ground;
use super::row::{DamageKind, DamagePlace};
use crate::blob::{ExtentId, Found, Location, RecordBody, SegmentRow, SegmentScan, SegmentState};
use crate::error::{ErrorKind, Result};
use crate::meta::ScanStep;
use crate::namespace::{Table, TenantNs};
use crate::segments::live_bytes_of;

/// Records looked up in one step.
const STEP_RECORDS: usize = 256;
/// Bytes of records in one step: a buffer's worth. One extent more may be read.
const STEP_BYTES: u64 = 1 << 20;
/// Location rows looked at in one step, when one is searched.
const STEP_ROWS: usize = 1_000;
/// How far around a bad block its neighbours are read first: what breaks one often breaks more.
const NEIGHBOUR_BYTES: u64 = 10 << 20;

/// What a step found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seen {
    /// Bytes that were read, about.
    pub(crate) bytes: u64,
    /// Extents that entered the list.
    pub(crate) damaged: u64,
    /// Damaged records that no row names.
    pub(crate) dead: u64,
    /// Ranges of copies put right, and those that could not be.
    pub(crate) repaired: u64,
    pub(crate) left: u64,
    /// Whether something bad lies within [`NEIGHBOUR_BYTES`] before the walk: no time to rest.
    pub(crate) is_hot: bool,
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// Go on.
    No,
    /// The segment is read.
    Yes,
    /// The segment is being emptied, or was.
    Gone,
}

/// A record of the segment that is still to be judged.
struct Record {
    id: ExtentId,
    location: Location,
    is_named: bool,
    /// What its checksums say, if the walk had all of its bytes.
    is_intact: Option<bool>,
}

/// A segment being read.
pub(crate) struct Walk {
    row: SegmentRow,
    /// `None` once the end was reached, or if its file is missing.
    scan: Option<SegmentScan>,
    /// Whether it is all of the segment.
    is_whole: bool,
    /// Records that were found and whose rows are still to be looked up.
    found: Vec<(ExtentId, Location, Option<bool>)>,
    pending: VecDeque<Record>,
    /// Bytes of records that rows name.
    live: u64,
    /// Where listed extents were met.
    met: BTreeSet<u64>,
    /// Where something was wrong last.
    bad: Option<u64>,
    search: Option<Search>,
    /// Places where a header is damaged or nothing can be read: whose they are, rows tell later.
    headless: u64,
    /// Listed extents that were not met: some of those places are theirs.
    unmet: u64,
}

/// The look at every location row, for those that name the segment.
struct Search {
    spaces: Vec<TenantNs>,
    from: Vec<u8>,
}

impl Walk {
    /// Begins to read a segment; `None` if it is not closed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the disk did not answer.
    pub(crate) async fn begin(ground: Ground<'_>, segment: u32) -> Result<Option<Self>> {
        let rows = ground.volume.segments();
        let is_it = |row: &&SegmentRow| row.segment == segment && row.state == SegmentState::Closed;
        let Some(row) = rows.iter().find(is_it) else { return Ok(None) };
        let scan = match ground.volume.scan_segment(segment).await {
            Ok(scan) => Some(scan),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(segment, %error, "a segment cannot be read");
                None
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            row: *row,
            scan,
            is_whole: true,
            found: Vec::new(),
            pending: VecDeque::new(),
            live: 0,
            met: BTreeSet::new(),
            bad: None,
            search: None,
            headless: 0,
            unmet: 0,
        }))
    }

    /// Begins to read what lies around a bad block.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) async fn near(ground: Ground<'_>, location: &Location) -> Result<Option<Self>> {
        let from = location.offset().saturating_sub(NEIGHBOUR_BYTES);
        let to = location.offset() + u64::from(location.stored_len()) + NEIGHBOUR_BYTES;
        let walk = Self::begin(ground, location.segment()).await?;
        Ok(walk.map(|walk| Self {
            scan: walk.scan.map(|scan| scan.within(from, to)),
            is_whole: false,
            ..walk
        }))
    }

    /// The segment.
    pub(crate) fn segment(&self) -> u32 {
        self.row.segment
    }

    /// Bytes that records take in it.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.row.written_bytes
    }

    /// Does one bounded step, and adds what it finds to `seen`.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: damage could not be written down.
    /// - [`ErrorKind::Unavailable`]: the disk did not answer, or no buffer was free. Go on later.
    pub(crate) async fn step(&mut self, ground: Ground<'_>, seen: &mut Seen) -> Result<Ended> {
        if !self.is_there(ground) {
            return Ok(Ended::Gone);
        }
        if self.pending.is_empty() {
            self.fill(ground, seen).await?;
        }
        let mut read = 0;
        while let Some(record) = self.pending.front()
            && read < STEP_BYTES
        {
            read += u64::from(record.location.stored_len());
            let (id, location, is_named) = (record.id, record.location, record.is_named);
            let is_well = record.is_intact == Some(true)
                || judge(ground, id, &location, is_named, seen).await?;
            let place = DamagePlace::of(&location);
            if is_well {
                ground.list.reads_well(ground, place).await?;
            } else {
                self.bad = Some(location.offset());
            }
            if is_named {
                self.live += u64::from(location.stored_len());
                if !is_well {
                    self.met.insert(location.offset());
                }
            }
            self.pending.pop_front();
        }
        seen.is_hot |= self.is_hot();
        if !self.pending.is_empty() || self.scan.is_some() {
            return Ok(Ended::No);
        }
        if self.is_whole { self.finish(ground, seen).await } else { Ok(Ended::Yes) }
    }

    fn is_there(&self, ground: Ground<'_>) -> bool {
        let rows = ground.volume.segments();
        rows.iter().any(|row| {
            let is_same = row.segment == self.row.segment;
            is_same && row.incarnation == self.row.incarnation && row.state == SegmentState::Closed
        })
    }

    fn is_hot(&self) -> bool {
        let at = self.scan.as_ref().map_or(u64::MAX, SegmentScan::position);
        self.bad.is_some_and(|bad| at <= bad.saturating_add(NEIGHBOUR_BYTES))
    }

    /// Takes the next records from the disk, and looks their rows up.
    async fn fill(&mut self, ground: Ground<'_>, seen: &mut Seen) -> Result<()> {
        if let Some(scan) = &mut self.scan {
            let from = scan.position();
            let is_over = loop {
                if self.found.len() >= STEP_RECORDS || scan.position() >= from + STEP_BYTES {
                    break false;
                }
                match scan.next().await? {
                    Some(Found::Extent { header, location }) => {
                        if let RecordBody::Extent { id, .. } = header.body {
                            // Of several copies each is to be read.
                            let is_one = ground.volume.copies() == 1;
                            let is_intact = if is_one { scan.is_intact(&location) } else { None };
                            self.found.push((id, location, is_intact));
                        }
                    }
                    Some(Found::Filler { .. }) => {}
                    // Whether something alive lies there, the count of live bytes tells at the end.
                    Some(Found::Damaged { offset, .. } | Found::Unreadable { offset, .. }) => {
                        self.bad = Some(offset);
                        self.headless += 1;
                    }
                    None => break true,
                }
            };
            scan.pause();
            if is_over {
                self.scan = None;
            }
        }
        let ids: Vec<_> = self.found.iter().map(|(id, ..)| *id).collect();
        let held = ground.locations(&ids).await?;
        for ((id, location, is_intact), held) in self.found.drain(..).zip(held) {
            let is_named = held.is_some_and(|held| held == location.encode().as_slice());
            if is_intact == Some(true) {
                seen.bytes += u64::from(location.stored_len());
            }
            self.pending.push_back(Record { id, location, is_named, is_intact });
        }
        Ok(())
    }

    /// Looks for what the walk did not meet.
    async fn finish(&mut self, ground: Ground<'_>, seen: &mut Seen) -> Result<Ended> {
        if let Some(search) = &mut self.search {
            let before = seen.damaged;
            let is_over = search.step(ground, self.row.segment, seen).await?;
            self.unmet += seen.damaged - before;
            return Ok(if is_over { self.over(seen) } else { Ended::No });
        }
        self.unmet = 0;
        let mut accounted = self.live;
        for (place, id) in ground.list.within(self.row.segment, self.row.incarnation) {
            if self.met.contains(&place.offset) {
                continue;
            }
            let held = ground.locations(&[id]).await?.pop().flatten();
            let location = held.and_then(|held| Location::decode(&held).ok());
            let Some(location) = location.filter(|it| DamagePlace::of(it) == place) else {
                continue;
            };
            // Tampered bytes were met and pass their checksums: they are counted already.
            if ground.list.at(place) == Some(DamageKind::Tampered) {
                continue;
            }
            if judge(ground, id, &location, true, seen).await? {
                ground.list.reads_well(ground, place).await?;
            } else {
                self.unmet += 1;
            }
            accounted += u64::from(location.stored_len());
        }
        let live = live_bytes_of(ground.reader, self.row.segment).await?;
        if u64::try_from(live).unwrap_or(0) <= accounted {
            return Ok(self.over(seen));
        }
        tracing::warn!(
            segment = self.row.segment,
            live,
            accounted,
            "a segment holds less than rows name: looking for the rest"
        );
        self.search = Some(Search { spaces: ground.tenants.all(), from: Vec::new() });
        Ok(Ended::No)
    }

    /// Counts the places that turned out to be nobody's.
    fn over(&self, seen: &mut Seen) -> Ended {
        seen.dead += self.headless.saturating_sub(self.unmet);
        Ended::Yes
    }
}

impl Search {
    /// Looks at the next rows; whether they were the last.
    async fn step(&mut self, ground: Ground<'_>, segment: u32, seen: &mut Seen) -> Result<bool> {
        let Some(space) = self.spaces.last() else { return Ok(true) };
        let (mine, rows, last) = space
            .fold(
                Table::Locations,
                &[],
                &self.from,
                (Vec::new(), 0, Vec::new()),
                move |(mine, rows, last), rest, value| {
                    *rows += 1;
                    *last = rest.to_vec();
                    if let Ok(location) = Location::decode(value)
                        && location.segment() == segment
                        && let Some((stream, number)) = rest.split_first_chunk::<16>()
                        && let Some(number) = number.first_chunk()
                    {
                        mine.push((*stream, u32::from_be_bytes(*number), location));
                    }
                    Ok(if *rows < STEP_ROWS { ScanStep::Next } else { ScanStep::Stop })
                },
            )
            .await?;
        for (stream, number, location) in mine {
            let stream = crate::types::StreamId::from_bytes(stream);
            let id = ExtentId { ns: space.ns(), stream, number };
            judge(ground, id, &location, true, seen).await?;
        }
        if rows < STEP_ROWS {
            self.spaces.pop();
            self.from.clear();
        } else {
            self.from = [last.as_slice(), &[0]].concat();
        }
        Ok(self.spaces.is_empty())
    }
}

/// Reads an extent, puts right what can be, and lists it if it is damaged; whether it is well.
pub(crate) async fn judge(
    ground: Ground<'_>,
    id: ExtentId,
    location: &Location,
    is_named: bool,
    seen: &mut Seen,
) -> Result<bool> {
    seen.bytes += u64::from(location.stored_len());
    let kind = match ground.volume.examine(id, location).await {
        Ok(exam) => {
            seen.repaired += exam.repaired;
            seen.left += exam.left;
            exam.flaw.map(DamageKind::from)
        }
        // Nothing is wrong with what has moved: then the row names another place by now, which the
        // list asks.
        Err(error) if matches!(error.kind(), ErrorKind::Moved | ErrorKind::Corrupt) => {
            Some(DamageKind::Misplaced)
        }
        Err(error) => return Err(error),
    };
    let Some(kind) = kind else { return Ok(true) };
    if is_named {
        seen.damaged += u64::from(ground.list.record(ground, id, location, kind).await?);
    } else {
        seen.dead += 1;
    }
    Ok(false)
}
