//! From what went wrong to what the client is told.
//!
//! Owns: the one match from [`ErrorKind`] to S3 codes, the codes that verbs refuse with, and the
//! way an [`ApiError`] travels past s3s. Knows nothing of: XML, request ids.
//!
//! Invariants
//! - Rot and tampering look alike on the wire (`InternalError`) and are told apart in the log.
//! - The text of an inner error stays in the log; the client gets a sentence of this file.
//!   Codes: AWS, "Amazon S3 error responses".

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kluis_storage::ErrorKind;
use s3s::{S3Error, S3ErrorCode, S3Response, S3Result};

use crate::body::BodyError;
use crate::error::ApiError;

/// Seconds after which a client should ask again when the node is busy or fenced.
const RETRY_AFTER_SECONDS: &str = "5";

/// What a verb gives: its output, or a failure.
pub(super) type Answer<T> = Result<T, Failure>;

/// A failure as the client sees it, with the headers that go with it.
#[derive(Debug, Clone)]
pub(super) struct Failure(Box<(ApiError, HeaderMap)>);

impl Failure {
    /// Adds a header to the error answer.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.1.insert(name, value);
        self
    }

    /// Adds an element to the error document.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.0.extra.push((name, value.into()));
        self
    }

    /// The error itself.
    pub(super) fn api(&self) -> &ApiError {
        &self.0.0
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let mut headers = HeaderMap::new();
        if error.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        Self(Box::new((error, headers)))
    }
}

/// Carries an [`ApiError`] past s3s, whose own error keeps a code and a message only.
///
/// The door puts one into the request's extensions and takes the error out again.
#[derive(Clone, Default)]
pub(super) struct ErrorSlot(Arc<Mutex<Option<ApiError>>>);

impl ErrorSlot {
    /// The slot of a request, if it came through the door.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }

    /// Keeps the first error: later ones are consequences.
    pub(super) fn put(&self, error: &ApiError) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| error.clone());
    }

    /// Takes the error.
    pub(super) fn take(&self) -> Option<ApiError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Turns a verb's answer into what s3s takes.
pub(super) fn reply<T>(
    slot: Option<ErrorSlot>,
    answer: Answer<S3Response<T>>,
) -> S3Result<S3Response<T>> {
    answer.map_err(|Failure(parts)| {
        let (error, headers) = *parts;
        if let Some(slot) = slot {
            slot.put(&error);
        }
        let code =
            S3ErrorCode::from_bytes(error.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
        let mut outer = S3Error::with_message(code, error.message.clone());
        outer.set_status_code(error.status);
        if !headers.is_empty() {
            outer.set_headers(headers);
        }
        outer
    })
}

/// What a call of the engine was about: the same kind means another code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A bucket, by name.
    Bucket,
    /// The source of a copy.
    CopySource,
    /// An object, by key.
    Object,
    /// A multipart upload, by id.
    Upload,
}

impl Subject {
    /// What the client is told. Logs what the operator has to know.
    pub(super) fn failed(self, cause: &kluis_storage::Error) -> Failure {
        let error = self.code(cause);
        if cause.kind() == ErrorKind::CustomerKeyWrong {
            // Tampering with the wrap looks the same, so the operator hears of each.
            tracing::warn!(cause = %cause, "a customer's key does not open what it was sent for");
        } else if error.status.is_server_error() {
            tracing::error!(code = %error.code, cause = %cause, "a request failed inside");
        } else {
            tracing::debug!(code = %error.code, cause = %cause, "a request was refused");
        }
        error.into()
    }

    /// The one match from kinds to codes.
    fn code(self, cause: &kluis_storage::Error) -> ApiError {
        use StatusCode as Http;
        let error = ApiError::new;
        match cause.kind() {
            ErrorKind::Body => body_error(cause),
            ErrorKind::CustomerKeyMissing if self == Self::Upload => {
                bad_request("InvalidRequest", UPLOAD_KEY_MISSING)
            }
            ErrorKind::CustomerKeyMissing => bad_request("InvalidRequest", CUSTOMER_KEY_MISSING),
            ErrorKind::CustomerKeyUnexpected => {
                bad_request("InvalidRequest", CUSTOMER_KEY_UNEXPECTED)
            }
            ErrorKind::CustomerKeyWrong if self == Self::Upload => {
                bad_request("InvalidRequest", UPLOAD_KEY_WRONG)
            }
            ErrorKind::Conflict => error(Http::CONFLICT, "ConditionalRequestConflict", CONFLICT),
            ErrorKind::Exists if self == Self::Bucket => {
                error(Http::CONFLICT, "BucketAlreadyExists", BUCKET_EXISTS)
            }
            ErrorKind::Exists | ErrorKind::PreconditionFailed => precondition_failed(),
            ErrorKind::Fenced | ErrorKind::Unavailable => {
                error(Http::SERVICE_UNAVAILABLE, "ServiceUnavailable", UNAVAILABLE)
            }
            ErrorKind::Full => error(Http::INSUFFICIENT_STORAGE, "InsufficientCapacity", FULL),
            ErrorKind::InvalidPart => bad_request("InvalidPart", INVALID_PART),
            ErrorKind::InvalidPartOrder => bad_request("InvalidPartOrder", INVALID_PART_ORDER),
            ErrorKind::InvalidRange => {
                error(Http::RANGE_NOT_SATISFIABLE, "InvalidRange", INVALID_RANGE)
            }
            ErrorKind::KeyDestroyed => {
                bad_request("KMS.KMSInvalidStateException", "The key of this data is destroyed.")
            }
            ErrorKind::KeyDisabled => {
                bad_request("KMS.DisabledException", "The key of this data is disabled.")
            }
            ErrorKind::KeyUnusable => bad_request("KMS.KMSInvalidStateException", KEY_UNUSABLE),
            ErrorKind::Misuse => bad_request("InvalidRequest", "The request is not valid."),
            ErrorKind::NotEmpty => error(
                Http::CONFLICT,
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty",
            ),
            ErrorKind::NotFound => self.missing(),
            // A copy answers every failed condition on its source alike (AWS, CopyObject).
            ErrorKind::NotModified if self == Self::CopySource => precondition_failed(),
            ErrorKind::NotModified => error(Http::NOT_MODIFIED, "NotModified", "Not Modified"),
            ErrorKind::PartTooSmall => bad_request("EntityTooSmall", PART_TOO_SMALL),
            ErrorKind::AccessDenied | ErrorKind::CustomerKeyWrong | ErrorKind::Refused => {
                access_denied()
            }
            // Corrupt and Tampered are told apart in the log only; a kind this file does not know
            // yet is the node's fault, never the client's.
            _ => internal_error(),
        }
    }

    fn missing(self) -> ApiError {
        let error = |code, message| ApiError::new(StatusCode::NOT_FOUND, code, message);
        match self {
            Self::Bucket => no_such_bucket(),
            Self::CopySource | Self::Object => {
                error("NoSuchKey", "The specified key does not exist.")
            }
            Self::Upload => no_such_upload(),
        }
    }
}

const BUCKET_EXISTS: &str = "The requested bucket name is not available. The bucket namespace is \
    shared by all users of the system. Select a different name and try again.";
const CONFLICT: &str = "The conditional request cannot succeed due to a conflicting operation \
    against this resource.";
const CUSTOMER_KEY_MISSING: &str = "The object was stored using a form of Server Side Encryption. \
    The correct parameters must be provided to retrieve the object.";
const CUSTOMER_KEY_UNEXPECTED: &str =
    "The encryption parameters are not applicable to this object.";
const KEY_UNUSABLE: &str = "The key of this data waits for its deletion or for its material.";
const UPLOAD_KEY_MISSING: &str = "The multipart upload initiate requested encryption. Subsequent \
    requests must include the appropriate encryption parameters.";
const UPLOAD_KEY_WRONG: &str = "The provided encryption parameters did not match the ones used \
    originally.";
const FULL: &str = "There is no space for new data. Reads and deletes go on.";
const INVALID_PART: &str = "One or more of the specified parts could not be found. The part might \
    not have been uploaded, or the specified entity tag might not have matched the part's entity \
    tag.";
const INVALID_PART_ORDER: &str = "The list of parts was not in ascending order. Parts must be \
    ordered by part number.";
const INVALID_RANGE: &str = "The requested range is not satisfiable";
const PART_TOO_SMALL: &str = "Your proposed upload is smaller than the minimum allowed size";
const UNAVAILABLE: &str = "Service is unable to handle request.";

/// The error of the request's own body, found in the causes of what the engine reports.
fn body_error(cause: &kluis_storage::Error) -> ApiError {
    let mut next = StdError::source(cause);
    while let Some(inner) = next {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return ApiError::from(body);
        }
        if let Some(error) = inner.downcast_ref::<ApiError>() {
            return error.clone();
        }
        next = inner.source();
    }
    bad_request("IncompleteBody", "The request body terminated unexpectedly")
}

/// 400 with a code of S3.
pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message.into())
}

/// `InvalidArgument`, with the argument as AWS names it.
pub(super) fn invalid_argument(
    message: impl Into<String>,
    name: &'static str,
    value: &str,
) -> ApiError {
    bad_request("InvalidArgument", message).with("ArgumentName", name).with("ArgumentValue", value)
}

/// `InvalidRequest`.
pub(super) fn invalid_request(message: impl Into<String>) -> ApiError {
    bad_request("InvalidRequest", message)
}

/// `MalformedXML`.
pub(super) fn malformed_xml() -> ApiError {
    bad_request(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

/// `AccessDenied`.
pub(super) fn access_denied() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied")
}

/// `NotImplemented`: a function of S3 that this release does not have.
pub(super) fn not_implemented(what: &str) -> ApiError {
    let message = format!(
        "A header or query you provided implies functionality that is not implemented: {what}"
    );
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
}

/// `InvalidURI`: a path with a broken escape.
pub(super) fn invalid_uri() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "InvalidURI", "Couldn't parse the specified URI.")
}

/// `MethodNotAllowed`: no operation of S3 is called with this method on this resource.
pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "The specified method is not allowed against this resource.",
    )
}

/// `InternalError`.
pub(super) fn internal_error() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalError",
        "We encountered an internal error. Please try again.",
    )
}

/// `PreconditionFailed`.
pub(super) fn precondition_failed() -> ApiError {
    ApiError::new(
        StatusCode::PRECONDITION_FAILED,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
    )
}

/// `NoSuchBucket`, for names that are absent and for names of other tenants alike.
pub(super) fn no_such_bucket() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist")
}

/// `NoSuchUpload`.
pub(super) fn no_such_upload() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "NoSuchUpload",
        "The specified multipart upload does not exist. The upload ID might be invalid, or the \
         multipart upload might have been aborted or completed.",
    )
}

/// `NoSuchVersion`.
pub(super) fn no_such_version(version: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "NoSuchVersion", "The specified version does not exist.")
        .with("VersionId", version)
}

#[cfg(test)]
mod tests;
