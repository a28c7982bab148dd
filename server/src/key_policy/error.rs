//! What the verbs on policies and grants fail with.
//!
//! Owns: the kinds and their texts for the caller. Knows nothing of: AWS's error names, HTTP.
//!
//! Invariants
//! - A text names the caller's own principals, keys and policy elements, nothing of another tenant.

use std::fmt;

/// The caller may not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the statement that denied it")]
pub(crate) struct Denied {
    /// The caller's ARN.
    pub(crate) principal: String,
    /// The action.
    pub(crate) action: String,
    /// The key's ARN, if it was about one.
    pub(crate) resource: Option<String>,
    /// The policy's statement that denied it; none, if nothing allowed it.
    pub(crate) denied_by: Option<DeniedBy>,
}

/// A statement that denies, by its `Sid`, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeniedBy(pub(crate) Option<String>);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User: {} is not authorized to perform: {}", self.principal, self.action)?;
        if let Some(resource) = &self.resource {
            write!(f, " on resource: {resource}")?;
        }
        match (&self.denied_by, &self.resource) {
            (Some(DeniedBy(Some(sid))), _) => {
                write!(f, " with an explicit deny in a resource-based policy (statement {sid})")
            }
            (Some(DeniedBy(None)), _) => {
                f.write_str(" with an explicit deny in a resource-based policy")
            }
            (None, Some(_)) => {
                write!(f, " because no resource-based policy allows the {} action", self.action)
            }
            (None, None) => {
                write!(f, " because no identity-based policy allows the {} action", self.action)
            }
        }
    }
}

/// Why a policy or a grant was not read, made or ended.
#[derive(Debug)]
pub(crate) enum PolicyError {
    /// The caller may not do it (`AccessDeniedException`).
    Denied(Denied),
    /// A parameter of a grant is not valid (`ValidationException`).
    Invalid(String),
    /// No such grant of this key (`NotFoundException`).
    GrantNotFound,
    /// No grant has an id of this form (`InvalidGrantIdException`).
    InvalidGrantId,
    /// A grant token that is none (`InvalidGrantTokenException`).
    InvalidGrantToken,
    /// The keys' own failure: what the caller is told is decided by its kind.
    Kms(kluis_kms::Error),
    /// The key has as many grants as it may (`LimitExceededException`).
    LimitExceeded(String),
    /// The caller could not change the policy again
    /// (`MalformedPolicyDocumentException`, as AWS KMS answers).
    Lockout,
    /// The document is not valid (`MalformedPolicyDocumentException`).
    Malformed(String),
    /// No such key in the caller's tenant (`NotFoundException`).
    NotFound,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Invalid(text) | Self::LimitExceeded(text) | Self::Malformed(text) => {
                f.write_str(text)
            }
            Self::GrantNotFound => f.write_str("the key has no grant with this id"),
            Self::InvalidGrantId => f.write_str("a grant id is 64 hexadecimal digits"),
            Self::InvalidGrantToken => f.write_str("the grant token is not valid"),
            Self::Kms(error) => error.fmt(f),
            Self::Lockout => f.write_str(
                "The new key policy will not allow you to update the key policy in the future.",
            ),
            Self::NotFound => f.write_str("the key does not exist"),
        }
    }
}

impl std::error::Error for PolicyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kms(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Denied> for PolicyError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<kluis_kms::Error> for PolicyError {
    fn from(error: kluis_kms::Error) -> Self {
        match error.kind() {
            kluis_kms::ErrorKind::NotFound => Self::NotFound,
            _ => Self::Kms(error),
        }
    }
}
