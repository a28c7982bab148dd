//! What a request's head says about its body: form, length, checksums.
//!
//! Owns: [`PayloadForm`] and [`BodyPlan`], and every refusal that needs no byte of the body.
//! Knows nothing of: bytes.
//!
//! Invariants
//! - The form follows `x-amz-content-sha256`, whoever the caller is and however it signed.
//! - A body in chunks has `x-amz-decoded-content-length`; other bodies have `Content-Length`, or
//!   the plan says that their length is not known.
//!
//! Sources: AWS, "Signature calculations for the Authorization header", both chapters on chunks;
//! RFC 9112 §6.

use http::StatusCode;
use http::request::Parts;
use kluis_storage::{Checksum, ChecksumAlgorithm, PUT_BYTES_MAX};

use super::checksums::{self, Fields};
use super::chunked::SIGNED_CHUNK_BYTES_MAX;
use super::error;
use crate::auth::canonical::QueryParams;
use crate::auth::refusal;
use crate::auth::signing::ChunkChain;
use crate::error::ApiError;

/// The five forms of `x-amz-content-sha256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadForm {
    /// The SHA-256 of the body, in hex.
    Literal([u8; 32]),
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`, with or without `-TRAILER`.
    SignedChunks {
        /// Whether a trailer follows, with a signature of its own.
        trailer: bool,
    },
    /// `UNSIGNED-PAYLOAD`: the bytes as they are.
    Unsigned,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    UnsignedChunks,
}

impl PayloadForm {
    /// Reads the header's value.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "UNSIGNED-PAYLOAD" => Ok(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Self::SignedChunks { trailer: false }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Ok(Self::SignedChunks { trailer: true })
            }
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedChunks),
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
            | "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER" => Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                format!("The chunk encoding algorithm {text} is not supported."),
            )),
            _ => {
                let mut sha256 = [0; 32];
                hex::decode_to_slice(text, &mut sha256).map_err(|_| invalid_payload_form(text))?;
                Ok(Self::Literal(sha256))
            }
        }
    }

    /// Whether the body is a chain of signed chunks.
    pub(crate) fn is_signed_chunks(self) -> bool {
        matches!(self, Self::SignedChunks { .. })
    }

    fn is_chunks(self) -> bool {
        matches!(self, Self::SignedChunks { .. } | Self::UnsignedChunks)
    }

    fn has_trailer(self) -> bool {
        matches!(self, Self::SignedChunks { trailer: true } | Self::UnsignedChunks)
    }
}

/// `x-amz-content-sha256` has none of its forms.
pub(crate) fn invalid_payload_form(text: &str) -> ApiError {
    refusal::invalid_argument(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
         STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, \
         STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, \
         STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        "x-amz-content-sha256",
        text,
    )
}

/// What is held of a body that streams, at most: its decoder's piece and the socket's read.
const STREAMED_BYTES_MAX: u64 = 1 << 20;

/// How a body is framed.
pub(super) enum Framing {
    /// Chunks, signed if there is a chain.
    Chunks {
        /// The chain of their signatures.
        chain: Option<ChunkChain>,
    },
    /// The bytes as they are.
    Plain,
}

/// How to read and check one body.
pub(crate) struct BodyPlan {
    pub(super) framing: Framing,
    pub(super) size: Option<u64>,
    /// Whether a body without a known size is refused.
    pub(super) needs_size: bool,
    pub(super) payload_sha256: Option<[u8; 32]>,
    pub(super) sent: Vec<Checksum>,
    pub(super) trailer: Option<ChecksumAlgorithm>,
    pub(super) named: Option<ChecksumAlgorithm>,
}

impl BodyPlan {
    /// The plan for a request. `presigned` is the query of a presigned URL, in which fields of the
    /// head may hide; `chain` is there if the form is [`PayloadForm::SignedChunks`].
    pub(crate) fn new(
        parts: &Parts,
        presigned: Option<&QueryParams>,
        form: PayloadForm,
        chain: Option<ChunkChain>,
    ) -> Result<Self, ApiError> {
        if form.is_signed_chunks() != chain.is_some() {
            return Err(invalid_payload_form(""));
        }
        let announced = Fields::new(parts, presigned).checksums(form.has_trailer())?;
        if announced.trailer.is_none() && form == (PayloadForm::SignedChunks { trailer: true }) {
            return Err(error::malformed_trailer());
        }
        let size =
            if form.is_chunks() { Some(decoded_length(parts)?) } else { plain_length(parts)? };
        if checksums::has_body(parts) {
            check_size(size)?;
        }
        let framing = if form.is_chunks() { Framing::Chunks { chain } } else { Framing::Plain };
        Ok(Self {
            framing,
            size,
            needs_size: checksums::has_body(parts),
            payload_sha256: match form {
                PayloadForm::Literal(sha256) => Some(sha256),
                _ => None,
            },
            sent: announced.md5.into_iter().chain(announced.value).collect(),
            trailer: announced.trailer,
            named: announced.named,
        })
    }
}

impl BodyPlan {
    /// What decoding the body holds at one time, at most. A signed chunk is held until its
    /// signature has been checked.
    pub(crate) fn held_bytes_max(&self) -> u64 {
        match self.framing {
            Framing::Chunks { chain: Some(_) } => SIGNED_CHUNK_BYTES_MAX + STREAMED_BYTES_MAX,
            Framing::Chunks { chain: None } | Framing::Plain => STREAMED_BYTES_MAX,
        }
    }
}

fn check_size(size: Option<u64>) -> Result<(), ApiError> {
    match size {
        Some(size) if size > PUT_BYTES_MAX => {
            let message = "Your proposed upload exceeds the maximum allowed size";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "EntityTooLarge", message)
                .with("ProposedSize", size.to_string())
                .with("MaxSizeAllowed", PUT_BYTES_MAX.to_string()))
        }
        _ => Ok(()),
    }
}

/// The one value of a header, as a number of digits only.
fn number(parts: &Parts, name: &str) -> Option<Result<u64, ()>> {
    let mut values = parts.headers.get_all(name).iter();
    let text = values.next()?.to_str().unwrap_or_default().trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits, values.next()) {
        (true, None) => Some(text.parse().map_err(|_| ())),
        _ => Some(Err(())),
    }
}

fn decoded_length(parts: &Parts) -> Result<u64, ApiError> {
    match number(parts, "x-amz-decoded-content-length") {
        Some(Ok(length)) => Ok(length),
        _ => Err(error::missing_length()),
    }
}

/// `Content-Length`; without one, methods that have no body as a rule have none.
fn plain_length(parts: &Parts) -> Result<Option<u64>, ApiError> {
    match number(parts, "content-length") {
        Some(Ok(length)) => Ok(Some(length)),
        Some(Err(())) => {
            let message = "The Content-Length header is not a number.";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", message))
        }
        None => {
            let bare = !parts.headers.contains_key(http::header::TRANSFER_ENCODING);
            Ok((bare && !checksums::has_body(parts)).then_some(0))
        }
    }
}
