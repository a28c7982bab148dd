//! Tests of time and randomness.

use super::*;

#[test]
fn system_time_is_after_2020_and_monotonic_time_does_not_step_back() {
    let clock = SystemClock;
    assert!(clock.now_ms() > 1_577_836_800_000);
    let earlier_ns = clock.monotonic_ns();
    assert!(clock.monotonic_ns() >= earlier_ns);
}

#[test]
fn system_randomness_does_not_repeat() {
    assert_ne!(random_array::<32>(&OsRng), random_array::<32>(&OsRng));
}

#[test]
fn a_manual_clock_moves_when_told() {
    let clock = ManualClock::new(5);
    clock.advance_ms(7);
    assert_eq!((clock.now_ms(), clock.monotonic_ns()), (12, 7_000_000));
}

#[test]
fn one_seed_gives_one_sequence() {
    let draw = |seed| {
        let rng = SeededRng::new(seed);
        [random_array::<40>(&rng), random_array::<40>(&rng)]
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let [first, second] = draw(1);
    assert_ne!(first, second);
}
