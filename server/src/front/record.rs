//! One line of log and one count per request, when its answer has ended.
//!
//! Owns: what is told of a request. Knows nothing of: how it was answered.
//!
//! Invariants
//! - No object name, no header value, no query value, no secret.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use kluis_kms::{RequestId, TenantId};
use tokio::time::Instant;

use crate::http::{BoxError, Peer, ResponseBody};
use crate::limits::BodyWatch;
use crate::logging;
use crate::metrics::Answered;

/// What is known of a request.
pub(super) struct Record {
    /// Its id.
    pub(super) request_id: RequestId,
    /// When its header was complete.
    pub(super) begun: Instant,
    /// Its method.
    pub(super) method: Method,
    /// The operation's name.
    pub(super) operation: &'static str,
    /// Whose it is, once that was verified.
    pub(super) tenant: Option<TenantId>,
    /// Where it came from.
    pub(super) peer: Peer,
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// The error code of the answer.
    pub(super) code: Option<String>,
    /// How far its body has got.
    pub(super) body: BodyWatch,
}

impl Record {
    fn write(&self, sent_bytes: u64, is_complete: bool) {
        let duration = self.begun.elapsed();
        let received_bytes = self.body.received_bytes();
        let answered = Answered {
            operation: self.operation,
            status: self.status.as_u16(),
            received_bytes,
            sent_bytes,
            duration,
        };
        answered.record();
        tracing::info!(
            target: logging::ACCESS,
            request_id = %self.request_id,
            method = %self.method,
            operation = self.operation,
            status = self.status.as_u16(),
            code = self.code.as_deref(),
            tenant = self.tenant.map(tracing::field::display),
            peer = self.peer.address.map(|address| tracing::field::display(address.ip())),
            tls = self.peer.is_tls,
            received_bytes,
            sent_bytes,
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            complete = is_complete,
            "request"
        );
    }
}

/// The body of an answer; writes the record when it is dropped.
pub(super) struct RecordedBody {
    inner: ResponseBody,
    record: Record,
    sent_bytes: u64,
    has_ended: bool,
}

impl RecordedBody {
    /// Wraps the body of the answer to `record`.
    pub(super) fn new(inner: ResponseBody, record: Record) -> Self {
        let has_ended = inner.is_end_stream() || record.method == Method::HEAD;
        Self { inner, record, sent_bytes: 0, has_ended }
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        let is_complete = self.has_ended || self.inner.is_end_stream();
        self.record.write(self.sent_bytes, is_complete);
    }
}

impl Body for RecordedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.sent_bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
            }
            Poll::Ready(None) => self.has_ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
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
