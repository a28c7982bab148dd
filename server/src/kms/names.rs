//! Names of keys: ids, aliases, and the ARNs of both.
//!
//! Owns: their forms, and which name means which key of a tenant. Knows nothing of: calls, rights.
//!
//! Invariants
//! - Nothing is looked up outside the tenant; an ARN of another account or region names no key.
//! - `alias/kluis/default` and `alias/aws/s3` name the tenant's default key and nothing else; they
//!   are not stored.

use kluis_kms::{KeyState, Kms, TenantId, TenantKeyId, TenantKeyInfo};

use crate::auth::AccountId;

/// What every alias begins with.
pub(crate) const ALIAS_PREFIX: &str = "alias/";
/// What AWS keeps for itself; nobody makes aliases that begin so.
pub(crate) const RESERVED_ALIAS_PREFIX: &str = "alias/aws/";
/// The names of a tenant's default key.
pub(crate) const DEFAULT_ALIASES: [&str; 2] = ["alias/aws/s3", "alias/kluis/default"];

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// The node's keys.
    pub(crate) kms: &'a Kms,
    /// The node's region.
    pub(crate) region: &'a str,
    /// Whose names.
    pub(crate) tenant: TenantId,
    /// The tenant's account id.
    pub(crate) account: AccountId,
}

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// An alias, with its prefix.
    Alias(String),
    /// A key, by id.
    Id(TenantKeyId),
    /// Something that no key of this tenant can be called.
    Nothing,
    /// It begins as an ARN does and is none of a key or an alias.
    NoArn,
}

impl Names<'_> {
    /// Reads a name without looking it up.
    pub(crate) fn read(&self, text: &str) -> Named {
        if !text.starts_with("arn:") {
            return bare(text);
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [_, "aws", "kms", region, account, resource] = *parts.as_slice() else {
            return Named::NoArn;
        };
        let named = match resource.strip_prefix("key/") {
            Some(id) => bare_id(id),
            None if resource.starts_with(ALIAS_PREFIX) => bare(resource),
            None => return Named::NoArn,
        };
        let is_ours = region == self.region && account == self.account.to_string();
        if is_ours { named } else { Named::Nothing }
    }

    /// The key that a name means, whatever its state but destroyed.
    pub(crate) fn find(&self, named: &Named) -> Option<TenantKeyInfo> {
        let info = self.find_any(named)?;
        (info.state != KeyState::Destroyed).then_some(info)
    }

    /// The key that a name means, even if it is destroyed.
    pub(crate) fn find_any(&self, named: &Named) -> Option<TenantKeyInfo> {
        let id = match named {
            Named::Alias(name) => self.target_of(name)?,
            Named::Id(id) => *id,
            Named::NoArn | Named::Nothing => return None,
        };
        self.kms.describe(self.tenant, id).ok()
    }

    /// The key that an alias names, prefix included.
    pub(crate) fn target_of(&self, alias: &str) -> Option<TenantKeyId> {
        if DEFAULT_ALIASES.contains(&alias) {
            return self.kms.default_tenant_key(self.tenant).ok();
        }
        let value = self.kms.entry_value(self.tenant, &alias_entry(alias))?;
        let id: [u8; 16] = value.get(..16)?.try_into().ok()?;
        Some(TenantKeyId::from_bytes(id))
    }

    /// The ARN of a key of this tenant.
    pub(crate) fn key_arn(&self, id: TenantKeyId) -> String {
        format!("arn:aws:kms:{}:{}:key/{}", self.region, self.account, uuid(id))
    }

    /// The ARN of an alias of this tenant, prefix included.
    pub(crate) fn alias_arn(&self, alias: &str) -> String {
        format!("arn:aws:kms:{}:{}:{alias}", self.region, self.account)
    }
}

/// The place of an alias in the tenant's key directory; the value is the id of its key.
pub(crate) fn alias_entry(alias: &str) -> Vec<u8> {
    let name = alias.strip_prefix(ALIAS_PREFIX).unwrap_or(alias);
    [b"a/", name.as_bytes()].concat()
}

/// The alias of a place in the directory.
pub(crate) fn alias_of_entry(entry: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(entry.strip_prefix(b"a/")?).ok()?;
    Some(format!("{ALIAS_PREFIX}{name}"))
}

/// The place of something of a key in the tenant's key directory.
pub(crate) fn key_entry(id: TenantKeyId, what: &str) -> Vec<u8> {
    format!("k/{id}/{what}").into_bytes()
}

fn bare(text: &str) -> Named {
    let is_alias = text.strip_prefix(ALIAS_PREFIX).is_some_and(|name| {
        !name.is_empty() && text.len() <= ALIAS_CHARS_MAX && name.chars().all(is_alias_char)
    });
    if is_alias { Named::Alias(text.to_owned()) } else { bare_id(text) }
}

/// The longest alias, prefix included (AWS).
pub(crate) const ALIAS_CHARS_MAX: usize = 256;

/// Whether an alias may hold a character: `^[a-zA-Z0-9:/_-]+$`.
pub(crate) fn is_alias_char(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, ':' | '/' | '_' | '-')
}

/// Reads the UUID form of an id: lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn bare_id(text: &str) -> Named {
    let is_uuid = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        });
    if !is_uuid {
        return Named::Nothing;
    }
    text.replace('-', "").parse().map_or(Named::Nothing, Named::Id)
}

/// The UUID form of an id.
pub(crate) fn uuid(id: TenantKeyId) -> String {
    let digits = id.to_string();
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}
