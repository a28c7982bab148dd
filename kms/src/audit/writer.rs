//! Appends groups to the audit log, rotates its segments, and takes the log up again at a start.
//!
//! Owns: where the next group goes, what is kept for how long, what a damaged end means. Knows
//! nothing of: who waits for a flush.
//!
//! Invariants
//! - A group is flushed before anyone is told of it. Only the last one can be torn, and it was
//!   never acknowledged, so it is dropped.
//! - What a start appends to is on the disk: a group whose flush failed is written again first.
//! - Damage does not stop the node and is never mended: the chain goes on in a new segment that
//!   says so, above every number that may have been used, and each later check reports it.
//! - Only whole segments are removed, the oldest first, and the head says so before they go.
//!   See docs/KEYS.md, "Audit".

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{ENTRY_BYTES_MIN, Sealed};
use super::segment::{
    Chain, Checkpoint, Head, Keys, SegmentReader, Step, encode_group, head_path, segment_path,
    segments,
};
use crate::env::Env;
use crate::error::Result;
use crate::private_file::{self, io_error};

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// The bounds of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// A segment is followed by the next one once it holds this much.
    pub(super) segment_bytes: u64,
    /// Segments whose last entry is older are removed.
    pub(super) retention_days: u64,
    /// Oldest segments are removed past this, whatever their age.
    pub(super) retention_bytes: u64,
    /// What is noted waits this long for company.
    pub(super) flush_ms: u64,
    /// What is noted is flushed at once past this.
    pub(super) flush_bytes: usize,
    /// Past this much that is not durable, a record waits and a note is refused.
    pub(super) buffer_bytes: usize,
}

impl Bounds {
    /// Of a node. 400 days are a year of access logs and a month to look at them; 16 GiB are
    /// 40 million entries, and a bound on what reads can do to the disk. 50 ms and 1 MiB keep the
    /// flushes of a busy node at 20 a second; 4 MiB are 10,000 permits, more than a second of a
    /// busy
    /// node, so that only a disk that stalls refuses one.
    pub(super) const NODE: Self = Self {
        segment_bytes: 64 * 1024 * 1024,
        retention_days: 400,
        retention_bytes: 16 * 1024 * 1024 * 1024,
        flush_ms: 50,
        flush_bytes: 1024 * 1024,
        buffer_bytes: 4 * 1024 * 1024,
    };
}

/// A place of the log that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDamage {
    /// The segment's number; its file is this number with ten digits.
    pub segment: u64,
    /// Bytes before the place.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for AuditDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, what } = self;
        write!(f, "audit segment {segment} at byte {offset}: {what}")
    }
}

/// The open end of the log.
pub(super) struct Writer {
    dir: PathBuf,
    keys: Arc<Keys>,
    env: Env,
    bounds: Bounds,
    file: File,
    head_file: File,
    chain: Chain,
    first_segment: u64,
    segment: u64,
    /// Where the segment's groups begin.
    start: u64,
    end: u64,
}

/// What a look at the files gave.
struct Found {
    chain: Chain,
    segment: u64,
    start: u64,
    /// Where the last group begins, and where it ends.
    last: u64,
    end: u64,
    /// Bytes behind `end` that are not sound, and those of later segments.
    lost_bytes: u64,
    damage: Option<AuditDamage>,
}

impl Writer {
    /// Takes up the log in `dir`, or begins one. Reads the last segment only, unless it is damaged.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused): others may read a file.
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): a file cannot be read or written.
    pub(super) fn open(
        dir: &Path,
        keys: &Arc<Keys>,
        env: &Env,
        bounds: Bounds,
    ) -> Result<(Self, Option<AuditDamage>)> {
        let numbers = segments(dir)?;
        let head = Head::read(dir, keys)?;
        let mut found = look(dir, &numbers, keys)?;
        found.compare(head);
        let first_segment = numbers.first().copied().unwrap_or(found.segment + 1);
        let first_segment = head.map_or(first_segment, |head| head.first_segment);
        let head_file = open_or_create(&head_path(dir))?;
        let parts = (keys, env, bounds);
        let damage = found.damage.clone();
        let mut writer = if damage.is_none() && found.segment != 0 {
            let path = segment_path(dir, found.segment);
            let file = private_file::open(&path, true)?;
            rewrite(&file, found.last..found.end)
                .map_err(|error| io_error("write the last group again to", &path, error))?;
            Self::at(dir, parts, (file, head_file), found)
        } else {
            found.chain.skip(found.lost_bytes.div_ceil(ENTRY_BYTES_MIN as u64));
            let last = numbers.last().copied().unwrap_or(0);
            let last = last.max(head.map_or(0, |head| head.segment));
            Self::begin(dir, parts, head_file, (last + 1, found))?
        };
        writer.first_segment = first_segment;
        writer.write_head()?;
        // Entries that are durable without a head look as if somebody had cut the log.
        writer.close()?;
        private_file::sync_parent(&head_path(dir))?;
        writer.retire_segments()?;
        Ok((writer, damage))
    }

    fn at(
        dir: &Path,
        (keys, env, bounds): (&Arc<Keys>, &Env, Bounds),
        (file, head_file): (File, File),
        found: Found,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            keys: Arc::clone(keys),
            env: env.clone(),
            bounds,
            file,
            head_file,
            chain: found.chain,
            first_segment: found.segment,
            segment: found.segment,
            start: found.start,
            end: found.end,
        }
    }

    /// Begins a segment behind what was found.
    fn begin(
        dir: &Path,
        (keys, env, bounds): (&Arc<Keys>, &Env, Bounds),
        head_file: File,
        (segment, found): (u64, Found),
    ) -> Result<Self> {
        let follows_damage = found.damage.is_some();
        let created_ms = env.clock.now_ms();
        let checkpoint = Checkpoint { segment, created_ms, follows_damage, chain: found.chain };
        let bytes = checkpoint.encode(keys)?;
        let file = private_file::replace(&segment_path(dir, segment), &bytes)?;
        let start = bytes.len() as u64;
        let chain = checkpoint.chain;
        let (last, end) = (start, start);
        let found = Found { chain, segment, start, last, end, lost_bytes: 0, damage: None };
        Ok(Self::at(dir, (keys, env, bounds), (file, head_file), found))
    }

    /// Appends events as one group and makes it durable.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): a write or flush failed. The
    /// writer must not be used again: what is on the disk is known after a restart only.
    pub(super) fn append(&mut self, events: &[Sealed]) -> Result<()> {
        if self.end - self.start >= self.bounds.segment_bytes {
            self.rotate()?;
        }
        let place = (self.segment, self.end);
        let group = encode_group(place, &mut self.chain, events, &self.keys);
        let path = segment_path(&self.dir, self.segment);
        self.file
            .write_all_at(&group, self.end)
            .map_err(|error| io_error("append to", &path, error))?;
        self.file.sync_data().map_err(|error| io_error("flush", &path, error))?;
        self.end += group.len() as u64;
        self.write_head()
    }

    fn rotate(&mut self) -> Result<()> {
        let segment = self.segment + 1;
        let created_ms = self.env.clock.now_ms();
        let chain = self.chain.clone();
        let checkpoint = Checkpoint { segment, created_ms, follows_damage: false, chain };
        let bytes = checkpoint.encode(&self.keys)?;
        self.file = private_file::replace(&segment_path(&self.dir, segment), &bytes)?;
        self.segment = segment;
        self.start = bytes.len() as u64;
        self.end = self.start;
        self.write_head()?;
        self.retire_segments()
    }

    pub(super) const fn head(&self) -> Head {
        Head {
            first_segment: self.first_segment,
            segment: self.segment,
            end: self.end,
            next_sequence: self.chain.next_sequence,
            hash: self.chain.head,
        }
    }

    /// How far each tenant's chain goes.
    pub(super) const fn chain(&self) -> &Chain {
        &self.chain
    }

    fn write_head(&self) -> Result<()> {
        let bytes = self.head().encode(&self.keys);
        let path = head_path(&self.dir);
        self.head_file.write_all_at(&bytes, 0).map_err(|error| io_error("write", &path, error))
    }

    /// Makes the head durable as well, so that a copied or crashed directory says how far it went.
    pub(super) fn close(&self) -> Result<()> {
        let path = head_path(&self.dir);
        self.head_file.sync_data().map_err(|error| io_error("flush", &path, error))
    }

    /// From here on every write finds the disk full.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = File::options().write(true).open("/dev/full").unwrap();
    }

    /// Removes the oldest segments that are past their time or over the bound on bytes.
    fn retire_segments(&mut self) -> Result<()> {
        let numbers = segments(&self.dir)?;
        let bytes_of = |number: &u64| {
            std::fs::metadata(segment_path(&self.dir, *number)).map_or(0, |found| found.len())
        };
        let mut total_bytes: u64 = numbers.iter().map(bytes_of).sum();
        let keep_ms = self.bounds.retention_days.saturating_mul(MS_PER_DAY);
        let oldest_ms = self.env.clock.now_ms().saturating_sub(keep_ms);
        let mut retired = Vec::new();
        for (number, next) in numbers.iter().zip(numbers.iter().skip(1)) {
            // Every entry of a segment is older than the segment after it.
            let is_old = SegmentReader::open(&self.dir, *next, None, &self.keys)?
                .is_some_and(|(_, checkpoint)| checkpoint.created_ms < oldest_ms);
            let is_too_much = total_bytes > self.bounds.retention_bytes;
            if !(*number < self.first_segment || is_old || is_too_much) {
                break;
            }
            total_bytes = total_bytes.saturating_sub(bytes_of(number));
            retired.push(*number);
            self.first_segment = self.first_segment.max(*next);
        }
        if retired.is_empty() {
            return Ok(());
        }
        self.write_head()?;
        self.close()?;
        for number in &retired {
            let path = segment_path(&self.dir, *number);
            std::fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
        }
        tracing::info!(segments = ?retired, "removed audit segments past their retention");
        Ok(())
    }
}

/// Reads backwards until a segment's beginning is sound, then that segment to its sound end.
fn look(dir: &Path, numbers: &[u64], keys: &Arc<Keys>) -> Result<Found> {
    let mut lost_bytes = 0;
    let mut damage = None;
    for number in numbers.iter().rev() {
        let Some((mut reader, checkpoint)) = SegmentReader::open(dir, *number, None, keys)? else {
            let path = segment_path(dir, *number);
            lost_bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            let what = "its beginning is damaged";
            damage = Some(AuditDamage { segment: *number, offset: 0, what });
            continue;
        };
        let start = reader.offset();
        let mut chain = checkpoint.chain;
        let mut last = start;
        let step = loop {
            let offset = reader.offset();
            match reader.next(&mut chain, keys, &mut |_, _| Ok(()))? {
                Step::Group => last = offset,
                other => break other,
            }
        };
        let end = reader.offset();
        let left_bytes = reader.end() - end;
        if step == Step::Unsound && damage.is_none() && reader.is_torn()? {
            tracing::warn!(
                dropped_bytes = left_bytes,
                "dropped audit entries that a crash cut short"
            );
            truncate(&segment_path(dir, *number), end)?;
        } else if step == Step::Unsound {
            lost_bytes += left_bytes;
            let what = "a group of entries is damaged";
            damage = Some(AuditDamage { segment: *number, offset: end, what });
        }
        return Ok(Found { chain, segment: *number, start, last, end, lost_bytes, damage });
    }
    Ok(Found { chain: Chain::empty(), segment: 0, start: 0, last: 0, end: 0, lost_bytes, damage })
}

impl Found {
    /// Holds what was found against how far the log once reached.
    fn compare(&mut self, head: Option<Head>) {
        let Self { segment, end, .. } = *self;
        let is_new = self.chain == Chain::empty() && segment <= 1 && self.end == self.start;
        let mut harm = |what| {
            self.damage.get_or_insert(AuditDamage { segment, offset: end, what });
        };
        match head {
            Some(head) if (head.segment, head.end) > (segment, end) => {
                harm("the log ends before it did: entries were cut off");
            }
            Some(_) => {}
            // A crash at the very first start can leave a segment without a head, or an empty one.
            None if is_new => {}
            None => harm("the head is damaged or missing"),
        }
        let reached = head.map_or(0, |head| head.next_sequence);
        let lost = reached.saturating_sub(self.chain.next_sequence);
        self.lost_bytes = self.lost_bytes.max(lost.saturating_mul(ENTRY_BYTES_MIN as u64));
    }
}

/// Writes a group once more. If its flush failed, it reads from the page cache and is not on the
/// disk, and no later flush would bring it there. No other group follows a failed flush.
fn rewrite(file: &File, group: Range<u64>) -> io::Result<()> {
    let bytes = usize::try_from(group.end - group.start).map_err(io::Error::other)?;
    let mut held = vec![0; bytes];
    file.read_exact_at(&mut held, group.start)?;
    file.write_all_at(&held, group.start)?;
    file.sync_data()
}

fn truncate(path: &Path, end: u64) -> Result<()> {
    let file = private_file::open(path, true)?;
    let result = file.set_len(end).and_then(|()| file.sync_all());
    result.map_err(|error| io_error("truncate", path, error))
}

fn open_or_create(path: &Path) -> Result<File> {
    if path.exists() { private_file::open(path, true) } else { private_file::create(path) }
}
