//! The one error type of this package.
//!
//! Owns: [`Error`], [`ErrorKind`]. Knows nothing of: HTTP status codes, AWS error names.
//!
//! Invariants
//! - A caller branches on [`Error::kind`] and never on the text.
//! - No text holds key bytes, object keys or values: only ids, numbers, paths and step names.
//!   See docs/KEYS.md, "Errors".

use std::error::Error as StdError;
use std::fmt;

/// A boxed cause.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of this package's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do. Branch on this, never on the text.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The key's policy and grants do not let the caller do this.
    AccessDenied,
    /// The state does not allow the step, or another process holds the keyring. Read again first.
    Conflict,
    /// Stored or received bytes failed a check. Do not retry.
    Corrupt,
    /// A limit is reached (locked memory, slots). Retry once something is freed, or raise it.
    Full,
    /// An import token ran out of its 24 hours.
    ImportExpired,
    /// Not an import token of this key.
    ImportToken,
    /// Imported material is not the one that is expected, or is not 32 bytes.
    IncorrectMaterial,
    /// What a tenant sent does not decrypt.
    InvalidCiphertext,
    /// The tenant key's material is gone; a retry cannot help.
    KeyDestroyed,
    /// The tenant key is switched off, or was since the permit was issued.
    KeyDisabled,
    /// The tenant key waits for its deletion or for the import of its material.
    KeyUnusable,
    /// The caller broke the contract of a function: a bug in Kluis.
    Misuse,
    /// No such key for this tenant. Other tenants' keys answer the same.
    NotFound,
    /// Policy says no: the reason may not be issued, or files are readable by others.
    Refused,
    /// The key store or the keyring's disk did not do its part. After a failed write: restart.
    Unavailable,
    /// Keys of this origin do not have the step.
    Unsupported,
    /// The passphrase does not open this root key.
    WrongPassphrase,
}

impl ErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::AccessDenied => "the key's policy does not allow it",
            Self::Conflict => "the present state does not allow it",
            Self::Corrupt => "the bytes failed a check",
            Self::Full => "a limit is reached",
            Self::ImportExpired => "the import token has expired",
            Self::ImportToken => "the import token is not one for this key",
            Self::IncorrectMaterial => "the key material is not the expected one",
            Self::InvalidCiphertext => "the ciphertext does not decrypt",
            Self::KeyDestroyed => "the tenant key is destroyed",
            Self::KeyDisabled => "the tenant key is disabled",
            Self::KeyUnusable => "the tenant key is not usable in its present state",
            Self::Misuse => "the function was used wrongly",
            Self::NotFound => "no such key",
            Self::Refused => "refused",
            Self::Unavailable => "not available",
            Self::Unsupported => "not supported for keys of this origin",
            Self::WrongPassphrase => "the passphrase does not open the root key",
        }
    }
}

/// A failed operation. Only `kind` may cross the HTTP boundary; the rest goes to the log.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    /// The step that failed, with its numbers: "read slot 17".
    during: String,
    /// The operator's next command, if there is one.
    advice: Option<&'static str>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` that happened in the step `during`.
    #[must_use]
    pub fn new(kind: ErrorKind, during: impl Into<String>) -> Self {
        Self { kind, during: during.into(), advice: None, source: None }
    }

    /// Adds what the operator should do next.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The step that failed.
    pub fn during(&self) -> &str {
        &self.during
    }

    /// The operator's next command, if there is one.
    pub const fn advice(&self) -> Option<&'static str> {
        self.advice
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.during, self.kind.text())?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        if let Some(advice) = self.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
