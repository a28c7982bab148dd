//! What a client of the KMS API is told when a call fails: AWS's names, texts and statuses.
//!
//! Owns: [`KmsError`], and the matches from what the keys, the engine and the signature's check say
//! to those names. Knows nothing of: JSON, operations.
//!
//! Invariants
//! - The text of an inner error stays in the log; the client gets a sentence of this package.
//! - A key of another tenant, of another account or region, and one that never was answer alike.
//!   Names: AWS, "AWS KMS API reference", errors of each action and "Common errors".

use std::borrow::Cow;

use http::StatusCode;
use kluis_kms::ErrorKind;

use crate::error::ApiError;

/// A failure as the wire shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KmsError {
    /// The HTTP status: 400 for whatever the caller can mend, else 500 or 503.
    pub(crate) status: StatusCode,
    /// The name that goes into `__type`.
    pub(crate) code: &'static str,
    /// One sentence for the caller.
    pub(crate) message: Cow<'static, str>,
}

/// What whoever lacks a right is told.
pub(super) const ACCESS_DENIED: &str = "AccessDeniedException";

/// What a handler gives.
pub(super) type Answer<T> = Result<T, KmsError>;

impl KmsError {
    /// A failure that the caller can mend.
    pub(crate) fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    /// A failure of the node or of a key store.
    pub(crate) fn fault(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code, message: message.into() }
    }
}

/// `KMSInternalException`.
pub(crate) fn internal() -> KmsError {
    KmsError::fault(
        "KMSInternalException",
        "The request was rejected because an internal exception occurred. The request can be \
         retried.",
    )
}

/// `ValidationException`.
pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> KmsError {
    KmsError::new("ValidationException", message)
}

/// `UnsupportedOperationException`.
pub(super) fn unsupported(message: impl Into<Cow<'static, str>>) -> KmsError {
    KmsError::new("UnsupportedOperationException", message)
}

/// `NotFoundException`.
pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> KmsError {
    KmsError::new("NotFoundException", message)
}

/// `InvalidCiphertextException`. AWS sends no text with it either.
pub(super) fn invalid_ciphertext() -> KmsError {
    KmsError::new("InvalidCiphertextException", "")
}

/// `SerializationException`: the body is not a JSON object.
pub(super) fn not_json() -> KmsError {
    KmsError::new("SerializationException", "The body of the request is not a JSON object.")
}

/// `ThrottlingException`.
pub(super) fn throttled() -> KmsError {
    KmsError::new("ThrottlingException", "Rate exceeded")
}

/// Turns what the keys said about the key of `arn` into a name of AWS.
pub(super) fn of_key(cause: &kluis_kms::Error, arn: &str) -> KmsError {
    let error = match cause.kind() {
        ErrorKind::AccessDenied | ErrorKind::Refused => KmsError::new(
            "AccessDeniedException",
            format!("The use of {arn} is not allowed by its key policy and grants."),
        ),
        ErrorKind::Conflict => KmsError::new(
            "KMSInvalidStateException",
            format!("{arn} is in a state that does not allow this operation."),
        ),
        ErrorKind::Full => KmsError::new(
            "LimitExceededException",
            format!("A limit of {arn}, or of the node's key storage, is reached."),
        ),
        ErrorKind::ImportExpired => {
            KmsError::new("ExpiredImportTokenException", "The import token has expired.")
        }
        ErrorKind::ImportToken => KmsError::new(
            "InvalidImportTokenException",
            "The import token is invalid or is for another key.",
        ),
        ErrorKind::IncorrectMaterial => KmsError::new(
            "IncorrectKeyMaterialException",
            "The key material is not 32 bytes, or not the material that this import is for.",
        ),
        ErrorKind::InvalidCiphertext => invalid_ciphertext(),
        ErrorKind::KeyDestroyed | ErrorKind::NotFound => absent_key(arn),
        ErrorKind::KeyDisabled => disabled(arn),
        ErrorKind::KeyUnusable => pending(arn),
        ErrorKind::Unsupported => {
            unsupported(format!("The origin of {arn} is not one for this operation."))
        }
        ErrorKind::Unavailable => KmsError::fault(
            "KeyUnavailableException",
            format!("{arn} is not available at the moment. The request can be retried."),
        ),
        _ => internal(),
    };
    log(&error, cause);
    error
}

/// Turns what the engine said about the key of `arn` into a name of AWS.
pub(super) fn of_engine(cause: &kluis_storage::Error, arn: &str) -> KmsError {
    use kluis_storage::ErrorKind as Engine;
    let error = match cause.kind() {
        Engine::AccessDenied | Engine::Refused => KmsError::new(
            "AccessDeniedException",
            format!("The use of {arn} is not allowed by its key policy and grants."),
        ),
        Engine::Conflict | Engine::NotEmpty => KmsError::new(
            "ConflictException",
            format!("{arn} is still in use in a way that does not allow this operation."),
        ),
        Engine::Full => KmsError::new("LimitExceededException", "There is no space for new data."),
        Engine::KeyDestroyed | Engine::NotFound => absent_key(arn),
        Engine::KeyDisabled => disabled(arn),
        Engine::KeyUnusable => pending(arn),
        Engine::Misuse => invalid("A value of the request is out of bounds."),
        Engine::Fenced | Engine::Unavailable => KmsError::fault(
            "DependencyTimeoutException",
            "The system timed out while trying to fulfill the request. You can retry the request.",
        ),
        _ => internal(),
    };
    log(&error, cause);
    error
}

fn log(error: &KmsError, cause: &dyn std::error::Error) {
    if error.status.is_server_error() {
        tracing::error!(code = error.code, %cause, "a call of the KMS API failed inside");
    } else {
        tracing::debug!(code = error.code, %cause, "a call of the KMS API was refused");
    }
}

/// There is no key of this name, or none that the caller's tenant owns.
pub(super) fn absent_key(arn: &str) -> KmsError {
    not_found(format!("Key '{arn}' does not exist"))
}

/// The key is switched off.
pub(super) fn disabled(arn: &str) -> KmsError {
    KmsError::new("DisabledException", format!("{arn} is disabled."))
}

/// The key waits for its deletion or its material; which of them is not known.
fn pending(arn: &str) -> KmsError {
    let message = format!("{arn} is pending deletion or pending import.");
    KmsError::new("KMSInvalidStateException", message)
}

/// What a refusal of the signature's check is called by services that speak JSON.
///
/// `scoped_service` is the service that the request's credential names, if it names one.
pub(crate) fn of_signature(refusal: &ApiError, scoped_service: Option<&str>) -> KmsError {
    let has = |name: &str| refusal.extra.iter().any(|(known, _)| *known == name);
    let value = |name: &str| {
        let found = refusal.extra.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    match &*refusal.code {
        "AccountProblem" => KmsError::new("AccessDeniedException", refusal.message.clone()),
        "AccessDenied" if has("HeadersNotSigned") => {
            let names = value("HeadersNotSigned");
            let text = format!("'{names}' must be a 'SignedHeader' in the AWS Authorization.");
            KmsError::new("InvalidSignatureException", text)
        }
        "AuthorizationHeaderMalformed" if scoped_service.is_some_and(|name| name != "kms") => {
            let text = "Credential should be scoped to correct service: 'kms'.";
            KmsError::new("InvalidSignatureException", text)
        }
        "AuthorizationHeaderMalformed" if has("Region") => {
            let text = "Credential should be scoped to a valid region.";
            KmsError::new("InvalidSignatureException", text)
        }
        "InvalidAccessKeyId" | "InvalidToken" => KmsError::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        "MissingAuthenticationToken" => missing_token(),
        "RequestTimeTooSkewed" => {
            let (sent, ours) = (value("RequestTime"), value("ServerTime"));
            let text = format!("Signature expired: {sent} is too far from {ours} (15 min.)");
            KmsError::new("InvalidSignatureException", text)
        }
        "ServiceUnavailable" => KmsError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..KmsError::fault("ServiceUnavailableException", refusal.message.clone())
        },
        "SignatureDoesNotMatch" => KmsError::new(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check \
             your AWS Secret Access Key and signing method. Consult the service documentation for \
             details.",
        ),
        // Everything else is a signature that cannot be read.
        _ => KmsError::new("IncompleteSignature", refusal.message.clone()),
    }
}

/// `MissingAuthenticationTokenException`.
pub(crate) fn missing_token() -> KmsError {
    KmsError::new("MissingAuthenticationTokenException", "Missing Authentication Token")
}

/// A call that carries plaintext came over a network that others can read.
pub(crate) fn in_clear() -> KmsError {
    KmsError::new("AccessDeniedException", "Calls that carry plaintext are served over TLS only.")
}

/// `RequestEntityTooLargeException`: the body is longer than any request of the API.
pub(crate) fn too_large() -> KmsError {
    let message = "The request is larger than any request of this API may be.";
    KmsError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        ..KmsError::new("RequestEntityTooLargeException", message)
    }
}

/// The body stopped coming, or ended early.
pub(crate) fn body_broke_off() -> KmsError {
    KmsError::new("RequestTimeoutException", "The body of the request did not arrive in time.")
}

/// No memory is free for the body.
pub(crate) fn busy() -> KmsError {
    KmsError { status: StatusCode::SERVICE_UNAVAILABLE, ..throttled() }
}
