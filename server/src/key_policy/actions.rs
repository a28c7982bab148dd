//! The verbs that a key policy can speak of, and which of them the identity side gives a user.
//!
//! Owns: the lists. Knows nothing of: policies, what a verb does.
//!
//! Invariants
//! - Kluis' own verbs are in the namespace `kms`, so that `kms:*` means every verb on a key.
//!   Rules: docs/ARCHITECTURE.md, "Rights".

use super::pattern;

/// The namespace of every action.
pub(super) const NAMESPACE: &str = "kms:";

/// Every action: AWS KMS's, then Kluis' own, without the namespace.
const ACTIONS: [&str; 65] = [
    "CancelKeyDeletion",
    "ConnectCustomKeyStore",
    "CreateAlias",
    "CreateCustomKeyStore",
    "CreateGrant",
    "CreateKey",
    "Decrypt",
    "DeleteAlias",
    "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "DescribeCustomKeyStores",
    "DescribeKey",
    "DisableKey",
    "DisableKeyRotation",
    "DisconnectCustomKeyStore",
    "EnableKey",
    "EnableKeyRotation",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
    "GenerateMac",
    "GenerateRandom",
    "GetKeyLastUsage",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ListAliases",
    "ListGrants",
    "ListKeyPolicies",
    "ListKeyRotations",
    "ListKeys",
    "ListResourceTags",
    "ListRetirableGrants",
    "PutKeyPolicy",
    "ReEncryptFrom",
    "ReEncryptTo",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "RotateKeyOnDemand",
    "ScheduleKeyDeletion",
    "Sign",
    "SynchronizeMultiRegionKey",
    "TagResource",
    "UntagResource",
    "UpdateAlias",
    "UpdateCustomKeyStore",
    "UpdateKeyDescription",
    "UpdatePrimaryRegion",
    "Verify",
    "VerifyMac",
    "CancelJob",
    "DescribeJob",
    "DescribeKeyImpact",
    "GetErasureReport",
    "ListAuditEvents",
    "ListJobs",
    "RetireKeyMaterial",
    "StartReencrypt",
    "StartRewrap",
];

/// What a user may do with a key whose policy leaves it to the account: use it and read about it.
const USES: [&str; 20] = [
    "Decrypt",
    "DescribeJob",
    "DescribeKey",
    "DescribeKeyImpact",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
    "GetErasureReport",
    "GetKeyLastUsage",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "ListGrants",
    "ListJobs",
    "ListKeyPolicies",
    "ListKeyRotations",
    "ListResourceTags",
    "ReEncryptFrom",
    "ReEncryptTo",
];

/// What every user may do that concerns no key, or none yet.
const WITHOUT_KEY: [&str; 5] =
    ["CreateKey", "GenerateRandom", "ListAliases", "ListKeys", "ListRetirableGrants"];

/// Whether a pattern in lower case, namespace included, names any action.
pub(super) fn names_an_action(pattern: &str) -> bool {
    let Some(pattern) = pattern.strip_prefix(NAMESPACE) else {
        return pattern == "*";
    };
    ACTIONS.iter().any(|action| pattern::matches(pattern, &action.to_ascii_lowercase()))
}

/// Whether the identity side lets a user who is not root do this with a delegated key.
pub(super) fn is_use(action: &str) -> bool {
    action.strip_prefix(NAMESPACE).is_some_and(|action| USES.contains(&action))
}

/// Whether every user may do this, without a key.
pub(super) fn is_without_key(action: &str) -> bool {
    action.strip_prefix(NAMESPACE).is_some_and(|action| WITHOUT_KEY.contains(&action))
}
