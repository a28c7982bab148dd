//! Header names of HTTP/1 answers, written as AWS writes them.
//!
//! Names are case-insensitive, and some clients look for `ETag` all the same. hyper writes names in
//! lower case, or in title case (`Etag`), or as a map of spellings says that it keeps from a
//! message it has read. That map's type is private, so one is made by letting hyper read a request
//! with the spellings wanted. Owns: that map. Knows nothing of: requests that clients send.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

/// A request that spells the names. Names of `x-amz-…` headers are in lower case at AWS too.
const SPELLING: &[u8] = b"GET / HTTP/1.1\r\n\
    Accept-Ranges: x\r\n\
    Cache-Control: x\r\n\
    Connection: close\r\n\
    Content-Disposition: x\r\n\
    Content-Encoding: x\r\n\
    Content-Language: x\r\n\
    Content-Length: 0\r\n\
    Content-Range: x\r\n\
    Content-Type: x\r\n\
    Date: x\r\n\
    ETag: x\r\n\
    Expires: x\r\n\
    Last-Modified: x\r\n\
    Location: x\r\n\
    Server: x\r\n\r\n";
/// Room for the request in the pipe.
const PIPE_BYTES: usize = 4_096;

/// Extensions that make hyper spell the names of an answer.
pub(super) async fn canonical() -> Extensions {
    let (mut client, server) = tokio::io::duplex(PIPE_BYTES);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let service = service_fn(|request: Request<Incoming>| {
        let sender = sender.lock().ok().and_then(|mut slot| slot.take());
        let _ = sender.map(|sender| sender.send(request.extensions().clone()));
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let _ = client.write_all(SPELLING).await;
    let connection = http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(server), service);
    let _ = connection.await;
    // Without the map, names would be in lower case: right, if not to every client's taste.
    receiver.await.unwrap_or_default()
}
