//! Object rows, and the three fields that are sealed into them.

use kluis_kms::WrappedKey;

use super::{ROW_VERSION, Reader, Writer};
use crate::digest::{ChecksumAlgorithm, ChecksumType};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{ContentId, ETag, ObjectHeaders, SseMode, Tags, UploadId, VersionId};

/// The value of an `O` row: the current version of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectRow {
    pub(crate) version: VersionId,
    pub(crate) content: ContentId,
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    pub(crate) sse: SseMode,
    /// The upload it was made of, if it was; lets a repeated completion answer as the first.
    pub(crate) upload: Option<UploadId>,
    /// Whether it counts as multipart for readers; a copy of one does not.
    pub(crate) multipart: bool,
    /// The data key under the bucket key of the epoch in its header.
    pub(crate) wrapped: WrappedKey,
    /// [`Heading`], sealed as field `um`.
    pub(crate) heading: Vec<u8>,
    /// Tags, sealed as field `tg`; empty for none.
    pub(crate) tags: Vec<u8>,
    /// [`Attributes`], sealed as field `la`.
    pub(crate) attributes: Vec<u8>,
}

impl ObjectRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.u8(u8::from(self.multipart)).put(self.version.as_bytes());
        value.put(self.content.as_bytes()).u64(self.size).u64(self.modified_ms);
        value.u8(encode_sse(self.sse));
        value.put(&self.upload.map_or([0; 16], |upload| *upload.as_bytes()));
        value.long(self.wrapped.as_bytes()).long(&self.heading).long(&self.tags);
        value.long(&self.attributes);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "object row")?;
        let row = Self {
            multipart: decode_flag(&mut reader)?,
            version: VersionId::from_bytes(reader.array()?),
            content: ContentId::from_bytes(reader.array()?),
            size: reader.u64()?,
            modified_ms: reader.u64()?,
            sse: decode_sse(&mut reader)?,
            upload: decode_upload(&mut reader)?,
            wrapped: WrappedKey::parse(reader.long()?)?,
            heading: reader.long()?.to_vec(),
            tags: reader.long()?.to_vec(),
            attributes: reader.long()?.to_vec(),
        };
        reader.end()?;
        Ok(row)
    }
}

fn decode_flag(reader: &mut Reader<'_>) -> Result<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.corrupt("unknown flags")),
    }
}

/// An upload id, or zeros for none.
fn decode_upload(reader: &mut Reader<'_>) -> Result<Option<UploadId>> {
    Ok(match reader.array()? {
        none if none == [0; 16] => None,
        upload => Some(UploadId::from_bytes(upload)),
    })
}

/// The mode byte, which is also `x` in the data key's context.
pub(crate) fn encode_sse(sse: SseMode) -> u8 {
    match sse {
        SseMode::S3 => 1,
        SseMode::Kms => 2,
        SseMode::Customer => 3,
    }
}

pub(crate) fn decode_sse(reader: &mut Reader<'_>) -> Result<SseMode> {
    match reader.u8()? {
        1 => Ok(SseMode::S3),
        2 => Ok(SseMode::Kms),
        3 => Ok(SseMode::Customer),
        _ => Err(reader.corrupt("an unknown encryption mode")),
    }
}

/// What GET and HEAD show beside the attributes: headers and user metadata; and the caller's
/// encryption context, which the data key is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heading {
    /// CTX of the caller's encryption context, empty if it gave none.
    pub(crate) context: Vec<u8>,
    pub(crate) headers: ObjectHeaders,
}

impl Heading {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.long(&self.context);
        let count = self.headers.0.len();
        value.u16(u16::try_from(count).expect("header counts are bounded by the front"));
        for (name, content) in &self.headers.0 {
            value.text(name).long(content.as_bytes());
        }
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "heading")?;
        let context = reader.long()?.to_vec();
        let mut headers = ObjectHeaders::default();
        for _ in 0..reader.u16()? {
            let name = reader.text()?;
            headers.0.insert(name, reader.long_text()?);
        }
        reader.end()?;
        Ok(Self { context, headers })
    }
}

/// The plaintext of field `tg`.
pub(crate) fn encode_tags(tags: &Tags) -> Vec<u8> {
    let mut value = Writer::versioned();
    value.u16(u16::try_from(tags.0.len()).expect("tag counts are bounded by the front"));
    for (name, content) in &tags.0 {
        value.text(name).text(content);
    }
    value.0
}

/// The tags of a plaintext of field `tg`.
pub(crate) fn decode_tags(value: &[u8]) -> Result<Tags> {
    let mut reader = Reader::versioned(value, "tags")?;
    let mut tags = Tags::default();
    for _ in 0..reader.u16()? {
        tags.0.push((reader.text()?, reader.text()?));
    }
    reader.end()?;
    Ok(tags)
}

/// What a listing shows of an object beyond its clear fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) etag: ETag,
    pub(crate) checksum_algorithm: Option<ChecksumAlgorithm>,
    pub(crate) checksum_type: ChecksumType,
    pub(crate) tag_count: u16,
    /// What the row holds in clear, again: compared with it, so that a changed row is told.
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    pub(crate) multipart: bool,
    pub(crate) upload: Option<UploadId>,
}

impl Attributes {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer(vec![ROW_VERSION]);
        value.text(self.etag.as_str());
        value.u8(self.checksum_algorithm.map_or(0, |algorithm| algorithm as u8));
        value.u8(u8::from(self.checksum_type == ChecksumType::Composite)).u16(self.tag_count);
        value.u64(self.size).u64(self.modified_ms).u8(u8::from(self.multipart));
        value.put(&self.upload.map_or([0; 16], |upload| *upload.as_bytes()));
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "listing attributes")?;
        let etag = ETag::new(reader.text()?);
        let checksum_algorithm = match reader.u8()? {
            0 => None,
            byte => Some(
                ChecksumAlgorithm::from_byte(byte)
                    .ok_or_else(|| reader.corrupt("an unknown checksum algorithm"))?,
            ),
        };
        let checksum_type = match reader.u8()? {
            0 => ChecksumType::FullObject,
            1 => ChecksumType::Composite,
            _ => return Err(reader.corrupt("an unknown checksum type")),
        };
        let attributes = Self {
            etag,
            checksum_algorithm,
            checksum_type,
            tag_count: reader.u16()?,
            size: reader.u64()?,
            modified_ms: reader.u64()?,
            multipart: decode_flag(&mut reader)?,
            upload: decode_upload(&mut reader)?,
        };
        reader.end()?;
        Ok(attributes)
    }

    /// Compares the clear fields of the row they were sealed into.
    pub(crate) fn check(&self, row: &ObjectRow) -> Result<()> {
        let sealed = (self.size, self.modified_ms, self.multipart, self.upload);
        let has_tags = !row.tags.is_empty();
        if sealed == (row.size, row.modified_ms, row.multipart, row.upload)
            && has_tags == (self.tag_count > 0)
        {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Tampered, "compare an object row with what is sealed in it"))
    }
}
