//! A closed log under strangers at its files, and after crashes.

use std::fs;
use std::path::PathBuf;

use super::super::segment::segment_path;
use super::super::tests::{ADA, LAZY, SMALL, event, open};
use super::*;
use crate::audit::AuditSink;
use crate::fixtures::{flip, mac_key};

/// A log of several segments, closed.
fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), SMALL);
    (0..20).for_each(|request| log.record(&[event(ADA, request)]).unwrap());
    dir
}

fn files(dir: &tempfile::TempDir) -> (PathBuf, Vec<u64>) {
    let files = dir.path().join(AUDIT_DIR);
    let numbers = segments(&files).unwrap();
    assert!(numbers.len() > 3, "{numbers:?}");
    (files, numbers)
}

fn verify(dir: &tempfile::TempDir) -> AuditVerdict {
    verify_closed(dir.path(), &mac_key()).unwrap()
}

#[test]
fn a_log_as_it_was_closed_is_sound_and_stays_untouched() {
    let dir = closed();
    let (path, numbers) = files(&dir);
    let read = || {
        let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|file| (fs::read(&file).unwrap(), file)).collect();
        files.sort();
        files
    };
    let before = read();
    let verdict = verify(&dir);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!((verdict.segments, verdict.entries), (numbers.len() as u64, 20));
    assert_eq!((verdict.first_sequence, verdict.torn_bytes), (1, 0));
    assert!(read() == before);
}

#[test]
fn a_flipped_bit_is_found_in_every_file() {
    let dir = closed();
    let (path, numbers) = files(&dir);
    let segments = numbers.iter().map(|number| segment_path(&path, *number));
    for file in segments.chain([head_path(&path)]) {
        let whole = fs::read(&file).unwrap();
        for bit in (0..whole.len() * 8).step_by(41) {
            let mut bytes = whole.clone();
            flip(&mut bytes, bit);
            fs::write(&file, &bytes).unwrap();
            let verdict = verify(&dir);
            assert!(!verdict.is_sound(), "bit {bit} of {}", file.display());
        }
        fs::write(&file, &whole).unwrap();
    }
    assert!(verify(&dir).is_sound());
}

#[test]
fn a_cut_tail_is_found_wherever_it_was_cut() {
    let dir = closed();
    let (path, numbers) = files(&dir);
    let last = segment_path(&path, *numbers.last().unwrap());
    let whole = fs::read(&last).unwrap();
    for kept in (0..whole.len()).step_by(13) {
        fs::write(&last, &whole[..kept]).unwrap();
        let verdict = verify(&dir);
        assert!(!verdict.is_sound(), "{kept} of {} bytes kept", whole.len());
    }
    fs::remove_file(&last).unwrap();
    assert!(!verify(&dir).is_sound(), "the last segment is gone");
}

#[test]
fn missing_segments_and_heads_are_found() {
    for gone in [0, 1] {
        let dir = closed();
        let (path, numbers) = files(&dir);
        fs::remove_file(segment_path(&path, numbers[gone])).unwrap();
        let verdict = verify(&dir);
        assert_eq!(verdict.damage[0].what, "it is missing, or its beginning is damaged");
    }
    let dir = closed();
    let (path, numbers) = files(&dir);
    fs::remove_file(head_path(&path)).unwrap();
    assert_eq!(verify(&dir).damage[0].what, "the head is damaged or missing");
    for number in numbers {
        fs::remove_file(segment_path(&path, number)).unwrap();
    }
    assert_eq!(verify_closed(dir.path(), &mac_key()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_a_crash_leaves_is_no_damage_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1)]).unwrap();
    drop(log);
    let path = dir.path().join(AUDIT_DIR);
    let stale = fs::read(head_path(&path)).unwrap();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 2)]).unwrap();
    drop(log);
    // A head that was not flushed, and a group of which a part was.
    let segment = segment_path(&path, 1);
    let mut bytes = fs::read(&segment).unwrap();
    let group = bytes[bytes.len() - 100..].to_vec();
    fs::write(head_path(&path), &stale).unwrap();
    let verdict = verify(&dir);
    assert_eq!((verdict.entries, verdict.torn_bytes, verdict.is_sound()), (2, 0, true));
    bytes.extend_from_slice(&group[..10]);
    fs::write(&segment, &bytes).unwrap();
    let verdict = verify(&dir);
    assert_eq!((verdict.entries, verdict.torn_bytes, verdict.is_sound()), (2, 10, true));
}

#[test]
fn a_log_that_is_open_is_left_alone_and_another_key_verifies_nothing() {
    let dir = closed();
    let other = MacSecret::fill_with(|slot| {
        *slot = [7; 32];
        Ok(())
    });
    assert!(!verify_closed(dir.path(), &other.unwrap()).unwrap().is_sound());
    let log = open(dir.path(), LAZY);
    let refused = verify_closed(dir.path(), &mac_key()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    drop(log);
}
