//! The mark of an answer whose head or body was decrypted.
//!
//! It goes in the answer's extensions, from what made the answer to the connection that sends it.
//! Owns: the mark. Knows nothing of: who sets it, what a connection does with it.

use kluis_kms::TenantKeyId;

/// Says that an answer holds plaintext under a tenant key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plaintext {
    /// Which key.
    pub(crate) tenant_key: TenantKeyId,
}
