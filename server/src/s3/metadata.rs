//! Content headers and user metadata of an object.
//!
//! Owns: which request headers are kept with an object and how they go out again. Knows nothing of:
//! how they are stored (sealed).
//!
//! Invariants
//! - What was kept can be sent: no value that a header cannot carry is stored.
//! - `aws-chunked` is framing and is never kept; the other content codings keep their order.
//!   Limits: AWS, "Working with object metadata".

use http::{HeaderMap, HeaderName, HeaderValue};
use kluis_storage::ObjectHeaders;

use super::error::{Answer, bad_request, internal_error, invalid_argument};
use super::{Call, rfc2047};

/// Prefix of a user's own metadata.
const USER_PREFIX: &str = "x-amz-meta-";
/// The most bytes of user metadata, names without prefix and values together.
const USER_BYTES_MAX: usize = 2_048;
/// What AWS answers for an object that was put without a type.
const DEFAULT_TYPE: &str = "binary/octet-stream";
/// Kept and answered, although nothing here serves websites.
const REDIRECT: &str = "x-amz-website-redirect-location";

const CONTENT_HEADERS: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// What a write keeps of its request's headers.
pub(super) fn of_request<Input>(call: &Call<Input>) -> Answer<ObjectHeaders> {
    let mut kept = ObjectHeaders::default();
    for name in CONTENT_HEADERS {
        let Some(value) = call.header(name) else {
            continue;
        };
        let value = if name == "content-encoding" { without_framing(value) } else { value.into() };
        if !value.is_empty() {
            kept.0.insert(name.to_owned(), value);
        }
    }
    kept.0.entry("content-type".to_owned()).or_insert_with(|| DEFAULT_TYPE.to_owned());
    if let Some(location) = call.header(REDIRECT) {
        kept.0.insert(REDIRECT.to_owned(), redirect(location)?);
    }
    let mut bytes = 0;
    for (name, value) in call.lifted.iter().chain(&call.headers) {
        let Some(user_name) = name.as_str().strip_prefix(USER_PREFIX) else {
            continue;
        };
        let value = user_value(user_name, value)?;
        bytes += user_name.len() + value.len();
        kept.0.insert(name.as_str().to_owned(), value);
    }
    if bytes > USER_BYTES_MAX {
        let message = "Your metadata headers exceed the maximum allowed metadata size";
        return Err(bad_request("MetadataTooLarge", message)
            .with("Size", bytes.to_string())
            .with("MaxSizeAllowed", USER_BYTES_MAX.to_string())
            .into());
    }
    Ok(kept)
}

/// The text of a metadata value, which must be UTF-8 and hold nothing that no header can carry.
fn user_value(name: &str, value: &HeaderValue) -> Answer<String> {
    let text = std::str::from_utf8(value.as_bytes()).ok().map(rfc2047::decode);
    text.filter(|text| !text.chars().any(|it| it.is_control() && it != '\t')).ok_or_else(|| {
        let message = "Metadata values must be UTF-8 without control characters";
        invalid_argument(message, "x-amz-meta", name).into()
    })
}

/// The content codings without `aws-chunked`.
fn without_framing(codings: &str) -> String {
    let kept: Vec<_> = codings
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(",")
}

fn redirect(location: &str) -> Answer<String> {
    if ["/", "http://", "https://"].iter().any(|start| location.starts_with(start)) {
        return Ok(location.to_owned());
    }
    let message =
        "The website redirect location must have a prefix of 'http://' or 'https://' or '/'";
    Err(bad_request("InvalidRedirectLocation", message).into())
}

/// Adds the kept headers to an answer, with the `response-*` overrides of a GET.
pub(super) fn answer(
    kept: &ObjectHeaders,
    overrides: &HeaderMap,
    headers: &mut HeaderMap,
) -> Answer<()> {
    for (name, value) in &kept.0 {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| internal_error())?;
        let value = if name.as_str().starts_with(USER_PREFIX) {
            HeaderValue::from_str(&rfc2047::encode(value))
        } else {
            HeaderValue::from_bytes(value.as_bytes())
        };
        headers.insert(name, value.map_err(|_| internal_error())?);
    }
    headers.extend(overrides.clone());
    Ok(())
}

/// The `response-*` overrides that a GET or HEAD asks for.
pub(super) fn overrides(wanted: &[(&'static str, Option<&str>)]) -> Answer<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        let Some(value) = value else { continue };
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            invalid_argument("Header value cannot be represented", "response-header", value)
        })?;
        headers.insert(*name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
