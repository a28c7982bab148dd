//! Checksums as S3 writes them: base64, one field for each algorithm, `-N` where composite.
//!
//! Owns: the step between [`Checksum`] and the fields of s3s. Knows nothing of: computing one.
//!
//! Source: AWS, "Checking object integrity in Amazon S3".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_storage::{Checksum, ChecksumAlgorithm, ChecksumType};
use s3s::dto;

use super::error::{Answer, invalid_request};

/// One optional text for each algorithm that S3 shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

/// Writes [`Fields`] into the fields of the same names of an output.
macro_rules! fill {
    ($output:expr, $fields:expr) => {{
        let fields: $crate::s3::checksum::Fields = $fields;
        $output.checksum_crc32 = fields.crc32;
        $output.checksum_crc32c = fields.crc32c;
        $output.checksum_crc64nvme = fields.crc64nvme;
        $output.checksum_sha1 = fields.sha1;
        $output.checksum_sha256 = fields.sha256;
    }};
}
pub(super) use fill;

/// Reads the checksum fields of an input.
macro_rules! read {
    ($input:expr) => {
        $crate::s3::checksum::Fields {
            crc32: $input.checksum_crc32.clone(),
            crc32c: $input.checksum_crc32c.clone(),
            crc64nvme: $input.checksum_crc64nvme.clone(),
            sha1: $input.checksum_sha1.clone(),
            sha256: $input.checksum_sha256.clone(),
        }
        .parse()
    };
}
pub(super) use read;

/// Names of the headers that hold a checksum, by algorithm.
pub(super) const HEADERS: [(&str, ChecksumAlgorithm); 5] = [
    ("x-amz-checksum-crc32", ChecksumAlgorithm::Crc32),
    ("x-amz-checksum-crc32c", ChecksumAlgorithm::Crc32c),
    ("x-amz-checksum-crc64nvme", ChecksumAlgorithm::Crc64Nvme),
    ("x-amz-checksum-sha1", ChecksumAlgorithm::Sha1),
    ("x-amz-checksum-sha256", ChecksumAlgorithm::Sha256),
];

impl Fields {
    /// The fields of checksums over bytes.
    pub(super) fn full(checksums: &[Checksum]) -> Self {
        Self::of(checksums, None)
    }

    /// The fields of an object's checksums. Those over parts end in the number of parts.
    pub(super) fn of_object(
        checksums: &[Checksum],
        checksum_type: ChecksumType,
        part_count: usize,
    ) -> Self {
        let composite = checksum_type == ChecksumType::Composite;
        Self::of(checksums, composite.then_some(part_count))
    }

    fn of(checksums: &[Checksum], part_count: Option<usize>) -> Self {
        let mut fields = Self::default();
        for checksum in checksums {
            let mut text = STANDARD.encode(&checksum.value);
            if let Some(count) = part_count {
                text = format!("{text}-{count}");
            }
            match checksum.algorithm {
                ChecksumAlgorithm::Crc32 => fields.crc32 = Some(text),
                ChecksumAlgorithm::Crc32c => fields.crc32c = Some(text),
                ChecksumAlgorithm::Crc64Nvme => fields.crc64nvme = Some(text),
                ChecksumAlgorithm::Sha1 => fields.sha1 = Some(text),
                ChecksumAlgorithm::Sha256 => fields.sha256 = Some(text),
                // Shown as an ETag, if at all.
                ChecksumAlgorithm::Md5 => {}
            }
        }
        fields
    }

    /// Every field that is set, with the name of its header.
    pub(super) fn headers(self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { crc32, crc32c, crc64nvme, sha1, sha256 } = self;
        HEADERS
            .into_iter()
            .zip([crc32, crc32c, crc64nvme, sha1, sha256])
            .filter_map(|((name, _), text)| Some((name, text?)))
    }

    /// Reads the fields back. The `-N` of a composite checksum is left out.
    pub(super) fn parse(self) -> Answer<Vec<Checksum>> {
        let algorithm = |name: &str| {
            HEADERS.iter().find(|(header, _)| *header == name).map(|(_, algorithm)| *algorithm)
        };
        self.headers()
            .filter_map(|(name, text)| Some((name, algorithm(name)?, text)))
            .map(|(name, algorithm, text)| {
                let text = text.split_once('-').map_or(text.as_str(), |(value, _)| value);
                let value = STANDARD.decode(text).ok();
                value
                    .filter(|value| value.len() == algorithm.value_bytes())
                    .map(|value| Checksum { algorithm, value })
                    .ok_or_else(|| {
                        invalid_request(format!("Value for {name} header is invalid.")).into()
                    })
            })
            .collect()
    }

    /// Whether no field is set.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The algorithm's name in XML and in headers. MD5 has none.
pub(super) fn algorithm_name(algorithm: ChecksumAlgorithm) -> Option<&'static str> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(dto::ChecksumAlgorithm::CRC32),
        ChecksumAlgorithm::Crc32c => Some(dto::ChecksumAlgorithm::CRC32C),
        ChecksumAlgorithm::Crc64Nvme => Some(dto::ChecksumAlgorithm::CRC64NVME),
        ChecksumAlgorithm::Sha1 => Some(dto::ChecksumAlgorithm::SHA1),
        ChecksumAlgorithm::Sha256 => Some(dto::ChecksumAlgorithm::SHA256),
        ChecksumAlgorithm::Md5 => None,
    }
}

/// The algorithm that a request names.
pub(super) fn algorithm(name: &str) -> Answer<ChecksumAlgorithm> {
    ChecksumAlgorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm_name(*algorithm).is_some_and(|it| it.eq_ignore_ascii_case(name)))
        .ok_or_else(|| {
            let message = "Checksum algorithm provided is unsupported. Please try again with any of \
                the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";
            invalid_request(message).into()
        })
}

/// The element for an algorithm.
pub(super) fn algorithm_element(algorithm: ChecksumAlgorithm) -> Option<dto::ChecksumAlgorithm> {
    algorithm_name(algorithm).map(dto::ChecksumAlgorithm::from_static)
}

/// The text for a type.
pub(super) fn type_name(checksum_type: ChecksumType) -> &'static str {
    match checksum_type {
        ChecksumType::Composite => dto::ChecksumType::COMPOSITE,
        ChecksumType::FullObject => dto::ChecksumType::FULL_OBJECT,
    }
}

/// The element for a type.
pub(super) fn type_element(checksum_type: ChecksumType) -> dto::ChecksumType {
    dto::ChecksumType::from_static(type_name(checksum_type))
}

/// What a multipart upload is asked to carry, by the table of AWS: the SHAs are composite,
/// CRC64NVME is over the whole object, CRC32 and CRC32C are either and composite when nothing is
/// said.
pub(super) fn of_upload(
    algorithm_text: Option<&str>,
    type_text: Option<&str>,
) -> Answer<Option<(ChecksumAlgorithm, ChecksumType)>> {
    let Some(name) = algorithm_text else {
        if type_text.is_none() {
            return Ok(None);
        }
        let message = "The x-amz-checksum-type header can only be used with the \
            x-amz-checksum-algorithm header.";
        return Err(invalid_request(message).into());
    };
    let algorithm = algorithm(name)?;
    let asked = match type_text {
        None => None,
        Some(text) if text == dto::ChecksumType::COMPOSITE => Some(ChecksumType::Composite),
        Some(text) if text == dto::ChecksumType::FULL_OBJECT => Some(ChecksumType::FullObject),
        Some(_) => {
            return Err(invalid_request("Value for x-amz-checksum-type header is invalid.").into());
        }
    };
    let (default, other_allowed) = match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => (ChecksumType::Composite, true),
        ChecksumAlgorithm::Crc64Nvme => (ChecksumType::FullObject, false),
        _ => (ChecksumType::Composite, false),
    };
    match asked {
        Some(asked) if asked != default && !other_allowed => Err(invalid_request(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            type_name(asked),
            name.to_ascii_lowercase(),
        ))
        .into()),
        asked => Ok(Some((algorithm, asked.unwrap_or(default)))),
    }
}

#[cfg(test)]
mod tests;
