//! The command line's side of the operator's API.
//!
//! Owns: one connection to `admin.sock`. Knows nothing of: what is asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::socket::reachable_path;
use super::types::Refusal;

/// Why a call got no answer that could be used.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody answers at the socket.
    NoNode(PathBuf, io::Error),
    /// The node said no.
    Refused(Refusal),
    /// The connection broke, or the answer is not understood.
    Broken(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode(data, error) => {
                let data = data.display();
                write!(f, "no node runs on {data} ({error}): start one with `kluis serve {data}`")
            }
            Self::Refused(refusal) => f.write_str(&refusal.message),
            Self::Broken(what) => write!(f, "talk to the node: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection to a running node.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the node that has `data` open.
    pub(crate) async fn connect(data: &Path) -> Result<Self, ClientError> {
        let no_node = |error| ClientError::NoNode(data.to_owned(), error);
        let (path, _folder) = reachable_path(data).map_err(no_node)?;
        let socket = UnixStream::connect(path).await.map_err(no_node)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Calls a route without a body.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
    ) -> Result<T, ClientError> {
        self.send(method, path, Bytes::new()).await
    }

    /// Calls a route with a body.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.send(Method::POST, path, body.into()).await
    }

    async fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "kluis")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let is_success = response.status().is_success();
        let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
        if is_success {
            return serde_json::from_slice(&bytes).map_err(broken);
        }
        Err(ClientError::Refused(serde_json::from_slice(&bytes).map_err(broken)?))
    }
}

fn broken(error: impl fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// A name as a segment of a path.
pub(crate) fn encode(name: &str) -> String {
    use fmt::Write as _;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}
