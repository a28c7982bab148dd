//! What an answer says about an object: the part that HEAD and GET share.
//!
//! Owns: reading a HEAD or GET, every header of its answer. Knows nothing of: bodies.
//!
//! Invariants
//! - HEAD and GET of the same thing have the same headers, because this file makes both.
//! - A checksum is sent only with exactly the bytes that it is over: clients compare.

use std::ops::Range;

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kluis_storage::{
    BucketInfo, ChecksumType, Conditions, ErrorKind, GetRequest, ObjectInfo, ObjectKey, RangeSpec,
};
use s3s::dto::{ChecksumMode, Timestamp};

use super::checksum::{self, Fields};
use super::customer::Sent;
use super::error::{Answer, Failure, Subject, internal_error};
use super::{Call, S3Api, check_version, customer, headers, metadata, sse, time};
use crate::auth::User;
use crate::error::ApiError;
use crate::policy::{Authorised, GetObject};

/// What a HEAD or GET asks for.
pub(super) struct Wanted {
    pub(super) range: Option<RangeSpec>,
    pub(super) part_number: Option<u32>,
    pub(super) conditions: Conditions,
    /// `x-amz-checksum-mode: ENABLED`.
    pub(super) checksums: bool,
    /// The `response-*` overrides.
    pub(super) overrides: HeaderMap,
    /// The key that the client sent.
    pub(super) customer: Option<Sent>,
}

/// The fields of s3s's inputs that HEAD and GET share.
pub(super) struct Asked<'a> {
    pub(super) version: Option<&'a str>,
    pub(super) part_number: Option<i32>,
    pub(super) checksum_mode: Option<&'a ChecksumMode>,
    pub(super) overrides: [(&'static str, Option<&'a str>); 5],
    pub(super) expires: Option<&'a Timestamp>,
}

/// Reads [`Asked`] from either input.
macro_rules! asked {
    ($input:expr) => {
        $crate::s3::object::Asked {
            version: $input.version_id.as_deref(),
            part_number: $input.part_number,
            checksum_mode: $input.checksum_mode.as_ref(),
            overrides: [
                ("cache-control", $input.response_cache_control.as_deref()),
                ("content-disposition", $input.response_content_disposition.as_deref()),
                ("content-encoding", $input.response_content_encoding.as_deref()),
                ("content-language", $input.response_content_language.as_deref()),
                ("content-type", $input.response_content_type.as_deref()),
            ],
            expires: $input.response_expires.as_ref(),
        }
    };
}
pub(super) use asked;

impl Wanted {
    /// Reads a HEAD or GET.
    pub(super) fn read<Input>(call: &Call<Input>, asked: &Asked<'_>) -> Answer<Self> {
        check_version(asked.version)?;
        sse::refuse_on_read(call)?;
        let (range, part_number) = headers::extent(call, asked.part_number)?;
        let mut overrides = metadata::overrides(&asked.overrides)?;
        if let Some(date) = asked.expires.and_then(time::unix_ms).and_then(time::http_date) {
            overrides.insert(EXPIRES, date);
        }
        let checksums = asked
            .checksum_mode
            .is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED));
        let conditions = headers::read_conditions(call);
        let customer = call.customer.own()?;
        Ok(Self { range, part_number, conditions, checksums, overrides, customer })
    }

    /// What the engine is asked.
    pub(super) fn request<'a>(
        &self,
        bucket: &'a BucketInfo,
        object_key: &'a ObjectKey,
    ) -> GetRequest<'a> {
        GetRequest {
            bucket,
            object_key,
            conditions: self.conditions.clone(),
            range: self.range,
            part_number: self.part_number,
            customer_key: customer::key_of(self.customer.as_ref()),
        }
    }

    fn is_partial(&self) -> bool {
        self.range.is_some() || self.part_number.is_some()
    }
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    /// 206 with a `Content-Range`, or 200.
    pub(super) status: StatusCode,
    /// Bytes of the body that a GET sends.
    pub(super) length: u64,
}

impl S3Api {
    /// The head of an answer about `range` of an object.
    pub(super) fn object_head(
        &self,
        wanted: &Wanted,
        info: &ObjectInfo,
        range: &Range<u64>,
        user: &User,
    ) -> Answer<Head> {
        let length = range.end.saturating_sub(range.start);
        let mut headers = HeaderMap::new();
        metadata::answer(&info.headers, &wanted.overrides, &mut headers)?;
        validators(info, &mut headers)?;
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if info.tag_count > 0 {
            put(&mut headers, "x-amz-tagging-count", &info.tag_count.to_string())?;
        }
        if wanted.part_number.is_some() && info.multipart {
            put(&mut headers, "x-amz-mp-parts-count", &info.parts.len().to_string())?;
        }
        let customer = wanted.customer.as_ref();
        let sse = self.sse_reply(info.sse, info.tenant_key, user, customer);
        for (name, text) in sse.headers() {
            put(&mut headers, name, text)?;
        }
        if wanted.checksums {
            checksums(wanted, info, length, &mut headers)?;
        }
        // A part of an empty object has no first byte to name.
        let partial = wanted.is_partial() && length > 0;
        if partial {
            let last = range.end.saturating_sub(1);
            let text = format!("bytes {}-{last}/{}", range.start, info.size);
            headers.insert(CONTENT_RANGE, value(&text)?);
        }
        let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        Ok(Head { headers, status, length })
    }

    /// Adds to a failed read what only the object can say: its size for a bad range, its validators
    /// for an unchanged copy (RFC 9110 §15.4.5, §15.5.17). Costs a second look-up, on failure only.
    pub(super) async fn explain(
        &self,
        right: &Authorised<GetObject>,
        object_key: &ObjectKey,
        wanted: &Wanted,
        cause: &kluis_storage::Error,
    ) -> Failure {
        let kind = cause.kind();
        let failure = match (kind, wanted.part_number) {
            (ErrorKind::InvalidPart | ErrorKind::InvalidRange, Some(number)) => {
                return unsatisfiable_part(number);
            }
            _ => Subject::Object.failed(cause),
        };
        if !matches!(kind, ErrorKind::InvalidRange | ErrorKind::NotModified) {
            return failure;
        }
        let plain = GetRequest {
            bucket: right.bucket(),
            object_key,
            conditions: Conditions::default(),
            range: None,
            part_number: None,
            customer_key: customer::key_of(wanted.customer.as_ref()),
        };
        let Ok((info, _)) = self.engine.head(right.purpose(), plain).await else {
            return failure;
        };
        if kind == ErrorKind::InvalidRange {
            return unsatisfiable_range(failure, &info);
        }
        let mut headers = HeaderMap::new();
        match validators(&info, &mut headers) {
            Ok(()) => headers.into_iter().fold(failure, |failure, (name, value)| match name {
                Some(name) => failure.with_header(name, value),
                None => failure,
            }),
            Err(error) => error,
        }
    }
}

fn unsatisfiable_range(failure: Failure, info: &ObjectInfo) -> Failure {
    let failure = failure.with("ActualObjectSize", info.size.to_string());
    match value(&format!("bytes */{}", info.size)) {
        Ok(range) => failure.with_header(CONTENT_RANGE, range),
        Err(error) => error,
    }
}

fn unsatisfiable_part(number: u32) -> Failure {
    let error = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "InvalidPartNumber",
        "The requested partnumber is not satisfiable",
    );
    error.with("PartNumberRequested", number.to_string()).into()
}

fn validators(info: &ObjectInfo, headers: &mut HeaderMap) -> Answer<()> {
    headers.insert(ETAG, value(&format!("\"{}\"", info.etag.as_str()))?);
    if let Some(date) = time::http_date(info.modified_ms) {
        headers.insert(LAST_MODIFIED, date);
    }
    Ok(())
}

/// The checksums of the bytes that the answer is about: of the object, or of the part asked for.
fn checksums(
    wanted: &Wanted,
    info: &ObjectInfo,
    length: u64,
    headers: &mut HeaderMap,
) -> Answer<()> {
    let is_whole = length == info.size;
    let part = wanted.part_number.filter(|_| info.multipart);
    let (fields, checksum_type) = match part {
        Some(number) => match info.parts.iter().find(|part| part.number == number) {
            Some(part) => (Fields::full(&part.checksums), info.checksum_type),
            None => return Ok(()),
        },
        None if is_whole => {
            let fields = Fields::of_object(&info.checksums, info.checksum_type, info.parts.len());
            (fields, info.checksum_type)
        }
        None => return Ok(()),
    };
    if fields.is_empty() {
        return Ok(());
    }
    put_checksums(fields, checksum_type, headers)
}

/// Adds checksums and their type to an answer's headers.
fn put_checksums(
    fields: Fields,
    checksum_type: ChecksumType,
    headers: &mut HeaderMap,
) -> Answer<()> {
    for (name, text) in fields.headers() {
        put(headers, name, &text)?;
    }
    put(headers, "x-amz-checksum-type", checksum::type_name(checksum_type))
}

fn put(headers: &mut HeaderMap, name: &'static str, text: &str) -> Answer<()> {
    headers.insert(HeaderName::from_static(name), value(text)?);
    Ok(())
}

fn value(text: &str) -> Answer<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| internal_error().into())
}

#[cfg(test)]
mod tests;
