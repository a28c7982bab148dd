//! Listeners and connections: accept, TLS, HTTP/1.1 and HTTP/2, limits, drain.
//!
//! Owns: sockets, from accept to close. Knows nothing of: what a request means; a [`Handler`] does.
//!
//! Invariants
//! - At most `connections_max` connections are open; more wait in the listen queue of the kernel.
//! - A request body is polled by the handler only, so `100 Continue` is sent when the handler first
//!   asks for the body, which it does after it has authorised the request.
//! - Once a tenant key's gate has closed, no byte that was decrypted under it is sent
//!   (`open_bodies`).
//! - After the drain signal no connection is accepted, none gets a second request, and none
//!   outlives the drain time.

mod connection;
mod header_case;
mod open_bodies;
mod socket;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub(crate) use connection::serve_one;
pub(crate) use open_bodies::{Line, OpenBodies};

use crate::auth::Operator;
use crate::config::Config;
use crate::limits::{Limits, RequestBody};
use crate::tls::Tls;

/// The largest read and write of HTTP/1. Big enough that an upload at full speed needs few system
/// calls; the header section has its own, smaller bound.
const HTTP1_BUFFER_BYTES: usize = 512 << 10;
/// What one HTTP/2 request may have under way to us, unread.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What one HTTP/2 connection may have under way to us, unread.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long an HTTP/2 connection may be silent before it is asked whether it is still there.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
/// Pause after a failed accept: the usual cause, too many open files, does not pass by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What fails in the middle of an answer.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
/// An answer on its way.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its address; none on a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub(crate) is_tls: bool,
    /// The operator, on the admin socket.
    pub(crate) operator: Option<Operator>,
}

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request. Failures are answers too.
    fn handle(self: Arc<Self>, request: Request<RequestBody>, peer: Peer) -> Answer;
}

/// How connections are run.
#[derive(Clone)]
pub(crate) struct Settings {
    /// What one client may take.
    pub(crate) limits: Limits,
    /// Connections open at one time.
    pub(crate) connections_max: usize,
    /// Header fields in one request.
    pub(crate) header_count_max: usize,
    /// Requests open on one HTTP/2 connection.
    pub(crate) http2_streams_max: u32,
    /// How long requests may take to finish once the drain has begun.
    pub(crate) drain: Duration,
}

impl Settings {
    /// The settings of `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let bounded = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            limits: Limits::new(config),
            connections_max: bounded(config.connections_max).min(Semaphore::MAX_PERMITS),
            header_count_max: bounded(config.header_count_max),
            http2_streams_max: u32::try_from(config.http2_streams_max).unwrap_or(u32::MAX),
            drain: Duration::from_secs(config.drain_seconds),
        }
    }

    fn protocol(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Header time-outs are ours (`limits`): hyper's do not cover the time before it has told
        // HTTP/1 from HTTP/2.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(HTTP1_BUFFER_BYTES)
            .max_headers(self.header_count_max);
        let header_bytes = u32::try_from(self.limits.header_bytes_max).unwrap_or(u32::MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(header_bytes)
            .max_concurrent_streams(self.http2_streams_max)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(self.limits.stall_timeout);
        builder
    }
}

/// Tells every listener and connection to finish.
#[derive(Clone)]
pub(crate) struct Drain(watch::Sender<bool>);

impl Drain {
    /// A drain that has not begun.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Begins it.
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has begun.
    pub(crate) async fn begun(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|has_begun| *has_begun).await;
    }
}

/// What every connection of a listener shares.
pub(crate) struct Shared {
    handler: Arc<dyn Handler>,
    settings: Settings,
    protocol: auto::Builder<TokioExecutor>,
    header_case: http::Extensions,
    drain: Drain,
    open_bodies: OpenBodies,
}

impl Shared {
    /// Prepares to serve connections with `handler`.
    pub(crate) async fn new(handler: Arc<dyn Handler>, settings: Settings, drain: Drain) -> Self {
        let protocol = settings.protocol();
        let header_case = header_case::canonical().await;
        let open_bodies = OpenBodies::new();
        Self { handler, settings, protocol, header_case, drain, open_bodies }
    }

    /// Keeps its connections in `open_bodies`, where a closed key finds them.
    pub(crate) fn with_open_bodies(mut self, open_bodies: OpenBodies) -> Self {
        self.open_bodies = open_bodies;
        self
    }

    /// How long requests may take to finish once the drain has begun.
    pub(crate) fn drain_time(&self) -> Duration {
        self.settings.drain
    }
}

/// Serves `listener` until the drain has ended. With `tls`, plain HTTP is not understood.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(shared.settings.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shared.drain.begun() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((socket, address, permit)) = accepted else {
            continue;
        };
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            connection::serve_tcp(socket, address, tls, &shared).await;
            drop(permit);
        });
    }
    drop(listener);
    finish(connections, shared.settings.drain).await;
}

/// Waits for connections to end, at most for the drain time, and ends the rest.
pub(crate) async fn finish(mut connections: JoinSet<()>, drain: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(drain, all).await.is_err() {
        tracing::warn!(count = connections.len(), "connections cut at the end of the drain time");
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; its client sees a broken connection");
    }
}

type Accepted = (tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<Accepted> {
    // The semaphore is never closed.
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, address)) => Some((socket, address, permit)),
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

#[cfg(test)]
mod tests;
