//! The audit log under crashes, strangers at the files, full disks and many callers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use super::entry::Entry;
use super::read::check_all;
use super::segment::{Head, Keys, SegmentReader, Step, head_path, segment_path, segments};
use super::writer::{Bounds, Writer};
use super::*;
use crate::env::{Env, ManualClock, SeededRng};
use crate::fixtures::{flip, kms, mac_key, purpose, ramp, tenant_key_id};
use crate::gate::JobId;
use crate::private_file;

pub(super) const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);
const NOW_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Nothing is flushed unless somebody waits for it.
pub(super) const LAZY: Bounds = Bounds { flush_ms: 3_600_000, ..Bounds::NODE };
/// A segment holds a handful of entries.
pub(super) const SMALL: Bounds = Bounds { segment_bytes: 1500, ..LAZY };

fn env() -> Env {
    Env::seeded(1, NOW_MS)
}

pub(super) fn open(dir: &Path, bounds: Bounds) -> AuditLog {
    AuditLog::open_with(dir, &mac_key(), &env(), bounds).unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn files(dir: &Path) -> PathBuf {
    dir.join("audit")
}

pub(super) fn event(tenant: TenantId, request: usize) -> AuditEvent {
    let purpose = Purpose { request_id: format!("REQUEST-{request:04}").into(), ..purpose(tenant) };
    let access = Access::in_bucket(KeyUse::Read, ramp(0x20)).of_version(ramp(0x40));
    AuditEvent::of_permit(&purpose, tenant_key_id(), access, AuditOutcome::Done)
}

fn requests(log: &AuditLog, tenant: TenantId) -> Vec<String> {
    let records = log.read(tenant, 0, usize::MAX).unwrap();
    records.into_iter().map(|record| record.request_id).collect()
}

fn names(range: impl Iterator<Item = usize>) -> Vec<String> {
    range.map(|request| format!("REQUEST-{request:04}")).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(files(to)).unwrap();
    fs::set_permissions(files(to), fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(files(from)).unwrap().map(std::result::Result::unwrap) {
        fs::copy(entry.path(), files(to).join(entry.file_name())).unwrap();
    }
}

/// Checks files that nobody has open, against the head they should have.
fn check(dir: &Path, head: &Head) -> AuditVerdict {
    check_all(&files(dir), &Keys::derive(&mac_key()).unwrap(), head).unwrap()
}

fn head(dir: &Path) -> Head {
    Head::read(&files(dir), &Keys::derive(&mac_key()).unwrap()).unwrap().unwrap()
}

#[test]
fn entries_are_chained_by_node_and_by_tenant() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1), event(BOB, 2)]).unwrap();
    log.note(event(ADA, 3)).unwrap();
    log.record(&[event(ADA, 4)]).unwrap();
    let ada = log.read(ADA, 0, 10).unwrap();
    assert_eq!(requests(&log, ADA), names([1, 3, 4].into_iter()));
    let numbers: Vec<_> = ada.iter().map(|r| (r.header.sequence, r.header.node_sequence)).collect();
    assert_eq!(numbers, [(1, 1), (2, 3), (3, 4)]);
    assert_eq!(ada[0].header.previous_hash, [0; 32]);
    assert_eq!(ada[1].header.previous_hash, ada[0].header.entry_hash);
    assert_eq!(ada[2].header.previous_hash, ada[1].header.entry_hash);
    let first = &ada[0];
    assert_eq!(first.principal, purpose(ADA).principal.as_str());
    assert_eq!(first.reason, Some(Reason::CustomerInitiated));
    assert_eq!((first.action.as_str(), first.access.version), ("kluis:Test", Some(ramp(0x40))));
    assert_eq!((first.header.time_ms, first.header.outcome), (NOW_MS, AuditOutcome::Done));
    let headers: Vec<_> = ada.into_iter().map(|record| record.header).collect();
    assert_eq!(log.headers(ADA, 0, 10).unwrap(), headers);
    assert_eq!(log.headers(ADA, 1, 1).unwrap(), headers[1..2]);
    let verdict = log.verify().unwrap();
    assert_eq!((verdict.entries, verdict.first_sequence), (4, 1));
    assert!(verdict.is_sound(), "{verdict:?}");
}

#[test]
fn a_tenant_reads_its_own_entries_only() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1), event(BOB, 2), event(ADA, 3)]).unwrap();
    assert_eq!(requests(&log, BOB), names([2].into_iter()));
    assert_eq!(requests(&log, TenantId::from_bytes([0xcc; 16])), Vec::<String>::new());
    assert_eq!(log.read(BOB, 0, 9).unwrap()[0].header.sequence, 1, "no hint of Ada's two");
}

#[test]
fn the_log_goes_on_after_opening_again() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1)]).unwrap();
    log.note(event(ADA, 2)).unwrap();
    drop(log);
    let log = open(dir.path(), LAZY);
    assert_eq!(log.damage(), None);
    log.record(&[event(ADA, 3)]).unwrap();
    assert_eq!(requests(&log, ADA), names(1..4));
    assert!(log.verify().unwrap().is_sound());
}

#[test]
fn what_was_not_flushed_is_lost_in_a_crash_and_what_was_is_not() {
    let (dir, early, late) = (dir(), dir(), dir());
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1)]).unwrap();
    log.note(event(ADA, 2)).unwrap();
    copy(dir.path(), early.path());
    log.record(&[event(ADA, 3)]).unwrap();
    copy(dir.path(), late.path());
    let early = open(early.path(), LAZY);
    assert_eq!((early.damage(), requests(&early, ADA)), (None, names(1..2)));
    let late = open(late.path(), LAZY);
    assert_eq!((late.damage(), requests(&late, ADA)), (None, names(1..4)));
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    log.record(&[event(ADA, 1), event(BOB, 2)]).unwrap();
    log.record(&[event(ADA, 3)]).unwrap();
    drop(log);
    let head = head(dir.path());
    let sound = check(dir.path(), &head);
    assert_eq!((sound.entries, sound.is_sound()), (3, true));
    for path in [segment_path(&files(dir.path()), 1), head_path(&files(dir.path()))] {
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            flip(&mut damaged, bit);
            fs::write(&path, &damaged).unwrap();
            assert!(!check(dir.path(), &head).is_sound(), "bit {bit} of {}", path.display());
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(check(dir.path(), &head).is_sound());
}

/// A log of two groups: where each ends, and the head as it was after the first.
fn two_groups(dir: &Path) -> (Head, Head) {
    let log = open(dir, LAZY);
    log.record(&[event(ADA, 1)]).unwrap();
    let first = head(dir);
    log.record(&[event(ADA, 2), event(ADA, 3), event(ADA, 4)]).unwrap();
    drop(log);
    (first, head(dir))
}

#[test]
fn a_group_that_a_crash_cut_short_is_dropped() {
    let dir = dir();
    let (first, second) = two_groups(dir.path());
    let (path, head_path) = (segment_path(&files(dir.path()), 1), head_path(&files(dir.path())));
    let whole = fs::read(&path).unwrap();
    let stale = first.encode(&Keys::derive(&mac_key()).unwrap());
    let (begin, end) = (usize::try_from(first.end).unwrap(), usize::try_from(second.end).unwrap());
    let mut torn: Vec<Vec<u8>> =
        (begin + 1..end).step_by(7).map(|cut| whole[..cut].to_vec()).collect();
    let mut unwritten = whole.clone();
    unwritten[512..1024].fill(0);
    torn.push(unwritten);
    for bytes in torn {
        fs::write(&path, &bytes).unwrap();
        fs::write(&head_path, &stale).unwrap();
        let log = open(dir.path(), LAZY);
        assert_eq!(log.damage(), None, "{} bytes", bytes.len());
        log.record(&[event(ADA, 9)]).unwrap();
        assert_eq!(requests(&log, ADA), names([1, 9].into_iter()));
        assert!(log.verify().unwrap().is_sound());
    }
}

#[test]
fn a_log_that_was_cut_or_edited_goes_on_and_never_looks_sound_again() {
    let dir = dir();
    let (first, second) = two_groups(dir.path());
    let path = segment_path(&files(dir.path()), 1);
    let whole = fs::read(&path).unwrap();
    let keys = Keys::derive(&mac_key()).unwrap();
    let begin = usize::try_from(first.end).unwrap();
    let mut flipped = whole.clone();
    flip(&mut flipped, (begin + 300) * 8);
    let mut headless = whole.clone();
    flip(&mut headless, 100);
    let cases = [
        (whole[..begin].to_vec(), names([1, 9].into_iter())),
        (whole[..begin + 9].to_vec(), names([1, 9].into_iter())),
        (flipped, names([1, 9].into_iter())),
        (headless, names([9].into_iter())),
    ];
    for (bytes, left) in cases {
        let _ = fs::remove_file(segment_path(&files(dir.path()), 2));
        fs::write(&path, &bytes).unwrap();
        fs::write(head_path(&files(dir.path())), second.encode(&keys)).unwrap();
        let log = open(dir.path(), LAZY);
        assert_eq!(log.damage().unwrap().segment, 1);
        log.record(&[event(ADA, 9)]).unwrap();
        let newest = log.read(ADA, 4, 9).unwrap();
        assert!(newest[0].header.node_sequence > 4, "no number is used twice");
        assert!(!log.verify().unwrap().is_sound());
        if left.len() == 2 {
            assert_eq!(requests(&log, ADA), left);
        }
        drop(log);
        let log = open(dir.path(), LAZY);
        assert_eq!(log.damage(), None, "it was reported when it was found");
        assert!(!log.verify().unwrap().is_sound(), "and stays on record");
    }
}

#[test]
fn a_missing_log_or_head_is_damage() {
    let dir = dir();
    two_groups(dir.path());
    fs::remove_file(segment_path(&files(dir.path()), 1)).unwrap();
    let log = open(dir.path(), LAZY);
    assert!(log.damage().is_some());
    assert!(!log.verify().unwrap().is_sound());
    drop(log);
    fs::remove_file(head_path(&files(dir.path()))).unwrap();
    assert!(open(dir.path(), LAZY).damage().is_some());
}

#[test]
fn segments_are_rotated_and_each_begins_with_the_chain() {
    let dir = dir();
    let log = open(dir.path(), SMALL);
    for request in 1..=40 {
        let tenant = if request % 2 == 0 { BOB } else { ADA };
        log.record(&[event(tenant, request)]).unwrap();
    }
    let numbers = segments(&files(dir.path())).unwrap();
    assert!(numbers.len() > 5, "{numbers:?}");
    assert_eq!(requests(&log, ADA), names((1..40).step_by(2)));
    let mut paged = Vec::new();
    while let Some(last) = log.read(BOB, paged.len() as u64, 3).unwrap().last() {
        paged.extend(
            log.read(BOB, paged.len() as u64, 3).unwrap().iter().map(|r| r.request_id.clone()),
        );
        assert_eq!(last.header.sequence, paged.len() as u64);
    }
    assert_eq!(paged, names((2..41).step_by(2)));
    let verdict = log.verify().unwrap();
    assert_eq!((verdict.entries, verdict.segments), (40, numbers.len() as u64));
    assert!(verdict.is_sound());
    drop(log);

    // Opening reads the last segment only; the check finds the others.
    let path = segment_path(&files(dir.path()), 2);
    let sound = fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    flip(&mut damaged, sound.len() / 2 * 8);
    fs::write(&path, &damaged).unwrap();
    let log = open(dir.path(), SMALL);
    assert_eq!(log.damage(), None);
    assert_eq!(log.verify().unwrap().damage[0].segment, 2);
    assert_eq!(log.read(ADA, 19, 5).unwrap().len(), 1, "later segments are read without it");
    let first_page = log.read(ADA, 0, 100).unwrap();
    let last = first_page.last().unwrap().header.sequence;
    assert_eq!(log.read(ADA, last, 100).unwrap_err().kind(), ErrorKind::Corrupt);
    fs::remove_file(&path).unwrap();
    assert_eq!(log.verify().unwrap().damage[0].segment, 2);
}

#[test]
fn old_segments_are_removed_whole() {
    let dir = dir();
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let env = Env { clock: Arc::clone(&clock) as _, rng: Arc::new(SeededRng::new(1)) };
    let log = AuditLog::open_with(dir.path(), &mac_key(), &env, SMALL).unwrap();
    let twenty = |from: usize| {
        for request in from..from + 20 {
            log.record(&[event(ADA, request)]).unwrap();
        }
    };
    twenty(1);
    let before = segments(&files(dir.path())).unwrap();
    clock.advance_ms(399 * DAY_MS);
    twenty(21);
    assert_eq!(segments(&files(dir.path())).unwrap()[0], 1, "400 days are kept");
    clock.advance_ms(2 * DAY_MS);
    twenty(41);
    let left = segments(&files(dir.path())).unwrap();
    assert!(left[0] >= *before.last().unwrap(), "{before:?} {left:?}");
    let verdict = log.verify().unwrap();
    assert!(verdict.is_sound() && verdict.first_sequence > 10, "{verdict:?}");
    let records = log.read(ADA, 0, 100).unwrap();
    assert_eq!(records[0].header.node_sequence, verdict.first_sequence);
    assert_eq!(records.last().unwrap().request_id, "REQUEST-0060");
}

#[test]
fn the_bound_on_bytes_removes_the_oldest() {
    let dir = dir();
    let log = open(dir.path(), Bounds { retention_bytes: 5000, ..SMALL });
    for request in 1..=60 {
        log.record(&[event(ADA, request)]).unwrap();
    }
    let numbers = segments(&files(dir.path())).unwrap();
    assert!(numbers[0] > 5 && numbers.len() <= 4, "{numbers:?}");
    assert!(log.verify().unwrap().is_sound());
}

#[test]
fn a_full_buffer_refuses_a_note_at_once_and_takes_it_later() {
    let dir = dir();
    let log = open(dir.path(), Bounds { buffer_bytes: 1000, ..LAZY });
    let refused = (0..100).find(|request| log.note(event(ADA, *request)).is_err()).unwrap();
    assert_eq!(log.note(event(ADA, refused)).unwrap_err().kind(), ErrorKind::Unavailable);
    log.flush().unwrap();
    log.note(event(ADA, refused)).unwrap();
    assert_eq!(requests(&log, ADA), names(0..=refused));
}

#[test]
fn a_read_passes_over_segments_of_others() {
    let dir = dir();
    let log = open(dir.path(), SMALL);
    log.record(&[event(ADA, 0)]).unwrap();
    (0..40).for_each(|request| log.record(&[event(BOB, request)]).unwrap());
    log.record(&[event(ADA, 1)]).unwrap();
    (0..40).for_each(|request| log.record(&[event(BOB, request)]).unwrap());
    let numbers = segments(&files(dir.path())).unwrap();
    assert!(numbers.len() > 8, "{numbers:?}");
    let of_ada: Vec<_> =
        numbers.iter().copied().filter(|number| holds_ada(&log, *number)).collect();
    assert_eq!(of_ada.len(), 2, "{of_ada:?} of {numbers:?}");
    // Whatever is read of the others would be found to be damaged.
    for number in numbers.iter().filter(|number| !of_ada.contains(number)) {
        let path = segment_path(&files(dir.path()), *number);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        flip(&mut bytes, last * 8);
        fs::write(&path, &bytes).unwrap();
    }
    assert!(!log.verify().unwrap().is_sound());
    assert_eq!(requests(&log, ADA), names(0..2));
}

/// Whether a segment has an entry of Ada's in it.
fn holds_ada(log: &AuditLog, segment: u64) -> bool {
    let (mut reader, checkpoint) =
        SegmentReader::open(&log.dir, segment, None, &log.keys).unwrap().unwrap();
    let (mut chain, mut holds) = (checkpoint.chain, false);
    let mut look = |entry: &Entry<'_>, _| {
        holds |= entry.subject.tenant == ADA;
        Ok(())
    };
    while reader.next(&mut chain, &log.keys, &mut look).unwrap() == Step::Group {}
    holds
}

#[test]
fn many_callers_lose_nothing() {
    let dir = dir();
    let tight = Bounds { flush_bytes: 1000, buffer_bytes: 2000, ..LAZY };
    let log = Arc::new(open(dir.path(), tight));
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8_u8)
        .map(|number| {
            let (log, start) = (Arc::clone(&log), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let tenant = TenantId::from_bytes([number; 16]);
                for request in 0..50 {
                    if request % 10 == 0 {
                        log.record(&[event(tenant, request)]).unwrap();
                    } else {
                        while log.note(event(tenant, request)).is_err() {
                            log.flush().unwrap();
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for number in 0..8 {
        assert_eq!(requests(&log, TenantId::from_bytes([number; 16])), names(0..50));
    }
    let verdict = log.verify().unwrap();
    assert_eq!((verdict.entries, verdict.is_sound()), (400, true));
}

#[test]
fn notes_are_flushed_without_anybody_waiting() {
    let (dir, copied) = (dir(), dir());
    let log = open(dir.path(), Bounds { flush_ms: 1, ..Bounds::NODE });
    log.note(event(ADA, 1)).unwrap();
    let grown = || fs::metadata(segment_path(&files(dir.path()), 1)).unwrap().len() > 200;
    let clock = crate::env::SystemClock;
    let deadline = crate::env::Clock::monotonic_ns(&clock) + 30_000_000_000;
    while !grown() {
        assert!(crate::env::Clock::monotonic_ns(&clock) < deadline, "nothing was flushed");
        thread::yield_now();
    }
    log.flush().unwrap();
    copy(dir.path(), copied.path());
    assert_eq!(requests(&open(copied.path(), LAZY), ADA), names(1..2));
}

#[test]
fn a_full_disk_stops_every_event_and_what_they_announce() {
    let dir = dir();
    two_groups(dir.path());
    let keys = Arc::new(Keys::derive(&mac_key()).unwrap());
    let (mut writer, _) = Writer::open(&files(dir.path()), &keys, &env(), LAZY).unwrap();
    writer.fill_disk();
    let lock = private_file::lock_dir(&files(dir.path())).unwrap();
    let log = AuditLog::start(files(dir.path()), (keys, env(), LAZY), writer, (None, lock));
    let log = log.unwrap();
    log.note(event(ADA, 5)).unwrap();
    let refused = log.record(&[event(ADA, 6)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(log.note(event(ADA, 7)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.flush().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(requests(&log, ADA), names(1..5), "what is durable can still be read");
    drop(log);
    let log = open(dir.path(), LAZY);
    assert_eq!((log.damage(), requests(&log, ADA)), (None, names(1..5)));
}

#[test]
fn no_permit_is_given_out_without_a_trace() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let access = Access::direct(KeyUse::Read);
    kms.permit(&purpose(ADA), id, access).unwrap();
    kms.permit(&purpose(BOB), id, access).unwrap_err();
    let of = |tenant| kms.audit_log().read(tenant, 0, 100).unwrap();
    let uses = |tenant| {
        let is_use = |r: &AuditRecord| matches!(r.header.operation, AuditOperation::Use(_));
        of(tenant).into_iter().filter(is_use).map(|r| r.header.outcome).collect::<Vec<_>>()
    };
    assert_eq!(uses(ADA), [AuditOutcome::Done]);
    assert_eq!(uses(BOB), [AuditOutcome::Failed(ErrorKind::NotFound)]);
    kms.audit_log().fence();
    let refused = kms.permit(&purpose(ADA), id, access).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[test]
fn nothing_that_names_a_person_or_an_object_is_in_clear() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    let job = Reason::TenantJob { job: JobId::from("SECRET-JOB") };
    log.record(&[AuditEvent { reason: Some(job), ..event(ADA, 1) }]).unwrap();
    drop(log);
    let mut bytes = fs::read(segment_path(&files(dir.path()), 1)).unwrap();
    bytes.extend(fs::read(head_path(&files(dir.path()))).unwrap());
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let (bucket, version) = (ramp::<16>(0x20), ramp::<16>(0x40));
    let hidden: [&[u8]; 6] =
        [b"user/ada", b"REQUEST", b"kluis:Test", b"SECRET-JOB", &bucket, &version];
    for text in hidden {
        assert!(!holds(text), "{} is in clear", text.escape_ascii());
    }
    assert!(holds(ADA.as_bytes()) && holds(tenant_key_id().as_bytes()), "the search finds things");
}

#[test]
fn files_are_the_owners_and_the_log_is_open_once() {
    let dir = dir();
    let log = open(dir.path(), LAZY);
    let again = AuditLog::open_with(dir.path(), &mac_key(), &env(), LAZY).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    drop(log);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(files(dir.path())), 0o700);
    for path in [segment_path(&files(dir.path()), 1), head_path(&files(dir.path()))] {
        assert_eq!(mode(path.clone()), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = AuditLog::open_with(dir.path(), &mac_key(), &env(), LAZY).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
