//! The body of a request: framing off, lengths and digests checked, without gathering it.
//!
//! Owns: [`DecodedBody`], which wraps the body that hyper yields. The steps are in `plan.rs` (what
//! the head announces), `chunked.rs` (framing), `digests.rs` (checksums) and `error.rs` (S3 codes).
//! Knows nothing of: access keys, objects, what becomes of the bytes.
//!
//! Invariants
//! - The last byte of a body whose length is declared leaves only after every check has passed, and
//!   the end (`None`) of any body only then. A body that fails ends with an error, never silently.
//! - Nothing is read ahead: one poll of this body is at most as many polls of the inner one as it
//!   takes to have a piece.
//! - Bytes are passed on as the slices that came in, except signed chunks that came in pieces.
//!   What a client may send and what it is told: docs/ARCHITECTURE.md, "Front".

mod checksums;
mod chunked;
mod digests;
mod error;
mod plan;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use chunked::{ChunkDecoder, PIECE_BYTES_MAX};
use digests::Checks;
pub(crate) use digests::DigestHandle;
pub(crate) use error::{BodyError, BoxError};
use plan::Framing;
pub(crate) use plan::{BodyPlan, PayloadForm, invalid_payload_form};

/// A request's body as the client meant it.
pub(crate) struct DecodedBody<B> {
    inner: B,
    decoder: Option<ChunkDecoder>,
    checks: Checks,
    handle: DigestHandle,
    size: Option<u64>,
    needs_size: bool,
    /// What came in and is not decoded yet.
    input: Bytes,
    /// Bytes decoded so far.
    decoded: u64,
    /// Bytes handed out so far.
    yielded: u64,
    /// The piece with the last byte, until the checks have passed.
    held: Option<Bytes>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Open,
    /// All checks passed; the held piece may still be here.
    Verified,
    /// The error was handed out.
    Failed,
}

impl<B> DecodedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// The body `inner`, to be read by `plan`, and the handle on its digests.
    pub(crate) fn new(plan: BodyPlan, inner: B) -> (Self, DigestHandle) {
        let handle = DigestHandle::new(&plan);
        let decoder = match plan.framing {
            Framing::Chunks { chain } => Some(ChunkDecoder::new(chain, plan.trailer)),
            Framing::Plain => None,
        };
        let body = Self {
            inner,
            decoder,
            checks: Checks::new(handle.clone(), plan.sent, plan.payload_sha256),
            handle: handle.clone(),
            size: plan.size,
            needs_size: plan.needs_size,
            input: Bytes::new(),
            decoded: 0,
            yielded: 0,
            held: None,
            state: State::Open,
        };
        (body, handle)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        self.checks.start();
        loop {
            if let Some(piece) = self.decode()? {
                if let Some(piece) = self.account(piece)? {
                    return Poll::Ready(Ok(Some(piece)));
                }
                continue;
            }
            if self.size.is_none() && self.needs_size && !self.inner.is_end_stream() {
                return Poll::Ready(Err(BodyError::MissingLength));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // HTTP's own trailers carry nothing for us: those of aws-chunked are in the
                    // data.
                    self.input = frame.into_data().unwrap_or_default();
                }
                Some(Err(cause)) => return Poll::Ready(Err(BodyError::Transport(cause.into()))),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(decoder) = &mut self.decoder {
            return decoder.decode(&mut self.input);
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        let count = self.input.len().min(PIECE_BYTES_MAX);
        Ok(Some(self.input.split_to(count)))
    }

    /// Counts and digests a piece. Holds it back if it completes the body.
    fn account(&mut self, piece: Bytes) -> Result<Option<Bytes>, BodyError> {
        self.decoded += piece.len() as u64;
        if self.size.is_some_and(|size| self.decoded > size) {
            return Err(BodyError::LengthMismatch);
        }
        self.checks.update(&piece);
        if self.size == Some(self.decoded) {
            self.held = Some(piece);
            return Ok(None);
        }
        Ok(Some(piece))
    }

    /// The inner body has ended: everything must add up.
    fn end(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(decoder) = &self.decoder {
            decoder.finish()?;
        }
        if self.size.is_some_and(|size| self.decoded != size) {
            return Err(BodyError::LengthMismatch);
        }
        if let Some((algorithm, text)) = self.decoder.as_ref().and_then(ChunkDecoder::trailer_value)
        {
            let checksum = checksums::decode(algorithm, text).ok_or_else(|| {
                BodyError::InvalidTrailerValue(checksums::field_name(algorithm).to_owned())
            })?;
            self.checks.sent.push(checksum);
        }
        self.checks.finish()?;
        self.state = State::Verified;
        Ok(self.held.take())
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.handle.fail(&error);
        self.state = State::Failed;
        self.held = None;
        self.input = Bytes::new();
        error
    }
}

impl<B> Body for DecodedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.state != State::Open {
            return Poll::Ready(None);
        }
        let piece = match ready!(this.poll_piece(cx)) {
            Ok(piece) => piece,
            Err(error) => return Poll::Ready(Some(Err(this.fail(error)))),
        };
        Poll::Ready(piece.map(|piece| {
            this.yielded += piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    /// `false` until the checks have passed, even for an empty body: whoever asks before reading
    /// must not take the checks for granted.
    fn is_end_stream(&self) -> bool {
        self.state != State::Open
    }

    fn size_hint(&self) -> SizeHint {
        match (self.size, self.state) {
            (Some(size), State::Open) => SizeHint::with_exact(size - self.yielded),
            (None, State::Open) => SizeHint::default(),
            (_, State::Failed | State::Verified) => SizeHint::with_exact(0),
        }
    }
}

impl<B> std::fmt::Debug for DecodedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedBody")
            .field("size", &self.size)
            .field("decoded", &self.decoded)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
