//! What a client is told when a request fails: an S3 code, its status, a message, and the fields
//! that AWS adds for some codes.
//!
//! Owns: the outside text of errors. Knows nothing of: what failed inside; that goes to the log.
//!
//! Invariants
//! - No field holds a secret, another tenant's name, or the text of an inner error.

use std::borrow::Cow;

use http::StatusCode;

/// An error as the wire shows it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The S3 (or KMS) error code.
    pub(crate) code: Cow<'static, str>,
    /// One sentence for the caller.
    pub(crate) message: Cow<'static, str>,
    /// More elements of the error document, by name.
    pub(crate) extra: Vec<(&'static str, String)>,
}

impl ApiError {
    /// An error with no extra elements.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code: Cow::Borrowed(code), message: message.into(), extra: Vec::new() }
    }

    /// Adds an element to the error document.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.status.as_u16(), self.message)
    }
}

impl std::error::Error for ApiError {}
