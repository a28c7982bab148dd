//! Which segment is chosen, and that there is an end to it.

use super::super::policy::{Candidate, Field, Why, choose};
use super::*;

const CONFIG: ReclaimConfig = ReclaimConfig { enabled: true, rate_bytes: 1, waste_percent_max: 25 };
const WHOLE: u64 = 256 << 20;

fn candidate(segment: u32, live_percent: u64) -> Candidate {
    let incarnation = u64::from(segment) + 1;
    Candidate { segment, incarnation, written: WHOLE, live: WHOLE / 100 * live_percent }
}

fn field(available: u64, live_percents: &[u64]) -> Field {
    let candidates: Vec<_> =
        (0..).zip(live_percents).map(|(segment, live)| candidate(segment, *live)).collect();
    Field {
        segment_bytes: WHOLE,
        files: 100,
        available,
        newest: live_percents.len() as u64 + 1,
        candidates,
    }
}

#[test]
fn a_dead_segment_comes_first_and_at_once() {
    let field = field(1_000, &[90, 0, 10]);
    assert_eq!(choose(&field, &CONFIG, None, false), Some((1, Why::Dead)));
}

#[test]
fn nothing_is_moved_without_a_reason() {
    assert_eq!(choose(&field(1_000, &[90, 80, 85]), &CONFIG, None, false), None);
    assert_eq!(choose(&field(1_000, &[20]), &CONFIG, None, false), None, "one is not worth it");
    let wasted = field(1_000, &[20, 20, 20, 90]);
    assert_eq!(choose(&wasted, &CONFIG, None, false).unwrap().1, Why::Waste);
}

#[test]
fn shortage_is_given_up_with_some_distance() {
    let wanted = 10;
    let live = [90, 70, 90];
    let short = choose(&field(wanted - 1, &live), &CONFIG, None, false);
    assert_eq!(short.unwrap().1, Why::Short);
    assert_eq!(choose(&field(wanted, &live), &CONFIG, None, false), None);
    assert_eq!(choose(&field(wanted, &live), &CONFIG, None, true).unwrap().1, Why::Short);
    assert_eq!(choose(&field(wanted + 1, &live), &CONFIG, None, true), None);
}

#[test]
fn old_and_cold_goes_before_young_and_emptier() {
    // Segment 0 is 40 segments old; segment 39 has just been closed and will lose more by itself.
    let mut live = [100; 40];
    live[0] = 75;
    live[39] = 50;
    assert_eq!(choose(&field(1, &live), &CONFIG, None, false), Some((0, Why::Short)));
    let young = field(1, &[75, 50]);
    assert_eq!(choose(&young, &CONFIG, None, false), Some((1, Why::Short)), "no age, more to win");
}

#[test]
fn nearly_full_segments_are_left_alone_even_in_need() {
    assert_eq!(choose(&field(0, &[97, 96, 99]), &CONFIG, Some(99), false), None);
}

#[test]
fn little_is_won_back_only_in_a_hurry() {
    let live = [85, 90];
    assert_eq!(choose(&field(9, &live), &CONFIG, None, false), None, "short, but no hurry");
    let urgent = choose(&field(URGENT_SEGMENTS, &live), &CONFIG, None, false);
    assert_eq!(urgent, Some((0, Why::Short)));
    assert_eq!(choose(&field(9, &live), &CONFIG, Some(9), false), Some((0, Why::Asked)));
}

#[test]
fn an_asked_run_takes_what_was_there_and_ends() {
    let field = field(1_000, &[50, 90, 60]);
    assert_eq!(choose(&field, &CONFIG, Some(3), false), Some((0, Why::Asked)));
    assert_eq!(choose(&field, &CONFIG, Some(0), false), None, "all are newer than the question");
}

#[test]
fn a_tail_that_no_record_fits_is_no_waste() {
    let mut full = field(1_000, &[99]);
    full.candidates[0].written = WHOLE - (4 << 20);
    full.candidates[0].live = full.candidates[0].written;
    assert_eq!(choose(&full, &CONFIG, Some(9), false), None);
    let tiny = Field { segment_bytes: 8 << 20, ..field(1_000, &[0]) };
    let half = Candidate { segment: 0, incarnation: 1, written: 4_198_400, live: 4_195_712 };
    let tiny = Field { candidates: vec![half], ..tiny };
    assert_eq!(choose(&tiny, &CONFIG, Some(9), false), None);
}

#[test]
fn a_segment_closed_early_is_worth_its_tail() {
    let mut early = field(1_000, &[1]);
    early.candidates[0].written = early.candidates[0].live;
    assert_eq!(choose(&early, &CONFIG, Some(9), false), Some((0, Why::Asked)));
}
