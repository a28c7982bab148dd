//! From the request as signed to the request as the S3 codec takes it.
//!
//! Owns: what is taken away once the signature is verified (credentials, framing), and what is put
//! where path-style requests have it (bucket from the host, headers from a presigned query).
//! Knows nothing of: signatures, bodies.
//!
//! Invariants
//! - Runs after authentication only: signatures are over the request as it was sent.
//! - The codec sees no credentials, so none of its own authentication can be reached.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Uri};

use crate::auth::canonical::QueryParams;
use crate::auth::refusal;
use crate::error::ApiError;

/// Headers that only authentication and framing need.
const DROPPED: [HeaderName; 8] = [
    AUTHORIZATION,
    EXPECT,
    TRANSFER_ENCODING,
    HeaderName::from_static("x-amz-content-sha256"),
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-decoded-content-length"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-trailer"),
];
/// Query fields of a presigned URL that authenticate it, in lower case.
const QUERY_DROPPED: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Puts the host of an HTTP/2 request where HTTP/1 has it.
pub(super) fn add_host(parts: &mut Parts) {
    if parts.headers.contains_key(HOST) {
        return;
    }
    let authority = parts.uri.authority().map(Authority::as_str);
    if let Some(host) = authority.and_then(|text| HeaderValue::from_str(text).ok()) {
        parts.headers.insert(HOST, host);
    }
}

/// Rewrites an authenticated request. `size` is the declared size of the decoded body.
pub(super) fn apply(
    parts: &mut Parts,
    domain: Option<&str>,
    size: Option<u64>,
) -> Result<(), ApiError> {
    let bucket = domain.and_then(|domain| bucket_of_host(parts, domain));
    let query = rewrite_query(parts)?;
    for name in DROPPED {
        parts.headers.remove(name);
    }
    parts.headers.remove(CONTENT_LENGTH);
    if let Some(size) = size {
        parts.headers.insert(CONTENT_LENGTH, size.into());
    }
    strip_aws_chunked(parts);
    let path = match bucket {
        Some(bucket) => Cow::Owned(format!("/{bucket}{}", parts.uri.path())),
        None => Cow::Borrowed(parts.uri.path()),
    };
    let target = if query.is_empty() { path } else { Cow::Owned(format!("{path}?{query}")) };
    let target: PathAndQuery = target.parse().map_err(|_| {
        ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "InvalidURI",
            "Couldn't parse the specified URI.",
        )
    })?;
    parts.uri = Uri::from(target);
    Ok(())
}

/// The bucket that the host names, if it is a subdomain of `domain`.
pub(super) fn bucket_of_host(parts: &Parts, domain: &str) -> Option<String> {
    let host = parts.headers.get(HOST)?.to_str().ok()?.to_ascii_lowercase();
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => &host,
    };
    let bucket = host.strip_suffix(domain)?.strip_suffix('.')?;
    (!bucket.is_empty()).then(|| bucket.to_owned())
}

/// The query without what authenticated it. Other `x-amz-` fields of a presigned URL are headers
/// that its maker moved there (JavaScript's presigner does); they were signed, so they count. They
/// are decoded by the verifier's own code, so that what takes effect is what was signed.
fn rewrite_query(parts: &mut Parts) -> Result<String, ApiError> {
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let decoded = QueryParams::parse(Some(&query));
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    if !decoded.iter().any(|(name, _)| lower(name) == "x-amz-signature") {
        return Ok(query);
    }
    let mut kept = Vec::new();
    let mut hoisted = Vec::new();
    // The verifier skips empty fields as well, so the two go side by side.
    let fields = query.split('&').filter(|field| !field.is_empty());
    for (field, (name, value)) in fields.zip(decoded.iter()) {
        let name = lower(name);
        if QUERY_DROPPED.contains(&name.as_str()) {
            continue;
        }
        if !name.starts_with("x-amz-") {
            kept.push(field);
            continue;
        }
        if hoisted.contains(&name) {
            let message = "A header in the query of a presigned URL may occur once only.";
            return Err(refusal::invalid_argument(message, &name, ""));
        }
        let header = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(header), Ok(value)) = (header, HeaderValue::from_bytes(value)) {
            parts.headers.entry(header).or_insert(value);
        }
        hoisted.push(name);
    }
    Ok(kept.join("&"))
}

/// Takes the token `aws-chunked` out of Content-Encoding; the others keep their order.
fn strip_aws_chunked(parts: &mut Parts) {
    let values: Vec<_> = parts.headers.get_all(CONTENT_ENCODING).iter().cloned().collect();
    let tokens: Vec<&str> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if !tokens.iter().any(|token| token.eq_ignore_ascii_case("aws-chunked")) {
        return;
    }
    let kept: Vec<_> = tokens
        .into_iter()
        .filter(|token| !token.is_empty() && !token.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    parts.headers.remove(CONTENT_ENCODING);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(","))) {
        parts.headers.insert(CONTENT_ENCODING, value);
    }
}
