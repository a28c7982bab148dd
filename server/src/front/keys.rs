//! Requests to the KMS API on the S3 listener.
//!
//! Owns: which requests they are, reading their bodies, the form of their answers. Knows nothing
//! of: signatures, what an operation does.
//!
//! Invariants
//! - Clients of this API sign the hash of a body without sending it, so the body is read before the
//!   signature is verified; but only once the request names an access key that exists, with a
//!   scope, a time and signed headers that are right, and under the budget for bodies.
//! - What carries plaintext comes over TLS, or does not leave the machine.
//! - Every answer is JSON, errors and panics included.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kluis_kms::RequestId;
use zeroize::Zeroizing;

use super::admission;
use super::record::Record;
use super::{Front, empty, is_private};
use crate::auth::sigv4::Service;
use crate::http::{Peer, ResponseBody};
use crate::key_policy::Origin;
use crate::kms::error::{self, KmsError};
use crate::kms::{self, BODY_BYTES_MAX, KmsApi, KmsRequest, Served};
use crate::limits::RequestBody;

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
/// Seconds after which a client should ask again when a key store or the node is busy.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");
/// A body is in memory as it came, as fields, and as the answer that may repeat it.
const COPIES: u64 = 3;

/// What a call of the API gives: the body of the answer, or what to say instead.
pub(crate) type KmsAnswer = Pin<Box<dyn Future<Output = Result<Served, KmsError>> + Send>>;

/// Serves authenticated requests to the KMS API.
pub(crate) trait ServeKms: Send + Sync + 'static {
    /// Serves one.
    fn serve(&self, request: KmsRequest) -> KmsAnswer;
}

impl ServeKms for Arc<KmsApi> {
    fn serve(&self, request: KmsRequest) -> KmsAnswer {
        Box::pin(KmsApi::serve(Self::clone(self), request))
    }
}

/// Whether a request is for the KMS API: S3 has no POST to the account.
pub(super) fn is_call(parts: &Parts, resource: &str) -> bool {
    parts.method == Method::POST && resource == "/" && parts.headers.contains_key(TARGET)
}

/// The operation that a request asks for, for logs and metrics.
pub(super) fn operation_name(parts: &Parts) -> &'static str {
    kms::operation_name(target(parts))
}

fn target(parts: &Parts) -> &str {
    parts.headers.get(TARGET).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Front {
    /// Everything between the request id and the answer of a request to the KMS API.
    pub(super) async fn serve_call(
        &self,
        parts: Parts,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<Served, KmsError> {
        let scoped = scoped_service(&parts);
        let refused = |refusal| error::of_signature(&refusal, scoped.as_deref());
        let is_presigned = parts.uri.query().is_some();
        if !parts.headers.contains_key(AUTHORIZATION) && !is_presigned {
            return Err(error::missing_token());
        }
        self.authenticator.check_claim(&parts, Service::Kms).map_err(refused)?;
        refuse_in_clear(target(&parts), &record.peer)?;
        let declared = admission::wire_bytes(&parts.headers);
        let most = declared.unwrap_or(BODY_BYTES_MAX as u64);
        if most > BODY_BYTES_MAX as u64 {
            return Err(error::too_large());
        }
        let memory = self.admission.admit_bytes(most * COPIES).await;
        let _memory = memory.map_err(|_| error::busy())?;
        let body = gather(body, usize::try_from(most).unwrap_or(BODY_BYTES_MAX)).await?;
        let user = self.authenticator.authenticate_buffered(&parts, Service::Kms, &body);
        let user = user.map_err(refused)?;
        record.tenant = Some(user.tenant);
        let (request_id, target) = (record.request_id.clone(), target(&parts).to_owned());
        let ip = record.peer.address.map(|address| address.ip());
        let origin = Origin { ip, is_tls: record.peer.is_tls };
        self.kms.serve(KmsRequest { user, request_id, origin, target, body }).await
    }
}

/// Refuses what carries plaintext over a network that others can read. It came in clear already;
/// its sender learns of it, and no answer follows.
pub(super) fn refuse_in_clear(target: &str, peer: &Peer) -> Result<(), KmsError> {
    let is_refused = kms::carries_plaintext(target) && !is_private(peer);
    if is_refused { Err(error::in_clear()) } else { Ok(()) }
}

/// The service that the credential of a request names.
fn scoped_service(parts: &Parts) -> Option<String> {
    let text = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let credential = text.split_once("Credential=")?.1.split(',').next()?;
    credential.split('/').nth(3).map(str::to_owned)
}

/// Reads a body of at most `most` bytes, which are wiped when they are dropped.
async fn gather(mut body: RequestBody, most: usize) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| error::body_broke_off())?;
        let Ok(data) = frame.into_data() else { continue };
        if data.remaining() > most - bytes.len() {
            return Err(error::too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The answer to a call.
pub(super) fn answer(
    served: Result<Served, KmsError>,
    request_id: &RequestId,
) -> (Response<ResponseBody>, Option<&'static str>) {
    let (status, served, code) = match served {
        Ok(served) => (StatusCode::OK, served, None),
        Err(error) => {
            let text = serde_json::json!({"__type": error.code, "message": error.message});
            (error.status, Bytes::from(text.to_string()).into(), Some(error.code))
        }
    };
    let Served { body: bytes, plaintext } = served;
    let body = if bytes.is_empty() {
        empty()
    } else {
        Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(plaintext) = plaintext {
        response.extensions_mut().insert(plaintext);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(AMZN_REQUEST_ID, value);
    }
    if status.is_server_error() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    (response, code)
}
