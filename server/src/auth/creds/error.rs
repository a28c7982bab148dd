//! What can go wrong in the directory, told by what the caller should do.
//!
//! Owns: [`DirectoryError`]. Knows nothing of: HTTP, the command line.

use std::fmt;

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryErrorKind {
    /// The name is taken; choose another.
    Exists,
    /// A name breaks the rules, or a limit is reached; the text says which.
    Invalid,
    /// There is no such tenant, user or access key.
    NotFound,
    /// The registry or the root key did not do its part; the cause says why.
    Unavailable,
}

/// A failed step of the directory. Holds no secret; names of tenants and users may be in it, so it
/// is for operators and logs.
#[derive(Debug)]
pub(crate) struct DirectoryError {
    kind: DirectoryErrorKind,
    during: String,
    source: Option<kluis_storage::Error>,
}

impl DirectoryError {
    /// An error of `kind` in the step `during`.
    pub(crate) fn new(kind: DirectoryErrorKind, during: impl Into<String>) -> Self {
        Self { kind, during: during.into(), source: None }
    }

    /// The name of `what` is taken.
    pub(crate) fn exists(what: &str, name: &str) -> Self {
        Self::new(DirectoryErrorKind::Exists, format!("{what} {name} exists already"))
    }

    /// There is no `what` of this name.
    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::new(DirectoryErrorKind::NotFound, format!("there is no {what} {name}"))
    }

    /// A row does not decode, or a row that must be there is not.
    pub(crate) fn broken(what: &str) -> Self {
        let text = format!("the registry's {what} row is damaged; run `kluis check`");
        Self::new(DirectoryErrorKind::Unavailable, text)
    }

    /// What the caller should do.
    pub(crate) fn kind(&self) -> DirectoryErrorKind {
        self.kind
    }
}

impl From<kluis_storage::Error> for DirectoryError {
    fn from(cause: kluis_storage::Error) -> Self {
        let mut error = Self::new(DirectoryErrorKind::Unavailable, "use the registry");
        error.source = Some(cause);
        error
    }
}

impl From<kluis_kms::Error> for DirectoryError {
    fn from(cause: kluis_kms::Error) -> Self {
        kluis_storage::Error::from(cause).into()
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.during)?;
        match &self.source {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}
