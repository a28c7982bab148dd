//! What a caller is told when its request cannot be authenticated: the codes, words and fields that
//! AWS S3 sends.
//!
//! Owns: those texts. Knows nothing of: how the decision was made.
//!
//! Invariants
//! - Nothing here says more than the request itself did, but for the node's region and clock: no
//!   tenant, no user, no reason why an access key is not usable.

use std::fmt::Write as _;

use http::StatusCode;

use super::amz_date::AmzDate;
use crate::error::ApiError;

/// How far a request's time may be from ours, either way (AWS: 15 minutes).
pub(crate) const SKEW_MS_MAX: u64 = 15 * 60 * 1_000;
/// The longest that a presigned URL may live, in seconds: 7 days.
pub(crate) const EXPIRES_S_MAX: u64 = 604_800;
/// A canonical request beyond this is not sent back, so that an answer stays as small as a request.
const ECHO_BYTES_MAX: usize = 16 * 1_024;

/// Where a request carries its signature; AWS words the refusals of the two in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The `Authorization` header.
    Header,
    /// The query of a presigned URL.
    Query,
}

impl Place {
    fn malformed(self, detail: &str) -> ApiError {
        let (code, message) = match self {
            Self::Header => (
                "AuthorizationHeaderMalformed",
                format!("The authorization header is malformed; {detail}"),
            ),
            Self::Query => (
                "AuthorizationQueryParametersError",
                format!("Error parsing the X-Amz-Credential parameter; {detail}"),
            ),
        };
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The credential does not have its five parts.
    pub(crate) fn bad_credential(self) -> ApiError {
        self.malformed(
            "the Credential is mal-formed; expecting \
             \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
        )
    }

    /// The scope's day is not a day.
    pub(crate) fn bad_day(self, day: &str) -> ApiError {
        self.malformed(&format!(
            "incorrect date format \"{day}\". This date in the credential must be in the format \
             \"yyyyMMdd\"."
        ))
    }

    /// The scope's day is not that of the request.
    pub(crate) fn other_day(self, day: &str, request_day: &str) -> ApiError {
        let detail = format!(
            "Invalid credential date \"{day}\". This date is not the same as X-Amz-Date: \
             \"{request_day}\"."
        );
        match self {
            Self::Header => self.malformed(&detail),
            Self::Query => query(detail),
        }
    }

    /// The scope names another region.
    pub(crate) fn other_region(self, region: &str, ours: &str) -> ApiError {
        self.malformed(&format!("the region '{region}' is wrong; expecting '{ours}'"))
            .with("Region", ours)
    }

    /// The scope names another service.
    pub(crate) fn other_service(self, service: &str, ours: &str) -> ApiError {
        self.malformed(&format!(
            "incorrect service \"{service}\". This endpoint belongs to \"{ours}\"."
        ))
    }

    /// The scope does not end as it should.
    pub(crate) fn other_terminal(self, terminal: &str) -> ApiError {
        self.malformed(&format!(
            "incorrect terminal \"{terminal}\". This endpoint uses \"aws4_request\"."
        ))
    }
}

/// The `Authorization` header cannot be read.
pub(crate) fn bad_header(detail: &str) -> ApiError {
    Place::Header.malformed(detail)
}

/// The query parameters of a presigned URL cannot be read.
pub(crate) fn query(message: impl Into<String>) -> ApiError {
    let code = "AuthorizationQueryParametersError";
    ApiError::new(StatusCode::BAD_REQUEST, code, message.into())
}

/// A parameter of a presigned URL is missing, or there twice.
pub(crate) fn query_incomplete() -> ApiError {
    query(
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
         X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
    )
}

fn invalid_request(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", message.into())
}

/// A header of the request has an unusable value.
pub(crate) fn invalid_argument(message: &'static str, name: &str, value: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
        .with("ArgumentName", name)
        .with("ArgumentValue", value)
}

/// Signature Version 2, or another scheme of AWS that Kluis does not have.
pub(crate) fn unsupported_mechanism() -> ApiError {
    invalid_request(
        "The authorization mechanism you have provided is not supported. Please use \
         AWS4-HMAC-SHA256.",
    )
}

/// Credentials in the header and in the query.
pub(crate) fn two_mechanisms(authorization: &str) -> ApiError {
    invalid_argument(
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature \
         query string parameter or the Authorization header should be specified",
        "Authorization",
        authorization.split(' ').next().unwrap_or_default(),
    )
}

/// No `x-amz-content-sha256` where one is required.
pub(crate) fn missing_payload_hash() -> ApiError {
    invalid_request("Missing required header for this request: x-amz-content-sha256")
}

/// No header `name` where the protocol requires one.
pub(crate) fn missing_security_header(name: &str) -> ApiError {
    let message = "Your request was missing a required header";
    ApiError::new(StatusCode::BAD_REQUEST, "MissingSecurityHeader", message)
        .with("MissingHeaderName", name)
}

fn access_denied(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", message)
}

/// No time that can be read.
pub(crate) fn missing_date() -> ApiError {
    access_denied("AWS authentication requires a valid Date or x-amz-date header")
}

/// Headers that would take effect without being signed.
pub(crate) fn headers_not_signed(names: &[&str]) -> ApiError {
    access_denied("There were headers present in the request which were not signed")
        .with("HeadersNotSigned", names.join(", "))
}

/// The request's time is too far from ours.
pub(crate) fn too_skewed(request_time: &str, now: AmzDate) -> ApiError {
    let message = "The difference between the request time and the current time is too large.";
    ApiError::new(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message)
        .with("RequestTime", request_time)
        .with("ServerTime", now.extended())
        .with("MaxAllowedSkewMilliseconds", SKEW_MS_MAX.to_string())
}

/// A presigned URL's time is over.
pub(crate) fn expired(expires_s: u64, expiry: AmzDate, now: AmzDate) -> ApiError {
    access_denied("Request has expired")
        .with("X-Amz-Expires", expires_s.to_string())
        .with("Expires", expiry.extended())
        .with("ServerTime", now.extended())
}

/// A presigned URL was signed in our future.
pub(crate) fn not_yet_valid(now: AmzDate) -> ApiError {
    access_denied("Request is not valid yet").with("ServerTime", now.extended())
}

/// A session token, which none of our access keys has.
pub(crate) fn invalid_token() -> ApiError {
    let message = "The provided token is malformed or otherwise invalid.";
    ApiError::new(StatusCode::BAD_REQUEST, "InvalidToken", message)
}

/// An access key that nobody has, or that was revoked.
pub(crate) fn unknown_access_key(access_key_id: &str) -> ApiError {
    let message = "The AWS Access Key Id you provided does not exist in our records.";
    ApiError::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId", message)
        .with("AWSAccessKeyId", access_key_id)
}

/// The tenant is suspended. Told only to a holder of one of its access keys.
pub(crate) fn suspended() -> ApiError {
    let message = "There is a problem with your AWS account that prevents the operation from \
                   completing successfully. Contact the operator of this node.";
    ApiError::new(StatusCode::FORBIDDEN, "AccountProblem", message)
}

/// The registry could not be read; nobody was refused.
pub(crate) fn unavailable() -> ApiError {
    let message = "The access keys cannot be read at the moment. Please try again.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

/// A service that answers callers with credentials only.
pub(crate) fn missing_token() -> ApiError {
    let message = "Request is missing Authentication Token";
    ApiError::new(StatusCode::FORBIDDEN, "MissingAuthenticationToken", message)
}

/// The signature is not the one we calculate. `canonical_request` and `string_to_sign` are built
/// from the request alone, so they tell its sender nothing new; the first is left out where it
/// holds a secret of the sender's.
pub(crate) fn signature_mismatch(
    access_key_id: &str,
    signature: &str,
    string_to_sign: &str,
    canonical_request: Option<&[u8]>,
) -> ApiError {
    let error = bare_signature_mismatch()
        .with("AWSAccessKeyId", access_key_id)
        .with("StringToSign", string_to_sign)
        .with("SignatureProvided", signature)
        .with("StringToSignBytes", spaced_hex(string_to_sign.as_bytes()));
    match canonical_request {
        Some(request) if request.len() <= ECHO_BYTES_MAX => error
            .with("CanonicalRequest", String::from_utf8_lossy(request))
            .with("CanonicalRequestBytes", spaced_hex(request)),
        _ => error,
    }
}

/// Hex with a space between bytes, as AWS shows signed bytes.
fn spaced_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (index, byte) in bytes.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{space}{byte:02x}");
    }
    text
}

/// A signature inside a body is not the one we calculate.
pub(crate) fn bare_signature_mismatch() -> ApiError {
    let message = "The request signature we calculated does not match the signature you provided. \
                   Check your key and signing method.";
    ApiError::new(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", message)
}
