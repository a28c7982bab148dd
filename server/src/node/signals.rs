//! Signals of the process: SIGTERM and SIGINT stop it, SIGHUP reads certificates again.
//!
//! Owns: nothing else.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// The signals that a node listens to.
pub(super) struct Signals(Arc<Mutex<Streams>>);

struct Streams {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on; the signals no longer end the process by themselves.
    pub(super) fn listen() -> io::Result<Self> {
        let streams = Streams {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        Ok(Self(Arc::new(Mutex::new(streams))))
    }

    /// Returns at the next signal to stop. Calls `reload` on every SIGHUP before that.
    pub(super) async fn until_stop(&self, reload: impl Fn()) {
        let mut streams = self.0.lock().await;
        let Streams { hang_up, interrupt, terminate } = &mut *streams;
        loop {
            tokio::select! {
                _ = hang_up.recv() => reload(),
                _ = interrupt.recv() => return,
                _ = terminate.recv() => return,
            }
        }
    }
}
