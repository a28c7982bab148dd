//! The journal under crashes and damage, and the root file.

use std::fs;

use super::*;
use crate::fixtures::{flip, mac_key};
use crate::lifecycle::KeyState;
use crate::record::tests::record;
use crate::types::TenantKeyId;

const IDENTITY: ([u8; 16], u32) = ([3; 16], 1);

/// A record of key number `key`.
fn key_record(key: u32, version: u64) -> KeyRecord {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&key.to_be_bytes());
    KeyRecord { id: TenantKeyId::from_bytes(id), version, ..record(1) }
}

fn record_of(key: u32, version: u64) -> JournalRecord {
    key_record(key, version).into()
}

fn all(living: Living) -> Vec<JournalRecord> {
    let keys = living.keys.into_iter().map(JournalRecord::Key);
    keys.chain(living.directory.into_iter().map(JournalRecord::Directory)).collect()
}

struct Journal {
    dir: tempfile::TempDir,
    ends: Vec<usize>,
}

impl Journal {
    /// A journal of one entry per key.
    fn of(keys: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let mut keyring = Keyring::create(&path, IDENTITY, &mac_key()).unwrap();
        let mut ends = vec![JOURNAL_HEADER_BYTES];
        for key in 0..keys {
            keyring.append(&[record_of(key, 1)], 0, &mac_key()).unwrap();
            ends.push(usize::try_from(keyring.end).unwrap());
        }
        Self { dir, ends }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keyring")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn set(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).unwrap();
    }

    fn open(&self) -> Result<(Keyring, Vec<JournalRecord>)> {
        let (keyring, living) = Keyring::open(&self.path(), IDENTITY, &mac_key())?;
        Ok((keyring, all(living)))
    }

    #[track_caller]
    fn check_keys(&self, keys: u32) {
        let (_, records) = self.open().unwrap();
        let want: Vec<_> = (0..keys).map(|key| record_of(key, 1)).collect();
        assert_eq!(records, want);
    }

    #[track_caller]
    fn check_corrupt(&self) {
        assert_eq!(self.open().err().map(|error| error.kind()), Some(ErrorKind::Corrupt));
    }
}

#[test]
fn entries_read_back() {
    Journal::of(0).check_keys(0);
    Journal::of(5).check_keys(5);
}

#[test]
fn an_entry_cut_short_is_dropped_wherever_the_cut_is() {
    let journal = Journal::of(3);
    let whole = journal.bytes();
    for length in journal.ends[2]..whole.len() {
        journal.set(&whole[..length]);
        journal.check_keys(2);
        assert_eq!(journal.bytes().len(), journal.ends[2], "the torn tail is gone");
    }
}

#[test]
fn the_journal_goes_on_after_a_torn_tail() {
    let journal = Journal::of(3);
    let whole = journal.bytes();
    journal.set(&whole[..whole.len() - 7]);
    let (mut keyring, _) = journal.open().unwrap();
    keyring.append(&[record_of(2, 1), record_of(3, 1)], 0, &mac_key()).unwrap();
    drop(keyring);
    journal.check_keys(4);
}

#[test]
fn sectors_that_were_never_written_are_a_torn_tail() {
    // One entry of several sectors, of which a crash kept some.
    let journal = Journal::of(2);
    let (mut keyring, _) = journal.open().unwrap();
    let start = usize::try_from(keyring.end).unwrap();
    let batch: Vec<_> = (2..20).map(|key| record_of(key, 1)).collect();
    keyring.append(&batch, 0, &mac_key()).unwrap();
    drop(keyring);
    let whole = journal.bytes();
    let first_sector = start.div_ceil(SECTOR_BYTES);
    for sector in first_sector..whole.len() / SECTOR_BYTES {
        let mut bytes = whole.clone();
        bytes[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        journal.set(&bytes);
        journal.check_keys(2);
    }
    // All of it, so that only the file's length survived.
    let mut bytes = whole.clone();
    bytes[start..].fill(0);
    journal.set(&bytes);
    journal.check_keys(2);
    journal.set(&whole);
    journal.check_keys(20);
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_torn_tail() {
    let journal = Journal::of(3);
    let whole = journal.bytes();
    // Every bit against the bytes alone, and some through the file.
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        flip(&mut bytes, bit);
        let scanned = read_header(&bytes, IDENTITY, &mac_key())
            .map(|place| scan_entries(&bytes, place, &mac_key()));
        let is_sound = scanned.is_some_and(|scan| scan.is_ok());
        assert!(!is_sound, "bit {bit} went unnoticed");
        if bit % 501 == 0 {
            journal.set(&bytes);
            journal.check_corrupt();
            assert_eq!(journal.bytes(), bytes, "a damaged journal is left as it is");
        }
    }
}

#[test]
fn a_hole_before_sound_entries_is_damage() {
    let journal = Journal::of(12);
    let mut bytes = journal.bytes();
    bytes[2 * SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
    journal.set(&bytes);
    journal.check_corrupt();
}

#[test]
fn entries_cannot_be_taken_out_moved_or_repeated() {
    let journal = Journal::of(3);
    let whole = journal.bytes();
    let entry = |index: usize| &whole[journal.ends[index]..journal.ends[index + 1]];
    let header = &whole[..JOURNAL_HEADER_BYTES];
    let orders: [&[usize]; 4] = [&[0, 2], &[1, 0, 2], &[0, 1, 1, 2], &[1, 2]];
    for order in orders {
        let entries: Vec<_> = order.iter().map(|index| entry(*index)).collect();
        journal.set(&[header, &entries.concat()].concat());
        journal.check_corrupt();
    }
}

#[test]
fn entries_of_another_generation_or_keyring_are_refused() {
    let journal = Journal::of(2);
    let (mut keyring, records) = journal.open().unwrap();
    let old = journal.bytes();
    keyring.compact(&records, &mac_key()).unwrap();
    drop(keyring);
    journal.check_keys(2);
    let new = journal.bytes();
    journal.set(&[&new[..JOURNAL_HEADER_BYTES], &old[JOURNAL_HEADER_BYTES..]].concat());
    journal.check_corrupt();
    journal.set(&new);
    for identity in [([4; 16], 1), ([3; 16], 2)] {
        let error = Keyring::open(&journal.path(), identity, &mac_key()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn the_last_record_of_a_key_counts() {
    let journal = Journal::of(2);
    let (mut keyring, _) = journal.open().unwrap();
    let changed = JournalRecord::Key(KeyRecord { state: KeyState::Disabled, ..key_record(0, 2) });
    keyring.append(std::slice::from_ref(&changed), 0, &mac_key()).unwrap();
    drop(keyring);
    let (keyring, records) = journal.open().unwrap();
    assert_eq!(records, [changed, record_of(1, 1)]);
    assert_eq!(keyring.dead_bytes, record_of(0, 1).encoded_bytes());
}

#[test]
fn a_gap_in_a_keys_history_is_damage() {
    let journal = Journal::of(1);
    let (mut keyring, _) = journal.open().unwrap();
    keyring.append(&[record_of(0, 3)], 0, &mac_key()).unwrap();
    drop(keyring);
    journal.check_corrupt();
}

#[test]
fn a_crash_during_compaction_leaves_the_old_journal() {
    let journal = Journal::of(2);
    fs::write(journal.dir.path().join("keyring.new"), b"half of a new journal").unwrap();
    let (mut keyring, records) = journal.open().unwrap();
    assert_eq!(records.len(), 2);
    keyring.compact(&records, &mac_key()).unwrap();
    keyring.append(&[record_of(2, 1)], 0, &mac_key()).unwrap();
    drop(keyring);
    journal.check_keys(3);
}

#[test]
fn compaction_is_wanted_when_more_is_dead_than_alive() {
    let journal = Journal::of(1);
    let (mut keyring, _) = journal.open().unwrap();
    assert!(!keyring.wants_compaction());
    let long = |version| JournalRecord::Key(KeyRecord { version, ..record(256) });
    let mut version = 2;
    while !keyring.wants_compaction() {
        keyring.append(&[long(version)], long(version - 1).encoded_bytes(), &mac_key()).unwrap();
        version += 1;
    }
    assert!(keyring.end > COMPACT_BYTES_MIN);
    keyring.compact(&[record_of(0, version - 1)], &mac_key()).unwrap();
    assert!(keyring.end < 1024);
    assert!(!keyring.wants_compaction());
}

#[test]
fn a_failed_write_fences_the_keyring() {
    let journal = Journal::of(1);
    let (mut keyring, _) = journal.open().unwrap();
    let writable = std::mem::replace(&mut keyring.file, File::open(journal.path()).unwrap());
    let error = keyring.append(&[record_of(1, 1)], 0, &mac_key()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    keyring.file = writable;
    let error = keyring.append(&[record_of(1, 1)], 0, &mac_key()).unwrap_err();
    assert!(error.advice().is_some_and(|advice| advice.contains("restart")));
    drop(keyring);
    journal.check_keys(1);
}

#[test]
fn create_does_not_write_over_keys() {
    let journal = Journal::of(1);
    let error = Keyring::create(&journal.path(), IDENTITY, &mac_key()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    journal.check_keys(1);
}

#[test]
fn batches_fit_entries() {
    let records: Vec<_> = (0..70_000).map(|key| record_of(key, 1)).collect();
    let sizes: Vec<_> = batches(&records).map(<[JournalRecord]>::len).collect();
    assert_eq!(sizes, [59_493, 10_507]);
    assert_eq!(batches(&[]).count(), 0);
}

#[test]
fn a_root_file_reads_back_and_shows_every_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.sealed");
    let node_secret = record(1).materials.remove(0).wrapped.unwrap();
    let root_file = RootFile { epoch: 1, keyring_id: [3; 16], sealed: vec![7; 128], node_secret };
    root_file.write(&path).unwrap();
    assert_eq!(RootFile::read(&path).unwrap(), root_file);
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        flip(&mut bytes, bit);
        assert_eq!(RootFile::decode(&bytes), None, "bit {bit}");
    }
    for length in 0..whole.len() {
        assert_eq!(RootFile::decode(&whole[..length]), None);
    }
}
