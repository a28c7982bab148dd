//! Mistakes seeded on purpose, to show that the campaign finds them.
//!
//! They are compiled only with the feature `bugs`, which nothing but `scripts/campaign --mutations`
//! builds; one is chosen by the environment variable `KLUIS_BUG`. In every other build
//! [`seeded`] is `false` at compile time, and none of them is in the program.
//! Owns: their names. Knows nothing of: where they sit; each is one condition at its place.

/// A mistake that somebody could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A commit is answered before it is written.
    #[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "sits in the simulation's loop"))]
    AckBeforeSync,
    /// Conditions are taken for granted at the commit.
    ConditionsIgnored,
    /// A flush that began before a write was answered counts for it.
    FlushCountsTooMuch,
    /// A failed flush or write does not fence.
    ForgetFence,
    /// Open readers do not hold off the release of what they read.
    ForgetPins,
    /// A record that a power loss tore is taken for whole.
    IgnoreTornTail,
    /// Metadata that lost synced rows is served.
    IgnoreWatermark,
    /// A location is followed into another use of its segment.
    NoIncarnationCheck,
    /// A commit is made while the flush of its data is still under way.
    PublishBeforeFlush,
    /// A content goes with the first of its references.
    ReleaseShared,
    /// A segment that was open at a crash is taken for free.
    ReuseEarly,
    /// A short write counts as done.
    ShortWriteIsDone,
    /// A flush does not reach the device.
    SkipFlush,
    /// A ranged read begins at the border of its chunk.
    WrongRange,
}

/// Whether `bug` is in this program, and chosen.
#[cfg(not(feature = "bugs"))]
#[inline]
pub(crate) const fn seeded(_: Bug) -> bool {
    false
}

/// Whether `bug` is in this program, and chosen.
#[cfg(feature = "bugs")]
pub(crate) fn seeded(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("KLUIS_BUG").ok()?;
        let known = ALL.into_iter().find(|(known, _)| *known == name);
        Some(known.unwrap_or_else(|| panic!("KLUIS_BUG={name}: there is no such bug")).1)
    });
    *chosen == Some(bug)
}

/// Every bug by its name.
#[cfg(feature = "bugs")]
pub(crate) const ALL: [(&str, Bug); 14] = [
    ("ack-before-sync", Bug::AckBeforeSync),
    ("conditions-ignored", Bug::ConditionsIgnored),
    ("flush-counts-too-much", Bug::FlushCountsTooMuch),
    ("forget-fence", Bug::ForgetFence),
    ("forget-pins", Bug::ForgetPins),
    ("ignore-torn-tail", Bug::IgnoreTornTail),
    ("ignore-watermark", Bug::IgnoreWatermark),
    ("no-incarnation-check", Bug::NoIncarnationCheck),
    ("publish-before-flush", Bug::PublishBeforeFlush),
    ("release-shared", Bug::ReleaseShared),
    ("reuse-early", Bug::ReuseEarly),
    ("short-write-is-done", Bug::ShortWriteIsDone),
    ("skip-flush", Bug::SkipFlush),
    ("wrong-range", Bug::WrongRange),
];
