//! Rare states, noted where they are reached.
//!
//! A campaign that never saw a torn tail proves nothing about torn tails: it requires that each of
//! the states it knows was reached (docs/TESTING.md, "Campaign").
//! Owns: the counts, in a simulation. Outside of one, a note costs nothing and is not kept.

/// Notes that `state` was reached.
pub(crate) fn sometimes(state: &'static str) {
    #[cfg(feature = "sim")]
    counts::add(state);
    #[cfg(not(feature = "sim"))]
    let _ = state;
}

#[cfg(feature = "sim")]
pub(crate) mod counts {
    //! The counts of this thread, on which a simulation runs as a whole.

    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn add(state: &'static str) {
        COUNTS.with_borrow_mut(|counts| *counts.entry(state).or_default() += 1);
    }

    /// Hands over what was counted since the last call.
    pub(crate) fn take() -> BTreeMap<&'static str, u64> {
        COUNTS.take()
    }
}
