//! How a body can fail, and the S3 code for each way.
//!
//! Owns: [`BodyError`]. Knows nothing of: where in the framing it happened, beyond a word for the
//! log.
//!
//! Invariants
//! - `Debug` and `Display` show no digest: a digest confirms a file's contents, and goes back only
//!   to whoever sent the bytes.

use std::error::Error as StdError;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use kluis_storage::ChecksumAlgorithm;

use super::checksums;
use crate::auth::refusal;
use crate::auth::signing::hex;
use crate::error::ApiError;

/// A boxed cause.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Why a body was not accepted. Nothing of it may be kept.
pub(crate) enum BodyError {
    /// A checksum that the client sent is not that of the bytes.
    BadDigest {
        /// Which one.
        algorithm: ChecksumAlgorithm,
        /// As sent.
        expected: Vec<u8>,
        /// As calculated.
        computed: Vec<u8>,
    },
    /// A chunk that is not the last is smaller than [`super::chunked::CHUNK_BYTES_MIN`].
    ChunkTooSmall {
        /// Its number, from 1.
        chunk: u64,
        /// Its size.
        bytes: u64,
    },
    /// A signed chunk is larger than [`super::chunked::SIGNED_CHUNK_BYTES_MAX`].
    ChunkTooLarge {
        /// Its number, from 1.
        chunk: u64,
        /// Its size.
        bytes: u64,
    },
    /// The framing is broken, or the body ended inside it.
    Incomplete(&'static str),
    /// More or fewer bytes than declared.
    LengthMismatch,
    /// A trailing checksum is not one.
    InvalidTrailerValue(String),
    /// The trailer is not what was announced, or not well-formed.
    MalformedTrailer(&'static str),
    /// There is a body, and nothing says how long it is.
    MissingLength,
    /// The bytes are not those whose SHA-256 was signed.
    PayloadHash {
        /// As signed.
        expected: [u8; 32],
        /// As calculated.
        computed: Vec<u8>,
    },
    /// The signature of a chunk or of the trailer is not the one we calculate.
    Signature,
    /// The connection failed.
    Transport(BoxError),
}

impl BodyError {
    /// The answer to the client.
    pub(crate) fn to_api_error(&self) -> ApiError {
        let bad_request =
            |code, message: &str| ApiError::new(StatusCode::BAD_REQUEST, code, message.to_owned());
        match self {
            Self::BadDigest { algorithm, expected, computed } => {
                let message = match algorithm {
                    ChecksumAlgorithm::Md5 => {
                        "The Content-MD5 you specified did not match what we received.".to_owned()
                    }
                    _ => format!(
                        "The {} you specified did not match the calculated checksum.",
                        checksums::label(*algorithm)
                    ),
                };
                bad_request("BadDigest", &message)
                    .with("ExpectedDigest", STANDARD.encode(expected))
                    .with("CalculatedDigest", STANDARD.encode(computed))
            }
            Self::ChunkTooSmall { chunk, bytes } => bad_request(
                "InvalidChunkSizeError",
                "Only the last chunk is allowed to have a size less than 8192 bytes",
            )
            .with("Chunk", chunk.to_string())
            .with("BadChunkSize", bytes.to_string()),
            Self::ChunkTooLarge { chunk, bytes } => bad_request(
                "InvalidChunkSizeError",
                "A signed chunk is allowed to have a size of at most 16777216 bytes",
            )
            .with("Chunk", chunk.to_string())
            .with("BadChunkSize", bytes.to_string()),
            Self::Incomplete(_) | Self::Transport(_) => {
                bad_request("IncompleteBody", "The request body terminated unexpectedly")
            }
            Self::LengthMismatch => bad_request(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the Content-Length HTTP \
                 header",
            ),
            Self::InvalidTrailerValue(name) => bad_request(
                "InvalidRequest",
                &format!("Value for {name} trailing header is invalid."),
            ),
            Self::MalformedTrailer(_) => malformed_trailer(),
            Self::MissingLength => missing_length(),
            Self::PayloadHash { expected, computed } => bad_request(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )
            .with("ClientComputedContentSHA256", hex(expected))
            .with("S3ComputedContentSHA256", hex(computed)),
            Self::Signature => refusal::bare_signature_mismatch(),
        }
    }
}

/// The trailer is not what was announced, or not well-formed.
pub(crate) fn malformed_trailer() -> ApiError {
    let message = "The request contained trailing data that was not well-formed or did not conform \
                   to our published schema.";
    ApiError::new(StatusCode::BAD_REQUEST, "MalformedTrailerError", message)
}

/// Nothing says how long a body is.
pub(crate) fn missing_length() -> ApiError {
    let message = "You must provide the Content-Length HTTP header.";
    ApiError::new(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message)
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadDigest { algorithm, .. } => write!(f, "the {algorithm:?} does not match"),
            Self::ChunkTooSmall { chunk, bytes } => {
                write!(f, "chunk {chunk} has only {bytes} bytes")
            }
            Self::ChunkTooLarge { chunk, bytes } => {
                write!(f, "signed chunk {chunk} has {bytes} bytes")
            }
            Self::Incomplete(what) => write!(f, "the body's framing is broken: {what}"),
            Self::LengthMismatch => f.write_str("the body is not as long as declared"),
            Self::InvalidTrailerValue(_) => f.write_str("a trailing checksum is not one"),
            Self::MalformedTrailer(what) => write!(f, "the trailer is malformed: {what}"),
            Self::MissingLength => f.write_str("the body has no declared length"),
            Self::PayloadHash { .. } => f.write_str("the signed SHA-256 does not match"),
            Self::Signature => f.write_str("a signature inside the body does not match"),
            Self::Transport(cause) => write!(f, "the connection failed: {cause}"),
        }
    }
}

impl fmt::Debug for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Transport(cause) => Some(cause.as_ref()),
            _ => None,
        }
    }
}

impl From<&BodyError> for ApiError {
    fn from(error: &BodyError) -> Self {
        error.to_api_error()
    }
}
