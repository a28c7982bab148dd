//! The values of rows: encode and decode, nothing else.
//!
//! Owns: the bytes of bucket, object, content, upload, part, bucket-key and namespace rows, and of
//! the plaintexts that are sealed into them. Knows nothing of: where rows lie, keys.
//!
//! Invariants
//! - Pure. Decoding never panics, refuses trailing bytes, and what it accepts encodes to the same
//!   bytes again.
//! - All integers are big-endian; every value starts with a version byte.
//!   Bytes: docs/FORMAT.md, "Rows", "Manifest", "Sealed fields".

mod bucket;
mod content;
mod object;
mod upload;

pub(crate) use bucket::{BucketKeyRow, NamespaceRow, decode_bucket, encode_bucket};
pub(crate) use content::{ContentRow, Manifest, ManifestStream, StreamRef};
pub(crate) use object::{Attributes, Heading, ObjectRow, decode_tags, encode_sse, encode_tags};
pub(crate) use upload::{PartRow, PartSeal, UploadRow};

use crate::digest::{Checksum, ChecksumAlgorithm};
use crate::error::{Error, ErrorKind, Result};

/// The first byte of every row value in format 1.
pub(crate) const ROW_VERSION: u8 = 1;

/// Reads a value from its front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which are a `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// A reader behind the version byte.
    pub(crate) fn versioned(bytes: &'a [u8], what: &'static str) -> Result<Self> {
        let mut reader = Self::new(bytes, what);
        match reader.u8()? {
            ROW_VERSION => Ok(reader),
            other => Err(Error::new(
                ErrorKind::Corrupt,
                format!("decode a {what}: version {other} is not {ROW_VERSION}"),
            )),
        }
    }

    pub(crate) fn corrupt(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("decode a {}: {why}", self.what))
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| self.corrupt("it is cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or_else(|| self.corrupt("it is cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Bytes behind their be32 length.
    pub(crate) fn long(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).map_err(|_| self.corrupt("a length is too large"))?)
    }

    /// Text behind its be16 length.
    pub(crate) fn text(&mut self) -> Result<String> {
        let len = usize::from(self.u16()?);
        let bytes = self.bytes(len)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.corrupt("text is not UTF-8"))
    }

    /// Text behind its be32 length.
    pub(crate) fn long_text(&mut self) -> Result<String> {
        let bytes = self.long()?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.corrupt("text is not UTF-8"))
    }

    /// Checksums: a count, then `alg ‖ len ‖ value` each. A set top bit of `alg` says "of parts".
    pub(crate) fn checksums(&mut self) -> Result<(Vec<Checksum>, bool)> {
        let count = self.u8()?;
        let mut composite = false;
        let mut checksums = Vec::new();
        for _ in 0..count {
            let byte = self.u8()?;
            composite |= byte & COMPOSITE_BIT != 0;
            let algorithm = ChecksumAlgorithm::from_byte(byte & !COMPOSITE_BIT)
                .ok_or_else(|| self.corrupt("an unknown checksum algorithm"))?;
            let len = usize::from(self.u8()?);
            if len != algorithm.value_bytes() {
                return Err(self.corrupt("a checksum of the wrong length"));
            }
            checksums.push(Checksum { algorithm, value: self.bytes(len)?.to_vec() });
        }
        Ok((checksums, composite))
    }

    /// Whether all of it was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes follow it")) }
    }
}

/// The bit of an algorithm byte that says "over the checksums of the parts".
const COMPOSITE_BIT: u8 = 0x80;

/// A value being written.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// A writer that has written the version byte.
    pub(crate) fn versioned() -> Self {
        Self(vec![ROW_VERSION])
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn long(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).expect("row fields are far below 4 GiB")).put(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.u16(u16::try_from(text.len()).expect("names are bounded by their types"))
            .put(text.as_bytes())
    }

    pub(crate) fn checksums(&mut self, checksums: &[Checksum], composite: bool) -> &mut Self {
        self.u8(u8::try_from(checksums.len()).expect("at most one checksum an algorithm"));
        for checksum in checksums {
            // MD5 stays one of the bytes: it is there for the ETag of an object put whole.
            let bit = if composite { COMPOSITE_BIT } else { 0 };
            let len = u8::try_from(checksum.value.len()).expect("a digest is at most 32 bytes");
            self.u8(checksum.algorithm as u8 | bit).u8(len).put(&checksum.value);
        }
        self
    }
}

#[cfg(test)]
mod tests;
