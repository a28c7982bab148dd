//! One call of the API, on its way through a handler.
//!
//! Owns: who calls what with which fields; finding the key a field names; the checks that many
//! operations share, in AWS's order: fields, key, rights, state. Knows nothing of: HTTP, what an
//! operation does.
//!
//! Invariants
//! - A [`Target`] is a key of the caller's tenant.
//! - Nothing is answered about a key, and nothing done to it, before [`Call::authorise`] passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use kluis_kms::{
    Access, EncryptionContext, KeyRights, KeyState, KeyUse, Principal, Purpose, Reason, RequestId,
    Rights, TenantKeyId, TenantKeyInfo, UnwrapPermit,
};

use super::access::Conditions;
use super::error::{self, Answer, KmsError, absent_key, disabled, invalid, not_found};
use super::fields::{Fields, Length};
use super::names::{Named, Names};
use super::table::Operation;
use super::{KmsApi, Turn};
use crate::auth::User;
use crate::key_policy::Origin;

/// The longest name of a key (AWS).
pub(super) const KEY_ID_CHARS_MAX: usize = 2_048;
/// Most grant tokens in one call (AWS).
const GRANT_TOKENS_MAX: usize = 10;
/// The longest grant token (AWS).
pub(super) const GRANT_TOKEN_CHARS_MAX: usize = 8_192;

/// One call.
pub(super) struct Call {
    /// The API.
    pub(super) api: Arc<KmsApi>,
    /// Who calls.
    pub(super) user: Arc<User>,
    /// In which request.
    pub(super) request_id: RequestId,
    /// From where.
    pub(super) origin: Origin,
    /// What is called.
    pub(super) operation: &'static Operation,
    /// With what.
    pub(super) fields: Fields,
    /// Kept until the call has ended, also when nobody waits for its answer any more.
    pub(super) _turn: Turn,
}

/// A key that a call is about.
pub(super) struct Target {
    /// What is known of it.
    pub(super) info: TenantKeyInfo,
    /// Its ARN.
    pub(super) arn: String,
    /// The alias that the field named it by.
    pub(super) alias: Option<String>,
}

impl Target {
    /// Its id.
    pub(super) fn id(&self) -> TenantKeyId {
        self.info.id
    }

    /// Refuses states in which a key is not used: all but `Enabled`.
    pub(super) fn check_enabled(&self) -> Answer<()> {
        let waits = |what: &str| {
            let message = format!("{} is {what}.", self.arn);
            Err(KmsError::new("KMSInvalidStateException", message))
        };
        match self.info.state {
            KeyState::Enabled => Ok(()),
            KeyState::Destroyed => Err(absent_key(&self.arn)),
            KeyState::Disabled => Err(disabled(&self.arn)),
            KeyState::PendingDeletion => waits("pending deletion"),
            KeyState::PendingImport => waits("pending import"),
            KeyState::Unavailable => waits("unavailable"),
        }
    }

    /// Refuses a key that waits for its deletion.
    pub(super) fn check_not_pending_deletion(&self) -> Answer<()> {
        if self.info.state == KeyState::PendingDeletion { self.check_enabled() } else { Ok(()) }
    }
}

/// Which names of a key a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    /// Ids and ARNs of ids: operations that manage a key.
    Ids,
    /// Aliases too: operations that use a key.
    Aliases,
}

/// Rights that were decided before the permit is asked for.
struct Decided {
    tenant_key: TenantKeyId,
    is_allowed: bool,
}

impl KeyRights for Decided {
    fn may_use(&self, tenant_key: TenantKeyId, _: KeyUse) -> bool {
        self.is_allowed && tenant_key == self.tenant_key
    }
}

impl Call {
    /// Where names are looked up.
    pub(super) fn names(&self) -> Names<'_> {
        Names {
            kms: &self.api.kms,
            region: &self.api.region,
            tenant: self.user.tenant,
            account: self.user.account_id,
        }
    }

    /// The purpose of a change of a key, or of a job on it.
    pub(super) fn purpose(&self) -> Purpose {
        self.purpose_with(self.operation.action, Rights::of_tenant())
    }

    fn purpose_with(&self, action: &'static str, rights: Rights) -> Purpose {
        Purpose {
            tenant: self.user.tenant,
            principal: Principal::new(self.user.arn()),
            reason: Reason::CustomerInitiated,
            request_id: self.request_id.clone(),
            action,
            rights,
        }
    }

    /// The key that a required field names.
    pub(super) fn target(&self, field: &str, accept: Accept) -> Answer<Target> {
        let text = self.fields.required_text(field, Length::up_to(KEY_ID_CHARS_MAX))?;
        self.named(text, accept)
    }

    /// The key that a field names, if it is there.
    pub(super) fn optional_target(&self, field: &str, accept: Accept) -> Answer<Option<Target>> {
        let text = self.fields.text(field, Length::up_to(KEY_ID_CHARS_MAX))?;
        text.map(|text| self.named(text, accept)).transpose()
    }

    fn named(&self, text: &str, accept: Accept) -> Answer<Target> {
        let names = self.names();
        let meant = names.read(text);
        match meant {
            Named::NoArn if accept == Accept::Ids => {
                Err(KmsError::new("InvalidArnException", format!("Invalid arn {text}")))
            }
            Named::Alias(_) if accept == Accept::Ids => Err(invalid_key_id(text)),
            _ => match names.find(&meant) {
                Some(info) => {
                    let alias = match meant {
                        Named::Alias(alias) => Some(alias),
                        Named::Id(_) | Named::NoArn | Named::Nothing => None,
                    };
                    Ok(Target { alias, ..self.target_of(info) })
                }
                None if text.starts_with("arn:") && text.contains(":key/") => Err(absent_key(text)),
                None => Err(match meant {
                    Named::Alias(alias) => absent_alias(&names.alias_arn(&alias)),
                    Named::Id(id) => absent_key(&names.key_arn(id)),
                    _ if text.starts_with("arn:") => absent_alias(text),
                    _ => invalid_key_id(text),
                }),
            },
        }
    }

    /// A key of this tenant as a target.
    pub(super) fn target_of(&self, info: TenantKeyInfo) -> Target {
        Target { arn: self.names().key_arn(info.id), info, alias: None }
    }

    /// Whether the caller may do this operation to `target`, or at all.
    ///
    /// # Errors
    /// `AccessDeniedException`.
    pub(super) fn authorise(&self, target: Option<&Target>) -> Answer<()> {
        self.authorise_with(target, Vec::new())
    }

    /// As [`Self::authorise`], with values of condition keys.
    pub(super) fn authorise_with(
        &self,
        target: Option<&Target>,
        conditions: Conditions,
    ) -> Answer<()> {
        self.authorise_as(self.operation.action, target, (&BTreeMap::new(), conditions))
    }

    /// Refuses a use of a key and leaves a note of it in the audit trail.
    pub(super) fn note_refused(&self, action: &'static str, target: &Target, key_use: KeyUse) {
        let rights = Rights::new(Arc::new(Decided { tenant_key: target.id(), is_allowed: false }));
        let purpose = self.purpose_with(action, rights);
        // The refusal is the answer in any case; that it could not be noted goes to the log.
        if let Err(cause) = self.api.kms.permit(&purpose, target.id(), Access::direct(key_use)) {
            tracing::debug!(%cause, "a use of a key was refused");
        }
    }

    /// A permit to use `target`, after the caller's right to it was decided.
    pub(super) fn permit(
        &self,
        action: &'static str,
        target: &Target,
        access: Access,
    ) -> Answer<UnwrapPermit> {
        let rights = Rights::new(Arc::new(Decided { tenant_key: target.id(), is_allowed: true }));
        let purpose = self.purpose_with(action, rights);
        let permit = self.api.kms.permit(&purpose, target.id(), access);
        permit.map_err(|cause| error::of_key(&cause, &target.arn))
    }

    /// Checks the form of the grant tokens of the call.
    pub(super) fn check_grant_tokens(&self) -> Answer<()> {
        let length = Length::up_to(GRANT_TOKEN_CHARS_MAX);
        self.fields.texts("GrantTokens", (0, GRANT_TOKENS_MAX), length).map(|_| ())
    }

    /// Ends a call that only asks whether it would work.
    pub(super) fn check_dry_run(&self) -> Answer<()> {
        if self.fields.flag("DryRun")? {
            let message = "The request would have succeeded, but the DryRun option is set.";
            return Err(KmsError::new("DryRunOperationException", message));
        }
        Ok(())
    }

    /// Changes values of the tenant's key directory.
    pub(super) fn set_entries(
        &self,
        target: Option<&Target>,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Answer<()> {
        let purpose = self.purpose();
        let id = target.map(Target::id);
        let set = self.api.kms.set_entries(&purpose, id, changes);
        set.map_err(|cause| error::of_key(&cause, target.map_or("The key directory", |it| &it.arn)))
    }
}

/// The bytes that a ciphertext is bound to.
pub(super) fn bound(context: &BTreeMap<String, String>) -> Answer<EncryptionContext> {
    context.iter().try_fold(EncryptionContext::new(), |bound, (name, value)| {
        bound
            .with(name.as_bytes(), value.as_bytes())
            .map_err(|_| invalid("An entry of the encryption context is longer than 8,192 bytes."))
    })
}

fn invalid_key_id(text: &str) -> KmsError {
    let shown: String = text.chars().filter(|it| !it.is_control()).take(256).collect();
    not_found(format!("Invalid keyId '{shown}'"))
}

/// There is no such alias.
pub(super) fn absent_alias(arn: &str) -> KmsError {
    not_found(format!("Alias {arn} is not found."))
}
