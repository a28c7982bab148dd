//! One connection, as far as it may hold plaintext.
//!
//! Owns: whether bytes may be left in a buffer, and the disconnect. Knows nothing of: other
//! connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Version;
use kluis_kms::TenantKeyId;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::queues::SendQueues;

/// A connection. Its socket belongs to its task; this only reaches it while it is open.
pub(crate) struct Line {
    number: u64,
    socket: Weak<TcpStream>,
    is_cut: AtomicBool,
    cut: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bodies that are not at their end, by every key that bytes were sent under.
    held: HashMap<TenantKeyId, usize>,
    /// A body gave bytes out, and hyper has not said since that it kept none of them.
    is_dirty: bool,
    /// HTTP/2 keeps bytes of ended bodies for later; what it has left is never known.
    is_multiplexed: bool,
    /// A body ended in an error.
    has_failed: bool,
}

impl Line {
    /// A connection that has sent nothing.
    pub(super) fn new(number: u64, socket: Option<&Arc<TcpStream>>) -> Self {
        Self {
            number,
            socket: socket.map(Arc::downgrade).unwrap_or_default(),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Tells it from others of the node.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A body under this key begins.
    pub(super) fn begin(&self, tenant_key: TenantKeyId, version: Version) {
        let mut state = self.lock();
        *state.held.entry(tenant_key).or_default() += 1;
        state.is_dirty = true;
        state.is_multiplexed |= version == Version::HTTP_2;
    }

    /// A body under this key is at its end, or given up.
    pub(super) fn end(&self, tenant_key: TenantKeyId) {
        if let Some(count) = self.lock().held.get_mut(&tenant_key) {
            *count = count.saturating_sub(1);
        }
    }

    /// A body gave bytes out.
    pub(super) fn soil(&self) {
        self.lock().is_dirty = true;
    }

    /// A body ended in an error.
    pub(super) fn fail(&self) {
        self.lock().has_failed = true;
    }

    /// Everything that was given out has gone to the kernel.
    pub(crate) fn flushed(&self) {
        self.lock().is_dirty = false;
    }

    /// The keys that bytes were sent under.
    pub(super) fn held(&self) -> Vec<TenantKeyId> {
        self.lock().held.keys().copied().collect()
    }

    /// Whether plaintext was sent at all.
    pub(crate) fn has_held(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// Whether a body broke off, so that the connection must not end as if all were well.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    /// Whether bytes under this key may still be sent. If not, the key is no longer held.
    pub(super) fn may_send(&self, tenant_key: TenantKeyId, queues: &mut SendQueues) -> bool {
        let mut state = self.lock();
        let Some(count) = state.held.get(&tenant_key) else {
            return false;
        };
        if *count > 0 || state.is_dirty || state.is_multiplexed {
            return true;
        }
        // A socket that is gone was closed with nothing left to send, or reset.
        let may_send = self.socket.upgrade().is_some_and(|socket| !queues.is_empty_of(&*socket));
        if !may_send {
            state.held.remove(&tenant_key);
        }
        may_send
    }

    /// Disconnects: the kernel drops what it has not sent and resets the connection, before this
    /// returns. The connection's task wakes and ends.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        if let Some(socket) = self.socket.upgrade() {
            // Should the disconnect not work, the close that follows it resets.
            let _ = set_socket_linger(&*socket, Some(Duration::ZERO));
            if let Err(error) = rustix::net::connect_unspec(&*socket) {
                tracing::warn!(%error, "a connection could not be disconnected at once");
            }
        }
        self.cut.notify_one();
    }

    /// Whether it was cut: then nothing is written any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Returns when it was cut. One task waits at a time.
    pub(crate) async fn until_cut(&self) {
        while !self.is_cut() {
            self.cut.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every step under the lock leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
