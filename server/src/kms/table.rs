//! Every operation of the API: its name, the action that policies know it by, and its handler.
//!
//! Owns: the table. Knows nothing of: what the operations do.
//!
//! Invariants
//! - Every operation of AWS KMS is here; one without a handler says that it is not supported.

use std::pin::Pin;
use std::sync::Arc;

use super::call::Call;
use super::error::{self, Answer, KmsError};
use super::reply::Reply;
use super::{aliases, crypto, grants, import, jobs, keys, policies, rotation, tags, trail};

/// The prefix of AWS's targets.
const AWS_PREFIX: &str = "TrentService.";
/// The prefix of Kluis' own.
const OWN_PREFIX: &str = "KluisKms.";

/// The future of a handler that calls the engine.
pub(super) type Pending = Pin<Box<dyn Future<Output = Answer<Reply>> + Send>>;

/// What serves an operation.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// Calls the engine, which waits by itself.
    Engine(fn(Arc<Call>) -> Pending),
    /// Calls the keys, which block.
    Keys(fn(&Call) -> Answer<Reply>),
    /// Nothing yet.
    Unsupported,
}

/// One operation.
pub(super) struct Operation {
    /// Its name.
    pub(super) name: &'static str,
    /// The action that policies allow or deny.
    pub(super) action: &'static str,
    /// What serves it.
    pub(super) handler: Handler,
}

macro_rules! operations {
    ($table:ident: $($name:literal => $handler:expr,)*) => {
        const $table: &[Operation] = &[
            $(Operation { name: $name, action: concat!("kms:", $name), handler: $handler },)*
        ];
    };
}

use Handler::{Engine, Keys, Unsupported};

operations! { AWS:
    "CancelKeyDeletion" => Keys(keys::cancel_deletion),
    "ConnectCustomKeyStore" => Unsupported,
    "CreateAlias" => Keys(aliases::create),
    "CreateCustomKeyStore" => Unsupported,
    "CreateGrant" => Keys(grants::create),
    "CreateKey" => Keys(keys::create),
    "Decapsulate" => Unsupported,
    "Decrypt" => Keys(crypto::decrypt),
    "DeleteAlias" => Keys(aliases::delete),
    "DeleteCustomKeyStore" => Unsupported,
    "DeleteImportedKeyMaterial" => Keys(import::delete_material),
    "DeriveSharedSecret" => Unsupported,
    "DescribeCustomKeyStores" => Unsupported,
    "DescribeKey" => Keys(keys::describe),
    "DisableKey" => Keys(keys::disable),
    "DisableKeyRotation" => Keys(rotation::disable),
    "DisconnectCustomKeyStore" => Unsupported,
    "EnableKey" => Keys(keys::enable),
    "EnableKeyRotation" => Keys(rotation::enable),
    "Encapsulate" => Unsupported,
    "Encrypt" => Keys(crypto::encrypt),
    "GenerateDataKey" => Keys(crypto::generate_data_key),
    "GenerateDataKeyPair" => Unsupported,
    "GenerateDataKeyPairWithoutPlaintext" => Unsupported,
    "GenerateDataKeyWithoutPlaintext" => Keys(crypto::generate_data_key_without_plaintext),
    "GenerateMac" => Unsupported,
    "GenerateRandom" => Keys(crypto::generate_random),
    "GetKeyLastUsage" => Keys(keys::last_usage),
    "GetKeyPolicy" => Keys(policies::get),
    "GetKeyRotationStatus" => Keys(rotation::status),
    "GetParametersForImport" => Keys(import::parameters),
    "GetPublicKey" => Unsupported,
    "ImportKeyMaterial" => Keys(import::import_material),
    "ListAliases" => Keys(aliases::list),
    "ListGrants" => Keys(grants::list),
    "ListKeyPolicies" => Keys(policies::list),
    "ListKeyRotations" => Keys(rotation::list),
    "ListKeys" => Keys(keys::list),
    "ListResourceTags" => Keys(tags::list),
    "ListRetirableGrants" => Keys(grants::list_retirable),
    "PutKeyPolicy" => Keys(policies::put),
    "ReEncrypt" => Keys(crypto::re_encrypt),
    "ReplicateKey" => Unsupported,
    "RetireGrant" => Keys(grants::retire),
    "RevokeGrant" => Keys(grants::revoke),
    "RotateKeyOnDemand" => Keys(rotation::rotate),
    "ScheduleKeyDeletion" => Keys(keys::schedule_deletion),
    "Sign" => Unsupported,
    "TagResource" => Keys(tags::tag),
    "UntagResource" => Keys(tags::untag),
    "UpdateAlias" => Keys(aliases::update),
    "UpdateCustomKeyStore" => Unsupported,
    "UpdateKeyDescription" => Keys(keys::update_description),
    "UpdatePrimaryRegion" => Unsupported,
    "Verify" => Unsupported,
    "VerifyMac" => Unsupported,
}

operations! { OWN:
    "CancelJob" => Engine(jobs::cancel),
    "DescribeJob" => Engine(jobs::describe),
    "DescribeKeyImpact" => Engine(jobs::impact),
    "GetErasureReport" => Engine(jobs::erasure_report),
    "ListAuditEvents" => Keys(trail::list),
    "ListJobs" => Engine(jobs::list),
    "RetireKeyMaterial" => Engine(jobs::retire_material),
    "StartReencrypt" => Engine(jobs::start_reencrypt),
    "StartRewrap" => Engine(jobs::start_rewrap),
}

/// The operation that a target names.
///
/// # Errors
/// `UnknownOperationException`: none.
pub(super) fn find(target: &str) -> Answer<&'static Operation> {
    let known = |table: &'static [Operation], name: &str| {
        table.iter().find(|operation| operation.name == name)
    };
    let found = match (target.strip_prefix(AWS_PREFIX), target.strip_prefix(OWN_PREFIX)) {
        (Some(name), _) => known(AWS, name),
        (None, Some(name)) => known(OWN, name),
        (None, None) => None,
    };
    found.ok_or_else(|| KmsError::new("UnknownOperationException", ""))
}

/// An operation of AWS that Kluis does not have.
pub(super) fn unsupported(operation: &Operation) -> KmsError {
    error::unsupported(format!("{} is not supported.", operation.name))
}

/// All operations, for tests.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (String, &'static Operation)> {
    let named =
        |prefix: &'static str| move |it: &'static Operation| (format!("{prefix}{}", it.name), it);
    AWS.iter().map(named(AWS_PREFIX)).chain(OWN.iter().map(named(OWN_PREFIX)))
}
