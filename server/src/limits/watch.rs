//! What a connection is waiting for, and since when.
//!
//! Owns: the decision that a client has had its time. Knows nothing of: sockets and bodies; they
//! report here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Limits, STALL_WINDOW_BYTES};

/// The longest a changed deadline goes unseen.
const TICK_MAX: Duration = Duration::from_secs(1);

/// Why a connection is ended from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// No complete header section in time.
    HeaderTimeout,
    /// More header bytes than allowed.
    HeaderTooLarge,
    /// No request in time.
    Idle,
    /// The client takes no more of an answer.
    Stalled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Tells by the preface of RFC 9113 §3.4; no HTTP/1 method begins like it.
    fn of(first_bytes: &[u8]) -> Self {
        if first_bytes.starts_with(b"PRI * HTTP/2") { Self::Http2 } else { Self::Http1 }
    }
}

struct State {
    /// Requests from their header to the end of their answer.
    active: u32,
    /// Of those, the ones where the server is at work, not the client.
    busy: u32,
    protocol: Option<Protocol>,
    has_served: bool,
    /// Bytes read since the last request began, while none was active.
    header_bytes: u64,
    header_since: Option<Instant>,
    header_too_large: bool,
    /// The last step forward of a request or answer.
    progress: Instant,
    written_bytes: u64,
}

impl State {
    fn is_http2(&self) -> bool {
        self.protocol == Some(Protocol::Http2)
    }
}

/// The state of one connection, shared by its socket, its bodies and its task.
pub(crate) struct ConnWatch {
    limits: Limits,
    opened: Instant,
    state: Mutex<State>,
}

impl ConnWatch {
    /// A connection that has just opened.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let opened = Instant::now();
        let state = State {
            active: 0,
            busy: 0,
            protocol: None,
            has_served: false,
            header_bytes: 0,
            header_since: None,
            header_too_large: false,
            progress: opened,
            written_bytes: 0,
        };
        Arc::new(Self { limits, opened, state: Mutex::new(state) })
    }

    /// Whether the socket may be read: not once the header section is too large.
    pub(crate) fn may_read(&self) -> bool {
        let mut state = self.lock();
        let counts = state.active == 0 && !state.is_http2();
        if counts && state.header_bytes >= self.limits.header_bytes_max {
            state.header_too_large = true;
        }
        !state.header_too_large
    }

    /// The socket gave `bytes`.
    pub(crate) fn on_read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.protocol.get_or_insert_with(|| Protocol::of(bytes));
        if state.active == 0 {
            state.header_bytes += bytes.len() as u64;
            if state.header_since.is_none() {
                state.header_since = Some(Instant::now());
            }
        }
    }

    /// The socket took `count` bytes.
    pub(crate) fn on_write(&self, count: usize) {
        let mut state = self.lock();
        state.written_bytes += count as u64;
        let is_tail = state.active == 0 && !state.is_http2();
        if is_tail || state.written_bytes >= STALL_WINDOW_BYTES {
            state.written_bytes = 0;
            state.progress = Instant::now();
        }
    }

    /// Whether a read was refused because the header section is too large.
    pub(crate) fn is_header_too_large(&self) -> bool {
        self.lock().header_too_large
    }

    /// Whether the client began a request that never became one.
    pub(crate) fn has_partial_header(&self) -> bool {
        let state = self.lock();
        state.active == 0 && !state.is_http2() && state.header_bytes > 0
    }

    /// Returns when the client has had its time.
    pub(crate) async fn expired(&self) -> End {
        let limits = &self.limits;
        let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.stall_timeout);
        let tick = (shortest / 2).min(TICK_MAX);
        loop {
            let now = Instant::now();
            let next = match self.deadline() {
                Some((deadline, end)) if deadline <= now => return end,
                Some((deadline, _)) => deadline.min(now + tick),
                None => now + tick,
            };
            sleep_until(next).await;
        }
    }

    fn deadline(&self) -> Option<(Instant, End)> {
        let (state, limits) = (self.lock(), &self.limits);
        if state.header_too_large {
            return Some((self.opened, End::HeaderTooLarge));
        }
        if state.active > 0 {
            let waits_for_client = state.busy == 0;
            return waits_for_client.then(|| (state.progress + limits.stall_timeout, End::Stalled));
        }
        match state.header_since {
            Some(since) if !state.is_http2() => {
                Some((since + limits.header_timeout, End::HeaderTimeout))
            }
            _ if state.has_served => Some((state.progress + limits.idle_timeout, End::Idle)),
            _ => Some((self.opened + limits.header_timeout, End::HeaderTimeout)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No step under the lock can panic half-way; the counts are right even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request from its header to the end of its answer. Begins busy.
pub(crate) struct ActiveRequest {
    watch: Arc<ConnWatch>,
    is_busy: bool,
}

impl ActiveRequest {
    /// Counts a request in.
    pub(crate) fn begin(watch: Arc<ConnWatch>) -> Self {
        let mut state = watch.lock();
        state.active += 1;
        state.busy += 1;
        state.has_served = true;
        state.header_bytes = 0;
        state.header_since = None;
        state.progress = Instant::now();
        drop(state);
        Self { watch, is_busy: true }
    }

    /// Says whether the server is at work (or else the client is to move), and notes a step
    /// forward.
    pub(crate) fn set_busy(&mut self, is_busy: bool) {
        let mut state = self.watch.lock();
        match (self.is_busy, is_busy) {
            (true, false) => state.busy -= 1,
            (false, true) => state.busy += 1,
            _ => {}
        }
        state.progress = Instant::now();
        drop(state);
        self.is_busy = is_busy;
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.set_busy(false);
        self.watch.lock().active -= 1;
    }
}
