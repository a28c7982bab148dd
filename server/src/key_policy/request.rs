//! What is known of a request when a policy is asked: the values of its condition keys.
//!
//! Owns: where each value comes from. Knows nothing of: policies, HTTP.
//!
//! Invariants
//! - What says who calls comes from the verified [`User`], never from the request.
//! - A value is made when a condition asks for it.

use std::net::IpAddr;
use std::sync::Arc;

use kluis_kms::{Reason, RequestId, TenantKeyId};

use super::KeyPolicies;
use super::condition::Values;
use super::directory::ALIASES;
use super::grant::Pairs;
use super::keys::ConditionKey;
use crate::auth::User;
use crate::auth::amz_date::AmzDate;

/// What the names of aliases start with when shown.
const ALIAS_PREFIX: &str = "alias/";

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    /// The client's address, where there is one.
    pub(crate) ip: Option<IpAddr>,
    /// Whether it came over TLS.
    pub(crate) is_tls: bool,
}

/// What a call brings along that policies and grants may ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct KmsRequestContext {
    /// The encryption context.
    pub(crate) context: Pairs,
    /// Where the request comes from.
    pub(crate) origin: Origin,
    /// The service that uses the key for its caller: `s3.eu-west-1.amazonaws.com`.
    pub(crate) via_service: Option<Arc<str>>,
    /// More condition keys, as AWS spells them: `kms:RequestAlias`, `kms:KeySpec` of a key to be,
    /// `kms:ValidTo`. What is left out does not exist for the policy.
    pub(crate) extra: Vec<(&'static str, Vec<String>)>,
}

/// Who calls a verb on policies or grants, and in which request.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The user.
    pub(crate) user: &'a User,
    /// The request, for the audit trail.
    pub(crate) request_id: &'a RequestId,
    /// What the request brings along.
    pub(crate) request: &'a KmsRequestContext,
    /// Only check: everything but the change itself (`DryRun`).
    pub(crate) is_dry_run: bool,
}

/// The values of one request about one key.
pub(super) struct RequestValues<'a> {
    pub(super) policies: &'a KeyPolicies,
    pub(super) user: &'a User,
    pub(super) tenant_key: Option<TenantKeyId>,
    pub(super) request: &'a KmsRequestContext,
    /// Set by the verb itself; goes before the request's `extra`.
    pub(super) of_verb: &'a [(&'static str, Vec<String>)],
}

impl Values for RequestValues<'_> {
    fn values(&self, key: &ConditionKey) -> Vec<String> {
        match key {
            ConditionKey::Context(name) => {
                let pairs = self.request.context.iter();
                let named = pairs.filter(|(known, _)| known.to_lowercase() == *name);
                named.map(|(_, value)| value.clone()).collect()
            }
            ConditionKey::Known(name) => self.known(name),
        }
    }
}

impl RequestValues<'_> {
    fn known(&self, name: &str) -> Vec<String> {
        let (user, request) = (self.user, self.request);
        let one = |value: String| vec![value];
        match name {
            "aws:CurrentTime" => {
                let now_ms = self.policies.env.clock.now_ms();
                one(AmzDate::from_unix_ms(now_ms).extended())
            }
            "aws:PrincipalAccount" | "kms:CallerAccount" => one(user.account_id.to_string()),
            "aws:PrincipalArn" => one(user.arn()),
            "aws:SecureTransport" => one(request.origin.is_tls.to_string()),
            "aws:SourceIp" => request.origin.ip.iter().map(ToString::to_string).collect(),
            "aws:username" if user.is_root => Vec::new(),
            "aws:username" => one(user.name.to_string()),
            "kluis:Reason" => one(Reason::CustomerInitiated.code().to_owned()),
            "kms:EncryptionContextKeys" => request.context.keys().cloned().collect(),
            "kms:ViaService" => request.via_service.iter().map(ToString::to_string).collect(),
            _ => self.given(name).unwrap_or_else(|| self.of_key(name)),
        }
    }

    fn given(&self, name: &str) -> Option<Vec<String>> {
        let mut given = self.of_verb.iter().chain(&self.request.extra);
        given.find(|(known, _)| *known == name).map(|(_, values)| values.clone())
    }

    fn of_key(&self, name: &str) -> Vec<String> {
        let Some(id) = self.tenant_key else {
            return Vec::new();
        };
        let directory = &*self.policies.directory;
        match name {
            "kms:KeyOrigin" => {
                let origin = directory.origin(self.user.tenant, id);
                origin.iter().map(ToString::to_string).collect()
            }
            "kms:KeySpec" => vec!["SYMMETRIC_DEFAULT".to_owned()],
            "kms:KeyUsage" => vec!["ENCRYPT_DECRYPT".to_owned()],
            "kms:ResourceAliases" => {
                let aliases = directory.values(self.user.tenant, ALIASES);
                let own = aliases.iter().filter(|(_, target)| **target == *id.as_bytes());
                own.filter_map(|(name, _)| alias(name)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The alias behind an entry's name, as the API shows it.
fn alias(entry_name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(entry_name.strip_prefix(ALIASES)?).ok()?;
    let bare = name.strip_prefix(ALIAS_PREFIX).unwrap_or(name);
    Some(format!("{ALIAS_PREFIX}{bare}"))
}
