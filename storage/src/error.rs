//! What went wrong, told by what the caller should do.
//!
//! Owns: [`Error`] and [`ErrorKind`]. Knows nothing of: HTTP, S3 codes; the server maps kinds to
//! codes in one match.
//!
//! Invariants
//! - No text in an error holds plaintext, user metadata or key bytes; object names stay out too.
//! - Only the kind and a request id cross the HTTP boundary; the rest goes to the log.

use std::fmt;

/// The boxed cause of an error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The result of every fallible step in this package.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do. Branch on this, never on the text. A new variant needs an ADR.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The tenant key's policy and grants do not let the caller use it.
    AccessDenied,
    /// The request body ended early, was too long, or failed one of the checks its sender asked
    /// for. The cause is the server's own body error; nothing was stored.
    Body,
    /// Another write won the race for this row; read again, then decide.
    Conflict,
    /// Stored bytes failed a check. Do not retry; run `kluis check`.
    Corrupt,
    /// The object or upload is encrypted with a client's key, and the request brings none.
    CustomerKeyMissing,
    /// The request brings a client's key, and the object or upload is encrypted without one.
    CustomerKeyUnexpected,
    /// The client's key is not the one that the object or upload was encrypted with; or somebody
    /// changed the wrapped data key, which looks the same.
    CustomerKeyWrong,
    /// The bucket or object exists already and the caller asked for it not to.
    Exists,
    /// A write or flush failed. The volume takes no more writes; restart the node, it recovers.
    Fenced,
    /// No space for new data. Reads and deletes go on; delete something or add space.
    Full,
    /// A part named by CompleteMultipartUpload is missing, or its ETag or checksum differs.
    InvalidPart,
    /// The parts named by CompleteMultipartUpload are not in ascending order.
    InvalidPartOrder,
    /// The range asked for lies outside the object.
    InvalidRange,
    /// The tenant key's material is gone; a retry cannot help.
    KeyDestroyed,
    /// The tenant key is disabled, or was while the request ran. No byte followed.
    KeyDisabled,
    /// The tenant key waits for its deletion or for the import of its material.
    KeyUnusable,
    /// The caller broke a rule of this API: too long, out of bounds, wrong state.
    Misuse,
    /// The bytes lie elsewhere by now, or are gone: look their row up again. Never leaves this
    /// package (ADR 0011).
    Moved,
    /// The bucket still holds objects or uploads.
    NotEmpty,
    /// No such tenant, bucket, object, version or upload, or none that this tenant can see.
    NotFound,
    /// A read precondition says that the caller's copy is current (304).
    NotModified,
    /// A part other than the last is smaller than the minimum.
    PartTooSmall,
    /// A precondition of the request failed (412).
    PreconditionFailed,
    /// The purpose of the access is not one that a permit may be issued for.
    Refused,
    /// Stored bytes passed their CRC and failed authentication: somebody changed them.
    Tampered,
    /// Volume, metadata or key store did not answer in time, or a queue is full. Retry with
    /// back-off.
    Unavailable,
}

/// One failure: its kind for the program, the rest for the log.
pub struct Error {
    kind: ErrorKind,
    during: String,
    advice: Option<&'static str>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` in the step `during`, which is a phrase with its numbers: "append extent
    /// 17 to segment 42".
    pub fn new(kind: ErrorKind, during: impl Into<String>) -> Self {
        Self { kind, during: during.into(), advice: None, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the operator's next command.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The step that failed.
    pub fn during(&self) -> &str {
        &self.during
    }

    /// The operator's next command, if there is one.
    pub fn advice(&self) -> Option<&'static str> {
        self.advice
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.during, self.kind)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(advice) = self.advice {
            write!(f, " ({advice})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

impl From<kluis_kms::Error> for Error {
    fn from(cause: kluis_kms::Error) -> Self {
        use kluis_kms::ErrorKind as Kms;
        let kind = match cause.kind() {
            Kms::AccessDenied => ErrorKind::AccessDenied,
            Kms::Corrupt => ErrorKind::Corrupt,
            Kms::KeyDestroyed => ErrorKind::KeyDestroyed,
            Kms::KeyDisabled => ErrorKind::KeyDisabled,
            Kms::KeyUnusable => ErrorKind::KeyUnusable,
            Kms::NotFound => ErrorKind::NotFound,
            Kms::Refused => ErrorKind::Refused,
            Kms::Unavailable => ErrorKind::Unavailable,
            _ => ErrorKind::Misuse,
        };
        Self::new(kind, "use a key").with_source(cause)
    }
}
