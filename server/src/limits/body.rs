//! Bodies that report how they get on: requests with a stall time-out, answers to their watch.
//!
//! Owns: when a request body counts as stopped. Knows nothing of: what is in a body.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{ActiveRequest, STALL_WINDOW_BYTES};

/// Why a request body ended early.
#[derive(Debug)]
pub(crate) enum BodyFault {
    /// The connection broke, or the framing was wrong.
    Broken(hyper::Error),
    /// The client stopped sending.
    Stalled,
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "request body broke off: {error}"),
            Self::Stalled => f.write_str("the client stopped sending the request body"),
        }
    }
}

impl std::error::Error for BodyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Stalled => None,
        }
    }
}

/// How far a request body has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// It broke off.
    Broken,
    /// All of it was read.
    Ended,
    /// It was not read to its end (yet).
    Open,
    /// The client stopped sending it.
    Stalled,
}

/// Watches a request body from outside; every clone sees the same.
#[derive(Clone, Default)]
pub(crate) struct BodyWatch(Arc<(AtomicU8, AtomicU64)>);

impl BodyWatch {
    /// How far the body has got.
    pub(crate) fn state(&self) -> BodyState {
        match self.0.0.load(Ordering::Acquire) {
            0 => BodyState::Open,
            1 => BodyState::Ended,
            2 => BodyState::Stalled,
            _ => BodyState::Broken,
        }
    }

    /// Bytes received, with the framing of chunk signatures.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.0.1.load(Ordering::Acquire)
    }

    fn set(&self, state: BodyState) {
        let code = match state {
            BodyState::Open => 0,
            BodyState::Ended => 1,
            BodyState::Stalled => 2,
            BodyState::Broken => 3,
        };
        self.0.0.store(code, Ordering::Release);
    }
}

/// The body of a request, which fails once the client has stopped sending for too long.
pub(crate) struct RequestBody {
    inner: Incoming,
    watch: BodyWatch,
    stall_timeout: Duration,
    /// When the present wait for the client began.
    waiting_since: Option<Instant>,
    /// Time spent waiting, and bytes that came, in the present window.
    waited: Duration,
    window_bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// Wraps `inner`; `stall_timeout` is for [`STALL_WINDOW_BYTES`].
    pub(crate) fn new(inner: Incoming, stall_timeout: Duration) -> Self {
        let watch = BodyWatch::default();
        if inner.is_end_stream() {
            watch.set(BodyState::Ended);
        }
        Self {
            inner,
            watch,
            stall_timeout,
            waiting_since: None,
            waited: Duration::ZERO,
            window_bytes: 0,
            timer: None,
        }
    }

    /// A handle that sees how the body gets on.
    pub(crate) fn watch(&self) -> BodyWatch {
        self.watch.clone()
    }

    fn on_bytes(&mut self, count: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.window_bytes += count;
        if self.window_bytes >= STALL_WINDOW_BYTES {
            self.window_bytes = 0;
            self.waited = Duration::ZERO;
        }
        self.watch.0.1.fetch_add(count, Ordering::AcqRel);
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            let deadline = now + self.stall_timeout.saturating_sub(self.waited);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(sleep_until(deadline))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.on_bytes(frame.data_ref().map_or(0, |data| data.remaining() as u64));
                if self.inner.is_end_stream() {
                    self.watch.set(BodyState::Ended);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.watch.set(BodyState::Broken);
                Poll::Ready(Some(Err(BodyFault::Broken(error))))
            }
            Poll::Ready(None) => {
                self.watch.set(BodyState::Ended);
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_stall(cx));
                self.watch.set(BodyState::Stalled);
                Poll::Ready(Some(Err(BodyFault::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer, which tells its connection's watch whose turn it is.
pub(crate) struct WatchedBody<B> {
    inner: B,
    request: ActiveRequest,
}

impl<B> WatchedBody<B> {
    /// Wraps `inner`, the answer to `request`.
    pub(crate) fn new(inner: B, request: ActiveRequest) -> Self {
        Self { inner, request }
    }
}

impl<B: Body + Unpin> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.request.set_busy(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
