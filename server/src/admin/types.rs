//! What the operator's API says, in JSON.
//!
//! Owns: the shapes, which the command line prints as they are. Knows nothing of: how they come
//! about.
//!
//! Invariants
//! - No shape has room for an object's name, metadata or bytes.
//! - A secret access key is in the answer that made it and in no other. The types that carry one
//!   have no `Debug`.

use serde::{Deserialize, Serialize};

/// The most tenants that one request may make.
pub(crate) const TENANTS_PER_REQUEST_MAX: usize = 1_000;
/// The most entries of one page.
pub(crate) const PAGE_ENTRIES_MAX: usize = 1_000;

/// Asks for the keys' clock to be moved on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdvanceClock {
    pub(crate) advance_ms: u64,
}

/// A tenant that was just made.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedTenant {
    pub(crate) tenant_id: String,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

/// Tenants that were just made, in the order asked for.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedTenants {
    pub(crate) tenants: Vec<CreatedTenant>,
}

/// The names of tenants to make.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenants {
    pub(crate) names: Vec<String>,
}

/// A tenant.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct Tenant {
    pub(crate) tenant_id: String,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) suspended: bool,
}

/// A page of tenants, by name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tenants {
    pub(crate) tenants: Vec<Tenant>,
    /// The name to go on after, if there may be more.
    pub(crate) next: Option<String>,
}

/// The name of a user to make.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUser {
    pub(crate) name: String,
}

/// A user.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) root: bool,
    pub(crate) created_ms: u64,
}

/// A page of users, by name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Users {
    pub(crate) users: Vec<User>,
    /// The name to go on after, if there may be more.
    pub(crate) next: Option<String>,
}

/// The user that an access key is to be made for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAccessKey {
    pub(crate) user: String,
}

/// An access key that was just made.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedAccessKey {
    pub(crate) user: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

/// An access key.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct AccessKey {
    pub(crate) access_key_id: String,
    pub(crate) created_ms: u64,
    pub(crate) active: bool,
}

/// The access keys of a user.
#[derive(Serialize, Deserialize)]
pub(crate) struct AccessKeys {
    pub(crate) access_keys: Vec<AccessKey>,
}

/// A page of a tenant's audit events, without what is sealed in them.
#[derive(Serialize, Deserialize)]
pub(crate) struct AuditEvents {
    pub(crate) events: Vec<serde_json::Value>,
    /// The number to go on after, if there may be more.
    pub(crate) next: Option<u64>,
}

/// An answer without content.
#[derive(Serialize, Deserialize)]
pub(crate) struct Done {}

/// A refusal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// `exists`, `invalid`, `not_found` or `unavailable`.
    pub(crate) kind: String,
    /// What is wrong, and with what.
    pub(crate) message: String,
}
