//! Every combination of what two directories and a witness may say.

use super::super::slip::{Problem, Slip};
use super::super::verdict::{Evidence, Verdict};
use crate::error::ErrorKind;
use crate::format::{Holder, Member, MemberError, MirrorId, SeatState};

use SeatState::{Current, Out, Rebuilding};

const BOTH: [SeatState; 2] = [Current, Current];

fn record(holder: Holder, generation: u64, states: [SeatState; 2]) -> Member {
    let mirror = MirrorId::from_bytes([1; 16]);
    Member { seq: 1, mirror, generation, holder, states, cursor: String::new() }
}

fn seat(seat: usize, generation: u64, states: [SeatState; 2]) -> Slip {
    let record = record(Holder::Seat(seat), generation, states);
    Slip { record: Some(record), has_files: true, problem: None }
}

fn witness(generation: u64, states: [SeatState; 2]) -> Member {
    record(Holder::Witness, generation, states)
}

fn gone() -> Slip {
    Slip { problem: Some(Problem::Unreadable("gone".to_owned())), ..Slip::default() }
}

fn files() -> Slip {
    Slip { has_files: true, ..Slip::default() }
}

fn judge(one: &Slip, other: &Slip, witness: Option<&Member>) -> Result<Verdict, ErrorKind> {
    let evidence = Evidence { slips: [one, other], labels: ["/a", "/b"], witness };
    evidence.judge().map_err(|error| error.kind())
}

#[track_caller]
fn starts(one: &Slip, other: &Slip, witness: Option<&Member>) -> ([SeatState; 2], u64) {
    match judge(one, other, witness) {
        Ok(Verdict::Start(standing)) => (standing.states, standing.generation),
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn empty_directories_make_a_mirror() {
    let empty = Slip::default();
    assert_eq!(judge(&empty, &empty, None), Ok(Verdict::Create));
    // A first start that was cut short between the two.
    let first = Slip { has_files: false, ..seat(0, 1, BOTH) };
    assert_eq!(judge(&first, &empty, None), Ok(Verdict::Create));
    assert_eq!(judge(&empty, &gone(), None), Err(ErrorKind::Unavailable));
    let lost = witness(4, BOTH);
    assert_eq!(judge(&empty, &empty, Some(&lost)), Err(ErrorKind::Corrupt), "not made anew");
}

#[test]
fn a_volume_of_one_directory_is_adopted() {
    let empty = Slip::default();
    assert_eq!(judge(&files(), &empty, None), Ok(Verdict::Adopt(0)));
    assert_eq!(judge(&empty, &files(), None), Ok(Verdict::Adopt(1)));
    assert_eq!(judge(&files(), &files(), None), Err(ErrorKind::Misuse));
}

#[test]
fn two_that_agree_are_both_current() {
    let noted = witness(3, BOTH);
    assert_eq!(starts(&seat(0, 3, BOTH), &seat(1, 3, BOTH), Some(&noted)), (BOTH, 3));
    assert_eq!(starts(&seat(0, 3, BOTH), &seat(1, 3, BOTH), None), (BOTH, 3));
}

#[test]
fn a_member_that_is_behind_is_never_read() {
    let alone = [Current, Out];
    let noted = witness(4, alone);
    let (fresh, stale) = (seat(0, 4, alone), seat(1, 3, BOTH));
    assert_eq!(starts(&fresh, &stale, Some(&noted)), (alone, 4));
    assert_eq!(starts(&fresh, &stale, None), (alone, 4));
    assert_eq!(starts(&fresh, &gone(), Some(&noted)), (alone, 4));
    assert_eq!(starts(&fresh, &gone(), None), (alone, 4), "its own record says it is the only one");
    // Only the stale one is here.
    assert_eq!(judge(&gone(), &stale, Some(&noted)), Err(ErrorKind::Corrupt));
    assert_eq!(
        judge(&gone(), &stale, None),
        Err(ErrorKind::Corrupt),
        "nothing tells it from fresh"
    );
    assert_eq!(judge(&Slip::default(), &stale, Some(&noted)), Err(ErrorKind::Corrupt));
}

#[test]
fn one_that_is_missing_is_left_out() {
    let damaged = Slip {
        has_files: true,
        problem: Some(Problem::Damaged(MemberError::Crc)),
        ..Slip::default()
    };
    let noted = witness(3, BOTH);
    for other in [gone(), Slip::default(), files(), damaged] {
        let standing = starts(&seat(0, 3, BOTH), &other, Some(&noted));
        assert_eq!(standing, ([Current, Out], 4), "{other:?}");
        let kind = judge(&seat(0, 3, BOTH), &other, None);
        assert_eq!(kind, Err(ErrorKind::Corrupt), "without a witness it may be stale");
    }
}

#[test]
fn a_witness_that_lags_behind_is_no_authority() {
    let alone = [Out, Current];
    let noted = witness(3, BOTH);
    assert_eq!(starts(&seat(0, 3, BOTH), &seat(1, 4, alone), Some(&noted)), (alone, 4));
}

#[test]
fn a_rebuild_goes_on_or_is_over() {
    let filling = [Current, Rebuilding];
    let (one, noted) = (seat(0, 5, filling), witness(5, filling));
    assert_eq!(starts(&one, &seat(1, 5, filling), Some(&noted)), (filling, 5));
    assert_eq!(starts(&one, &seat(1, 4, filling), Some(&noted)), ([Current, Out], 6));
    assert_eq!(starts(&one, &Slip::default(), Some(&noted)), ([Current, Out], 6));
    // The last record of a finished rebuild is missing: it is gone through once more.
    let noted = witness(6, BOTH);
    let standing = starts(&seat(0, 6, BOTH), &seat(1, 5, filling), Some(&noted));
    assert_eq!(standing, (filling, 7));
    let standing = starts(&seat(0, 7, BOTH), &seat(1, 5, filling), Some(&witness(7, BOTH)));
    assert_eq!(standing, ([Current, Out], 8));
    // A rebuild that was given up is not gone on with.
    let out = [Current, Out];
    let standing = starts(&seat(0, 6, out), &seat(1, 5, filling), Some(&witness(6, out)));
    assert_eq!(standing, (out, 6));
    // Half of a copy is no copy.
    let alone = judge(&gone(), &seat(1, 5, filling), Some(&witness(5, filling)));
    assert_eq!(alone, Err(ErrorKind::Corrupt));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let noted = witness(3, BOTH);
    let exchanged = judge(&seat(1, 3, BOTH), &seat(0, 3, BOTH), Some(&noted));
    assert_eq!(exchanged, Err(ErrorKind::Misuse));
    let twice = judge(&seat(0, 3, BOTH), &seat(0, 3, BOTH), Some(&noted));
    assert_eq!(twice, Err(ErrorKind::Misuse));
    let mut stranger = seat(1, 3, BOTH);
    stranger.record.as_mut().unwrap().mirror = MirrorId::from_bytes([2; 16]);
    assert_eq!(judge(&seat(0, 3, BOTH), &stranger, Some(&noted)), Err(ErrorKind::Misuse));
    let mut elsewhere = noted.clone();
    elsewhere.mirror = MirrorId::from_bytes([2; 16]);
    let of_another = judge(&seat(0, 3, BOTH), &seat(1, 3, BOTH), Some(&elsewhere));
    assert_eq!(of_another, Err(ErrorKind::Misuse));
    let newer = Slip { problem: Some(Problem::Newer(2)), ..Slip::default() };
    assert_eq!(judge(&seat(0, 3, BOTH), &newer, Some(&noted)), Err(ErrorKind::Misuse));
    // Each says that it alone is current.
    let apart = judge(&seat(0, 4, [Current, Out]), &seat(1, 4, [Out, Current]), Some(&noted));
    assert_eq!(apart, Err(ErrorKind::Corrupt));
}
