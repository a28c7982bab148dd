//! What every request to the S3 listener goes through, in order.
//!
//! ```text
//! request id → health, metrics → authenticate → rewrite → memory for the body → S3 → complete
//!                             └─► claim → memory → body → authenticate → KMS API (keys.rs)
//! ```
//! Owns: that order, request ids, error documents, the access log. Knows nothing of: sockets,
//! signatures, what an S3 operation does.
//!
//! Invariants
//! - No byte of a body is asked for before its request is authenticated and admitted, so nobody
//!   else gets `100 Continue`. The KMS API is the one exception; see [`keys`].
//! - Every answer carries `x-amz-request-id`, `x-amz-id-2` and `Server`, and every error that may
//!   have a body has a complete document.
//! - A panic while a request is served is that request's `InternalError`.

mod admission;
mod document;
mod keys;
mod observe;
mod operation;
mod record;
mod request_id;
mod rewrite;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use kluis_kms::RequestId;
use kluis_kms::env::Rng;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::auth::sigv4::{Authenticator, Service, Verified};
use crate::auth::{Caller, User};
use crate::body::DecodedBody;
use crate::config::Config;
use crate::error::ApiError;
use crate::http::{Answer, BoxError, Handler, Peer, ResponseBody};
use crate::key_policy::Origin;
use crate::limits::{BodyState, BodyWatch, RequestBody};
use crate::s3::door::{Door, Private};
use admission::{Admission, Expected};
pub(crate) use keys::ServeKms;
pub(crate) use observe::Observer;
use record::{Record, RecordedBody};
use request_id::RequestIds;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// Verifies who sent a request.
pub(crate) trait Authenticate: Send + Sync + 'static {
    /// Verifies the head; nothing of the body has been read.
    fn authenticate(&self, parts: &Parts) -> Result<Verified, ApiError>;

    /// Checks all that a signature says and needs no body; whether it is right is not known yet.
    fn check_claim(&self, parts: &Parts, service: Service) -> Result<(), ApiError>;

    /// Verifies a request whose body was read.
    fn authenticate_buffered(
        &self,
        parts: &Parts,
        service: Service,
        body: &[u8],
    ) -> Result<Arc<User>, ApiError>;
}

impl Authenticate for Authenticator {
    fn authenticate(&self, parts: &Parts) -> Result<Verified, ApiError> {
        Self::authenticate(self, parts)
    }

    fn check_claim(&self, parts: &Parts, service: Service) -> Result<(), ApiError> {
        Self::check_claim(self, parts, service)
    }

    fn authenticate_buffered(
        &self,
        parts: &Parts,
        service: Service,
        body: &[u8],
    ) -> Result<Arc<User>, ApiError> {
        Self::authenticate_buffered(self, parts, service, body)
    }
}

/// The answer of the S3 side. One that is an error has its [`ApiError`] in its extensions.
pub(crate) type S3Answer = Pin<Box<dyn Future<Output = Response<s3s::Body>> + Send>>;

/// Serves authenticated S3 requests.
pub(crate) trait ServeS3: Send + Sync + 'static {
    /// Serves one. Its extensions hold the caller, the request id and the handle on its digests.
    fn serve(&self, request: Request<s3s::Body>) -> S3Answer;
}

impl ServeS3 for Door {
    fn serve(&self, request: Request<s3s::Body>) -> S3Answer {
        let door = self.clone();
        Box::pin(async move { door.call(request).await })
    }
}

/// The front of the S3 listener.
pub(crate) struct Front {
    authenticator: Box<dyn Authenticate>,
    s3: Box<dyn ServeS3>,
    kms: Box<dyn ServeKms>,
    /// Health and metrics, if this listener answers them.
    observer: Option<Arc<Observer>>,
    ids: RequestIds,
    domain: Option<String>,
    admission: Admission,
}

impl Front {
    /// A front as `config` says.
    pub(crate) fn new(
        config: &Config,
        authenticator: impl Authenticate,
        (s3, kms): (impl ServeS3, impl ServeKms),
        observer: Option<Arc<Observer>>,
        rng: &dyn Rng,
    ) -> Self {
        Self {
            authenticator: Box::new(authenticator),
            s3: Box::new(s3),
            kms: Box::new(kms),
            observer,
            ids: RequestIds::new(rng),
            domain: config.domain.clone(),
            admission: Admission::new(config),
        }
    }

    async fn answer(&self, request: Request<RequestBody>, peer: Peer) -> Response<ResponseBody> {
        let begun = Instant::now();
        let request_id = self.ids.next();
        let (mut parts, body) = request.into_parts();
        if let Some(response) = self.observer.as_ref().and_then(|it| it.answer(&parts)) {
            return self.stamp(response, &request_id);
        }
        rewrite::add_host(&mut parts);
        let asked = Asked::new(&parts, self.domain.as_deref());
        let is_call = keys::is_call(&parts, &asked.resource);
        let operation = if is_call {
            keys::operation_name(&parts)
        } else {
            operation::name(&parts, &asked.resource)
        };
        let mut record = Record {
            request_id: request_id.clone(),
            begun,
            method: parts.method.clone(),
            operation,
            tenant: None,
            peer,
            status: StatusCode::OK,
            code: None,
            body: body.watch(),
        };
        // What anything below logs carries the request id.
        let span = tracing::error_span!("request", %request_id);
        let mut response = if is_call {
            let serving = self.serve_call(parts, body, &mut record).instrument(span);
            let served = whole(serving, &request_id).await;
            let served = served.unwrap_or_else(|| Err(crate::kms::error::internal()));
            let (response, code) = keys::answer(served, &request_id);
            record.code = code.map(str::to_owned);
            response
        } else {
            let serving = self.serve(parts, body, &mut record).instrument(span);
            let served = whole(serving, &request_id).await;
            let answer = answer_of(served.unwrap_or_else(|| Err(internal_error())), &record.body);
            self.complete(answer, &asked, &mut record)
        };
        if asked.wants_close(&record.body) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        record.status = response.status();
        let response = response.map(|body| RecordedBody::new(body, record).boxed_unsync());
        self.stamp(response, &request_id)
    }

    /// Everything between the request id and the completion of the answer.
    async fn serve(
        &self,
        mut parts: Parts,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<Response<s3s::Body>, ApiError> {
        refuse_early(&parts)?;
        let Verified { caller, plan } = self.authenticator.authenticate(&parts)?;
        // The policy never allows anonymous callers anything in this release, so a request without
        // credentials takes no memory, and no byte of its body is read.
        let Caller::User(user) = &caller else {
            return Err(access_denied());
        };
        record.tenant = Some(user.tenant);
        let (wire, held_max) = (admission::wire_bytes(&parts.headers), plan.held_bytes_max());
        // Wraps the body and reads nothing of it.
        let (body, digests) = DecodedBody::new(plan, body);
        let decoded = digests.declared_size();
        rewrite::apply(&mut parts, self.domain.as_deref(), decoded)?;
        let expected = Expected { wire, decoded, held_max };
        let _memory = match record.body.state() {
            BodyState::Ended => None,
            _ => Some(self.admission.admit(&parts, expected).await?),
        };
        parts.extensions.insert(caller);
        parts.extensions.insert(Private(is_private(&record.peer)));
        parts.extensions.insert(record.request_id.clone());
        let ip = record.peer.address.map(|address| address.ip());
        parts.extensions.insert(Origin { ip, is_tls: record.peer.is_tls });
        parts.extensions.insert(digests);
        let body = s3s::Body::http_body_unsync(body);
        Ok(self.s3.serve(Request::from_parts(parts, body)).await)
    }

    /// Gives an error its document, and takes bodies away where HTTP has none.
    fn complete(
        &self,
        answer: Result<Response<s3s::Body>, ApiError>,
        asked: &Asked,
        record: &mut Record,
    ) -> Response<ResponseBody> {
        let (mut head, error) = match answer {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                match head.extensions.remove::<ApiError>() {
                    Some(error) => (head, error),
                    None => return Response::from_parts(head, body.boxed_unsync()),
                }
            }
            Err(error) => {
                let (mut head, ()) = Response::new(()).into_parts();
                head.status = error.status;
                (head, error)
            }
        };
        record.code = Some(error.code.clone().into_owned());
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(CONTENT_TYPE);
        if asked.is_head || head.status == StatusCode::NOT_MODIFIED {
            return Response::from_parts(head, empty());
        }
        let host_id = self.ids.host_id(&record.request_id);
        let text = document::write(&error, &asked.resource, record.request_id.as_str(), &host_id);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
        Response::from_parts(head, body.boxed_unsync())
    }

    /// Adds the headers that every answer has; hyper adds `Date`.
    fn stamp(
        &self,
        mut response: Response<ResponseBody>,
        request_id: &RequestId,
    ) -> Response<ResponseBody> {
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("Kluis"));
        let ids = [(REQUEST_ID, request_id.as_str()), (HOST_ID, &self.ids.host_id(request_id))];
        for (name, text) in ids {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl Handler for Front {
    fn handle(self: Arc<Self>, request: Request<RequestBody>, peer: Peer) -> Answer {
        Box::pin(async move { self.answer(request, peer).await })
    }
}

/// What a request came to, or nothing if serving it panicked.
async fn whole<T>(serving: impl Future<Output = T>, request_id: &RequestId) -> Option<T> {
    let served = AssertUnwindSafe(serving).catch_unwind().await;
    if served.is_err() {
        tracing::error!(%request_id, "a request panicked; this is a bug");
    }
    served.ok()
}

/// What the completion of an answer has to know of its request.
struct Asked {
    is_head: bool,
    is_http1: bool,
    resource: String,
}

impl Asked {
    fn new(parts: &Parts, domain: Option<&str>) -> Self {
        let path = parts.uri.path();
        let bucket = domain.and_then(|domain| rewrite::bucket_of_host(parts, domain));
        Self {
            is_head: parts.method == Method::HEAD,
            is_http1: parts.version <= Version::HTTP_11,
            resource: bucket.map_or_else(|| path.to_owned(), |bucket| format!("/{bucket}{path}")),
        }
    }

    /// Whether the connection cannot be used again, since the rest of a body is still on its way.
    fn wants_close(&self, body: &BodyWatch) -> bool {
        self.is_http1 && body.state() != BodyState::Ended
    }
}

/// Whether nobody on the way reads along: TLS, or a connection that never leaves this machine.
fn is_private(peer: &Peer) -> bool {
    peer.is_tls || peer.address.is_none_or(|address| address.ip().to_canonical().is_loopback())
}

/// Refuses what no signature can make right.
fn refuse_early(parts: &Parts) -> Result<(), ApiError> {
    let is_form =
        parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|text| {
            text.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
        });
    match parts.method {
        Method::OPTIONS if !parts.headers.contains_key(http::header::ORIGIN) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "Insufficient information. Origin request header needed.",
        )),
        Method::OPTIONS => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "AccessForbidden",
            "CORSResponse: CORS is not enabled for this bucket.",
        )),
        Method::POST if is_form => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "Uploads by HTML form are not implemented.",
        )),
        Method::DELETE | Method::GET | Method::HEAD | Method::POST | Method::PUT => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        )),
    }
}

/// A client that stopped sending is told so, whatever the reader of the body made of it.
fn answer_of(
    answer: Result<Response<s3s::Body>, ApiError>,
    body: &BodyWatch,
) -> Result<Response<s3s::Body>, ApiError> {
    let has_failed = answer.as_ref().map_or(true, |it| it.status().as_u16() >= 400);
    if has_failed && body.state() == BodyState::Stalled {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "RequestTimeout",
            "Your socket connection to the server was not read from or written to within the \
             timeout period. Idle connections will be closed.",
        ));
    }
    answer
}

fn access_denied() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied")
}

fn internal_error() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalError",
        "We encountered an internal error. Please try again.",
    )
}

fn empty() -> ResponseBody {
    Empty::new().map_err(|never| -> BoxError { match never {} }).boxed_unsync()
}

#[cfg(test)]
mod tests;
