//! Request headers that s3s reads too strictly, and what several verbs read alike.
//!
//! Owns: [`lift`], conditions, ranges, part numbers and page sizes. Knows nothing of: which verb.
//!
//! s3s refuses a request whose `Range`, `If-*`, `Expires` or content headers it cannot parse. RFC
//! 9110 says to ignore the first two (§14.2, §13.1), and AWS keeps the others as they are. Metadata
//! it decodes in a way that can panic. So the door takes these headers out before s3s looks, and
//! verbs read them from [`super::Call`].

use http::{HeaderMap, HeaderName, HeaderValue, header};
use kluis_storage::{Conditions, PART_NUMBER_MAX, RangeSpec};

use super::error::{Answer, invalid_argument, invalid_request};
use super::{Call, etag, time};

/// The headers that [`lift`] takes out.
const LIFTED: [&str; 16] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-copy-source-range",
];

/// The most entries in one page of a listing (AWS, ListObjectsV2, `MaxKeys`).
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;

/// Headers on their way past s3s, in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifted(pub(super) HeaderMap);

/// Takes out what s3s must not see. Values of a repeated header are joined, as AWS does.
pub(super) fn lift(headers: &mut HeaderMap) -> Lifted {
    let mut lifted = HeaderMap::new();
    let names: Vec<_> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            LIFTED.contains(&name) || name.starts_with("x-amz-meta-")
        })
        .cloned()
        .collect();
    for name in names {
        if let Some(value) = joined(headers, &name) {
            headers.remove(&name);
            lifted.insert(name, value);
        }
    }
    Lifted(lifted)
}

/// All values of a header, joined by commas (RFC 9110 §5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let mut bytes = first.as_bytes().to_vec();
    for value in values {
        bytes.push(b',');
        bytes.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&bytes).ok()
}

/// The conditions of a GET or HEAD.
pub(super) fn read_conditions<Input>(call: &Call<Input>) -> Conditions {
    Conditions {
        if_match: call.header("if-match").map(etag::if_match),
        if_none_match: call.header("if-none-match").map(etag::if_none_match),
        if_modified_since_ms: call.header("if-modified-since").and_then(time::parse_http_date),
        if_unmodified_since_ms: call.header("if-unmodified-since").and_then(time::parse_http_date),
        ..Conditions::default()
    }
}

/// The conditions of a write: on ETags only (AWS, "Conditional writes").
pub(super) fn write_conditions<Input>(call: &Call<Input>) -> Conditions {
    Conditions {
        if_match: call.header("if-match").map(etag::if_match),
        if_none_match: call.header("if-none-match").map(etag::if_none_match),
        ..Conditions::default()
    }
}

/// The conditions of a copy on its source.
pub(super) fn source_conditions<Input>(call: &Call<Input>) -> Conditions {
    let date = |name| call.header(name).and_then(time::parse_http_date);
    Conditions {
        if_match: call.header("x-amz-copy-source-if-match").map(etag::if_match),
        if_none_match: call.header("x-amz-copy-source-if-none-match").map(etag::if_none_match),
        if_modified_since_ms: date("x-amz-copy-source-if-modified-since"),
        if_unmodified_since_ms: date("x-amz-copy-source-if-unmodified-since"),
        ..Conditions::default()
    }
}

/// The range of a GET or HEAD. What is no single byte range is ignored, as AWS and RFC 9110 do.
pub(super) fn range(text: &str) -> Option<RangeSpec> {
    let spec = text.trim().strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => Some(RangeSpec::From { first, last: None }),
        (Some(first), Some(last)) if first <= last => {
            Some(RangeSpec::From { first, last: Some(last) })
        }
        (None, Some(length)) if first.is_empty() => Some(RangeSpec::Suffix { length }),
        _ => None,
    }
}

/// The first and last byte that an UploadPartCopy names; both are mandatory there.
pub(super) fn copy_range(text: &str) -> Answer<(u64, u64)> {
    if let Some(RangeSpec::From { first, last: Some(last) }) = range(text) {
        return Ok((first, last));
    }
    let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where \
        first and last are the zero-based offsets of the first and last bytes to copy";
    Err(invalid_argument(message, "x-amz-copy-source-range", text).into())
}

/// Digits only: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than fit is a place past the end of every object.
    Some(text.parse().unwrap_or(u64::MAX))
}

/// A part number of a request.
pub(super) fn part_number(number: i32) -> Answer<u32> {
    match u32::try_from(number) {
        Ok(number) if (1..=PART_NUMBER_MAX).contains(&number) => Ok(number),
        _ => {
            let message = "Part number must be an integer between 1 and 10000, inclusive";
            Err(invalid_argument(message, "partNumber", &number.to_string()).into())
        }
    }
}

/// What a GET or HEAD asks for: a range or a part, never both.
pub(super) fn extent<Input>(
    call: &Call<Input>,
    part: Option<i32>,
) -> Answer<(Option<RangeSpec>, Option<u32>)> {
    let part = part.map(part_number).transpose()?;
    if part.is_some() && call.has_header(header::RANGE.as_str()) {
        let message = "Cannot specify both Range header and partNumber query parameter";
        return Err(invalid_request(message).into());
    }
    Ok((call.header("range").and_then(range), part))
}

/// The size of a page: what was asked for, at most [`PAGE_ENTRIES_MAX`].
pub(super) fn page_size(name: &'static str, asked: Option<i32>) -> Answer<usize> {
    let Some(asked) = asked else {
        return Ok(PAGE_ENTRIES_MAX);
    };
    let Ok(size) = usize::try_from(asked) else {
        let message = format!("Argument {name} must be an integer between 0 and 2147483647");
        return Err(invalid_argument(message, name, &asked.to_string()).into());
    };
    Ok(size.min(PAGE_ENTRIES_MAX))
}

#[cfg(test)]
mod tests;
