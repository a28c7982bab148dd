//! Who may do what with a tenant key: key policies as AWS KMS has them, grants, and the rights that
//! S3 asks for.
//!
//! Owns: the decision, and the verbs that read and change policies; those on grants are in
//! [`grants`]. [`document`] and [`condition`] read and evaluate AWS's JSON, [`directory`] is where
//! things are kept. Knows nothing of: HTTP, key states, key bytes.
//!
//! Invariants
//! - An explicit Deny wins over every Allow and every grant. What nothing allows is refused.
//! - Everything is looked up under the caller's tenant. No policy, grant or alias of one tenant
//!   can name or reach another.
//! - A change is durable, and counts for every question that begins after its verb returned.
//! - A stored policy that cannot be read allows nothing; root may replace it.
//!   Rules: docs/ARCHITECTURE.md, "Rights".

mod actions;
mod cache;
mod condition;
mod directory;
mod document;
mod error;
pub(crate) mod grant;
pub(crate) mod grants;
mod json;
mod keys;
mod pattern;
mod request;
mod rights;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use kluis_kms::env::Env;
use kluis_kms::{Kms, Purpose, Reason, Rights, TenantId, TenantKeyId};

use self::cache::Cache;
use self::directory::{KeyDirectory, grants_prefix, policy_name};
use self::document::{Policy, Question, Verdict};
use self::error::DeniedBy;
pub(crate) use self::error::{Denied, PolicyError};
use self::grant::{Grant, Pairs};
use self::request::RequestValues;
pub(crate) use self::request::{Asker, KmsRequestContext, Origin};
pub(crate) use self::rights::S3KeyRights;
use crate::auth::User;
use crate::tenant_locks::TenantLocks;

/// Stands for the id of a key that is to be made, when its policy is checked.
const KEY_TO_BE: TenantKeyId = TenantKeyId::from_bytes([0; 16]);
const PUT_ACTION: &str = "kms:PutKeyPolicy";
const GET_ACTION: &str = "kms:GetKeyPolicy";

/// The key policies and grants of a node.
pub(crate) struct KeyPolicies {
    directory: Arc<dyn KeyDirectory>,
    region: Arc<str>,
    /// The value of `kms:ViaService` for what S3 does.
    s3_service: Arc<str>,
    env: Env,
    cache: Cache<Rules>,
    /// Held while something is read, decided and changed.
    changes: TenantLocks,
}

/// What is known of a key.
struct Rules {
    stored: Stored,
    /// By id.
    grants: Vec<Grant>,
}

enum Stored {
    /// There is a policy, and this program cannot read it.
    Broken,
    /// There is none: the key is left to the account.
    Default,
    Policy(Policy),
}

/// What allowed a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authority {
    Grant,
    Policy,
}

/// Values of condition keys that a verb sets itself.
type OfVerb<'a> = &'a [(&'static str, Vec<String>)];

/// The policy of a key that is to be made, checked.
#[derive(Debug)]
pub(crate) struct NewPolicy(Option<String>);

impl KeyPolicies {
    /// The policies in `kms`, of a node in `region`.
    pub(crate) fn new(kms: &Arc<Kms>, region: &str, env: Env) -> Arc<Self> {
        let policies = Arc::new(Self::over(Arc::clone(kms) as _, region, env));
        // A key that is destroyed takes its policy and grants with it. Weak, since kms is in there.
        let forgetting = Arc::downgrade(&policies);
        kms.on_close(Arc::new(move |tenant, id| {
            if let Some(policies) = forgetting.upgrade() {
                policies.forget(tenant, id);
            }
        }));
        policies
    }

    fn over(directory: Arc<dyn KeyDirectory>, region: &str, env: Env) -> Self {
        Self {
            directory,
            region: region.into(),
            s3_service: format!("s3.{region}.amazonaws.com").into(),
            env,
            cache: Cache::new(),
            changes: TenantLocks::default(),
        }
    }

    /// The ARN of a key of the user's tenant.
    pub(crate) fn key_arn(&self, user: &User, id: TenantKeyId) -> String {
        let hex = id.to_string();
        let group = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let uuid =
            [group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32)].join("-");
        format!("arn:aws:kms:{}:{}:key/{uuid}", self.region, user.account_id)
    }

    /// Decides whether `caller` may do `action` (`kms:Encrypt`), to a key of its tenant or to none.
    ///
    /// # Errors
    /// The refusal, as its text for the caller has it.
    pub(crate) fn authorise(
        &self,
        caller: &User,
        action: &str,
        tenant_key: Option<TenantKeyId>,
        request: &KmsRequestContext,
    ) -> Result<(), Denied> {
        let Some(id) = tenant_key else {
            let may = caller.is_root || actions::is_without_key(action);
            return if may { Ok(()) } else { Err(self.denied(caller, action, None, None)) };
        };
        let rules = self.rules(caller, id);
        self.authority_of((caller, request), action, id, (&rules, &[])).map(|_| ())
    }

    /// Whether the account may use a key as it likes, because nobody gave it a policy: what is
    /// asked most, without a question being made.
    fn is_left_to_account(&self, user: &User, id: TenantKeyId) -> bool {
        let rules = self.rules(user, id);
        matches!(rules.stored, Stored::Default)
    }

    /// The key's policy as text (`kms:GetKeyPolicy`).
    ///
    /// # Errors
    /// [`PolicyError::Denied`], [`PolicyError::NotFound`].
    pub(crate) fn policy_of(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
    ) -> Result<String, PolicyError> {
        self.check_exists(asker.user, id)?;
        self.authorise(asker.user, GET_ACTION, Some(id), asker.request)?;
        let stored = self.directory.value(asker.user.tenant, &policy_name(id));
        let text = stored.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(text.unwrap_or_else(|| default_policy(asker.user, false)))
    }

    /// Replaces the key's policy (`kms:PutKeyPolicy`). With `is_bypass`, also by one that the
    /// caller could not replace again.
    ///
    /// # Errors
    /// [`PolicyError::Denied`], [`PolicyError::Lockout`], [`PolicyError::Malformed`],
    /// [`PolicyError::NotFound`]. [`PolicyError::Kms`]: not written.
    pub(crate) fn put_policy(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
        (text, is_bypass): (&str, bool),
    ) -> Result<(), PolicyError> {
        self.check_exists(asker.user, id)?;
        let _change = self.changes.lock(asker.user.tenant);
        let rules = self.rules(asker.user, id);
        let of_verb = bypass(is_bypass);
        self.authority(asker, PUT_ACTION, id, (&rules, &of_verb))?;
        self.check_policy(asker, id, (text, is_bypass))?;
        self.change(asker, PUT_ACTION, id, (policy_name(id), Some(text.as_bytes().to_vec())))
    }

    /// Checks the policy of a key before it is made, or takes the one that a key gets without:
    /// it leaves the key to the account, and names a creator who is not root.
    ///
    /// # Errors
    /// [`PolicyError::Lockout`], [`PolicyError::Malformed`].
    pub(crate) fn check_new_policy(
        &self,
        asker: Asker<'_>,
        text: Option<&str>,
        is_bypass: bool,
    ) -> Result<NewPolicy, PolicyError> {
        let Some(text) = text else {
            let own = (!asker.user.is_root).then(|| default_policy(asker.user, true));
            return Ok(NewPolicy(own));
        };
        self.check_policy(asker, KEY_TO_BE, (text, is_bypass))?;
        Ok(NewPolicy(Some(text.to_owned())))
    }

    fn check_policy(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
        (text, is_bypass): (&str, bool),
    ) -> Result<(), PolicyError> {
        let arn = self.key_arn(asker.user, id);
        let policy = Policy::parse(text, asker.user.account_id, &arn);
        let stored = Stored::Policy(policy.map_err(PolicyError::Malformed)?);
        let rules = Rules { stored, grants: Vec::new() };
        let of_verb = bypass(is_bypass);
        let could_put = self.authority(asker, PUT_ACTION, id, (&rules, &of_verb)).is_ok();
        if could_put || is_bypass { Ok(()) } else { Err(PolicyError::Lockout) }
    }

    fn check_exists(&self, user: &User, id: TenantKeyId) -> Result<(), PolicyError> {
        self.directory.origin(user.tenant, id).map(|_| ()).ok_or(PolicyError::NotFound)
    }

    /// Forgets what was read of a key: it is destroyed, and its policy and grants with it.
    pub(crate) fn forget(&self, tenant: TenantId, id: TenantKeyId) {
        self.cache.forget((tenant, id));
    }

    /// What is known of a key of the user's tenant.
    fn rules(&self, user: &User, id: TenantKeyId) -> Arc<Rules> {
        let place = (user.tenant, id);
        let epoch = match self.cache.get(place) {
            Ok(rules) => return rules,
            Err(epoch) => epoch,
        };
        let (rules, bytes) = self.read_rules(user, id);
        let rules = Arc::new(rules);
        self.cache.insert(epoch, place, Arc::clone(&rules), bytes);
        rules
    }

    fn read_rules(&self, user: &User, id: TenantKeyId) -> (Rules, usize) {
        let policy = self.directory.value(user.tenant, &policy_name(id));
        let grants = self.directory.values(user.tenant, &grants_prefix(id));
        let lengths = policy.iter().chain(grants.iter().map(|(_, value)| value));
        let bytes = lengths.map(|value| value.len()).sum();
        let stored = policy.map_or(Stored::Default, |bytes| {
            let arn = self.key_arn(user, id);
            let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string());
            match text.and_then(|text| Policy::parse(text, user.account_id, &arn)) {
                Ok(policy) => Stored::Policy(policy),
                Err(error) => {
                    tracing::error!(tenant = %user.tenant, tenant_key = %id, error,
                        "a stored key policy cannot be read; it allows nothing");
                    Stored::Broken
                }
            }
        });
        let read = |(_, value): &(Vec<u8>, Arc<[u8]>)| {
            let grant = Grant::decode(value);
            if grant.is_none() {
                tracing::error!(tenant = %user.tenant, tenant_key = %id,
                    "a stored grant cannot be read; it allows nothing");
            }
            grant
        };
        (Rules { stored, grants: grants.iter().filter_map(read).collect() }, bytes)
    }

    fn authority(
        &self,
        asker: Asker<'_>,
        action: &str,
        id: TenantKeyId,
        rules: (&Rules, OfVerb<'_>),
    ) -> Result<Authority, Denied> {
        self.authority_of((asker.user, asker.request), action, id, rules)
    }

    /// What allows the call, or the refusal.
    fn authority_of(
        &self,
        (user, request): (&User, &KmsRequestContext),
        action: &str,
        id: TenantKeyId,
        (rules, of_verb): (&Rules, OfVerb<'_>),
    ) -> Result<Authority, Denied> {
        match self.verdict_of((user, request), action, id, (rules, of_verb)) {
            Verdict::Allowed => Ok(Authority::Policy),
            Verdict::Delegated if actions::is_use(action) => Ok(Authority::Policy),
            Verdict::Delegated | Verdict::Silent => {
                let arn = user.arn();
                let mut grants = rules.grants.iter();
                let is_granted = grants.any(|grant| grant.allows(&arn, action, &request.context));
                is_granted
                    .then_some(Authority::Grant)
                    .ok_or_else(|| self.denied(user, action, Some(id), None))
            }
            Verdict::Denied(sid) => Err(self.denied(user, action, Some(id), Some(DeniedBy(sid)))),
        }
    }

    fn verdict(
        &self,
        asker: Asker<'_>,
        action: &str,
        id: TenantKeyId,
        rules: (&Rules, OfVerb<'_>),
    ) -> Verdict {
        self.verdict_of((asker.user, asker.request), action, id, rules)
    }

    /// What the policy alone says.
    fn verdict_of(
        &self,
        (user, request): (&User, &KmsRequestContext),
        action: &str,
        id: TenantKeyId,
        (rules, of_verb): (&Rules, OfVerb<'_>),
    ) -> Verdict {
        let policy = match &rules.stored {
            Stored::Broken if user.is_root && [PUT_ACTION, GET_ACTION].contains(&action) => {
                return Verdict::Allowed;
            }
            Stored::Broken => return Verdict::Denied(None),
            Stored::Default if user.is_root => return Verdict::Allowed,
            Stored::Default => return Verdict::Delegated,
            Stored::Policy(policy) => policy,
        };
        let values = RequestValues { policies: self, user, tenant_key: Some(id), request, of_verb };
        policy.verdict(&Question {
            user_name: (!user.is_root).then_some(&*user.name),
            action,
            resource: &self.key_arn(user, id),
            values: &values,
        })
    }

    /// Writes an entry of the directory. The caller holds `changes`.
    fn change(
        &self,
        asker: Asker<'_>,
        action: &'static str,
        id: TenantKeyId,
        change: (Vec<u8>, Option<Vec<u8>>),
    ) -> Result<(), PolicyError> {
        if asker.is_dry_run {
            return Ok(());
        }
        let purpose = Purpose {
            tenant: asker.user.tenant,
            principal: asker.user.arn().into(),
            reason: Reason::CustomerInitiated,
            request_id: asker.request_id.clone(),
            action,
            rights: Rights::of_tenant(),
        };
        let written = self.directory.set(&purpose, id, vec![change]);
        // Also after a failure: what is on the disk then is not known.
        self.cache.forget((asker.user.tenant, id));
        Ok(written?)
    }

    fn denied(
        &self,
        user: &User,
        action: &str,
        tenant_key: Option<TenantKeyId>,
        denied_by: Option<DeniedBy>,
    ) -> Denied {
        Denied {
            principal: user.arn(),
            action: action.to_owned(),
            resource: tenant_key.map(|id| self.key_arn(user, id)),
            denied_by,
        }
    }
}

impl NewPolicy {
    /// The entry that the key is made with, if it needs one.
    pub(crate) fn into_entry(self, id: TenantKeyId) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        self.0.map(|text| (policy_name(id), Some(text.into_bytes())))
    }
}

impl Rules {
    fn grant(&self, grant_id: &str) -> Result<&Grant, PolicyError> {
        let found = self.grants.iter().find(|grant| grant.grant_id == grant_id);
        found.ok_or(PolicyError::GrantNotFound)
    }

    /// The grants that let the caller do this.
    fn grants_of<'a>(
        &'a self,
        asker: Asker<'a>,
        action: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        let arn = asker.user.arn();
        let context = &asker.request.context;
        self.grants.iter().filter(move |grant| grant.allows(&arn, action, context))
    }
}

/// The policy of a key that was given none, as AWS KMS writes it; with `names_user`, it also makes
/// the user an administrator.
fn default_policy(user: &User, names_user: bool) -> String {
    let statement = |sid: &str, principal: String| {
        serde_json::json!({
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "kms:*",
            "Resource": "*",
        })
    };
    let account = format!("arn:aws:iam::{}:root", user.account_id);
    let mut statements = vec![statement("Enable IAM User Permissions", account)];
    if names_user {
        statements.push(statement("Allow access for Key Administrators", user.arn()));
    }
    let policy = serde_json::json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": statements,
    });
    policy.to_string()
}

fn bypass(is_bypass: bool) -> [(&'static str, Vec<String>); 1] {
    [("kms:BypassPolicyLockoutSafetyCheck", vec![is_bypass.to_string()])]
}

#[cfg(test)]
mod tests;
