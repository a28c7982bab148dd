//! Which tickets are clear while which holds are kept.

use super::*;

#[test]
fn a_hold_keeps_what_is_emptied_after_it_and_nothing_else() {
    let holds = Holds::default();
    let before = holds.ticket();
    assert!(holds.is_clear(before));
    let first = holds.take();
    let during = holds.ticket();
    assert!(holds.is_clear(before) && !holds.is_clear(during));
    // A hold that was taken after the segment was emptied does not name it.
    let second = holds.take();
    drop(first);
    assert!(holds.is_clear(during));
    let last = holds.ticket();
    assert!(!holds.is_clear(last));
    drop(second);
    assert!(holds.is_clear(last) && holds.lock().held.is_empty());
}

#[test]
fn clones_share_their_holds() {
    let holds = Holds::default();
    let kept = holds.clone().take();
    let ticket = holds.ticket();
    assert!(!holds.is_clear(ticket));
    drop(kept);
    assert!(holds.is_clear(ticket));
}
