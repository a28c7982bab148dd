//! A TCP socket that others may reach while its connection's task owns it.
//!
//! Owns: reads and writes through a shared handle, and how much the kernel may hold for a client.
//! Knows nothing of: HTTP, keys.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the kernel takes from us for one client before it has acknowledged it (Linux doubles the
/// number for its own book-keeping). What lies there when a key is disabled is dropped unsent; the
/// bound keeps that, and the memory of many slow readers, small. One connection over a line with a
/// round trip of 100 ms gets 5 MB/s at least.
const SEND_BUFFER_BYTES: usize = 512 << 10;

/// A connected socket. The handle is shared weakly with whoever may disconnect it.
pub(super) struct Socket(Arc<TcpStream>);

impl Socket {
    /// Takes an accepted socket over and sets its options.
    pub(super) fn new(socket: TcpStream) -> Self {
        // Answers go out at once; hyper already gathers what belongs together.
        let _ = socket.set_nodelay(true);
        if let Err(error) = set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES) {
            tracing::warn!(%error, "the send buffer of a connection could not be bounded");
        }
        Self(Arc::new(socket))
    }

    /// The handle.
    pub(super) fn handle(&self) -> &Arc<TcpStream> {
        &self.0
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).map_err(Into::into),
        )
    }
}
