//! The checker on histories that a register explains, and on those that none does.

use crate::dice::Dice;
use crate::history::{Answer, Call, Verb, check};

fn call(verb: Verb, value: Option<u64>, called: u64, returned: u64) -> Call {
    let (object_key, answer) = ("k".to_owned(), Answer::Done);
    Call { object_key, client: 0, verb, value, expected: None, answer, called, returned }
}

fn put(value: u64, called: u64, returned: u64) -> Call {
    call(Verb::Put, Some(value), called, returned)
}

fn get(value: Option<u64>, called: u64, returned: u64) -> Call {
    call(Verb::Get, value, called, returned)
}

fn but(call: Call, answer: Answer) -> Call {
    Call { answer, ..call }
}

#[track_caller]
fn right(calls: &[Call]) {
    let verdict = check(calls).unwrap();
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
}

#[track_caller]
fn wrong(calls: &[Call]) {
    assert_eq!(check(calls).unwrap().violations.len(), 1);
}

#[test]
fn calls_one_after_the_other() {
    right(&[get(None, 0, 1), put(1, 2, 3), get(Some(1), 4, 5)]);
    wrong(&[get(None, 0, 1), put(1, 2, 3), get(None, 4, 5)]);
    wrong(&[put(1, 0, 1), put(2, 2, 3), get(Some(1), 4, 5)]);
    right(&[put(1, 0, 1), call(Verb::Delete, None, 2, 3), get(None, 4, 5)]);
    wrong(&[put(1, 0, 1), call(Verb::Delete, None, 2, 3), get(Some(1), 4, 5)]);
}

#[test]
fn calls_at_the_same_time_take_effect_in_any_order() {
    right(&[put(1, 0, 10), get(None, 1, 2), get(Some(1), 3, 4)]);
    wrong(&[put(1, 0, 10), get(Some(1), 1, 2), get(None, 3, 4)]);
    right(&[put(1, 0, 10), put(2, 0, 10), get(Some(1), 11, 12)]);
    wrong(&[put(1, 0, 10), put(2, 0, 10), get(Some(1), 11, 12), get(Some(2), 13, 14)]);
}

#[test]
fn a_call_without_an_answer_takes_effect_once_or_never() {
    let maybe = || but(put(2, 2, 10), Answer::Maybe);
    right(&[put(1, 0, 1), maybe(), get(Some(1), 11, 12)]);
    right(&[put(1, 0, 1), maybe(), get(Some(2), 11, 12)]);
    right(&[put(1, 0, 1), maybe(), get(Some(1), 3, 4), get(Some(2), 5, 6)]);
    wrong(&[put(1, 0, 1), maybe(), get(Some(2), 3, 4), get(Some(1), 5, 6)]);
    // The node was dead at 10: what did not happen by then does not happen any more.
    wrong(&[put(1, 0, 1), maybe(), get(Some(1), 11, 12), get(Some(2), 13, 14)]);
}

#[test]
fn a_write_that_was_acknowledged_and_is_gone() {
    wrong(&[put(1, 0, 1), put(2, 2, 3), but(put(3, 4, 9), Answer::Maybe), get(Some(1), 10, 11)]);
}

#[test]
fn of_two_writers_who_want_no_object_one_is_refused() {
    let absent = |value, called, returned| call(Verb::PutIfAbsent, Some(value), called, returned);
    right(&[absent(1, 0, 10), but(absent(2, 0, 10), Answer::Refused), get(Some(1), 11, 12)]);
    wrong(&[absent(1, 0, 10), absent(2, 0, 10)]);
    wrong(&[but(absent(1, 0, 1), Answer::Refused)]);
    right(&[but(absent(1, 0, 10), Answer::Maybe), but(absent(2, 11, 12), Answer::Refused)]);
}

#[test]
fn of_two_writers_who_saw_the_same_object_one_is_refused() {
    let matching = |value, called, returned| Call {
        expected: Some(1),
        ..call(Verb::PutIfMatch, Some(value), called, returned)
    };
    right(&[put(1, 0, 1), matching(2, 2, 9), but(matching(3, 2, 9), Answer::Refused)]);
    wrong(&[put(1, 0, 1), matching(2, 2, 9), matching(3, 2, 9)]);
    wrong(&[put(1, 0, 1), but(matching(3, 2, 9), Answer::Refused)]);
    right(&[but(matching(3, 2, 9), Answer::Refused)]);
}

#[test]
fn object_keys_are_checked_apart() {
    let other = Call { object_key: "other".to_owned(), ..get(None, 2, 3) };
    let verdict = check(&[put(1, 0, 1), other]).unwrap();
    assert_eq!((verdict.object_keys, verdict.violations.len()), (2, 0));
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    assert!(check(&[put(1, 5, 4)]).is_err());
    let wide: Vec<Call> = (0..65).map(|value| put(value, value, 1000)).collect();
    assert!(check(&wide).is_err());
}

/// A history of eight clients on a register that is linearizable by construction: each call takes
/// effect at a point between its call and its return.
fn made(seed: u64, calls: u64) -> Vec<Call> {
    let mut dice = Dice::new(seed);
    let mut points: Vec<(u64, u64, u64, u64)> = Vec::new();
    for client in 0..8 {
        let mut now = dice.below(50);
        for _ in 0..calls {
            let (before, after) = (1 + dice.below(100), 1 + dice.below(100));
            points.push((now + before, now, now + before + after, client));
            now += before + after + 1 + dice.below(20);
        }
    }
    points.sort_unstable();
    let mut value = None;
    let mut made = Vec::new();
    for (next, (_, called, returned, client)) in (1_u64..).zip(points) {
        let mut one = match dice.below(4) {
            0 => put(next, called, returned),
            1 => call(Verb::Delete, None, called, returned),
            2 => call(Verb::PutIfAbsent, Some(next), called, returned),
            _ => get(value, called, returned),
        };
        one.client = client;
        if one.verb == Verb::PutIfAbsent && value.is_some() {
            one.answer = Answer::Refused;
        } else if one.verb != Verb::Get {
            // One in ten got no answer; half of those took no effect.
            let lost = dice.chance(1, 20);
            if lost || dice.chance(1, 20) {
                one.answer = Answer::Maybe;
            }
            if !lost {
                value = one.value;
            }
        }
        made.push(one);
    }
    made
}

#[test]
fn long_histories_that_are_right_are_found_right() {
    for seed in 0..30 {
        let calls = made(seed, 200);
        let verdict = check(&calls).unwrap();
        assert!(verdict.violations.is_empty(), "seed {seed}: {:?}", verdict.violations);
        assert!(verdict.maybes > 50);
    }
}

#[test]
fn long_histories_with_one_wrong_read_are_found_wrong() {
    let mut found = 0;
    for seed in 0..30 {
        let mut calls = made(seed, 200);
        let value = calls.iter().position(|it| it.verb == Verb::Put).unwrap();
        let value = calls[value].value;
        // A value of the beginning, long overwritten.
        let late = calls.iter_mut().rev().find(|it| it.verb == Verb::Get).unwrap();
        late.value = value;
        found += check(&calls).unwrap().violations.len();
    }
    assert_eq!(found, 30);
}
