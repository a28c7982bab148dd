//! One connection, from its first byte to its close in good order.
//!
//! Owns: the socket's last steps. Knows nothing of: listeners.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::open_bodies::{HeldBody, Line, LineGuard};
use super::socket::Socket;
use super::{Peer, Shared};
use crate::limits::{ActiveRequest, ConnWatch, End, GuardedIo, RequestBody, WatchedBody};
use crate::plaintext::Plaintext;
use crate::tls::Tls;

/// How long unread bytes are read and dropped before a connection closes, so that the client gets
/// to read our answer.
const LINGER: Duration = Duration::from_secs(2);
/// The most bytes read that way: what is on its way on a fast, long line.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// How long a client that was sent plaintext, and neither closes nor resets, may take to read the
/// rest of it: half a mebibyte at 50 kbit/s.
const OUTLAST: Duration = Duration::from_secs(90);
/// Answers for requests that never became one.
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    Server: Kluis\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    Server: Kluis\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What HTTP runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for S {}

/// Serves a TCP connection.
pub(super) async fn serve_tcp(
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    shared: &Shared,
) {
    let socket = Socket::new(socket);
    let line = shared.open_bodies.line(Some(socket.handle()));
    let peer = Peer { address: Some(address), is_tls: tls.is_some(), operator: None };
    let Some(tls) = tls else {
        return serve_line(socket, peer, shared, line).await;
    };
    let handshake = timeout(shared.settings.limits.header_timeout, tls.acceptor().accept(socket));
    let handshake = tokio::select! {
        done = handshake => done,
        () = shared.drain.begun() => return,
    };
    match handshake {
        Ok(Ok(socket)) => serve_line(socket, peer, shared, line).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// Serves a connection that is ready for HTTP and is not a TCP connection.
pub(crate) async fn serve_one<S: Transport>(socket: S, peer: Peer, shared: &Shared) {
    let line = shared.open_bodies.line(None);
    serve_line(socket, peer, shared, line).await;
}

/// Serves a connection that is ready for HTTP. `guard` drops after the socket.
async fn serve_line<S: Transport>(socket: S, peer: Peer, shared: &Shared, guard: LineGuard) {
    let line = guard.line();
    let watch = ConnWatch::new(shared.settings.limits);
    let (io, slot) = GuardedIo::new(socket, Arc::clone(&watch), Arc::clone(line));
    let end = run(io, peer, shared, (&watch, line)).await;
    let socket = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut socket) = socket else {
        return;
    };
    if line.is_cut() {
        return;
    }
    // A body that broke off must not look like one that ended, and whoever does not take the
    // answer gets no more time for the close either.
    if line.has_failed() || end == Some(End::Stalled) {
        return line.cut();
    }
    let answer = match end {
        Some(End::HeaderTooLarge) => TOO_LARGE,
        Some(End::HeaderTimeout) if watch.has_partial_header() => TOO_SLOW,
        _ => b"",
    };
    // A client that does not let us close is dropped.
    let is_closed = timeout(LINGER, close(&mut socket, answer)).await.is_ok();
    if !is_closed && line.has_held() {
        outlast(&mut socket, shared, line).await;
    }
}

/// Keeps a socket whose client may not have read all of its plaintext: a closed one goes on sending
/// what the kernel holds, and could no longer be cut.
async fn outlast<S: Transport>(socket: &mut S, shared: &Shared, line: &Line) {
    tokio::select! {
        _ = discard(socket) => {}
        () = line.until_cut() => {}
        // The process ends, and with it the keys.
        () = shared.drain.begun() => {}
        () = tokio::time::sleep(OUTLAST) => line.cut(),
    }
}

/// Runs HTTP until the connection ends by itself (`None`) or must be ended.
async fn run<S: Transport>(
    io: GuardedIo<S>,
    peer: Peer,
    shared: &Shared,
    (watch, line): (&Arc<ConnWatch>, &Arc<Line>),
) -> Option<End> {
    let stall_timeout = shared.settings.limits.stall_timeout;
    let service = service_fn(|request: Request<Incoming>| {
        let mut active = ActiveRequest::begin(Arc::clone(watch));
        let mut request = request.map(|body| RequestBody::new(body, stall_timeout));
        let body_watch = request.body().watch();
        request.extensions_mut().insert(body_watch);
        let (open_bodies, line) = (shared.open_bodies.clone(), Arc::clone(line));
        let began = (open_bodies.moment(), request.version());
        let answer = Arc::clone(&shared.handler).handle(request, peer);
        let header_case = shared.header_case.clone();
        async move {
            let mut response = answer.await;
            response.extensions_mut().extend(header_case);
            active.set_busy(false);
            let plaintext = response.extensions().get::<Plaintext>().copied();
            let hold = plaintext.and_then(|it| open_bodies.hold(&line, it, began));
            Ok::<_, Infallible>(
                response.map(|body| HeldBody::new(WatchedBody::new(body, active), hold)),
            )
        }
    });
    let mut connection = pin!(shared.protocol.serve_connection(TokioIo::new(io), service));
    let mut expired = pin!(watch.expired());
    let mut drain = pin!(shared.drain.begun());
    let mut is_draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "connection ended");
                }
                return watch.is_header_too_large().then_some(End::HeaderTooLarge);
            }
            end = expired.as_mut() => {
                tracing::debug!(?end, "connection ended: the client has had its time");
                return Some(end);
            }
            () = line.until_cut() => {
                tracing::debug!("connection ended: a key it holds plaintext of was closed");
                return None;
            }
            () = drain.as_mut(), if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn close<S: Transport>(socket: &mut S, answer: &[u8]) -> std::io::Result<()> {
    if !answer.is_empty() {
        socket.write_all(answer).await?;
    }
    socket.shutdown().await?;
    discard(socket).await
}

/// Reads and drops what still comes.
async fn discard<S: Transport>(socket: &mut S) -> std::io::Result<()> {
    let mut dropped = [0; 4_096];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        match socket.read(&mut dropped).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}
