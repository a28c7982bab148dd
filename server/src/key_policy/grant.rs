//! A grant: one principal, some operations, under conditions on the encryption context.
//!
//! Owns: what a grant may hold, its bytes, what it allows, and which grant is no wider than
//! another. Knows nothing of: who may make one, where it is kept. Pure.
//!
//! Invariants
//! - A grant names principals of one account only.
//! - Constraints bind the operations that take an encryption context, and no other, as in AWS.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::user_of_arn;
use crate::auth::AccountId;

/// AWS KMS: a constraint has at most eight pairs, with values of 384 characters.
const CONSTRAINT_PAIRS_MAX: usize = 8;
const CONSTRAINT_CHARS_MAX: usize = 384;
const NAME_BYTES_MAX: usize = 256;
/// A grant's id, and what follows it in a token.
pub(super) const GRANT_ID_CHARS: usize = 64;

/// The operations that a grant on a symmetric key may give, and whether constraints bind them.
const OPERATIONS: [(&str, bool); 11] = [
    ("CreateGrant", false),
    ("Decrypt", true),
    ("DescribeKey", false),
    ("Encrypt", true),
    ("GenerateDataKey", true),
    ("GenerateDataKeyPair", true),
    ("GenerateDataKeyPairWithoutPlaintext", true),
    ("GenerateDataKeyWithoutPlaintext", true),
    ("ReEncryptFrom", true),
    ("ReEncryptTo", true),
    ("RetireGrant", false),
];

/// The pairs of an encryption context.
pub(crate) type Pairs = BTreeMap<String, String>;

/// What the encryption context of a request has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) enum Constraint {
    /// Exactly these pairs.
    EncryptionContextEquals(Pairs),
    /// These pairs, and maybe more.
    EncryptionContextSubset(Pairs),
}

impl Constraint {
    /// Its name, as `kms:GrantConstraintType` has it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::EncryptionContextEquals(_) => "EncryptionContextEquals",
            Self::EncryptionContextSubset(_) => "EncryptionContextSubset",
        }
    }

    const fn pairs(&self) -> &Pairs {
        match self {
            Self::EncryptionContextEquals(pairs) | Self::EncryptionContextSubset(pairs) => pairs,
        }
    }

    fn holds(&self, context: &Pairs) -> bool {
        match self {
            Self::EncryptionContextEquals(pairs) => pairs == context,
            Self::EncryptionContextSubset(pairs) => is_subset(pairs, context),
        }
    }

    /// Whether every context that it lets through, `wider` lets through too.
    fn is_within(&self, wider: &Self) -> bool {
        match (self, wider) {
            (_, Self::EncryptionContextSubset(pairs)) => is_subset(pairs, self.pairs()),
            (Self::EncryptionContextEquals(own), Self::EncryptionContextEquals(pairs)) => {
                own == pairs
            }
            (Self::EncryptionContextSubset(_), Self::EncryptionContextEquals(_)) => false,
        }
    }
}

fn is_subset(pairs: &Pairs, of: &Pairs) -> bool {
    pairs.iter().all(|(name, value)| of.get(name) == Some(value))
}

/// What a new grant is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewGrant {
    /// Who may use it: an ARN of a user of the account, or of its root user.
    pub(crate) grantee: String,
    /// Who may end it.
    pub(crate) retiring: Option<String>,
    /// What it allows, without the namespace: `Decrypt`.
    pub(crate) operations: Vec<String>,
    /// On which encryption contexts.
    pub(crate) constraint: Option<Constraint>,
    /// A name: the same request with the same name gives the same grant.
    pub(crate) name: Option<String>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "GrantId, as the API has it")]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Grant {
    /// Its id: 64 hexadecimal digits.
    pub(crate) grant_id: String,
    /// Who made it.
    pub(crate) issuer: String,
    /// Who may use it.
    pub(crate) grantee: String,
    /// Who may end it.
    pub(crate) retiring: Option<String>,
    /// What it allows, in the order of AWS's list, without the namespace.
    pub(crate) operations: Vec<String>,
    /// On which encryption contexts.
    pub(crate) constraint: Option<Constraint>,
    /// Its name.
    pub(crate) name: Option<String>,
    /// When it was made, in Unix milliseconds.
    pub(crate) created_ms: u64,
}

impl NewGrant {
    /// Checks it, and puts principals and operations into their one form. The message says what
    /// is wrong.
    pub(super) fn checked(mut self, account: AccountId) -> Result<Self, String> {
        self.grantee = full_arn(&self.grantee, account)?;
        self.retiring = self.retiring.map(|arn| full_arn(&arn, account)).transpose()?;
        let known = |operation: &String| OPERATIONS.iter().any(|(known, _)| known == operation);
        if let Some(unknown) = self.operations.iter().find(|operation| !known(operation)) {
            return Err(format!("a grant on a symmetric key cannot allow {unknown:?}"));
        }
        self.operations.sort();
        self.operations.dedup();
        if self.operations.is_empty() {
            return Err("a grant allows at least one operation".to_owned());
        }
        if let Some(name) = &self.name {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
            let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain);
            if !fits {
                return Err(format!(
                    "a grant's name has 1 to {NAME_BYTES_MAX} characters of a-z, A-Z, 0-9 and :/_-"
                ));
            }
        }
        if let Some(constraint) = &self.constraint {
            let pairs = constraint.pairs();
            let is_long = |text: &String| text.chars().count() > CONSTRAINT_CHARS_MAX;
            if pairs.len() > CONSTRAINT_PAIRS_MAX
                || pairs.iter().any(|(name, value)| is_long(name) || is_long(value))
            {
                return Err(format!(
                    "a constraint has at most {CONSTRAINT_PAIRS_MAX} pairs of \
                     {CONSTRAINT_CHARS_MAX} characters"
                ));
            }
        }
        Ok(self)
    }

    /// Whether a grant is what this asks for.
    pub(super) fn is(&self, grant: &Grant) -> bool {
        self.grantee == grant.grantee
            && self.retiring == grant.retiring
            && self.operations == grant.operations
            && self.constraint == grant.constraint
            && self.name == grant.name
    }

    /// Whether whoever lives by `grant` may hand this on: no more operations, no wider context.
    pub(super) fn is_within(&self, grant: &Grant) -> bool {
        let has_operations =
            self.operations.iter().all(|operation| grant.operations.contains(operation));
        let is_narrow = match (&self.constraint, &grant.constraint) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(wider)) => own.is_within(wider),
        };
        has_operations && is_narrow
    }
}

impl Grant {
    /// Whether it lets `principal` do `action` (with its namespace) in this encryption context.
    pub(super) fn allows(&self, principal: &str, action: &str, context: &Pairs) -> bool {
        let Some(operation) = action.strip_prefix(super::actions::NAMESPACE) else {
            return false;
        };
        let known = OPERATIONS.iter().find(|(known, _)| *known == operation);
        let is_bound = known.is_some_and(|(_, is_bound)| *is_bound);
        self.grantee == principal
            && self.operations.iter().any(|own| own == operation)
            && (!is_bound || self.constraint.as_ref().is_none_or(|one| one.holds(context)))
    }

    /// Its bytes in the key directory.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a grant holds texts and numbers")
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The ARN of a principal of the account, written out.
fn full_arn(text: &str, account: AccountId) -> Result<String, String> {
    match user_of_arn(text, account) {
        Some(None) => Ok(format!("arn:aws:iam::{account}:root")),
        Some(Some(name)) => Ok(format!("arn:aws:iam::{account}:user/{name}")),
        None => Err(format!("the principal {text:?} is not valid in this account")),
    }
}

#[cfg(test)]
mod tests;
