//! The verbs on grants.
//!
//! Owns: who may make, see and end a grant; ids and tokens. Knows nothing of: the API's shapes.
//!
//! Invariants
//! - A grant counts from the moment its verb returns, and no longer than until it is ended: grant
//!   tokens only name a grant, and carry no right.
//! - Whoever lives by a grant hands on no more than the grant gives.

use kluis_kms::{TenantKeyId, random_array};

use super::actions::NAMESPACE;
use super::directory::grant_name;
use super::document::{Verdict, user_of_arn};
use super::error::{DeniedBy, PolicyError};
use super::grant::{GRANT_ID_CHARS, Grant, NewGrant};
use super::request::Asker;
use super::{Authority, KeyPolicies};

/// Grants of one key. AWS KMS allows 50,000; here all of a key's grants are read at once.
const GRANTS_MAX: usize = 256;

/// Which grants of a key are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GrantFilter<'a> {
    /// Only this one.
    pub(crate) grant_id: Option<&'a str>,
    /// Only those of this principal.
    pub(crate) grantee: Option<&'a str>,
}

/// Which grant to retire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrantRef<'a> {
    /// By its key and id.
    Id(TenantKeyId, &'a str),
    /// By the token that its maker got.
    Token(&'a str),
}

/// Some grants, in order, each with its key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GrantPage {
    /// The grants.
    pub(crate) grants: Vec<(TenantKeyId, Grant)>,
    /// Where the next page starts, if there is one.
    pub(crate) next: Option<String>,
}

impl KeyPolicies {
    /// Makes a grant (`kms:CreateGrant`). The same request under the same name gives the grant
    /// that it made before.
    ///
    /// # Errors
    /// [`PolicyError::Denied`]: neither the policy nor a grant allows it, or the caller's grant
    /// allows less. [`PolicyError::Invalid`], [`PolicyError::LimitExceeded`],
    /// [`PolicyError::NotFound`]: no such key. [`PolicyError::Kms`]: not written.
    pub(crate) fn create_grant(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
        new: NewGrant,
    ) -> Result<Grant, PolicyError> {
        const ACTION: &str = "kms:CreateGrant";
        self.check_exists(asker.user, id)?;
        let new = new.checked(asker.user.account_id).map_err(PolicyError::Invalid)?;
        let mut of_verb = vec![
            ("kms:GranteePrincipal", vec![new.grantee.clone()]),
            ("kms:GrantIsForAWSResource", vec!["false".to_owned()]),
            ("kms:GrantOperations", new.operations.clone()),
        ];
        of_verb.extend(new.retiring.clone().map(|arn| ("kms:RetiringPrincipal", vec![arn])));
        let kind = new.constraint.as_ref().map(|one| vec![one.kind().to_owned()]);
        of_verb.extend(kind.map(|kind| ("kms:GrantConstraintType", kind)));

        let _change = self.changes.lock(asker.user.tenant);
        let rules = self.rules(asker.user, id);
        let authority = self.authority(asker, ACTION, id, (&rules, &of_verb))?;
        if authority == Authority::Grant {
            let is_within = rules.grants_of(asker, ACTION).any(|grant| new.is_within(grant));
            if !is_within {
                return Err(self.denied(asker.user, ACTION, Some(id), None).into());
            }
        }
        let known = new.name.is_some().then(|| rules.grants.iter().find(|grant| new.is(grant)));
        if let Some(grant) = known.flatten() {
            return Ok(grant.clone());
        }
        if rules.grants.len() >= GRANTS_MAX {
            let message = format!("a key has at most {GRANTS_MAX} grants");
            return Err(PolicyError::LimitExceeded(message));
        }
        let grant = Grant {
            grant_id: hex::encode(random_array::<{ GRANT_ID_CHARS / 2 }>(&*self.env.rng)),
            issuer: asker.user.arn(),
            grantee: new.grantee,
            retiring: new.retiring,
            operations: new.operations,
            constraint: new.constraint,
            name: new.name,
            created_ms: self.env.clock.now_ms(),
        };
        let change = (grant_name(id, &grant.grant_id), Some(grant.encode()));
        self.change(asker, ACTION, id, change)?;
        Ok(grant)
    }

    /// The token that names a grant.
    pub(crate) fn grant_token(id: TenantKeyId, grant: &Grant) -> String {
        format!("{id}{}", grant.grant_id)
    }

    /// A key's grants (`kms:ListGrants`), by id, after the grant `after`.
    ///
    /// # Errors
    /// [`PolicyError::Denied`], [`PolicyError::InvalidGrantId`], [`PolicyError::NotFound`].
    pub(crate) fn list_grants(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
        filter: GrantFilter<'_>,
        (after, limit): (Option<&str>, usize),
    ) -> Result<GrantPage, PolicyError> {
        self.check_exists(asker.user, id)?;
        let of_verb = [("kms:GrantIsForAWSResource", vec!["false".to_owned()])];
        let rules = self.rules(asker.user, id);
        self.authority(asker, "kms:ListGrants", id, (&rules, &of_verb))?;
        filter.grant_id.map_or(Ok(()), check_grant_id)?;
        let grants = rules.grants.iter().filter(|grant| {
            filter.grant_id.is_none_or(|wanted| grant.grant_id == wanted)
                && filter.grantee.is_none_or(|wanted| grant.grantee == wanted)
        });
        Ok(page(grants.map(|grant| (grant.grant_id.clone(), (id, grant))), after, limit))
    }

    /// The grants of all keys that `principal` may retire, by key and id, after `after`.
    ///
    /// # Errors
    /// [`PolicyError::Denied`]: the caller is neither root nor that principal.
    /// [`PolicyError::Invalid`]: no principal of this account.
    pub(crate) fn list_retirable(
        &self,
        asker: Asker<'_>,
        principal: &str,
        (after, limit): (Option<&str>, usize),
    ) -> Result<GrantPage, PolicyError> {
        let user = asker.user;
        let named = user_of_arn(principal, user.account_id).ok_or_else(|| {
            PolicyError::Invalid(format!("the principal {principal:?} is not valid"))
        })?;
        let own = (!user.is_root).then_some(&*user.name);
        if !user.is_root && named != own {
            return Err(self.denied(user, "kms:ListRetirableGrants", None, None).into());
        }
        let mut ids = self.directory.keys(user.tenant);
        ids.sort_unstable();
        let rules: Vec<_> = ids.into_iter().map(|id| (id, self.rules(user, id))).collect();
        let all = rules.iter().flat_map(|(id, rules)| {
            let is_retiring = |grant: &&Grant| {
                let retiring = grant.retiring.as_deref();
                retiring.and_then(|arn| user_of_arn(arn, user.account_id)) == Some(named)
            };
            let grants = rules.grants.iter().filter(is_retiring);
            grants.map(|grant| (Self::grant_token(*id, grant), (*id, grant)))
        });
        Ok(page(all, after, limit))
    }

    /// Ends a grant against its holder's will (`kms:RevokeGrant`).
    ///
    /// # Errors
    /// [`PolicyError::Denied`], [`PolicyError::GrantNotFound`], [`PolicyError::InvalidGrantId`],
    /// [`PolicyError::NotFound`]: no such key. [`PolicyError::Kms`]: not written.
    pub(crate) fn revoke_grant(
        &self,
        asker: Asker<'_>,
        id: TenantKeyId,
        grant_id: &str,
    ) -> Result<(), PolicyError> {
        const ACTION: &str = "kms:RevokeGrant";
        self.check_exists(asker.user, id)?;
        check_grant_id(grant_id)?;
        let of_verb = [("kms:GrantIsForAWSResource", vec!["false".to_owned()])];
        let _change = self.changes.lock(asker.user.tenant);
        let rules = self.rules(asker.user, id);
        self.authority(asker, ACTION, id, (&rules, &of_verb))?;
        rules.grant(grant_id)?;
        self.change(asker, ACTION, id, (grant_name(id, grant_id), None))
    }

    /// Ends a grant that is not needed any more: by who may retire it, by the account's root
    /// user, by its holder if it allows `RetireGrant`, or by whom the policy names for it.
    ///
    /// # Errors
    /// As [`Self::revoke_grant`], and [`PolicyError::InvalidGrantToken`].
    pub(crate) fn retire_grant(
        &self,
        asker: Asker<'_>,
        which: GrantRef<'_>,
    ) -> Result<(), PolicyError> {
        const ACTION: &str = "kms:RetireGrant";
        let (id, grant_id) = match which {
            GrantRef::Id(id, grant_id) => (id, grant_id),
            GrantRef::Token(token) => read_token(token)?,
        };
        self.check_exists(asker.user, id)?;
        check_grant_id(grant_id)?;
        let _change = self.changes.lock(asker.user.tenant);
        let rules = self.rules(asker.user, id);
        // Who has no right to it is not told whether there is such a grant.
        let grant = rules.grant(grant_id);
        let verdict = self.verdict(asker, ACTION, id, (&rules, &[]));
        let arn = asker.user.arn();
        let operation = ACTION.trim_start_matches(NAMESPACE);
        let is_named = |grant: &&Grant| {
            let is_holder = grant.grantee == arn && grant.operations.iter().any(|o| o == operation);
            grant.retiring.as_ref() == Some(&arn) || is_holder
        };
        let is_party = asker.user.is_root || grant.as_ref().is_ok_and(is_named);
        match verdict {
            Verdict::Denied(sid) => {
                return Err(self.denied(asker.user, ACTION, Some(id), Some(DeniedBy(sid))).into());
            }
            Verdict::Allowed => {}
            Verdict::Delegated | Verdict::Silent if is_party => {}
            Verdict::Delegated | Verdict::Silent => {
                return Err(self.denied(asker.user, ACTION, Some(id), None).into());
            }
        }
        grant?;
        self.change(asker, ACTION, id, (grant_name(id, grant_id), None))
    }
}

fn check_grant_id(text: &str) -> Result<(), PolicyError> {
    let is_id = text.len() == GRANT_ID_CHARS && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id { Ok(()) } else { Err(PolicyError::InvalidGrantId) }
}

fn read_token(token: &str) -> Result<(TenantKeyId, &str), PolicyError> {
    let parts = token.split_at_checked(token.len().saturating_sub(GRANT_ID_CHARS));
    let (id, grant_id) = parts.ok_or(PolicyError::InvalidGrantToken)?;
    let id = id.parse().map_err(|_| PolicyError::InvalidGrantToken)?;
    check_grant_id(grant_id).map_err(|_| PolicyError::InvalidGrantToken)?;
    Ok((id, grant_id))
}

/// At most `limit` (at least one) of some grants in order of their markers, after a marker.
fn page<'a>(
    grants: impl Iterator<Item = (String, (TenantKeyId, &'a Grant))>,
    after: Option<&str>,
    limit: usize,
) -> GrantPage {
    let mut rest =
        grants.filter(|(marker, _)| after.is_none_or(|after| marker.as_str() > after)).peekable();
    let mut found = GrantPage::default();
    let mut last = None;
    while found.grants.len() < limit.max(1)
        && let Some((marker, (id, grant))) = rest.next()
    {
        found.grants.push((id, grant.clone()));
        last = Some(marker);
    }
    found.next = last.filter(|_| rest.peek().is_some());
    found
}

#[cfg(test)]
mod tests;
