//! Who is calling: a tenant's user, nobody, or the operator.
//!
//! Owns: the types of callers. The steps are in [`sigv4`] (a request's signature), [`claim`] (what
//! the request says about itself), [`canonical`] and [`signing`] (the bytes that are signed) and
//! [`creds`] (tenants, users, access keys). Knows nothing of: buckets, objects, rights; those are
//! `policy.rs`.
//!
//! Invariants
//! - [`User`] and [`Operator`] are disjoint types; nothing converts one into the other.
//! - A [`User`] is only made by [`creds::Directory`], from rows of the registry.

pub(crate) mod amz_date;
pub(crate) mod canonical;
pub(crate) mod claim;
pub(crate) mod creds;
pub(crate) mod refusal;
pub(crate) mod signing;
pub(crate) mod sigv4;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;

use kluis_kms::TenantId;
use kluis_storage::UserId;

/// A tenant's account id as AWS writes it: 12 decimal digits, the first not zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AccountId([u8; 12]);

impl AccountId {
    /// The account id `number`, which has to lie in `100_000_000_000..=999_999_999_999`.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Self::parse(number.to_string().as_bytes())
    }

    /// Reads the 12 digits.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 12] = text.try_into().ok()?;
        let valid = digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0');
        valid.then_some(Self(digits))
    }

    /// The 12 digits.
    pub(crate) fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A user of a tenant, named by the access key that signed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`user` is an id beside `tenant`, as everywhere")]
pub(crate) struct User {
    /// The tenant that the user belongs to.
    pub(crate) tenant: TenantId,
    /// The tenant's account id.
    pub(crate) account_id: AccountId,
    /// The user.
    pub(crate) user: UserId,
    /// The user's name, unique inside the tenant.
    pub(crate) name: Arc<str>,
    /// Whether this is the tenant's first user, who may do everything inside it.
    pub(crate) is_root: bool,
    /// The access key of this request.
    pub(crate) access_key_id: Arc<str>,
}

impl User {
    /// The ARN that names the user in policies, in logs and in the audit trail.
    pub(crate) fn arn(&self) -> String {
        if self.is_root {
            format!("arn:aws:iam::{}:root", self.account_id)
        } else {
            format!("arn:aws:iam::{}:user/{}", self.account_id, self.name)
        }
    }
}

/// Whoever sent a request to the tenant-facing listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// No credentials at all. Wrong credentials are an error, never this.
    Anonymous,
    /// A user whose signature was verified.
    User(Arc<User>),
}

/// A person or program that runs the node, known by the uid at the other end of the admin socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operator {
    uid: u32,
}

impl Operator {
    /// The operator behind a connection to the admin socket, whose peer has this uid. The socket's
    /// file permissions have decided that it may connect.
    pub(crate) fn from_admin_socket(uid: u32) -> Self {
        Self { uid }
    }

    /// The uid, for the log.
    pub(crate) fn uid(self) -> u32 {
        self.uid
    }
}
