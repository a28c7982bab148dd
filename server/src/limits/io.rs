//! The socket under HTTP, reporting to its [`ConnWatch`] and handing itself back at the end.
//!
//! Owns: nothing but the socket. Knows nothing of: HTTP; the watch decides.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ConnWatch;
use crate::http::Line;

/// Where a [`GuardedIo`] puts its socket when it is dropped, so that the connection can still be
/// closed in good order: an answer that was sent before the request was read is lost when the
/// kernel resets the connection over the unread bytes.
pub(crate) type ReturnSlot<S> = Arc<Mutex<Option<S>>>;

/// A socket whose reads and writes are counted.
pub(crate) struct GuardedIo<S> {
    socket: Option<S>,
    slot: ReturnSlot<S>,
    watch: Arc<ConnWatch>,
    line: Arc<Line>,
}

impl<S> GuardedIo<S> {
    /// Wraps `socket`; it can be taken from the slot once the wrapper is gone.
    pub(crate) fn new(socket: S, watch: Arc<ConnWatch>, line: Arc<Line>) -> (Self, ReturnSlot<S>) {
        let slot = ReturnSlot::default();
        (Self { socket: Some(socket), slot: Arc::clone(&slot), watch, line }, slot)
    }
}

impl<S: Unpin> GuardedIo<S> {
    fn socket(&mut self) -> io::Result<Pin<&mut S>> {
        if self.line.is_cut() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S> Drop for GuardedIo<S> {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.socket.take();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.watch.may_read() {
            return Poll::Ready(Err(io::Error::other("header section too large")));
        }
        let before = buffer.filled().len();
        ready!(self.socket()?.poll_read(cx, buffer))?;
        self.watch.on_read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket()?.poll_write(cx, bytes))?;
        self.watch.on_write(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket()?.poll_write_vectored(cx, slices))?;
        self.watch.on_write(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket()?.poll_flush(cx))?;
        // hyper flushes once it has written all that it holds.
        self.line.flushed();
        Poll::Ready(Ok(()))
    }

    /// Only flushes: the connection's task shuts the socket down after it got it back.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
