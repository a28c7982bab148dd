//! Contents: the immutable bodies of object versions, and the manifest that lists their streams.

use super::{Reader, Writer};
use crate::digest::Checksum;
use crate::error::Result;
use crate::types::{CHUNK_SHIFT, PART_NUMBER_MAX, StreamId};

/// The suite of format 1: HKDF-SHA-256 and AES-256-GCM-SIV (docs/FORMAT.md, "Suites").
pub(crate) const SUITE: u8 = 1;

/// A stream as the content row names it in clear: enough to delete it without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRef {
    pub(crate) stream: StreamId,
    /// Extents it has in the blob store; 0 for an inline body.
    pub(crate) extents: u32,
}

/// The value of a `D` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentRow {
    /// Whether the body is the `I` row of this content.
    pub(crate) inline: bool,
    /// The manifest's sequence number, which its key derives from; 1 at first.
    pub(crate) sequence: u32,
    /// The commitment to the data key.
    pub(crate) commitment: [u8; 32],
    /// Object versions that point here.
    pub(crate) references: u32,
    /// For deleting; reads follow the manifest.
    pub(crate) streams: Vec<StreamRef>,
    pub(crate) sealed_manifest: Vec<u8>,
}

impl ContentRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.u8(SUITE).u8(CHUNK_SHIFT).u8(u8::from(self.inline)).u32(self.sequence);
        value.put(&self.commitment).u32(self.references);
        value.u32(u32::try_from(self.streams.len()).expect("at most 10,000 parts"));
        for stream in &self.streams {
            value.put(stream.stream.as_bytes()).u32(stream.extents);
        }
        value.long(&self.sealed_manifest);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "content row")?;
        if (reader.u8()?, reader.u8()?) != (SUITE, CHUNK_SHIFT) {
            return Err(reader.corrupt("an unknown suite or chunk size"));
        }
        let inline = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.corrupt("unknown flags")),
        };
        let (sequence, commitment) = (reader.u32()?, reader.array()?);
        let (references, count) = (reader.u32()?, reader.u32()?);
        if count > PART_NUMBER_MAX {
            return Err(reader.corrupt("more streams than an object has parts"));
        }
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = StreamId::from_bytes(reader.array()?);
            streams.push(StreamRef { stream, extents: reader.u32()? });
        }
        let sealed_manifest = reader.long()?.to_vec();
        reader.end()?;
        Ok(Self { inline, sequence, commitment, references, streams, sealed_manifest })
    }
}

/// A stream as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestStream {
    pub(crate) stream: StreamId,
    /// Plaintext bytes.
    pub(crate) size: u64,
    pub(crate) part_number: u32,
    /// What is known of the part's bytes; empty for an object that was put whole.
    pub(crate) checksums: Vec<Checksum>,
}

/// What a content is made of, in order. Only ever stored sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) size: u64,
    pub(crate) streams: Vec<ManifestStream>,
    pub(crate) checksums: Vec<Checksum>,
    /// Whether `checksums` are over those of the parts.
    pub(crate) composite: bool,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::default();
        value.put(b"OM").u8(1).u8(SUITE).u8(CHUNK_SHIFT).u8(0).u64(self.size);
        value.u32(u32::try_from(self.streams.len()).expect("at most 10,000 parts"));
        for stream in &self.streams {
            value.put(stream.stream.as_bytes()).u64(stream.size).u32(stream.part_number);
        }
        value.checksums(&self.checksums, self.composite);
        if self.streams.iter().any(|stream| !stream.checksums.is_empty()) {
            value.put(b"PC");
            for stream in &self.streams {
                value.checksums(&stream.checksums, false);
            }
        }
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(value, "manifest");
        if reader.array::<6>()? != [b'O', b'M', 1, SUITE, CHUNK_SHIFT, 0] {
            return Err(reader.corrupt("an unknown version, suite or chunk size"));
        }
        let (size, count) = (reader.u64()?, reader.u32()?);
        if count == 0 || count > PART_NUMBER_MAX {
            return Err(reader.corrupt("a number of streams out of bounds"));
        }
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = StreamId::from_bytes(reader.array()?);
            let (size, part_number) = (reader.u64()?, reader.u32()?);
            streams.push(ManifestStream { stream, size, part_number, checksums: Vec::new() });
        }
        let (checksums, composite) = reader.checksums()?;
        if !reader.is_empty() {
            if reader.array::<2>()? != *b"PC" {
                return Err(reader.corrupt("an unknown section"));
            }
            for stream in &mut streams {
                stream.checksums = reader.checksums()?.0;
            }
        }
        let sum = streams.iter().try_fold(0_u64, |sum, stream| sum.checked_add(stream.size));
        if sum != Some(size) {
            return Err(reader.corrupt("the streams do not add up"));
        }
        reader.end()?;
        Ok(Self { size, streams, checksums, composite })
    }
}
