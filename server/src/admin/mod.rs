//! The operator's API: JSON over HTTP on `admin.sock` in the data directory, and on a TLS listener
//! that asks for client certificates.
//!
//! ```text
//! GET    /v1/status                                   GET  /v1/tenants?after=&limit=
//! POST   /v1/tenants {"names":[…]}                    GET  /v1/tenants/NAME
//! POST   /v1/tenants/NAME/suspend | resume            GET  /v1/tenants/NAME/users?after=&limit=
//! POST   /v1/tenants/NAME/users {"name"}              GET  /v1/tenants/NAME/access-keys?user=
//! POST   /v1/tenants/NAME/access-keys {"user"}        DELETE /v1/tenants/NAME/access-keys/ID
//! GET    /v1/tenants/NAME/audit?after=&limit=
//! GET    /v1/scrub                                    POST /v1/scrub: begins a pass now
//! GET    /v1/damage?after=&limit=
//! GET    /v1/volumes                                  POST /v1/volumes/replace {"path"}
//! GET    /v1/backup                                   POST /v1/backup {"to",…}: answers at its end
//! ```
//! Owns: routes, and who may connect (`socket.rs`). Knows nothing of: signatures, S3.
//!
//! Invariants
//! - No route returns plaintext, object names or user metadata. But whoever reaches the API of a
//!   running node can make an access key and read with it over S3, as the key's user. That is on
//!   record: each such change is a log line of the target `kluis::admin`. At rest nothing can be
//!   read without the passphrase.
//! - A change that was begun is finished, whether or not the client waits for the answer.

mod audit;
mod backup;
mod client;
mod routes;
mod scrub;
mod socket;
mod types;
mod volumes;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use kluis_kms::ShiftedClock;
use kluis_storage::Engine;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use audit::TARGET as AUDIT;
pub(crate) use client::{Client, ClientError, encode};
pub(crate) use socket::{bind, serve_socket, socket_path};
pub(crate) use types::*;

use crate::auth::creds::{Directory, DirectoryError, DirectoryErrorKind};
use crate::front::Observer;
use crate::http::{Answer, Handler, Peer, ResponseBody};
use crate::limits::RequestBody;
use audit::Asker;

/// The largest request: a thousand names of tenants.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The operator's API.
pub(crate) struct Admin {
    engine: Engine,
    directory: Directory,
    observer: Arc<Observer>,
    /// Moved on by hand, on a node for trying things out.
    dev_clock: Option<Arc<ShiftedClock>>,
}

/// What a route gives: a status and JSON, or a refusal.
type Reply = Result<(StatusCode, String), Refused>;

/// A refusal and its status.
struct Refused(StatusCode, Refusal);

impl Refused {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        Self(status, Refusal { kind: kind.to_owned(), message: message.into() })
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }
}

impl From<DirectoryError> for Refused {
    fn from(error: DirectoryError) -> Self {
        let (status, kind) = match error.kind() {
            DirectoryErrorKind::Exists => (StatusCode::CONFLICT, "exists"),
            DirectoryErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            DirectoryErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            DirectoryErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<kluis_storage::Error> for Refused {
    fn from(error: kluis_storage::Error) -> Self {
        DirectoryError::from(error).into()
    }
}

fn ok<T: Serialize>(value: &T) -> Reply {
    with_status(StatusCode::OK, value)
}

fn with_status<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let text = serde_json::to_string(value).map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "unavailable", error.to_string())
    })?;
    Ok((status, text))
}

impl Admin {
    /// The API of a node.
    pub(crate) fn new(engine: Engine, directory: Directory, observer: Arc<Observer>) -> Self {
        Self { engine, directory, observer, dev_clock: None }
    }

    /// With a clock of the keys that may be moved on.
    pub(crate) fn with_dev_clock(mut self, clock: Option<Arc<ShiftedClock>>) -> Self {
        self.dev_clock = clock;
        self
    }

    async fn reply(self: Arc<Self>, request: Request<RequestBody>, who: Asker) -> Reply {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let segments: Vec<String> =
            path.split('/').skip(1).map(routes::decode).collect::<Option<_>>().ok_or_else(
                || Refused::new(StatusCode::BAD_REQUEST, "invalid", "the path is not UTF-8"),
            )?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = parts.uri.query().unwrap_or_default();
        match (&parts.method, segments.as_slice()) {
            (&Method::GET, ["v1", "status"]) => self.status(),
            (&Method::POST, ["v1", "dev", "clock"]) => {
                let asked = read(body).await?;
                finish(async move { self.advance_clock(who, asked).await }).await
            }
            (&Method::GET, ["v1", "space"]) => self.space(),
            (&Method::POST, ["v1", "reclaim"]) => finish(async move { self.reclaim().await }).await,
            (&Method::GET, ["v1", "scrub"]) => self.scrub_state(),
            (&Method::POST, ["v1", "scrub"]) => self.scrub_now(who),
            (&Method::GET, ["v1", "damage"]) => self.list_damage(query).await,
            (&Method::GET, ["v1", "volumes"]) => self.list_volumes(),
            (&Method::POST, ["v1", "volumes", "replace"]) => {
                let asked = read(body).await?;
                finish(async move { self.replace_member(who, asked).await }).await
            }
            (&Method::GET, ["v1", "backup"]) => self.backup_state(),
            (&Method::POST, ["v1", "backup"]) => {
                let asked = read(body).await?;
                finish(async move { self.back_up(who, asked).await }).await
            }
            (&Method::GET, ["v1", "tenants"]) => self.list_tenants(query),
            (&Method::POST, ["v1", "tenants"]) => {
                let asked = read(body).await?;
                finish(async move { self.create_tenants(who, asked).await }).await
            }
            (&Method::GET, ["v1", "tenants", tenant]) => self.show_tenant(tenant),
            (&Method::POST, ["v1", "tenants", tenant, verb @ ("suspend" | "resume")]) => {
                let (tenant, is_suspended) = ((*tenant).to_owned(), *verb == "suspend");
                finish(async move { self.set_suspended(who, &tenant, is_suspended).await }).await
            }
            (&Method::GET, ["v1", "tenants", tenant, "users"]) => self.list_users(tenant, query),
            (&Method::POST, ["v1", "tenants", tenant, "users"]) => {
                let (tenant, asked) = ((*tenant).to_owned(), read(body).await?);
                finish(async move { self.create_user(who, &tenant, asked).await }).await
            }
            (&Method::GET, ["v1", "tenants", tenant, "access-keys"]) => {
                self.list_access_keys(tenant, query)
            }
            (&Method::GET, ["v1", "tenants", tenant, "audit"]) => {
                self.list_audit_events(tenant, query).await
            }
            (&Method::POST, ["v1", "tenants", tenant, "access-keys"]) => {
                let (tenant, asked) = ((*tenant).to_owned(), read(body).await?);
                finish(async move { self.create_access_key(who, &tenant, asked).await }).await
            }
            (&Method::DELETE, ["v1", "tenants", tenant, "access-keys", id]) => {
                let (tenant, id) = ((*tenant).to_owned(), (*id).to_owned());
                finish(async move { self.revoke_access_key(who, &tenant, &id).await }).await
            }
            _ => Err(Refused::not_found(format!("there is no {} {path}", parts.method))),
        }
    }
}

impl Handler for Admin {
    fn handle(self: Arc<Self>, request: Request<RequestBody>, peer: Peer) -> Answer {
        Box::pin(async move {
            let method = request.method().clone();
            let path = request.uri().path().to_owned();
            let who = Asker::new(&peer);
            let (status, text) =
                self.reply(request, who).await.unwrap_or_else(|Refused(status, why)| {
                    (status, serde_json::to_string(&why).unwrap_or_default())
                });
            tracing::info!(
                %method,
                path,
                uid = peer.operator.map(crate::auth::Operator::uid),
                peer = peer.address.map(tracing::field::display),
                status = status.as_u16(),
                "operator request"
            );
            response(status, text)
        })
    }
}

/// Runs a change to its end in a task of its own: the client may go away before.
async fn finish(change: impl Future<Output = Reply> + Send + 'static) -> Reply {
    tokio::spawn(change).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an operator request panicked; this is a bug");
        Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "unavailable", "internal error"))
    })
}

async fn read<T: DeserializeOwned>(body: RequestBody) -> Result<T, Refused> {
    let invalid = |message: String| Refused::new(StatusCode::BAD_REQUEST, "invalid", message);
    let bytes = Limited::new(body, REQUEST_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| invalid(format!("read the request: {error}")))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| invalid(format!("read the request: {error}")))
}

fn response(status: StatusCode, text: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
