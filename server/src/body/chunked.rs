//! The `aws-chunked` framing: chunks with a size line, optionally signed, and a trailer.
//!
//! Owns: taking the framing off, bytes in and pieces of the body out, without I/O. Knows nothing
//! of: sockets, checksums of the whole body, the declared length.
//!
//! Invariants
//! - An unsigned chunk is never gathered: its bytes pass through as slices of what came in.
//! - A signed chunk is gathered whole, at most [`SIGNED_CHUNK_BYTES_MAX`], and none of its bytes
//!   leave before its signature was verified.
//! - Everything else that is held is bounded by [`LINE_BYTES_MAX`] and [`TRAILER_BYTES_MAX`].
//! - [`ChunkDecoder::finish`] is `Ok` only behind the last byte of a complete body.
//!
//! Grammar: `{size [";chunk-signature=" hex] CRLF data CRLF} "0" [signature] CRLF {name ":" value
//! LF} [CR] LF`; AWS, "Transferring payload in multiple chunks".

use bytes::Bytes;
use kluis_storage::ChecksumAlgorithm;
use sha2::{Digest as _, Sha256};

use super::checksums;
use super::error::BodyError;
use crate::auth::signing::ChunkChain;

/// The smallest size of a chunk that is not the last (AWS: 8 KiB).
pub(crate) const CHUNK_BYTES_MIN: u64 = 8 * 1024;
/// The largest signed chunk: it has to be held until its signature is checked. SDKs send 64 KiB to
/// 1 MiB.
pub(crate) const SIGNED_CHUNK_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The largest piece that leaves at once, so that whoever reads is never flooded.
pub(crate) const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// The longest size line; one with a signature has about 90 bytes.
const LINE_BYTES_MAX: usize = 1024;
/// The largest trailer.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// The most lines in a trailer.
const TRAILER_LINES_MAX: usize = 100;
/// The only extension of a size line.
const SIGNATURE_EXTENSION: &str = ";chunk-signature=";
/// The field in which the trailer's own signature comes.
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

enum State {
    /// In a size line.
    Size,
    /// In the data of an unsigned chunk.
    Data { left: u64 },
    /// In the data of a signed chunk.
    Gather { left: u64, signature: Vec<u8> },
    /// Handing out a verified chunk.
    Verified,
    /// Before the line end behind a chunk's data.
    DataEnd,
    /// Behind the last chunk.
    Trailer,
    /// Behind the last byte.
    Done,
}

/// Takes the framing off one body.
pub(super) struct ChunkDecoder {
    state: State,
    chain: Option<ChunkChain>,
    /// The checksum that the trailer was announced to have.
    announced: Option<ChecksumAlgorithm>,
    line: Vec<u8>,
    gathered: Vec<u8>,
    verified: Bytes,
    chunk: u64,
    previous_bytes: Option<u64>,
    trailer: Trailer,
}

#[derive(Default)]
struct Trailer {
    bytes: usize,
    lines: usize,
    /// The announced checksum's value.
    value: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub(super) fn new(chain: Option<ChunkChain>, announced: Option<ChecksumAlgorithm>) -> Self {
        Self {
            state: State::Size,
            chain,
            announced,
            line: Vec::new(),
            gathered: Vec::new(),
            verified: Bytes::new(),
            chunk: 0,
            previous_bytes: None,
            trailer: Trailer::default(),
        }
    }

    /// Takes from the front of `input` until there is a piece of the body, or `input` is used up.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, BodyError> {
        loop {
            if matches!(self.state, State::Verified) {
                let count = self.verified.len().min(PIECE_BYTES_MAX);
                let piece = self.verified.split_to(count);
                if self.verified.is_empty() {
                    self.state = State::DataEnd;
                }
                return Ok(Some(piece));
            }
            if input.is_empty() {
                return Ok(None);
            }
            match &mut self.state {
                State::Data { left } => {
                    let piece = input.split_to(take(*left, input.len().min(PIECE_BYTES_MAX)));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Some(piece));
                }
                State::Gather { left, .. } => {
                    let taken = input.split_to(take(*left, input.len()));
                    *left -= taken.len() as u64;
                    let left = *left;
                    self.gather(taken, left)?;
                }
                State::Size | State::DataEnd | State::Trailer => self.step_line(input)?,
                State::Verified => {}
                State::Done => return Err(BodyError::Incomplete("bytes behind the end")),
            }
        }
    }

    /// Whether the body is complete: called when no more bytes will come.
    pub(super) fn finish(&self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(BodyError::Incomplete("it ended early")),
        }
    }

    /// The trailer's checksum field and its value, once the body is complete.
    pub(super) fn trailer_value(&self) -> Option<(ChecksumAlgorithm, &[u8])> {
        Some((self.announced?, self.trailer.value.as_deref()?))
    }

    /// Bytes held back, for the tests of the bound.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.line.capacity() + self.gathered.capacity() + self.verified.len()
    }

    /// Adds to a signed chunk of which `left` bytes are still to come. A chunk that came in one
    /// slice is not copied; the buffer of others grows as bytes come, not as they are announced.
    fn gather(&mut self, taken: Bytes, left: u64) -> Result<(), BodyError> {
        if left == 0 && self.gathered.is_empty() {
            return self.verify(taken);
        }
        if self.gathered.capacity() - self.gathered.len() < taken.len() {
            let doubled = self.gathered.len().max(taken.len());
            let rest = take(left, usize::MAX - taken.len()) + taken.len();
            self.gathered.reserve_exact(doubled.min(rest));
        }
        self.gathered.extend_from_slice(&taken);
        if left == 0 {
            let whole = std::mem::take(&mut self.gathered);
            return self.verify(whole.into());
        }
        Ok(())
    }

    fn verify(&mut self, whole: Bytes) -> Result<(), BodyError> {
        let next = if whole.is_empty() { State::Trailer } else { State::Verified };
        let State::Gather { signature, .. } = std::mem::replace(&mut self.state, next) else {
            return Err(BodyError::Incomplete("a chunk out of place"));
        };
        let chain = self.chain.as_mut().ok_or(BodyError::Signature)?;
        if !chain.verify_chunk(&Sha256::digest(&whole), &signature) {
            return Err(BodyError::Signature);
        }
        self.verified = whole;
        Ok(())
    }

    /// Moves up to one line from `input`, and acts on it when it is complete.
    fn step_line(&mut self, input: &mut Bytes) -> Result<(), BodyError> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let taken = input.split_to(end.map_or(input.len(), |end| end + 1));
        if self.line.len() + taken.len() > self.line_bytes_max() {
            return Err(self.line_too_long());
        }
        self.line.extend_from_slice(&taken);
        if end.is_none() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        match self.state {
            State::Size => self.on_size(&line),
            State::DataEnd if line == b"\r\n" => {
                self.state = State::Size;
                Ok(())
            }
            State::Trailer => self.on_trailer(&line),
            _ => Err(BodyError::Incomplete("no line end behind a chunk")),
        }
    }

    fn line_bytes_max(&self) -> usize {
        match self.state {
            State::Trailer => TRAILER_BYTES_MAX.saturating_sub(self.trailer.bytes),
            State::DataEnd => 2,
            _ => LINE_BYTES_MAX,
        }
    }

    fn line_too_long(&self) -> BodyError {
        match self.state {
            State::Trailer => BodyError::MalformedTrailer("it is too large"),
            State::DataEnd => BodyError::Incomplete("no line end behind a chunk"),
            _ => BodyError::Incomplete("a size line is too long"),
        }
    }

    fn on_size(&mut self, line: &[u8]) -> Result<(), BodyError> {
        let broken = || BodyError::Incomplete("a size line cannot be read");
        let text = line.strip_suffix(b"\r\n").ok_or_else(broken)?;
        let text = std::str::from_utf8(text).map_err(|_| broken())?;
        let (digits, signature) = match (self.chain.is_some(), text.split_once(SIGNATURE_EXTENSION))
        {
            (true, Some((digits, signature))) => (digits, signature.as_bytes().to_vec()),
            (false, None) => (text, Vec::new()),
            _ => return Err(broken()),
        };
        // 16 digits are 64 bits; more can only be zeroes in front.
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || digits.len() > 16 {
            return Err(broken());
        }
        let bytes = u64::from_str_radix(digits, 16).map_err(|_| broken())?;
        self.check_size(bytes)?;
        self.chunk += 1;
        self.previous_bytes = Some(bytes);
        if self.chain.is_some() {
            self.state = State::Gather { left: bytes, signature };
            if bytes == 0 {
                return self.verify(Bytes::new());
            }
            return Ok(());
        }
        self.state = if bytes == 0 { State::Trailer } else { State::Data { left: bytes } };
        Ok(())
    }

    fn check_size(&self, bytes: u64) -> Result<(), BodyError> {
        let chunk = self.chunk;
        if let Some(previous) = self.previous_bytes
            && bytes != 0
            && previous < CHUNK_BYTES_MIN
        {
            return Err(BodyError::ChunkTooSmall { chunk, bytes: previous });
        }
        if self.chain.is_some() && bytes > SIGNED_CHUNK_BYTES_MAX {
            return Err(BodyError::ChunkTooLarge { chunk: chunk + 1, bytes });
        }
        Ok(())
    }

    fn on_trailer(&mut self, line: &[u8]) -> Result<(), BodyError> {
        self.trailer.bytes += line.len();
        self.trailer.lines += 1;
        if self.trailer.lines > TRAILER_LINES_MAX {
            return Err(BodyError::MalformedTrailer("it has too many lines"));
        }
        // AWS's own example ends a trailer line with a bare line feed.
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return self.end_trailer();
        }
        let malformed = || BodyError::MalformedTrailer("a line cannot be read");
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let (name, value) = text.split_once(':').ok_or_else(malformed)?;
        let value = value.trim_start_matches([' ', '\t']).as_bytes().to_vec();
        let name = name.to_ascii_lowercase();
        let slot = match self.announced {
            Some(_) if self.chain.is_some() && name == TRAILER_SIGNATURE => {
                &mut self.trailer.signature
            }
            Some(announced) if name == checksums::field_name(announced) => &mut self.trailer.value,
            _ => return Err(BodyError::MalformedTrailer("a field was not announced")),
        };
        if slot.replace(value).is_some() {
            return Err(BodyError::MalformedTrailer("a field is there twice"));
        }
        Ok(())
    }

    fn end_trailer(&mut self) -> Result<(), BodyError> {
        self.state = State::Done;
        let Some(announced) = self.announced else {
            return Ok(());
        };
        let value = self.trailer.value.as_deref();
        let value = value.ok_or(BodyError::MalformedTrailer("an announced field is missing"))?;
        let Some(chain) = self.chain.as_mut() else {
            return Ok(());
        };
        let signature = self.trailer.signature.as_deref();
        let signature = signature.ok_or(BodyError::MalformedTrailer("it is not signed"))?;
        let name = checksums::field_name(announced).as_bytes();
        let canonical = [name, b":", value, b"\n"].concat();
        if chain.verify_trailer(&Sha256::digest(canonical), signature) {
            Ok(())
        } else {
            Err(BodyError::Signature)
        }
    }
}

/// As much of `left` as fits `count`.
fn take(left: u64, count: usize) -> usize {
    usize::try_from(left).map_or(count, |left| left.min(count))
}

#[cfg(test)]
mod tests;
