//! Grants: create, list, revoke, retire.
//!
//! Owns: the fields of those operations. Knows nothing of: who may make one, what one allows.

use kluis_kms::TenantKeyId;
use serde_json::{Map, Value, json};

use super::access::of_policy;
use super::call::{Accept, Call, GRANT_TOKEN_CHARS_MAX};
use super::error::{Answer, invalid, unsupported};
use super::fields::{Fields, Length, context_of, missing, wrong_type};
use super::page::Page;
use super::reply::{Reply, seconds};
use crate::key_policy::grant::{Constraint, Grant, NewGrant};
use crate::key_policy::grants::{GrantFilter, GrantRef};
use crate::key_policy::{KeyPolicies, PolicyError};

/// Operations that one grant may name; AWS knows 19.
const OPERATIONS_MAX: usize = 32;
const GRANT_ID: Length = Length::up_to(128);

fn principal<'a>(fields: &'a Fields, name: &str) -> Answer<Option<&'a str>> {
    let is_allowed = |it: char| {
        it.is_alphanumeric() || matches!(it, '_' | '+' | '=' | ',' | '.' | '@' | ':' | '/' | '-')
    };
    let pattern = (is_allowed as fn(char) -> bool, r"^[\w+=,.@:/-]+$");
    fields.matching(name, Length::up_to(256), pattern)
}

fn refuse_services(call: &Call) -> Answer<()> {
    for name in ["GranteeServicePrincipal", "RetiringServicePrincipal"] {
        if call.fields.has(name) {
            return Err(unsupported(format!("{name}: there are no service principals here.")));
        }
    }
    Ok(())
}

/// `CreateGrant`.
pub(super) fn create(call: &Call) -> Answer<Reply> {
    let fields = &call.fields;
    refuse_services(call)?;
    let grantee = principal(fields, "GranteePrincipal")?;
    let operations = fields.texts("Operations", (0, OPERATIONS_MAX), Length::up_to(64))?;
    let operations = operations.ok_or_else(|| missing("Operations"))?;
    let new = NewGrant {
        grantee: grantee.ok_or_else(|| missing("GranteePrincipal"))?.to_owned(),
        retiring: principal(fields, "RetiringPrincipal")?.map(str::to_owned),
        operations: operations.into_iter().map(str::to_owned).collect(),
        constraint: constraint(fields)?,
        name: fields.text("Name", Length::up_to(256))?.map(str::to_owned),
    };
    call.check_grant_tokens()?;
    fields.flag("DryRun")?;
    let target = call.target("KeyId", Accept::Ids)?;
    let policies = &call.api.policies;
    let make = |is_dry_run, new| {
        let made = policies.create_grant(call.told(is_dry_run).asker(), target.id(), new);
        made.map_err(|cause| of_policy(cause, &target.arn))
    };
    // The rights are decided first: who has none is not told in which state the key is.
    make(true, new.clone())?;
    target.check_enabled()?;
    call.check_dry_run()?;
    let grant = make(false, new)?;
    Ok(Reply::default()
        .with("GrantToken", KeyPolicies::grant_token(target.id(), &grant))
        .with("GrantId", grant.grant_id))
}

fn constraint(fields: &Fields) -> Answer<Option<Constraint>> {
    let Some(constraints) = fields.object("Constraints")? else {
        return Ok(None);
    };
    let pairs = |name: &str| match constraints.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(entries)) => context_of(name, entries).map(Some),
        Some(_) => Err(wrong_type(name, "a map of strings")),
    };
    if constraints.get("SourceArn").is_some_and(|value| !value.is_null()) {
        return Err(unsupported("Grants cannot be constrained by SourceArn."));
    }
    match (pairs("EncryptionContextEquals")?, pairs("EncryptionContextSubset")?) {
        (None, None) => Ok(None),
        (Some(pairs), None) => Ok(Some(Constraint::EncryptionContextEquals(pairs))),
        (None, Some(pairs)) => Ok(Some(Constraint::EncryptionContextSubset(pairs))),
        (Some(_), Some(_)) => Err(invalid("A grant has one encryption context constraint.")),
    }
}

/// `ListGrants`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    refuse_services(call)?;
    let page = Page::of("ListGrants", &call.fields)?;
    let filter = GrantFilter {
        grant_id: call.fields.text("GrantId", GRANT_ID)?,
        grantee: principal(&call.fields, "GranteePrincipal")?,
    };
    let target = call.target("KeyId", Accept::Ids)?;
    // A key has few enough grants to be paged here, by markers that name their listing.
    let all = (None, usize::MAX);
    let found = call.api.policies.list_grants(call.told(false).asker(), target.id(), filter, all);
    let found = found.map_err(|cause| of_policy(cause, &target.arn))?;
    Ok(shown(call, &page, &found.grants))
}

/// `ListRetirableGrants`.
pub(super) fn list_retirable(call: &Call) -> Answer<Reply> {
    refuse_services(call)?;
    let page = Page::of("ListRetirableGrants", &call.fields)?;
    let principal = principal(&call.fields, "RetiringPrincipal")?;
    let principal = principal.ok_or_else(|| missing("RetiringPrincipal"))?;
    let all = (None, usize::MAX);
    let found = call.api.policies.list_retirable(call.told(false).asker(), principal, all);
    let found = found.map_err(|cause| of_policy(cause, "The key"))?;
    Ok(shown(call, &page, &found.grants))
}

fn shown(call: &Call, page: &Page, grants: &[(TenantKeyId, Grant)]) -> Reply {
    let items = grants.iter().map(|(id, grant)| {
        let place = KeyPolicies::grant_token(*id, grant).into_bytes();
        (place, entry(call, *id, grant))
    });
    page.cut("Grants", items).into()
}

fn entry(call: &Call, id: TenantKeyId, grant: &Grant) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("KeyId", call.names().key_arn(id).into());
    set("GrantId", grant.grant_id.clone().into());
    // AWS shows an empty name where there is none.
    set("Name", grant.name.clone().unwrap_or_default().into());
    set("CreationDate", seconds(grant.created_ms));
    set("GranteePrincipal", grant.grantee.clone().into());
    if let Some(retiring) = &grant.retiring {
        set("RetiringPrincipal", retiring.clone().into());
    }
    set("IssuingAccount", format!("arn:aws:iam::{}:root", call.user.account_id).into());
    set("Operations", grant.operations.clone().into());
    match &grant.constraint {
        None => {}
        Some(Constraint::EncryptionContextEquals(pairs)) => {
            set("Constraints", json!({"EncryptionContextEquals": pairs}));
        }
        Some(Constraint::EncryptionContextSubset(pairs)) => {
            set("Constraints", json!({"EncryptionContextSubset": pairs}));
        }
    }
    Value::Object(fields)
}

/// `RevokeGrant`.
pub(super) fn revoke(call: &Call) -> Answer<Reply> {
    let grant_id = call.fields.required_text("GrantId", GRANT_ID)?;
    let is_dry_run = call.fields.flag("DryRun")?;
    let target = call.target("KeyId", Accept::Ids)?;
    let asker = call.told(is_dry_run);
    let done = call.api.policies.revoke_grant(asker.asker(), target.id(), grant_id);
    done.map_err(|cause| of_policy(cause, &target.arn))?;
    call.check_dry_run()?;
    Ok(Reply::default())
}

/// `RetireGrant`.
pub(super) fn retire(call: &Call) -> Answer<Reply> {
    let token = call.fields.text("GrantToken", Length::up_to(GRANT_TOKEN_CHARS_MAX))?;
    let grant_id = call.fields.text("GrantId", GRANT_ID)?;
    let is_dry_run = call.fields.flag("DryRun")?;
    let target = call.optional_target("KeyId", Accept::Ids)?;
    let which = match (token, &target, grant_id) {
        (Some(token), None, None) => GrantRef::Token(token),
        (None, Some(target), Some(grant_id)) => GrantRef::Id(target.id(), grant_id),
        _ => return Err(invalid("Give either a GrantToken, or a KeyId and a GrantId.")),
    };
    let told = call.told(is_dry_run);
    let done = call.api.policies.retire_grant(told.asker(), which);
    done.map_err(|cause| match (cause, &target) {
        // A token of a key that this tenant does not have is no token of this tenant.
        (PolicyError::NotFound, None) => of_policy(PolicyError::InvalidGrantToken, ""),
        (cause, target) => of_policy(cause, target.as_ref().map_or("The key", |it| &it.arn)),
    })?;
    call.check_dry_run()?;
    Ok(Reply::default())
}
