//! Whether a caller may do something to a key.
//!
//! Owns: what a call tells the key policies of itself, and the names of AWS for what they answer.
//! Knows nothing of: how it is decided; that is [`crate::key_policy`].

use std::collections::BTreeMap;

use kluis_kms::RequestId;

use super::call::{Call, Target};
use super::error::{Answer, KmsError, absent_key, invalid, not_found, of_key};
use crate::key_policy::{Asker, KmsRequestContext, PolicyError};

/// Values of condition keys that only the operation knows.
pub(super) type Conditions = Vec<(&'static str, Vec<String>)>;

/// What a request tells policies of itself.
pub(super) struct Told<'a> {
    call: &'a Call,
    request_id: &'a RequestId,
    request: KmsRequestContext,
    is_dry_run: bool,
}

impl Told<'_> {
    /// As the verbs on policies and grants take it.
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker {
            user: &self.call.user,
            request_id: self.request_id,
            request: &self.request,
            is_dry_run: self.is_dry_run,
        }
    }
}

impl Call {
    /// What this call tells policies of itself.
    pub(super) fn told(&self, is_dry_run: bool) -> Told<'_> {
        let request = self.request_context(&BTreeMap::new(), (None, Vec::new()));
        Told { call: self, request_id: &self.request_id, request, is_dry_run }
    }

    fn request_context(
        &self,
        context: &BTreeMap<String, String>,
        (alias, mut extra): (Option<&str>, Conditions),
    ) -> KmsRequestContext {
        if let Some(alias) = alias {
            extra.push(("kms:RequestAlias", vec![alias.to_owned()]));
        }
        KmsRequestContext {
            context: context.clone(),
            origin: self.origin,
            via_service: None,
            extra,
        }
    }

    /// Whether the caller may do `action` to `target`, or at all.
    ///
    /// # Errors
    /// `AccessDeniedException`.
    pub(super) fn authorise_as(
        &self,
        action: &'static str,
        target: Option<&Target>,
        (context, extra): (&BTreeMap<String, String>, Conditions),
    ) -> Answer<()> {
        // A grant counts as soon as it is made, so its token carries nothing that would be missing.
        self.check_grant_tokens()?;
        // What the key was found by, and nothing else that the request holds.
        let alias = target.and_then(|target| target.alias.as_deref());
        let request = self.request_context(context, (alias, extra));
        let decided =
            self.api.policies.authorise(&self.user, action, target.map(Target::id), &request);
        decided.map_err(|denied| KmsError::new("AccessDeniedException", denied.to_string()))
    }
}

/// The name of AWS for what a verb on policies or grants failed with.
pub(super) fn of_policy(cause: PolicyError, arn: &str) -> KmsError {
    match cause {
        PolicyError::Denied(denied) => KmsError::new("AccessDeniedException", denied.to_string()),
        PolicyError::GrantNotFound => not_found(format!("{arn} has no such grant.")),
        PolicyError::Invalid(text) => invalid(text),
        PolicyError::InvalidGrantId => {
            KmsError::new("InvalidGrantIdException", "The grant id is not valid.")
        }
        PolicyError::InvalidGrantToken => {
            KmsError::new("InvalidGrantTokenException", "The grant token is not valid.")
        }
        PolicyError::Kms(cause) => of_key(&cause, arn),
        PolicyError::LimitExceeded(text) => KmsError::new("LimitExceededException", text),
        PolicyError::Lockout => KmsError::new(
            "MalformedPolicyDocumentException",
            "The new key policy will not allow you to update the key policy in the future.",
        ),
        PolicyError::Malformed(text) => KmsError::new("MalformedPolicyDocumentException", text),
        PolicyError::NotFound => absent_key(arn),
    }
}
