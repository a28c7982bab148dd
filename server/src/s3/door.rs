//! The way into s3s and out of it again.
//!
//! Owns: what must happen to a request before s3s parses it, and to an answer before the front
//! sends it. Knows nothing of: signatures, request ids, the error document; those are the front's.
//!
//! Invariants
//! - Every error answer that leaves here carries its [`ApiError`] in its extensions, whether a
//!   verb, the body or s3s itself failed; the front writes the document from that.
//! - A request that asks for something newer than s3s knows is refused. s3s would take it for a
//!   plain PUT or GET of the same name: a RenameObject would empty its target.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};

use super::encryption::Document;
use super::error::{ErrorSlot, internal_error, invalid_uri, method_not_allowed, not_implemented};
use super::{S3Api, customer, headers};
use crate::auth::canonical::QueryParams;
use crate::body::DigestHandle;
use crate::error::ApiError;

/// Queries that name operations s3s 0.14 has no route for, and headers that do.
const UNKNOWN_QUERIES: [&str; 12] = [
    "abac",
    "annotation",
    "annotations",
    "append",
    "encryption-update",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "object-encryption",
    "renameObject",
    "session",
];
const UNKNOWN_HEADERS: [&str; 1] = ["x-amz-rename-source"];

/// Whether nobody on the way of a request reads along: only then it may bring a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Private(pub(crate) bool);

/// s3s with the API behind it.
#[derive(Clone)]
pub(crate) struct Door {
    service: S3Service,
    xml_bytes_max: usize,
}

impl Door {
    /// Opens the door to `api`. s3s gets no `S3Auth`: the front has checked the signature. It
    /// gathers no document beyond `xml_bytes_max`, which is what the front admits.
    pub(crate) fn new(api: S3Api, xml_bytes_max: u64) -> Self {
        let mut config = S3Config::default();
        let xml_bytes_max = usize::try_from(xml_bytes_max).unwrap_or(usize::MAX);
        config.xml_max_body_size = xml_bytes_max;
        let mut builder = S3ServiceBuilder::new(api);
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        Self { service: builder.build(), xml_bytes_max }
    }

    /// Serves a request whose extensions hold the caller, the request id, the digests and
    /// [`Private`].
    ///
    /// An error answer has its status, the headers that go with it, and its [`ApiError`] in its
    /// extensions.
    pub(crate) async fn call(&self, mut request: Request<s3s::Body>) -> Response<s3s::Body> {
        if let Err(error) = check(&request) {
            return failed(error);
        }
        let digests = request.extensions().get::<DigestHandle>().cloned();
        let slot = ErrorSlot::default();
        let lifted = headers::lift(request.headers_mut());
        request.extensions_mut().insert(lifted);
        let is_private = request.extensions().get::<Private>().is_some_and(|private| private.0);
        let keys = customer::Keys::lift(request.headers_mut(), is_private);
        request.extensions_mut().insert(keys);
        request.extensions_mut().insert(slot.clone());
        // A failure of the body is the cause of whatever s3s or a verb made of it.
        let cause = || digests.as_ref().and_then(DigestHandle::failure).or_else(|| slot.take());
        if brings_encryption(&request)
            && let Err(error) = Document::take(&mut request, self.xml_bytes_max).await
        {
            return failed(cause().or(error).unwrap_or_else(internal_error));
        }
        match self.service.call(request).await {
            Ok(response) => finish(response, cause),
            Err(_) => failed(cause().unwrap_or_else(internal_error)),
        }
    }
}

/// Whether a request is a PutBucketEncryption.
fn brings_encryption<B>(request: &Request<B>) -> bool {
    request.method() == Method::PUT
        && !has_object_key(request.uri())
        && query_names(request.uri()).iter().any(|name| name == "encryption")
}

/// Queries that a PUT of bytes may have.
const STREAMED_QUERIES: [&str; 3] = ["partNumber", "uploadId", "x-id"];

/// Whether the body of a request, rewritten by the front, is stored as it comes: PutObject and
/// UploadPart. Every other body may be gathered, so a query that this list does not know counts as
/// the name of a document.
pub(crate) fn streams_body(parts: &Parts) -> bool {
    parts.method == Method::PUT
        && has_object_key(&parts.uri)
        && !parts.headers.contains_key("x-amz-copy-source")
        && query_names(&parts.uri).iter().all(|name| STREAMED_QUERIES.iter().any(|it| name == it))
}

/// The names in a query, decoded as s3s decodes them: `%61cl` is `acl`.
fn query_names(uri: &Uri) -> Vec<String> {
    let query = QueryParams::parse(uri.query());
    query.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

fn has_object_key(uri: &Uri) -> bool {
    let path = uri.path().trim_start_matches('/');
    path.split_once('/').is_some_and(|(_, name)| !name.is_empty())
}

/// Queries that a POST to an object may have.
const OBJECT_POST_QUERIES: [&str; 4] = ["restore", "select", "uploadId", "uploads"];

/// Refuses what s3s would take for something else.
fn check<B>(request: &Request<B>) -> Result<(), ApiError> {
    if let Some(what) = unknown(request) {
        return Err(not_implemented(what));
    }
    let uri = request.uri();
    if !is_escaped_well(uri.path()) {
        return Err(invalid_uri());
    }
    let names = query_names(uri);
    let is_object_post = has_object_key(uri) && request.method() == Method::POST;
    if is_object_post && !names.iter().any(|name| OBJECT_POST_QUERIES.contains(&name.as_str())) {
        return Err(method_not_allowed());
    }
    Ok(())
}

/// Whether every `%` in a path is followed by two hexadecimal digits (RFC 3986 §2.1).
fn is_escaped_well(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The part of a request that names an operation without a route.
fn unknown<B>(request: &Request<B>) -> Option<&'static str> {
    let names = query_names(request.uri());
    let by_query = UNKNOWN_QUERIES.into_iter().find(|it| names.iter().any(|name| name == it));
    by_query.or_else(|| UNKNOWN_HEADERS.into_iter().find(|it| request.headers().contains_key(*it)))
}

fn failed(error: ApiError) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::empty());
    *response.status_mut() = error.status;
    response.extensions_mut().insert(error);
    response
}

/// What a verb asks to be done to its answer once s3s has written it.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    status: StatusCode,
    document: Option<Bytes>,
}

impl Finish {
    /// Sends `status`, which s3s would not.
    pub(super) fn status(status: StatusCode) -> Self {
        Self { status, document: None }
    }

    /// Sends an XML document that s3s could not write.
    pub(super) fn document(status: StatusCode, document: Vec<u8>) -> Self {
        Self { status, document: Some(document.into()) }
    }
}

fn finish(
    mut response: Response<s3s::Body>,
    cause: impl FnOnce() -> Option<ApiError>,
) -> Response<s3s::Body> {
    if let Some(wanted) = response.extensions_mut().remove::<Finish>() {
        *response.status_mut() = wanted.status;
        if let Some(document) = wanted.document {
            *response.body_mut() = s3s::Body::from(document);
        }
        return response;
    }
    let status = response.status();
    if status.is_success() {
        return response;
    }
    let error = cause().unwrap_or_else(|| {
        let text = response.body().bytes().unwrap_or_default();
        of_document(status, &String::from_utf8_lossy(&text))
    });
    *response.status_mut() = error.status;
    *response.body_mut() = s3s::Body::empty();
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    response.extensions_mut().insert(error);
    response
}

/// The error of a document that s3s wrote itself: it could not parse or route the request.
fn of_document(status: StatusCode, text: &str) -> ApiError {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = rest.split_once(&format!("</{name}>"))?;
        Some(unescape(inner))
    };
    let Some(code) = element("Code") else {
        return internal_error();
    };
    let message = element("Message")
        .map(Cow::Owned)
        .or_else(|| message(&code).map(Cow::Borrowed))
        .unwrap_or(Cow::Borrowed("The request could not be understood."));
    ApiError { status, code: Cow::Owned(code), message, extra: Vec::new() }
}

/// The sentences of AWS for codes that s3s answers without one.
fn message(code: &str) -> Option<&'static str> {
    Some(match code {
        "IncompleteBody" => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        }
        "InternalError" => "We encountered an internal error. Please try again.",
        "InvalidBucketName" => "The specified bucket is not valid.",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "KeyTooLongError" => "Your key is too long",
        "MalformedXML" => {
            "The XML you provided was not well-formed or did not validate against our published \
             schema"
        }
        "MaxMessageLengthExceeded" => "Your request was too big.",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "MissingRequestBodyError" => "Request Body is empty",
        _ => return None,
    })
}

fn unescape(text: &str) -> String {
    ["&lt;", "&gt;", "&quot;", "&apos;", "&amp;"]
        .into_iter()
        .zip(["<", ">", "\"", "'", "&"])
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests;
