//! The keyring: the sealed root key, and the journal of tenant keys and of their directory.
//!
//! ```text
//! keys/root.sealed   8  magic "KLUISRT1"   4  epoch   16  keyring id   4  length   sealed root key
//!                  136  node secret, wrap kind 7   32  SHA-256 of all before
//! keys/keyring.E     8  magic "KLUISKR1"  16  keyring id   4  epoch   4  generation   32  MAC
//!         then each: 4  body length   4  its complement   8  sequence number   body   32  MAC
//!              body: each record as  1  type (1 tenant key, 2 directory)   4  length   record
//! ```
//! A change appends one journal entry and flushes it; an entry is all or nothing. The last record
//! of a key counts. [`Keyring::compact`] writes the living records to a new file of the next
//! generation and renames it into place.
//! Owns: both files. Knows nothing of: what a record says, slots, gates.
//!
//! Invariants
//! - Entries are authenticated under the root key with their place; none can be forged, changed,
//!   moved or taken out of the middle.
//! - An entry that a crash cut short was never acknowledged and is dropped. Any other damage is an
//!   error: a flipped bit in an acknowledged entry must not cost a tenant its key.
//! - It never grows beyond what is read again, and what adds leaves a quarter of that to what ends.
//! - After a failed write or flush nothing more is written; a restart reads what is really there.
//!   Not detected: an older copy of the whole file (docs/KEYS.md, "What an operator can do").

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::derive::mac;
use crate::directory::{DIRECTORY_RECORD_BYTES_MAX, DirectoryRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file::{self, io_error};
use crate::record::{KeyRecord, RECORD_BYTES_MAX};
use crate::secret::MacSecret;
use crate::types::TenantId;
use crate::wrap::{WRAPPED_KEY_COMMITTED_BYTES, WrappedKey};

/// Longest body of one entry: 59,000 new tenant keys in one flush.
pub(crate) const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest journal that is read: a million tenant keys, with room for their history.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// The part of it, in quarters, that adding may fill. The rest is for switching off, for deleting
/// and destroying, and for the counters of what leaves.
const ADDING_QUARTERS: u64 = 3;
/// Dead bytes below which compaction is not worth its writes.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;
/// The unit in which disks lose writes.
const SECTOR_BYTES: usize = 512;

const ROOT_MAGIC: &[u8; 8] = b"KLUISRT1";
const JOURNAL_MAGIC: &[u8; 8] = b"KLUISKR1";
const JOURNAL_HEADER_BYTES: usize = 64;
const ENTRY_HEADER_BYTES: usize = 16;
const MAC_BYTES: usize = 32;
/// Longest sealed root key: room for key stores whose answers are not of our making.
const SEALED_BYTES_MAX: usize = 64 * 1024;

const TYPE_KEY: u8 = 1;
const TYPE_DIRECTORY: u8 = 2;

/// Bytes of an entry beside its records.
const ENTRY_OVERHEAD_BYTES: u64 = (ENTRY_HEADER_BYTES + MAC_BYTES) as u64;
/// Bytes of a record in an entry beside its encoding: type and length.
pub(crate) const RECORD_HEAD_BYTES: u64 = 5;

/// What room of the journal a change may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Not the last quarter: it adds keys, materials or values.
    Adding,
    /// All of it: it ends or takes away something, or counts what cannot be taken back.
    Ending,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalRecord {
    Directory(DirectoryRecord),
    Key(KeyRecord),
}

impl JournalRecord {
    fn encode_to(&self, body: &mut Vec<u8>) {
        let mut encoded = Vec::new();
        let code = match self {
            Self::Directory(record) => {
                record.encode_to(&mut encoded);
                TYPE_DIRECTORY
            }
            Self::Key(record) => {
                record.encode_to(&mut encoded);
                TYPE_KEY
            }
        };
        let length = u32::try_from(encoded.len()).expect("a record is at most 160 KiB");
        body.push(code);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&encoded);
    }

    /// Bytes in an entry's body.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        let mut body = Vec::new();
        self.encode_to(&mut body);
        body.len() as u64
    }
}

/// Bytes of a key's record in an entry.
pub(crate) fn key_record_bytes(record: &KeyRecord) -> u64 {
    let mut encoded = Vec::new();
    record.encode_to(&mut encoded);
    RECORD_HEAD_BYTES + encoded.len() as u64
}

impl From<KeyRecord> for JournalRecord {
    fn from(record: KeyRecord) -> Self {
        Self::Key(record)
    }
}

/// The last record of every key and of every name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Living {
    /// In the order of creation.
    pub(crate) keys: Vec<KeyRecord>,
    pub(crate) directory: Vec<DirectoryRecord>,
}

/// The contents of `root.sealed`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RootFile {
    pub(crate) epoch: u32,
    pub(crate) keyring_id: [u8; 16],
    pub(crate) sealed: Vec<u8>,
    pub(crate) node_secret: WrappedKey,
}

impl RootFile {
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let length = u32::try_from(self.sealed.len()).expect("a sealed root key is short");
        let mut bytes = ROOT_MAGIC.to_vec();
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.keyring_id);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.sealed);
        bytes.extend_from_slice(self.node_secret.as_bytes());
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        private_file::replace(path, &bytes).map(drop)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = private_file::read(path, SEALED_BYTES_MAX as u64)?;
        Self::decode(&bytes).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("read {}", path.display()))
                .with_advice("restore root.sealed from its backup")
        })
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(body).as_slice() != checksum {
            return None;
        }
        let (magic, rest) = body.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (keyring_id, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (sealed, node_secret) = rest.split_last_chunk::<WRAPPED_KEY_COMMITTED_BYTES>()?;
        let is_whole = u32::from_be_bytes(*length) as usize == sealed.len();
        let node_secret = WrappedKey::parse(node_secret).ok()?;
        let epoch = u32::from_be_bytes(*epoch);
        let file = Self { epoch, keyring_id: *keyring_id, sealed: sealed.to_vec(), node_secret };
        (magic == ROOT_MAGIC && is_whole).then_some(file)
    }
}

/// What is the same in every entry's MAC.
#[derive(Clone, Copy)]
struct Place {
    keyring_id: [u8; 16],
    epoch: u32,
    generation: u32,
}

impl Place {
    fn header(&self, mac_key: &MacSecret) -> [u8; JOURNAL_HEADER_BYTES] {
        let mut bytes = [0; JOURNAL_HEADER_BYTES];
        let parts = JOURNAL_MAGIC.iter().copied().chain(self.keyring_id);
        let parts = parts.chain(self.epoch.to_be_bytes()).chain(self.generation.to_be_bytes());
        let head: Vec<u8> = parts.collect();
        let header_mac = mac(&mac_key.borrow(), &[b"kms/keyring\0", &head]);
        for (to, from) in bytes.iter_mut().zip(head.into_iter().chain(header_mac)) {
            *to = from;
        }
        bytes
    }

    fn entry_mac(&self, mac_key: &MacSecret, entry_header: &[u8], body: &[u8]) -> [u8; MAC_BYTES] {
        let (epoch, generation) = (self.epoch.to_be_bytes(), self.generation.to_be_bytes());
        let pieces: [&[u8]; 6] =
            [b"kms/entry\0", &self.keyring_id, &epoch, &generation, entry_header, body];
        mac(&mac_key.borrow(), &pieces)
    }

    fn encode_entry(&self, mac_key: &MacSecret, sequence: u64, body: &[u8]) -> Vec<u8> {
        assert!(body.len() <= ENTRY_BYTES_MAX, "the caller splits long entries");
        let length = u32::try_from(body.len()).expect("an entry is at most 16 MiB");
        let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + body.len() + MAC_BYTES);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&(!length).to_be_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        let entry_mac = self.entry_mac(mac_key, &bytes, body);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&entry_mac);
        bytes
    }
}

/// The open journal.
pub(crate) struct Keyring {
    file: File,
    path: PathBuf,
    place: Place,
    next_sequence: u64,
    end: u64,
    /// Bytes of records that a later one replaced.
    dead_bytes: u64,
    bytes_max: u64,
    is_fenced: bool,
}

impl Keyring {
    /// Makes an empty journal. Refuses to write over one that holds keys.
    pub(crate) fn create(
        path: &Path,
        (keyring_id, epoch): ([u8; 16], u32),
        mac_key: &MacSecret,
    ) -> Result<Self> {
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if length > JOURNAL_HEADER_BYTES as u64 {
            let during = format!("make a keyring over {}", path.display());
            return Err(Error::new(ErrorKind::Conflict, during)
                .with_advice("it holds keys: restore root.sealed from its backup instead"));
        }
        let place = Place { keyring_id, epoch, generation: 1 };
        let file = private_file::replace(path, &place.header(mac_key))?;
        Ok(Self::at(file, path, place))
    }

    /// Opens the journal and returns what counts of it.
    pub(crate) fn open(
        path: &Path,
        (keyring_id, epoch): ([u8; 16], u32),
        mac_key: &MacSecret,
    ) -> Result<(Self, Living)> {
        let bytes = private_file::read(path, JOURNAL_BYTES_MAX)?;
        let place = read_header(&bytes, (keyring_id, epoch), mac_key).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("read the header of {}", path.display()))
                .with_advice("restore the keys directory from one backup, whole")
        })?;
        let scan = scan_entries(&bytes, place, mac_key)?;
        let mut keyring = Self::at(private_file::open(path, true)?, path, place);
        keyring.next_sequence = scan.next_sequence;
        keyring.end = scan.end as u64;
        if scan.end < bytes.len() {
            let dropped_bytes = bytes.len() - scan.end;
            tracing::warn!(dropped_bytes, "dropped a keyring entry that a crash cut short");
            keyring.truncate()?;
        }
        keyring.rewrite(bytes.get(scan.last..scan.end).unwrap_or_default(), scan.last as u64)?;
        let (living, dead_bytes) = latest_records(scan.records)?;
        keyring.dead_bytes = dead_bytes;
        Ok((keyring, living))
    }

    fn at(file: File, path: &Path, place: Place) -> Self {
        let end = JOURNAL_HEADER_BYTES as u64;
        let path = path.to_owned();
        let bytes_max = JOURNAL_BYTES_MAX;
        Self {
            file,
            path,
            place,
            next_sequence: 0,
            end,
            dead_bytes: 0,
            bytes_max,
            is_fenced: false,
        }
    }

    fn truncate(&mut self) -> Result<()> {
        let result = self.file.set_len(self.end).and_then(|()| self.file.sync_all());
        result.map_err(|error| io_error("truncate", &self.path, error))
    }

    /// Writes the last entry once more. If its flush failed, it reads from the page cache and is
    /// not on the disk, and no later flush would bring it there. None follows a failed flush.
    fn rewrite(&self, entry: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(entry, offset)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| io_error("write the last entry again to", &self.path, error))
    }

    /// Refuses after a failed write. Whoever writes a slot first asks this before: an entry whose
    /// flush failed may be durable, and its slot must stay as it is.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_fenced {
            return Err(Error::new(ErrorKind::Unavailable, "write to the keyring after a failure")
                .with_advice("restart the node: the keyring takes no writes until then"));
        }
        Ok(())
    }

    /// Takes no writes until a restart.
    pub(crate) const fn fence(&mut self) {
        self.is_fenced = true;
    }

    /// Whether an entry with so many bytes of records fits.
    pub(crate) const fn fits(&self, record_bytes: u64, room: Room) -> bool {
        let limit = match room {
            Room::Adding => self.bytes_max / 4 * ADDING_QUARTERS,
            Room::Ending => self.bytes_max,
        };
        self.end.saturating_add(record_bytes).saturating_add(ENTRY_OVERHEAD_BYTES) <= limit
    }

    /// Whether compaction would make it shorter by more than it costs.
    pub(crate) const fn can_shrink(&self) -> bool {
        self.dead_bytes >= COMPACT_BYTES_MIN
    }

    /// Makes the journal full at another length.
    #[cfg(test)]
    pub(crate) const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Appends records as one entry and makes it durable. All of them or none. `dead_bytes` of
    /// records are dead then: what these take the place of, and what says that a name is deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: the journal would be longer than what is read again.
    /// [`ErrorKind::Unavailable`]: the write or the flush failed, now or earlier.
    pub(crate) fn append(
        &mut self,
        records: &[JournalRecord],
        dead_bytes: u64,
        mac_key: &MacSecret,
    ) -> Result<()> {
        if self.is_fenced {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "append to the keyring after a failure",
            )
            .with_advice("restart the node: the keyring takes no writes until then"));
        }
        let body = encode_body(records);
        if !self.fits(body.len() as u64, Room::Ending) {
            let during = format!("append {} bytes to a keyring that is full", body.len());
            return Err(Error::new(ErrorKind::Full, during));
        }
        let entry = self.place.encode_entry(mac_key, self.next_sequence, &body);
        // Set first and cleared last: whatever leaves this function early leaves the fence up.
        self.is_fenced = true;
        self.file
            .write_all_at(&entry, self.end)
            .map_err(|error| io_error("append to", &self.path, error))?;
        self.file.sync_data().map_err(|error| io_error("flush", &self.path, error))?;
        self.is_fenced = false;
        self.end += entry.len() as u64;
        self.next_sequence += 1;
        self.dead_bytes += dead_bytes;
        Ok(())
    }

    /// Whether more of the journal is dead than alive.
    pub(crate) const fn wants_compaction(&self) -> bool {
        self.dead_bytes >= COMPACT_BYTES_MIN && self.dead_bytes > self.end / 2
    }

    /// Writes the living records to a new file and puts it in the journal's place.
    pub(crate) fn compact(&mut self, records: &[JournalRecord], mac_key: &MacSecret) -> Result<()> {
        self.is_fenced = true;
        let generation = self.place.generation.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Full, "compact the keyring for the 2^32nd time")
        })?;
        let place = Place { generation, ..self.place };
        let bytes_max = self.bytes_max;
        *self = Self::write(&self.path, place, records, mac_key)?;
        self.bytes_max = bytes_max;
        Ok(())
    }

    /// Writes a whole journal of another epoch, beside the one in use.
    pub(crate) fn write_epoch(
        path: &Path,
        (keyring_id, epoch): ([u8; 16], u32),
        records: &[JournalRecord],
        mac_key: &MacSecret,
    ) -> Result<Self> {
        Self::write(path, Place { keyring_id, epoch, generation: 1 }, records, mac_key)
    }

    fn write(
        path: &Path,
        place: Place,
        records: &[JournalRecord],
        mac_key: &MacSecret,
    ) -> Result<Self> {
        let mut bytes = place.header(mac_key).to_vec();
        let mut sequence = 0;
        for batch in batches(records) {
            bytes.extend(place.encode_entry(mac_key, sequence, &encode_body(batch)));
            sequence += 1;
        }
        let mut keyring = Self::at(private_file::replace(path, &bytes)?, path, place);
        keyring.end = bytes.len() as u64;
        keyring.next_sequence = sequence;
        Ok(keyring)
    }
}

/// Cuts records into groups that fit one entry each.
pub(crate) fn batches(records: &[JournalRecord]) -> impl Iterator<Item = &[JournalRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|record| {
            bytes += record.encoded_bytes();
            bytes <= ENTRY_BYTES_MAX as u64
        });
        let (batch, tail) = rest.split_at(fitting.count());
        rest = tail;
        (!batch.is_empty()).then_some(batch)
    })
}

fn encode_body(records: &[JournalRecord]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        record.encode_to(&mut body);
    }
    body
}

fn decode_body(body: &[u8]) -> Result<Vec<JournalRecord>> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "read the records of a keyring entry");
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (&[code], tail) = rest.split_first_chunk().ok_or_else(corrupt)?;
        let (length, tail) = tail.split_first_chunk().ok_or_else(corrupt)?;
        let length = u32::from_be_bytes(*length) as usize;
        let bytes_max = RECORD_BYTES_MAX.max(DIRECTORY_RECORD_BYTES_MAX);
        let split = tail.split_at_checked(length).filter(|_| length <= bytes_max);
        let (encoded, tail) = split.ok_or_else(corrupt)?;
        records.push(match code {
            TYPE_DIRECTORY => JournalRecord::Directory(DirectoryRecord::decode(encoded)?),
            TYPE_KEY => JournalRecord::Key(KeyRecord::decode(encoded)?),
            _ => return Err(corrupt()),
        });
        rest = tail;
    }
    Ok(records)
}

fn read_header(
    bytes: &[u8],
    (keyring_id, epoch): ([u8; 16], u32),
    mac_key: &MacSecret,
) -> Option<Place> {
    let header = bytes.first_chunk::<JOURNAL_HEADER_BYTES>()?;
    let (_, rest) = header.split_first_chunk::<28>()?;
    let generation = u32::from_be_bytes(*rest.first_chunk()?);
    let place = Place { keyring_id, epoch, generation };
    bool::from(place.header(mac_key).ct_eq(header)).then_some(place)
}

/// The entries of a journal, up to its sound end.
struct Scan {
    records: Vec<JournalRecord>,
    next_sequence: u64,
    /// Where the last entry begins, and where it ends.
    last: usize,
    end: usize,
}

fn scan_entries(bytes: &[u8], place: Place, mac_key: &MacSecret) -> Result<Scan> {
    let (last, end) = (JOURNAL_HEADER_BYTES, JOURNAL_HEADER_BYTES);
    let mut scan = Scan { records: Vec::new(), next_sequence: 0, last, end };
    while let Some(rest) = bytes.get(scan.end..).filter(|rest| !rest.is_empty()) {
        let corrupt = |what: &str| {
            let during = format!("read keyring entry {}: {what}", scan.next_sequence);
            Error::new(ErrorKind::Corrupt, during)
                .with_advice("restore the keys directory from its backup; do not delete anything")
        };
        match read_entry(rest, place, mac_key) {
            Some(entry) if entry.sequence == scan.next_sequence => {
                scan.records.extend(decode_body(entry.body)?);
                scan.next_sequence += 1;
                scan.last = scan.end;
                scan.end += entry.bytes;
            }
            Some(_) => return Err(corrupt("an entry before it is missing")),
            None if holds_entry_later(rest, place, mac_key) => {
                return Err(corrupt("it is damaged, and later ones are sound"));
            }
            None if is_torn(rest, scan.end) => break,
            None => return Err(corrupt("it is whole, and damaged")),
        }
    }
    Ok(scan)
}

struct Entry<'a> {
    sequence: u64,
    body: &'a [u8],
    bytes: usize,
}

/// The length an entry claims, if its header agrees with itself.
fn claimed_length(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    let complement = u32::from_be_bytes(*rest.first_chunk()?);
    let is_sound = length == !complement && length as usize <= ENTRY_BYTES_MAX;
    is_sound.then_some(length as usize)
}

fn read_entry<'a>(bytes: &'a [u8], place: Place, mac_key: &MacSecret) -> Option<Entry<'a>> {
    let length = claimed_length(bytes)?;
    let (header, rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
    let sequence = u64::from_be_bytes(*header.last_chunk()?);
    let (body, rest) = rest.split_at_checked(length)?;
    let found_mac = rest.first_chunk::<MAC_BYTES>()?;
    let entry_mac = place.entry_mac(mac_key, header, body);
    let bytes = ENTRY_HEADER_BYTES + length + MAC_BYTES;
    bool::from(entry_mac.ct_eq(found_mac)).then_some(Entry { sequence, body, bytes })
}

/// Whether a sound entry begins anywhere behind the first byte.
fn holds_entry_later(bytes: &[u8], place: Place, mac_key: &MacSecret) -> bool {
    let starts = 1..bytes.len().saturating_sub(ENTRY_HEADER_BYTES + MAC_BYTES);
    starts
        .into_iter()
        .filter_map(|start| bytes.get(start..))
        .any(|rest| claimed_length(rest).is_some() && read_entry(rest, place, mac_key).is_some())
}

/// Whether the bytes at the journal's end look like an append that a crash cut short: the file
/// ends inside the entry, or holds a sector that was never written. Ciphertext and MACs fill every
/// sector of a whole entry, so a flipped bit does not look like either.
fn is_torn(rest: &[u8], offset: usize) -> bool {
    let ends_early = match claimed_length(rest) {
        Some(length) => rest.len() < ENTRY_HEADER_BYTES + length + MAC_BYTES,
        None => rest.len() < ENTRY_HEADER_BYTES,
    };
    let to_boundary = (SECTOR_BYTES - offset % SECTOR_BYTES) % SECTOR_BYTES;
    let (first, sectors) = rest.split_at(to_boundary.min(rest.len()));
    let is_zero = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
    ends_early || is_zero(first) || sectors.chunks(SECTOR_BYTES).any(is_zero)
}

/// Keeps the last record of every key and name, checks the chains of versions, and counts dead
/// bytes.
fn latest_records(records: Vec<JournalRecord>) -> Result<(Living, u64)> {
    let mut key_places = HashMap::new();
    let mut name_places: HashMap<(TenantId, Vec<u8>), usize> = HashMap::new();
    let mut living = Living::default();
    let mut dead_bytes = 0;
    for record in records {
        match record {
            JournalRecord::Directory(record) => {
                let next = living.directory.len();
                let is_deletion = record.is_deletion();
                let bytes = RECORD_HEAD_BYTES + record.encoded_bytes();
                dead_bytes += if is_deletion { bytes } else { 0 };
                let place =
                    *name_places.entry((record.tenant, record.name.clone())).or_insert(next);
                let Some(held) = living.directory.get_mut(place) else {
                    living.directory.push(record);
                    continue;
                };
                if record.version != held.version + 1 {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        "read the history of a name in the key directory",
                    ));
                }
                let old = std::mem::replace(held, record);
                if !old.is_deletion() {
                    dead_bytes += RECORD_HEAD_BYTES + old.encoded_bytes();
                }
            }
            JournalRecord::Key(record) => {
                let place = *key_places.entry(record.id).or_insert(living.keys.len());
                let Some(held) = living.keys.get_mut(place) else {
                    living.keys.push(record);
                    continue;
                };
                if record.version != held.version + 1 || record.tenant != held.tenant {
                    let during = format!("read the history of tenant key {}", record.id);
                    return Err(Error::new(ErrorKind::Corrupt, during));
                }
                let old = std::mem::replace(held, record);
                dead_bytes += JournalRecord::Key(old).encoded_bytes();
            }
        }
    }
    Ok((living, dead_bytes))
}

#[cfg(test)]
mod tests;
