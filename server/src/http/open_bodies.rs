//! Which connections hold plaintext under which tenant key, and how they are cut.
//!
//! An answer that is made of decrypted bytes names its key ([`Plaintext`]). Its connection holds
//! that key from then on, because bytes stay in the buffers of hyper, of TLS and of the kernel
//! after the body has given them out. [`OpenBodies::cut`] is called when the key's gate has closed
//! and drained: it disconnects every socket that may still send such bytes.
//! Owns: that list. Knows nothing of: gates, requests, what is in a body.
//!
//! Invariants
//! - When `cut` has returned, no byte of an answer under the key is sent any more: not one that was
//!   open, not one that waits in a buffer, and not one that was made before and comes up later.
//! - A connection whose client has taken everything is left alone.
//! - It needs no task of the runtime: the kernel drops the unsent bytes in the caller's thread.
//!   See docs/KEYS.md, "Disable".

mod line;
mod queues;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use kluis_kms::TenantKeyId;
use tokio::net::TcpStream;

pub(crate) use line::Line;
use queues::SendQueues;

use crate::plaintext::Plaintext;

/// A point in the order of closed gates: before which ones a request began.
#[derive(Clone, Copy)]
pub(super) struct Moment(u64);

/// The connections of one node by the keys they hold plaintext of. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct OpenBodies(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    /// How many gates were closed.
    closes: u64,
    /// Which of those was the last of each key.
    closed: HashMap<TenantKeyId, u64>,
    lines: HashMap<TenantKeyId, HashMap<u64, Arc<Line>>>,
    next_line: u64,
}

impl OpenBodies {
    /// No connections.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A new connection over `socket`. It leaves the list when the guard drops.
    pub(super) fn line(&self, socket: Option<&Arc<TcpStream>>) -> LineGuard {
        let mut registry = self.lock();
        registry.next_line += 1;
        let line = Arc::new(Line::new(registry.next_line, socket));
        drop(registry);
        LineGuard { line, open_bodies: self.clone() }
    }

    /// Now. A request keeps it from its beginning on.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.lock().closes)
    }

    /// Notes that `line` is about to send plaintext, for a request that began at `since`.
    /// If the key's gate was closed meanwhile, the connection is cut instead.
    pub(super) fn hold(
        &self,
        line: &Arc<Line>,
        Plaintext { tenant_key }: Plaintext,
        (since, version): (Moment, Version),
    ) -> Option<Hold> {
        let mut registry = self.lock();
        if registry.closed.get(&tenant_key).is_some_and(|close| *close > since.0) {
            drop(registry);
            line.cut();
            return None;
        }
        line.begin(tenant_key, version);
        let lines = registry.lines.entry(tenant_key).or_default();
        lines.insert(line.number(), Arc::clone(line));
        Some(Hold { line: Arc::clone(line), tenant_key })
    }

    /// Cuts every connection that may still send plaintext under `tenant_key`.
    pub(crate) fn cut(&self, tenant_key: TenantKeyId) {
        let lines = {
            let mut registry = self.lock();
            registry.closes += 1;
            let close = registry.closes;
            registry.closed.insert(tenant_key, close);
            registry.lines.remove(&tenant_key).unwrap_or_default()
        };
        let mut queues = SendQueues::default();
        let mut count = 0;
        for line in lines.values() {
            if line.may_send(tenant_key, &mut queues) {
                line.cut();
                count += 1;
            }
        }
        if count > 0 {
            tracing::info!(%tenant_key, count, "cut connections that held plaintext of a closed key");
        }
    }

    fn forget(&self, line: &Line) {
        let mut registry = self.lock();
        for tenant_key in line.held() {
            if let Some(lines) = registry.lines.get_mut(&tenant_key) {
                lines.remove(&line.number());
                if lines.is_empty() {
                    registry.lines.remove(&tenant_key);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every step under the lock leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the list.
pub(super) struct LineGuard {
    line: Arc<Line>,
    open_bodies: OpenBodies,
}

impl LineGuard {
    /// The connection.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

impl Drop for LineGuard {
    fn drop(&mut self) {
        self.open_bodies.forget(&self.line);
    }
}

/// A body under a key that is not at its end.
pub(super) struct Hold {
    line: Arc<Line>,
    tenant_key: TenantKeyId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.line.end(self.tenant_key);
    }
}

/// The body of an answer that may hold plaintext.
pub(super) struct HeldBody<B> {
    inner: B,
    hold: Option<Hold>,
}

impl<B> HeldBody<B> {
    /// Wraps `inner`; without a hold it holds no plaintext.
    pub(super) fn new(inner: B, hold: Option<Hold>) -> Self {
        Self { inner, hold }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for HeldBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let (Some(hold), Poll::Ready(Some(frame))) = (&self.hold, &polled) {
            match frame {
                Ok(frame) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                    hold.line.soil();
                }
                Ok(_) => {}
                Err(_) => hold.line.fail(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
