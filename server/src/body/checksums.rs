//! The checksums that a client names or sends: `Content-MD5`, `x-amz-checksum-*`, `x-amz-trailer`,
//! `x-amz-sdk-checksum-algorithm`.
//!
//! Owns: their names, forms and which may stand together. Pure. Knows nothing of: the bytes they
//! are over.
//!
//! Invariants
//! - At most one `x-amz-checksum-*` value per request, in the head or announced for the trailer.
//! - Without a trailer form in `x-amz-content-sha256` there is no trailer, whatever `x-amz-trailer`
//!   announces: the value in the head counts.
//!
//! Source: AWS, "Checking object integrity for data uploads in Amazon S3".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::request::Parts;
use kluis_storage::{Checksum, ChecksumAlgorithm};

use crate::auth::canonical::QueryParams;
use crate::error::ApiError;

/// What all checksum fields begin with.
pub(crate) const PREFIX: &str = "x-amz-checksum-";
/// Fields with the prefix that are not a checksum's value.
const NOT_VALUES: [&str; 3] =
    ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];

const NAMED: [(ChecksumAlgorithm, &str, &str); 5] = [
    (ChecksumAlgorithm::Crc32, "CRC32", "x-amz-checksum-crc32"),
    (ChecksumAlgorithm::Crc32c, "CRC32C", "x-amz-checksum-crc32c"),
    (ChecksumAlgorithm::Crc64Nvme, "CRC64NVME", "x-amz-checksum-crc64nvme"),
    (ChecksumAlgorithm::Sha1, "SHA1", "x-amz-checksum-sha1"),
    (ChecksumAlgorithm::Sha256, "SHA256", "x-amz-checksum-sha256"),
];

/// The algorithm's name as S3 writes it.
pub(crate) fn label(algorithm: ChecksumAlgorithm) -> &'static str {
    NAMED.iter().find(|(known, ..)| *known == algorithm).map_or("MD5", |(_, label, _)| label)
}

/// The name of the field that carries a value of `algorithm`.
pub(crate) fn field_name(algorithm: ChecksumAlgorithm) -> &'static str {
    NAMED.iter().find(|(known, ..)| *known == algorithm).map_or("content-md5", |(.., field)| field)
}

fn by_label(text: &str) -> Option<ChecksumAlgorithm> {
    let named = NAMED.iter().find(|(_, label, _)| label.eq_ignore_ascii_case(text));
    named.map(|(algorithm, ..)| *algorithm)
}

/// The algorithm whose value the field `name`, in lower case, carries.
pub(crate) fn by_field(name: &str) -> Option<ChecksumAlgorithm> {
    NAMED.iter().find(|(.., field)| *field == name).map(|(algorithm, ..)| *algorithm)
}

/// Reads a value: base64 of exactly the algorithm's length.
pub(crate) fn decode(algorithm: ChecksumAlgorithm, text: &[u8]) -> Option<Checksum> {
    let value = STANDARD.decode(text).ok()?;
    (value.len() == algorithm.value_bytes()).then_some(Checksum { algorithm, value })
}

fn invalid_request(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", message.into())
}

fn too_many() -> ApiError {
    invalid_request(
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )
}

/// What the head of a request says about checksums.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    /// `Content-MD5`.
    pub(crate) md5: Option<Checksum>,
    /// The one `x-amz-checksum-*` value.
    pub(crate) value: Option<Checksum>,
    /// The one checksum announced for the trailer, if the body has one.
    pub(crate) trailer: Option<ChecksumAlgorithm>,
    /// The algorithm that the client named in any of these ways, or by its name alone.
    pub(crate) named: Option<ChecksumAlgorithm>,
}

/// The fields of a request's head: headers, and in a presigned URL query parameters too, since its
/// signers move `x-amz-*` headers there.
pub(crate) struct Fields<'a> {
    parts: &'a Parts,
    presigned: Option<&'a QueryParams>,
}

impl<'a> Fields<'a> {
    /// The fields of a request.
    pub(crate) fn new(parts: &'a Parts, presigned: Option<&'a QueryParams>) -> Self {
        Self { parts, presigned }
    }

    /// Every field with a name that `wanted` likes, the name in lower case; headers first.
    fn all(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, &'a [u8])> {
        let headers = self.parts.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes()));
        let params = self.presigned.into_iter().flat_map(QueryParams::iter);
        let params =
            params.map(|(name, value)| (String::from_utf8_lossy(name).to_ascii_lowercase(), value));
        headers.chain(params).filter(|(name, _)| wanted(name)).collect()
    }

    /// Reads everything about checksums. `has_trailer` is whether the body's form has a trailer.
    pub(crate) fn checksums(&self, has_trailer: bool) -> Result<Announced, ApiError> {
        let md5 = self.content_md5()?;
        let of_object = self.is_complete_multipart_upload();
        if of_object {
            return Ok(Announced { md5, ..Announced::default() });
        }
        let value = self.value()?;
        let announced = self.trailer(has_trailer)?;
        let trailer = announced.filter(|_| has_trailer);
        if value.is_some() && trailer.is_some() {
            return Err(too_many());
        }
        let sent = value.as_ref().map(|value| value.algorithm).or(trailer);
        let named = self.sdk_algorithm(sent, announced)?;
        Ok(Announced { md5, value, trailer, named })
    }

    /// Whether the checksum may be the object's: CompleteMultipartUpload sends that, and none of
    /// its own body. The bucket may be in the host, so a path that names anything may name an
    /// object; a bucket in the path takes `delete` only, which is excluded.
    fn is_complete_multipart_upload(&self) -> bool {
        let query = QueryParams::parse(self.parts.uri.query());
        let names_something = !self.parts.uri.path().trim_matches('/').is_empty();
        self.parts.method == http::Method::POST
            && names_something
            && query.has("uploadId")
            && !query.has("delete")
    }

    fn content_md5(&self) -> Result<Option<Checksum>, ApiError> {
        let mut values = self.parts.headers.get_all("content-md5").iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let checksum = decode(ChecksumAlgorithm::Md5, value.as_bytes());
        if let (Some(checksum), None) = (checksum, values.next()) {
            return Ok(Some(checksum));
        }
        let message = "The Content-MD5 you specified was invalid.";
        let text = String::from_utf8_lossy(value.as_bytes());
        Err(ApiError::new(StatusCode::BAD_REQUEST, "InvalidDigest", message)
            .with("Content-MD5", text))
    }

    fn value(&self) -> Result<Option<Checksum>, ApiError> {
        let fields = self.all(|name| name.starts_with(PREFIX) && !NOT_VALUES.contains(&name));
        let (name, value) = match fields.as_slice() {
            [] => return Ok(None),
            [one] => one,
            _ => return Err(too_many()),
        };
        let algorithm = by_field(name).ok_or_else(|| {
            invalid_request(
                "The algorithm type you specified in x-amz-checksum- header is invalid.",
            )
        })?;
        let checksum = decode(algorithm, value)
            .ok_or_else(|| invalid_request(format!("Value for {name} header is invalid.")))?;
        Ok(Some(checksum))
    }

    fn trailer(&self, has_trailer: bool) -> Result<Option<ChecksumAlgorithm>, ApiError> {
        let mut found = None;
        for (_, value) in self.all(|name| name == "x-amz-trailer") {
            let text = String::from_utf8_lossy(value).to_ascii_lowercase();
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let Some(algorithm) = by_field(name) else {
                    if !has_trailer {
                        continue;
                    }
                    return Err(invalid_request(
                        "The value specified in the x-amz-trailer header is not supported",
                    ));
                };
                if has_trailer && found.is_some() {
                    return Err(too_many());
                }
                found = Some(algorithm);
            }
        }
        Ok(found)
    }

    /// `x-amz-sdk-checksum-algorithm` has to agree with the checksum that was sent. A presigned URL
    /// may name one without sending it: its signer does not know the body.
    fn sdk_algorithm(
        &self,
        sent: Option<ChecksumAlgorithm>,
        announced: Option<ChecksumAlgorithm>,
    ) -> Result<Option<ChecksumAlgorithm>, ApiError> {
        let name = "x-amz-sdk-checksum-algorithm";
        let fields = self.all(|found| found == name);
        let Some((_, value)) = fields.first() else {
            return Ok(sent.or(announced));
        };
        let asked = by_label(&String::from_utf8_lossy(value)).ok_or_else(|| {
            invalid_request(
                "Checksum algorithm provided is unsupported. Please try again with any of the \
                 valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
            )
        })?;
        match sent.or(announced) {
            Some(sent) if sent != asked => {
                Err(invalid_request(format!("Value for {name} header is invalid.")))
            }
            None if self.presigned.is_none() && has_body(self.parts) => Err(invalid_request(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
                 x-amz-trailer headers were found.",
            )),
            _ => Ok(Some(asked)),
        }
    }
}

/// Whether requests of this method have a body as a rule.
pub(crate) fn has_body(parts: &Parts) -> bool {
    parts.method == http::Method::PUT || parts.method == http::Method::POST
}
