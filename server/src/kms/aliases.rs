//! Aliases: create, point elsewhere, delete, list.
//!
//! Owns: the fields of those operations. Knows nothing of: how names are looked up.
//!
//! Invariants
//! - A name is decided on and written under one lock, so that two calls cannot both make it.
//! - The names of the default key cannot be made, moved or deleted.

use kluis_kms::{KeyState, TenantKeyId};
use serde_json::{Value, json};

use super::call::{Accept, Call, Target, absent_alias};
use super::error::{Answer, KmsError, invalid};
use super::fields::Length;
use super::names::{
    ALIAS_CHARS_MAX, ALIAS_PREFIX, DEFAULT_ALIASES, RESERVED_ALIAS_PREFIX, alias_entry,
    alias_of_entry, is_alias_char, uuid,
};
use super::page::Page;
use super::reply::{Reply, seconds};

/// Aliases of one tenant (AWS has 50 for each key): with their times, half of what a tenant's key
/// directory takes, so that tags, policies and grants keep the other half.
const ALIASES_MAX: usize = 1_000;

/// Where the times of an alias stand: be64 of when it was made, then of when it was moved.
fn times_entry(alias: &str) -> Vec<u8> {
    [b"at/", alias.as_bytes()].concat()
}

fn alias_name(call: &Call) -> Answer<&str> {
    let pattern = (is_alias_char as fn(char) -> bool, "^[a-zA-Z0-9:/_-]+$");
    let name = call.fields.matching("AliasName", Length::up_to(ALIAS_CHARS_MAX), pattern)?;
    name.ok_or_else(|| super::fields::missing("AliasName"))
}

/// `CreateAlias`.
pub(super) fn create(call: &Call) -> Answer<Reply> {
    let alias = alias_name(call)?;
    check_own(alias)?;
    let target = call.target("TargetKeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    target.check_not_pending_deletion()?;
    let _edit = call.api.directory.lock(call.user.tenant);
    if live_target(call, alias).is_some() {
        let arn = call.names().alias_arn(alias);
        let message = format!("An alias with the name {arn} already exists");
        return Err(KmsError::new("AlreadyExistsException", message));
    }
    if call.api.kms.entry_values(call.user.tenant, b"a/").len() >= ALIASES_MAX {
        let message = format!("An account has at most {ALIASES_MAX} aliases.");
        return Err(KmsError::new("LimitExceededException", message));
    }
    let now_ms = call.api.env.clock.now_ms();
    write(call, alias, &target, (now_ms, now_ms))?;
    Ok(Reply::default())
}

/// `UpdateAlias`.
pub(super) fn update(call: &Call) -> Answer<Reply> {
    let alias = alias_name(call)?;
    check_own(alias)?;
    let target = call.target("TargetKeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    let _edit = call.api.directory.lock(call.user.tenant);
    // AWS asks for the right to the key that loses the alias, too.
    authorised(call, alias)?;
    target.check_not_pending_deletion()?;
    let now_ms = call.api.env.clock.now_ms();
    let (made_ms, _) = times(call, alias).unwrap_or((now_ms, now_ms));
    write(call, alias, &target, (made_ms, now_ms))?;
    Ok(Reply::default())
}

/// `DeleteAlias`.
pub(super) fn delete(call: &Call) -> Answer<Reply> {
    let alias = alias_name(call)?;
    check_own(alias)?;
    let _edit = call.api.directory.lock(call.user.tenant);
    let before = authorised(call, alias)?;
    let changes = vec![(alias_entry(alias), None), (times_entry(alias), None)];
    call.set_entries(Some(&before), changes)?;
    Ok(Reply::default())
}

/// `ListAliases`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let page = Page::of("ListAliases", &call.fields)?;
    let wanted = call.optional_target("KeyId", Accept::Ids)?;
    call.authorise(wanted.as_ref())?;
    let (kms, tenant) = (&call.api.kms, call.user.tenant);
    let mut found: Vec<(String, TenantKeyId)> = Vec::new();
    for (entry, _) in kms.entry_values(tenant, b"a/") {
        let Some(alias) = alias_of_entry(&entry) else { continue };
        if let Some(target) = live_target(call, &alias) {
            found.push((alias, target.id()));
        }
    }
    for alias in DEFAULT_ALIASES {
        if let Some(target) = live_target(call, alias) {
            found.push((alias.to_owned(), target.id()));
        }
    }
    found.sort_unstable();
    let shown = found.into_iter().filter(|(_, id)| wanted.as_ref().is_none_or(|it| it.id() == *id));
    let items = shown.map(|(alias, id)| (alias.clone().into_bytes(), entry_of(call, &alias, id)));
    Ok(page.cut("Aliases", items).into())
}

fn entry_of(call: &Call, alias: &str, id: TenantKeyId) -> Value {
    let made_with_key = || {
        let info = call.api.kms.describe(call.user.tenant, id).ok()?;
        Some((info.created_ms, info.created_ms))
    };
    let (made_ms, moved_ms) = times(call, alias).or_else(made_with_key).unwrap_or_default();
    json!({
        "AliasName": alias,
        "AliasArn": call.names().alias_arn(alias),
        "TargetKeyId": uuid(id),
        "CreationDate": seconds(made_ms),
        "LastUpdatedDate": seconds(moved_ms),
    })
}

/// Refuses a name that no tenant's own alias can have.
fn check_own(alias: &str) -> Answer<()> {
    if alias.strip_prefix(ALIAS_PREFIX).is_none_or(str::is_empty) {
        return Err(invalid(format!(
            "Invalid identifier: an alias begins with '{ALIAS_PREFIX}' and has a name after it."
        )));
    }
    if alias.starts_with(RESERVED_ALIAS_PREFIX) || DEFAULT_ALIASES.contains(&alias) {
        let message = format!("{alias} is reserved.");
        return Err(KmsError::new("InvalidAliasNameException", message));
    }
    Ok(())
}

/// The key that an alias names now. One whose key is destroyed names nothing.
fn live_target(call: &Call, alias: &str) -> Option<Target> {
    let names = call.names();
    let info = call.api.kms.describe(call.user.tenant, names.target_of(alias)?).ok()?;
    (info.state != KeyState::Destroyed).then(|| call.target_of(info))
}

/// The key that an alias names, if the caller may do the operation to it; whoever may do it to no
/// key at all is not told that there is no such alias.
fn authorised(call: &Call, alias: &str) -> Answer<Target> {
    let target = live_target(call, alias);
    call.authorise(target.as_ref())?;
    target.ok_or_else(|| absent_alias(&call.names().alias_arn(alias)))
}

fn times(call: &Call, alias: &str) -> Option<(u64, u64)> {
    let value = call.api.kms.entry_value(call.user.tenant, &times_entry(alias))?;
    let (made, moved) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*made), u64::from_be_bytes(moved.try_into().ok()?)))
}

fn write(call: &Call, alias: &str, target: &Target, (made, moved): (u64, u64)) -> Answer<()> {
    let times = [made.to_be_bytes(), moved.to_be_bytes()].concat();
    let changes = vec![
        (alias_entry(alias), Some(target.id().as_bytes().to_vec())),
        (times_entry(alias), Some(times)),
    ];
    call.set_entries(Some(target), changes)
}
