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
    let query = rewrite_query(parts);
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
/// that its maker moved there (JavaScript's presigner does); they were signed, so they count.
fn rewrite_query(parts: &mut Parts) -> String {
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let fields = || query.split('&').filter(|field| !field.is_empty());
    let lower_name = |field: &str| {
        let name = field.split('=').next().unwrap_or_default();
        String::from_utf8_lossy(&percent_decode(name)).to_ascii_lowercase()
    };
    if !fields().any(|field| lower_name(field) == "x-amz-signature") {
        return query;
    }
    let mut kept = Vec::new();
    for field in fields() {
        let name = lower_name(field);
        if QUERY_DROPPED.contains(&name.as_str()) {
            continue;
        }
        if !name.starts_with("x-amz-") {
            kept.push(field);
            continue;
        }
        let value = field.split_once('=').map(|(_, value)| value).unwrap_or_default();
        let header = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(&percent_decode(value));
        if let (Ok(header), Ok(value)) = (header, value) {
            parts.headers.entry(header).or_insert(value);
        }
    }
    kept.join("&")
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

/// Undoes percent-encoding; what is no valid escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| byte == b'%');
        let value = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.unwrap_or(byte));
        rest = if value.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    decoded
}
