//! Where work is done that would hold up a task: on threads of its own, or, in a simulation, here.
//!
//! Owns: that choice. Knows nothing of: the work.
//!
//! Invariants
//! - A simulation runs on one thread: between two awaits nothing else happens, and the order of
//!   everything follows from its seed.
//! - A program that is not built for simulation has no other way than threads.

use crate::error::{Error, ErrorKind, Result};

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    #[cfg(feature = "sim")]
    if is_inline() {
        inline::pause().await;
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|died| {
        Error::new(ErrorKind::Unavailable, "run on a blocking thread").with_source(died)
    })?
}

/// Whether this thread does everything itself.
#[cfg(feature = "sim")]
pub(crate) fn is_inline() -> bool {
    inline::STATE.with(|state| state.get().is_some())
}

#[cfg(feature = "sim")]
pub(crate) mod inline {
    //! The simulation's executor: work is done where it is asked for, after a seeded while.

    use std::cell::Cell;

    use crate::io::sim::SplitMix;

    /// How many times others run before a piece of work is done, at most.
    const PAUSES_MAX: u64 = 2;

    thread_local! {
        pub(super) static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// While it lives, its thread does everything itself.
    pub(crate) struct Inline(());

    impl Inline {
        /// Begins; how long work waits follows from `seed`.
        pub(crate) fn begin(seed: u64) -> Self {
            STATE.with(|state| state.set(Some(seed)));
            Self(())
        }
    }

    impl Drop for Inline {
        fn drop(&mut self) {
            STATE.with(|state| state.set(None));
        }
    }

    /// Lets others run for a seeded while.
    pub(crate) async fn pause() {
        let pauses = STATE.with(|state| {
            let mut random = SplitMix::new(state.get().unwrap_or_default());
            let pauses = random.below(PAUSES_MAX + 1);
            state.set(Some(random.next()));
            pauses
        });
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
    }
}
