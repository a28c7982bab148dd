//! The condition keys that a key policy may name.
//!
//! Owns: their names and the kind of their values. Knows nothing of: where values come from.
//!
//! Invariants
//! - A name is compared without regard to case, as AWS does; this includes the name of a pair in
//!   `kms:EncryptionContext:NAME`. `kms:EncryptionContextKeys` tells cases apart.
//! - What is not in the list is refused when a policy is written, never ignored.

/// What the values of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// Whatever a caller put into an encryption context: every operator applies.
    Any,
    /// An ARN.
    Arn,
    /// `true` or `false`.
    Bool,
    /// A time.
    Date,
    /// An IP address.
    Ip,
    /// A number.
    Number,
    /// A text.
    Text,
}

/// A key that a condition asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConditionKey {
    /// The value of one pair of the encryption context; the name is in lower case.
    Context(String),
    /// A key of [`KNOWN`], spelt as there.
    Known(&'static str),
}

/// Every known key but those of the encryption context's pairs.
const KNOWN: [(&str, ValueKind); 27] = [
    ("aws:CurrentTime", ValueKind::Date),
    ("aws:PrincipalAccount", ValueKind::Text),
    ("aws:PrincipalArn", ValueKind::Arn),
    ("aws:SecureTransport", ValueKind::Bool),
    ("aws:SourceIp", ValueKind::Ip),
    ("aws:username", ValueKind::Text),
    ("kluis:Reason", ValueKind::Text),
    ("kms:BypassPolicyLockoutSafetyCheck", ValueKind::Bool),
    ("kms:CallerAccount", ValueKind::Text),
    ("kms:EncryptionContextKeys", ValueKind::Text),
    ("kms:ExpirationModel", ValueKind::Text),
    ("kms:GrantConstraintType", ValueKind::Text),
    ("kms:GrantIsForAWSResource", ValueKind::Bool),
    ("kms:GrantOperations", ValueKind::Text),
    ("kms:GranteePrincipal", ValueKind::Arn),
    ("kms:KeyOrigin", ValueKind::Text),
    ("kms:KeySpec", ValueKind::Text),
    ("kms:KeyUsage", ValueKind::Text),
    ("kms:ReEncryptOnSameKey", ValueKind::Bool),
    ("kms:RequestAlias", ValueKind::Text),
    ("kms:ResourceAliases", ValueKind::Text),
    ("kms:RetiringPrincipal", ValueKind::Arn),
    ("kms:RotationPeriodInDays", ValueKind::Number),
    ("kms:ScheduleKeyDeletionPendingWindowInDays", ValueKind::Number),
    ("kms:ValidTo", ValueKind::Date),
    ("kms:ViaService", ValueKind::Text),
    ("kms:WrappingAlgorithm", ValueKind::Text),
];
const CONTEXT_PREFIX: &str = "kms:EncryptionContext:";

impl ConditionKey {
    /// The key of this name and the kind of its values, or nothing: it is not known.
    pub(super) fn parse(name: &str) -> Option<(Self, ValueKind)> {
        if let Some((prefix, pair)) = name.split_at_checked(CONTEXT_PREFIX.len())
            && prefix.eq_ignore_ascii_case(CONTEXT_PREFIX)
        {
            let pair = (!pair.is_empty()).then(|| pair.to_lowercase())?;
            return Some((Self::Context(pair), ValueKind::Any));
        }
        let mut known = KNOWN.iter();
        let (name, kind) = known.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some((Self::Known(name), *kind))
    }
}
