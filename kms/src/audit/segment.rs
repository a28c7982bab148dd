//! The files of the audit log: segments of groups, and the head that says how far they reach.
//!
//! ```text
//! audit/0000000001.log    8  magic "KLUISAU1"   8  segment number   8  next sequence   8  time ms
//!                         4  flags   32  node head   8  floor   4  tenants
//!                         each: 16 tenant  8 sequence  32 head   then 32  MAC
//!         then each group: 4  body length   4  its complement   4  entries   8  first sequence
//!                         entries   32  MAC
//! audit/head              8  magic "KLUISAH1"   8  first segment   8  segment   8  end
//!                         8  next sequence   32  node head   32  MAC
//! ```
//! Owns: these bytes, the chain of hashes, and reading a segment group by group. Knows nothing of:
//! threads, who waits for what, what an entry says.
//!
//! Invariants
//! - A group's MAC covers its place and the chain's head after it, so it vouches for every entry
//!   before it as well.
//! - A segment's first record holds the chain as it was: a segment can be checked alone.
//!   Bytes: docs/FORMAT.md, "Audit log".

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;

use super::entry::{ENTRY_BYTES_MAX, Entry, EntryHash, Link, Sealed};
use crate::derive::{kdf, mac};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file::{self, io_error};
use crate::secret::MacSecret;
use crate::types::TenantId;

/// Longest body of a group: what is buffered at most, with room for the entry that fills it.
pub(super) const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most tenants in a segment's first record: 56 MiB of it. A node with more needs another design.
const TENANTS_MAX: u32 = 1024 * 1024;

const SEGMENT_MAGIC: &[u8; 8] = b"KLUISAU1";
const HEAD_MAGIC: &[u8; 8] = b"KLUISAH1";
const CHECKPOINT_FIXED_BYTES: usize = 80;
const CHECKPOINT_TENANT_BYTES: usize = 56;
const GROUP_HEADER_BYTES: usize = 20;
const HEAD_BYTES: usize = 104;
const MAC_BYTES: usize = 32;
/// The unit in which disks lose writes.
const SECTOR_BYTES: usize = 512;
/// The segment was begun because the one before it was damaged.
const FOLLOWS_DAMAGE: u32 = 1;

const HEAD_FILE: &str = "head";
const SEGMENT_SUFFIX: &str = ".log";

/// What the log is sealed and authenticated under.
pub(super) struct Keys {
    /// Every tenant's sealing key hangs off it.
    pub(super) seal: MacSecret,
    /// Authenticates groups, first records and the head.
    pub(super) mac: MacSecret,
}

impl Keys {
    /// `KDF(mac key, "audit", "", 32)` and `KDF(mac key, "audit-mac", "", 32)`.
    pub(super) fn derive(mac_key: &MacSecret) -> Result<Self> {
        let derived = |label: &[u8]| {
            MacSecret::fill_with(|slot| {
                kdf(&mac_key.borrow(), label, [], slot);
                Ok(())
            })
        };
        Ok(Self { seal: derived(b"audit")?, mac: derived(b"audit-mac")? })
    }
}

/// The end of one tenant's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TenantHead {
    pub(super) sequence: u64,
    pub(super) hash: EntryHash,
}

/// The ends of all chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) next_sequence: u64,
    pub(super) head: EntryHash,
    pub(super) tenants: HashMap<TenantId, TenantHead>,
    /// What a tenant that is not among them has counted to: not 0 once damage may have taken one.
    pub(super) floor: u64,
}

impl Chain {
    /// The chain before the first entry.
    pub(super) fn empty() -> Self {
        Self { next_sequence: 1, head: [0; 32], tenants: HashMap::new(), floor: 0 }
    }

    /// Writes sealed events as the entries that come next.
    pub(super) fn append(&mut self, events: &[Sealed], out: &mut Vec<u8>) {
        for event in events {
            let first = TenantHead { sequence: self.floor, hash: [0; 32] };
            let tenant = self.tenants.entry(event.subject.tenant).or_insert(first);
            let link = Link {
                sequence: self.next_sequence,
                tenant_sequence: tenant.sequence + 1,
                previous: self.head,
                tenant_previous: tenant.hash,
            };
            let hash = event.write(&link, out);
            *tenant = TenantHead { sequence: link.tenant_sequence, hash };
            self.head = hash;
            self.next_sequence += 1;
        }
    }

    /// Takes over entries that were read, and says whether each tenant's chain goes on in them.
    fn advance(&mut self, entries: &[(Entry<'_>, EntryHash)]) -> bool {
        entries.iter().all(|(entry, hash)| {
            let first = TenantHead { sequence: self.floor, hash: [0; 32] };
            let tenant = self.tenants.entry(entry.subject.tenant).or_insert(first);
            let follows = entry.link.tenant_sequence == tenant.sequence + 1
                && entry.link.tenant_previous == tenant.hash;
            *tenant = TenantHead { sequence: entry.link.tenant_sequence, hash: *hash };
            self.head = *hash;
            self.next_sequence = entry.link.sequence + 1;
            follows
        })
    }

    /// Leaves room for `lost` entries that may have been there.
    pub(super) fn skip(&mut self, lost: u64) {
        self.next_sequence = self.next_sequence.saturating_add(lost);
        self.floor = self.floor.saturating_add(lost);
        for tenant in self.tenants.values_mut() {
            tenant.sequence = tenant.sequence.saturating_add(lost);
        }
    }
}

/// A segment's first record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) segment: u64,
    pub(super) created_ms: u64,
    pub(super) follows_damage: bool,
    pub(super) chain: Chain,
}

impl Checkpoint {
    pub(super) fn encode(&self, keys: &Keys) -> Result<Vec<u8>> {
        let count = u32::try_from(self.chain.tenants.len()).ok();
        let count = count.filter(|count| *count <= TENANTS_MAX).ok_or_else(|| {
            Error::new(ErrorKind::Full, "begin an audit segment with a million tenants")
        })?;
        let flags = if self.follows_damage { FOLLOWS_DAMAGE } else { 0 };
        let mut bytes = SEGMENT_MAGIC.to_vec();
        bytes.extend_from_slice(&self.segment.to_be_bytes());
        bytes.extend_from_slice(&self.chain.next_sequence.to_be_bytes());
        bytes.extend_from_slice(&self.created_ms.to_be_bytes());
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&self.chain.head);
        bytes.extend_from_slice(&self.chain.floor.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        // In order, so that one chain has one encoding.
        let sorted: BTreeMap<_, _> = self.chain.tenants.iter().collect();
        for (tenant, head) in sorted {
            bytes.extend_from_slice(tenant.as_bytes());
            bytes.extend_from_slice(&head.sequence.to_be_bytes());
            bytes.extend_from_slice(&head.hash);
        }
        let checkpoint_mac = mac(&keys.mac.borrow(), &[b"kms/audit-segment\0", &bytes]);
        bytes.extend_from_slice(&checkpoint_mac);
        Ok(bytes)
    }

    /// Reads the first record of a segment, and where it ends.
    fn read(file: &File, segment: u64, keys: &Keys) -> io::Result<Option<(Self, u64)>> {
        let mut bytes = vec![0; CHECKPOINT_FIXED_BYTES];
        if !read_whole(file, &mut bytes, 0)? {
            return Ok(None);
        }
        let Some(count) = bytes.last_chunk().map(|count| u32::from_be_bytes(*count)) else {
            return Ok(None);
        };
        if count > TENANTS_MAX {
            return Ok(None);
        }
        let rest_bytes = count as usize * CHECKPOINT_TENANT_BYTES + MAC_BYTES;
        if file.metadata()?.len() < (CHECKPOINT_FIXED_BYTES + rest_bytes) as u64 {
            return Ok(None);
        }
        let mut rest = vec![0; rest_bytes];
        if !read_whole(file, &mut rest, CHECKPOINT_FIXED_BYTES as u64)? {
            return Ok(None);
        }
        bytes.extend_from_slice(&rest);
        let found = Self::decode(&bytes, keys).filter(|found| found.segment == segment);
        Ok(found.map(|found| (found, bytes.len() as u64)))
    }

    fn decode(bytes: &[u8], keys: &Keys) -> Option<Self> {
        let (signed, found_mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        let made = mac(&keys.mac.borrow(), &[b"kms/audit-segment\0", signed]);
        if !bool::from(made.ct_eq(found_mac)) {
            return None;
        }
        let (magic, rest) = signed.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (next_sequence, rest) = rest.split_first_chunk()?;
        let (created_ms, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (head, rest) = rest.split_first_chunk()?;
        let (floor, rest) = rest.split_first_chunk()?;
        let (_, mut rest) = rest.split_first_chunk::<4>()?;
        let mut tenants = HashMap::new();
        while !rest.is_empty() {
            let (tenant, tail) = rest.split_first_chunk()?;
            let (sequence, tail) = tail.split_first_chunk()?;
            let (hash, tail) = tail.split_first_chunk()?;
            let head = TenantHead { sequence: u64::from_be_bytes(*sequence), hash: *hash };
            tenants.insert(TenantId::from_bytes(*tenant), head);
            rest = tail;
        }
        let next_sequence = u64::from_be_bytes(*next_sequence);
        let found = Self {
            segment: u64::from_be_bytes(*segment),
            created_ms: u64::from_be_bytes(*created_ms),
            follows_damage: u32::from_be_bytes(*flags) == FOLLOWS_DAMAGE,
            chain: Chain { next_sequence, head: *head, tenants, floor: u64::from_be_bytes(*floor) },
        };
        (magic == SEGMENT_MAGIC).then_some(found)
    }
}

/// How far the log reaches. Written after every flush and not flushed itself, so it may lag behind
/// the segments and is never ahead of them: a log that ends before its head was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first_segment: u64,
    pub(super) segment: u64,
    pub(super) end: u64,
    pub(super) next_sequence: u64,
    pub(super) hash: EntryHash,
}

impl Head {
    pub(super) fn encode(&self, keys: &Keys) -> Vec<u8> {
        let mut bytes = HEAD_MAGIC.to_vec();
        for number in [self.first_segment, self.segment, self.end, self.next_sequence] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.hash);
        let head_mac = mac(&keys.mac.borrow(), &[b"kms/audit-head\0", &bytes]);
        bytes.extend_from_slice(&head_mac);
        bytes
    }

    /// The head of the log in `dir`, if there is a sound one.
    pub(super) fn read(dir: &Path, keys: &Keys) -> Result<Option<Self>> {
        let path = head_path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let file = private_file::open(&path, false)?;
        let mut bytes = [0; HEAD_BYTES];
        let is_whole = read_whole(&file, &mut bytes, 0)
            .map_err(|error| io_error("read", &path, error))?
            && file.metadata().is_ok_and(|metadata| metadata.len() == HEAD_BYTES as u64);
        Ok(is_whole.then(|| Self::decode(&bytes, keys)).flatten())
    }

    fn decode(bytes: &[u8; HEAD_BYTES], keys: &Keys) -> Option<Self> {
        let (signed, found_mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        let made = mac(&keys.mac.borrow(), &[b"kms/audit-head\0", signed]);
        let (magic, rest) = signed.split_first_chunk()?;
        let (first_segment, rest) = rest.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (end, rest) = rest.split_first_chunk()?;
        let (next_sequence, rest) = rest.split_first_chunk()?;
        let head = Self {
            first_segment: u64::from_be_bytes(*first_segment),
            segment: u64::from_be_bytes(*segment),
            end: u64::from_be_bytes(*end),
            next_sequence: u64::from_be_bytes(*next_sequence),
            hash: *rest.first_chunk()?,
        };
        (bool::from(made.ct_eq(found_mac)) && magic == HEAD_MAGIC).then_some(head)
    }
}

pub(super) fn head_path(dir: &Path) -> PathBuf {
    dir.join(HEAD_FILE)
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:010}{SEGMENT_SUFFIX}"))
}

/// The numbers of the segments in `dir`, in order.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>> {
    let error = |error| io_error("list", dir, error);
    let mut numbers = Vec::new();
    for found in std::fs::read_dir(dir).map_err(error)? {
        let name = found.map_err(error)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SEGMENT_SUFFIX));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The bytes of a group at a place: header, entries, MAC.
pub(super) fn encode_group(
    (segment, offset): (u64, u64),
    chain: &mut Chain,
    events: &[Sealed],
    keys: &Keys,
) -> Vec<u8> {
    let body_bytes: usize = events.iter().map(Sealed::entry_bytes).sum();
    let length = u32::try_from(body_bytes).expect("a group is at most 8 MiB");
    let count = u32::try_from(events.len()).expect("a group is at most 8 MiB");
    let mut bytes = Vec::with_capacity(GROUP_HEADER_BYTES + body_bytes + MAC_BYTES);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&(!length).to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&chain.next_sequence.to_be_bytes());
    let header: [u8; GROUP_HEADER_BYTES] =
        bytes.first_chunk().copied().expect("the header was written just now");
    chain.append(events, &mut bytes);
    bytes.extend_from_slice(&group_mac((segment, offset), &header, &chain.head, keys));
    bytes
}

fn group_mac(
    (segment, offset): (u64, u64),
    header: &[u8; GROUP_HEADER_BYTES],
    head: &EntryHash,
    keys: &Keys,
) -> [u8; MAC_BYTES] {
    let (segment, offset) = (segment.to_be_bytes(), offset.to_be_bytes());
    mac(&keys.mac.borrow(), &[b"kms/audit-group\0", &segment, &offset, header, head])
}

/// What stands at the reader's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A sound group; the reader stands behind it.
    Group,
    /// Nothing.
    End,
    /// Bytes that are no sound group; the reader did not move.
    Unsound,
}

/// Reads one segment.
pub(super) struct SegmentReader {
    file: File,
    path: PathBuf,
    segment: u64,
    offset: u64,
    end: u64,
    group: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment up to `end`, or whole; none if its first record is not sound.
    pub(super) fn open(
        dir: &Path,
        segment: u64,
        end: Option<u64>,
        keys: &Keys,
    ) -> Result<Option<(Self, Checkpoint)>> {
        let path = segment_path(dir, segment);
        let file = private_file::open(&path, false)?;
        let error = |error| io_error("read", &path, error);
        let length = file.metadata().map_err(error)?.len();
        let Some((checkpoint, offset)) = Checkpoint::read(&file, segment, keys).map_err(error)?
        else {
            return Ok(None);
        };
        let end = end.unwrap_or(length);
        let reader = Self { file, path, segment, offset, end, group: Vec::new() };
        Ok(Some((reader, checkpoint)))
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Reads the next group, checks it against `chain`, and shows its entries.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the file cannot be read. And whatever `visit` answers.
    pub(super) fn next(
        &mut self,
        chain: &mut Chain,
        keys: &Keys,
        visit: &mut dyn FnMut(&Entry<'_>, EntryHash) -> Result<()>,
    ) -> Result<Step> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        if !self.fill().map_err(|error| io_error("read", &self.path, error))? {
            return Ok(Step::Unsound);
        }
        let place = (self.segment, self.offset);
        let Some(entries) = check_group(place, &self.group, chain, keys) else {
            return Ok(Step::Unsound);
        };
        if !chain.advance(&entries) {
            return Ok(Step::Unsound);
        }
        for (entry, hash) in &entries {
            visit(entry, *hash)?;
        }
        drop(entries);
        self.offset += self.group.len() as u64;
        Ok(Step::Group)
    }

    /// Reads the bytes of the group at the present place, if there is a whole one.
    fn fill(&mut self) -> io::Result<bool> {
        let mut header = [0; GROUP_HEADER_BYTES];
        if !read_whole(&self.file, &mut header, self.offset)? {
            return Ok(false);
        }
        let whole = claimed_length(&header).map(|length| GROUP_HEADER_BYTES + length + MAC_BYTES);
        let left = self.end.saturating_sub(self.offset);
        let Some(whole) = whole.filter(|whole| *whole as u64 <= left) else {
            return Ok(false);
        };
        self.group.resize(whole, 0);
        read_whole(&self.file, &mut self.group, self.offset)
    }

    /// Whether the bytes from the present place to the end look like a write that a crash cut
    /// short: they end inside the group, or hold a sector that was never written. Hashes and
    /// ciphertext fill every sector of a whole group, so a flipped bit looks like neither.
    pub(super) fn is_torn(&self) -> Result<bool> {
        let left = self.end.saturating_sub(self.offset);
        let most = (GROUP_HEADER_BYTES + GROUP_BYTES_MAX + MAC_BYTES) as u64;
        let Some(left) = usize::try_from(left).ok().filter(|_| left <= most) else {
            return Ok(false);
        };
        let mut rest = vec![0; left];
        let is_read = read_whole(&self.file, &mut rest, self.offset);
        if !is_read.map_err(|error| io_error("read", &self.path, error))? {
            return Ok(false);
        }
        let claimed = claimed_length(&rest);
        let whole = claimed.map(|length| GROUP_HEADER_BYTES + length + MAC_BYTES);
        let is_last = whole.is_none_or(|whole| rest.len() <= whole);
        let ends_early = match whole {
            Some(whole) => rest.len() < whole,
            None => rest.len() < GROUP_HEADER_BYTES,
        };
        let sector_bytes = SECTOR_BYTES as u64;
        let to_boundary = (sector_bytes - self.offset % sector_bytes) % sector_bytes;
        let to_boundary = usize::try_from(to_boundary).unwrap_or(0).min(rest.len());
        let (first, sectors) = rest.split_at(to_boundary);
        let is_zero = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
        let is_unwritten = is_zero(first) || sectors.chunks(SECTOR_BYTES).any(is_zero);
        Ok(is_last && (ends_early || is_unwritten))
    }
}

/// The body length a group claims, if its header agrees with itself.
fn claimed_length(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    let complement = u32::from_be_bytes(*rest.first_chunk()?);
    let is_sound = length == !complement && length as usize <= GROUP_BYTES_MAX + ENTRY_BYTES_MAX;
    is_sound.then_some(length as usize)
}

/// The entries of a group and their hashes, if they follow `chain` and the MAC is right.
fn check_group<'a>(
    place: (u64, u64),
    group: &'a [u8],
    chain: &Chain,
    keys: &Keys,
) -> Option<Vec<(Entry<'a>, EntryHash)>> {
    let (header, rest) = group.split_first_chunk::<GROUP_HEADER_BYTES>()?;
    let (mut body, found_mac) = rest.split_last_chunk::<MAC_BYTES>()?;
    let (first_sequence, count) = {
        let (_, rest) = header.split_first_chunk::<8>()?;
        let (count, sequence) = rest.split_first_chunk()?;
        (u64::from_be_bytes(*sequence.first_chunk()?), u32::from_be_bytes(*count))
    };
    let mut head = chain.head;
    let mut sequence = chain.next_sequence;
    let mut entries = Vec::new();
    if first_sequence != sequence {
        return None;
    }
    while !body.is_empty() {
        let (entry, rest) = Entry::split(body)?;
        if entry.link.previous != head || entry.link.sequence != sequence {
            return None;
        }
        head = entry.hash();
        sequence = sequence.checked_add(1)?;
        entries.push((entry, head));
        body = rest;
    }
    let made = group_mac(place, header, &head, keys);
    let is_sound = entries.len() == count as usize && bool::from(made.ct_eq(found_mac));
    is_sound.then_some(entries)
}

/// Fills `bytes` from `offset` on; false if the file ends before.
fn read_whole(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
