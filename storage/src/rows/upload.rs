//! Rows of multipart uploads and of their parts.

use kluis_kms::WrappedKey;

use super::object::{decode_sse, encode_sse};
use super::{Reader, Writer};
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{ContentId, ETag, SseMode, StreamId};

/// The value of an upload's `M` row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UploadRow {
    pub(crate) initiated_ms: u64,
    pub(crate) content: ContentId,
    pub(crate) sse: SseMode,
    pub(crate) checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// The data key in the binding of an open upload.
    pub(crate) wrapped: WrappedKey,
    /// Heading and tags of the object to be, sealed with the upload id in place of the version.
    pub(crate) heading: Vec<u8>,
    pub(crate) tags: Vec<u8>,
}

impl UploadRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.u64(self.initiated_ms).put(self.content.as_bytes()).u8(encode_sse(self.sse));
        let (algorithm, kind) = self.checksum.map_or((0, 0), |(algorithm, kind)| {
            (algorithm as u8, u8::from(kind == ChecksumType::Composite))
        });
        value.u8(algorithm).u8(kind);
        value.long(self.wrapped.as_bytes()).long(&self.heading).long(&self.tags);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "upload row")?;
        let initiated_ms = reader.u64()?;
        let content = ContentId::from_bytes(reader.array()?);
        let sse = decode_sse(&mut reader)?;
        let checksum = match (reader.u8()?, reader.u8()?) {
            (0, 0) => None,
            (byte, kind @ (0 | 1)) => {
                let algorithm = ChecksumAlgorithm::from_byte(byte)
                    .ok_or_else(|| reader.corrupt("an unknown checksum algorithm"))?;
                let kind =
                    if kind == 1 { ChecksumType::Composite } else { ChecksumType::FullObject };
                Some((algorithm, kind))
            }
            _ => return Err(reader.corrupt("an unknown checksum type")),
        };
        let row = Self {
            initiated_ms,
            content,
            sse,
            checksum,
            wrapped: WrappedKey::parse(reader.long()?)?,
            heading: reader.long()?.to_vec(),
            tags: reader.long()?.to_vec(),
        };
        reader.end()?;
        Ok(row)
    }
}

/// The value of a part's `M` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartRow {
    pub(crate) stream: StreamId,
    pub(crate) size: u64,
    pub(crate) extents: u32,
    pub(crate) modified_ms: u64,
    /// [`PartSeal`], sealed as field `pt`.
    pub(crate) sealed: Vec<u8>,
}

impl PartRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.put(self.stream.as_bytes()).u64(self.size).u32(self.extents);
        value.u64(self.modified_ms).long(&self.sealed);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "part row")?;
        let row = Self {
            stream: StreamId::from_bytes(reader.array()?),
            size: reader.u64()?,
            extents: reader.u32()?,
            modified_ms: reader.u64()?,
            sealed: reader.long()?.to_vec(),
        };
        reader.end()?;
        Ok(row)
    }
}

/// What is sealed of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartSeal {
    /// Stream, size and extents again: the clear ones are compared with them, so that parts cannot
    /// be exchanged.
    pub(crate) stream: StreamId,
    pub(crate) size: u64,
    pub(crate) extents: u32,
    pub(crate) etag: ETag,
    pub(crate) checksums: Vec<Checksum>,
}

impl PartSeal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.put(self.stream.as_bytes()).u64(self.size).u32(self.extents);
        value.text(self.etag.as_str()).checksums(&self.checksums, false);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "part attributes")?;
        let stream = StreamId::from_bytes(reader.array()?);
        let (size, extents) = (reader.u64()?, reader.u32()?);
        let etag = ETag::new(reader.text()?);
        let (checksums, _) = reader.checksums()?;
        reader.end()?;
        Ok(Self { stream, size, extents, etag, checksums })
    }

    /// Compares the clear fields of the row they were sealed into.
    pub(crate) fn check(self, row: &PartRow) -> Result<Self> {
        if (self.stream, self.size, self.extents) == (row.stream, row.size, row.extents) {
            return Ok(self);
        }
        Err(Error::new(ErrorKind::Tampered, "compare a part row with what is sealed in it"))
    }
}
