//! Making, showing and changing tenants, users and access keys.
//!
//! Owns: names and their rules, the rows that one change touches. Knows nothing of: namespaces and
//! tenant keys; the caller makes those first, under the id from [`Directory::reserve_tenant_id`],
//! so that a tenant that can be seen can be used.
//!
//! Invariants
//! - A secret access key leaves in the answer of the call that makes it, and never again.
//! - Names are unique by a condition in the commit that takes them, not by looking first.

use kluis_kms::TenantId;
use kluis_kms::env::{Rng, random_array};
use kluis_storage::{ErrorKind, RegistryChange, RegistryCondition, UserId};
use zeroize::Zeroizing;

use super::rows::{self, AccessKeyRow, State, TenantRow, UserRow};
use super::{Directory, DirectoryError, DirectoryErrorKind, secret_aad, user_row_key};
use crate::auth::AccountId;

/// The longest name of a tenant or user (AWS IAM: 64 characters).
const NAME_BYTES_MAX: usize = 64;
/// The name of a tenant's first user.
const ROOT_USER: &str = "root";
/// Tenants made in one commit: about 1,800 rows, well under a megabyte, and one flush of the disk.
const TENANTS_PER_COMMIT: usize = 256;
/// Access keys that one user may have in force.
const ACCESS_KEYS_PER_USER_MAX: usize = 64;
/// How often a commit is tried again after it lost a race or met a random id twice.
const ATTEMPTS_MAX: u32 = 8;

/// A secret access key in clear. Wiped when dropped; has no `Debug`.
#[derive(Clone)]
pub(crate) struct SecretAccessKey(Zeroizing<String>);

impl SecretAccessKey {
    /// The secret, to be shown once to its owner.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// 40 characters of the alphabet that AWS uses, 240 random bits.
    fn random(rng: &dyn Rng) -> Self {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bytes = Zeroizing::new(random_array::<40>(rng));
        let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
        for byte in bytes.iter() {
            text.push(character(ALPHABET, *byte));
        }
        Self(text)
    }
}

/// The character that the low bits of a random byte name.
fn character<const N: usize>(alphabet: &[u8; N], random: u8) -> char {
    char::from(alphabet.get(usize::from(random) % N).copied().unwrap_or(b'A'))
}

/// `AKIA` and 16 characters of base32, 80 random bits.
fn random_access_key_id(rng: &dyn Rng) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = random_array::<16>(rng);
    let tail = random.iter().map(|byte| character(ALPHABET, *byte));
    "AKIA".chars().chain(tail).collect()
}

fn random_account_id(rng: &dyn Rng) -> Option<AccountId> {
    let random = u64::from_be_bytes(random_array(rng));
    AccountId::from_number(100_000_000_000 + random % 900_000_000_000)
}

/// A tenant that was just made, with the only sight of its first secret.
pub(crate) struct NewTenant {
    pub(crate) tenant_id: TenantId,
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: SecretAccessKey,
}

/// An access key that was just made, with the only sight of its secret.
pub(crate) struct NewAccessKey {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: SecretAccessKey,
}

/// A tenant as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantInfo {
    pub(crate) tenant_id: TenantId,
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) is_suspended: bool,
}

/// A user as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserInfo {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) is_root: bool,
    pub(crate) created_ms: u64,
}

/// An access key as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessKeyInfo {
    pub(crate) access_key_id: String,
    pub(crate) created_ms: u64,
    pub(crate) is_active: bool,
}

/// The rows of one commit.
#[derive(Default)]
struct Commit {
    conditions: Vec<RegistryCondition>,
    changes: Vec<RegistryChange>,
}

impl Commit {
    /// A row that must not be there yet.
    fn create(&mut self, table: u8, row_key: &[u8], value: Vec<u8>) {
        self.replace(table, row_key, None, value);
    }

    /// A row that must be as it was read.
    fn replace(&mut self, table: u8, row_key: &[u8], expected: Option<Vec<u8>>, value: Vec<u8>) {
        let condition = RegistryCondition { table, row_key: row_key.to_vec(), expected };
        self.conditions.push(condition);
        self.changes.push(RegistryChange { table, row_key: row_key.to_vec(), value: Some(value) });
    }
}

/// A user whose access key is being made.
#[derive(Clone, Copy)]
struct Owner {
    tenant: TenantId,
    user: UserId,
    now_ms: u64,
}

fn check_name(name: &str, what: &str) -> Result<(), DirectoryError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain) {
        return Ok(());
    }
    let text = format!(
        "the name of a {what} has 1 to {NAME_BYTES_MAX} characters of a-z, A-Z, 0-9 and +=,.@_- \
         and begins with a letter or digit"
    );
    Err(DirectoryError::new(DirectoryErrorKind::Invalid, text))
}

impl Directory {
    /// An id for a tenant to be. Make its namespace and key under it, then call
    /// [`Self::create_tenants`].
    pub(crate) fn reserve_tenant_id(&self) -> TenantId {
        TenantId::random(&*self.env().rng)
    }

    /// Refuses names of tenants to be that break the rules or are taken, before a namespace is made
    /// for them. Another call may still take a name afterwards; [`Self::create_tenants`] decides.
    pub(crate) fn check_tenant_names(&self, names: &[String]) -> Result<(), DirectoryError> {
        for name in names {
            check_name(name, "tenant")?;
            if self.rows().get(rows::TENANT_NAMES, name.as_bytes())?.is_some() {
                return Err(DirectoryError::exists("tenant", name));
            }
        }
        Ok(())
    }

    /// Makes tenants, each with its user `root` and one access key, a few hundred to a commit. If a
    /// name is taken or breaks the rules, nothing is made of its group and those after it; the
    /// groups before it stand.
    pub(crate) async fn create_tenants(
        &self,
        tenants: &[(TenantId, String)],
    ) -> Result<Vec<NewTenant>, DirectoryError> {
        for (_, name) in tenants {
            check_name(name, "tenant")?;
        }
        let mut made = Vec::with_capacity(tenants.len());
        for group in tenants.chunks(TENANTS_PER_COMMIT) {
            made.extend(self.create_group(group).await?);
        }
        Ok(made)
    }

    async fn create_group(
        &self,
        group: &[(TenantId, String)],
    ) -> Result<Vec<NewTenant>, DirectoryError> {
        for _ in 0..ATTEMPTS_MAX {
            for (index, (tenant, name)) in group.iter().enumerate() {
                let twice = group.iter().take(index).any(|(_, other)| other == name);
                let row = self.rows().get(rows::TENANT_NAMES, name.as_bytes())?;
                if twice || row.is_some() {
                    return Err(DirectoryError::exists("tenant", name));
                }
                if self.rows().get(rows::TENANTS, tenant.as_bytes())?.is_some() {
                    return Err(DirectoryError::exists("tenant id", &tenant.to_string()));
                }
            }
            let mut commit = Commit::default();
            let made: Result<Vec<NewTenant>, DirectoryError> = group
                .iter()
                .map(|(tenant, name)| self.add_tenant(&mut commit, *tenant, name))
                .collect();
            let made = made?;
            if self.try_commit(commit).await? {
                return Ok(made);
            }
        }
        Err(DirectoryError::new(DirectoryErrorKind::Unavailable, "make tenants: too many races"))
    }

    fn add_tenant(
        &self,
        commit: &mut Commit,
        tenant: TenantId,
        name: &str,
    ) -> Result<NewTenant, DirectoryError> {
        let now_ms = self.env().clock.now_ms();
        let account_id = random_account_id(&*self.env().rng)
            .ok_or_else(|| DirectoryError::broken("account id"))?;
        let row = TenantRow {
            state: State::Active,
            created_ms: now_ms,
            account_id,
            name: name.to_owned(),
        };
        commit.create(rows::TENANTS, tenant.as_bytes(), row.encode());
        commit.create(rows::TENANT_NAMES, name.as_bytes(), rows::encode_id(tenant.as_bytes()));
        commit.create(rows::ACCOUNTS, account_id.as_bytes(), rows::encode_id(tenant.as_bytes()));
        let user = UserId::random(&*self.env().rng);
        let root = UserRow { is_root: true, created_ms: now_ms, name: ROOT_USER.to_owned() };
        add_user(commit, tenant, user, &root);
        let access = self.add_access_key(commit, Owner { tenant, user, now_ms })?;
        Ok(NewTenant {
            tenant_id: tenant,
            account_id,
            name: name.to_owned(),
            access_key_id: access.access_key_id,
            secret_access_key: access.secret_access_key,
        })
    }

    fn add_access_key(
        &self,
        commit: &mut Commit,
        owner: Owner,
    ) -> Result<NewAccessKey, DirectoryError> {
        let Owner { tenant, user, now_ms } = owner;
        let access_key_id = random_access_key_id(&*self.env().rng);
        let secret_access_key = SecretAccessKey::random(&*self.env().rng);
        let aad = secret_aad(tenant, user, &access_key_id)?;
        let secret = secret_access_key.expose().as_bytes();
        let sealed_secret = self.shared.kms.seal_credential(tenant, &aad, secret)?;
        let row =
            AccessKeyRow { state: State::Active, created_ms: now_ms, tenant, user, sealed_secret };
        commit.create(rows::ACCESS_KEYS, access_key_id.as_bytes(), row.encode());
        let index = [&user_row_key(tenant, user), access_key_id.as_bytes()].concat();
        commit.create(rows::USER_ACCESS_KEYS, &index, rows::encode_mark());
        Ok(NewAccessKey { access_key_id, secret_access_key })
    }

    /// Commits; `false` if a condition failed.
    async fn try_commit(&self, commit: Commit) -> Result<bool, DirectoryError> {
        match self.rows().commit(commit.conditions, commit.changes).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Up to `limit` tenants, by name, after the name `after`.
    pub(crate) fn list_tenants(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TenantInfo>, DirectoryError> {
        let after = after.map(str::as_bytes);
        let found = self.rows().scan(rows::TENANT_NAMES, b"", after, limit)?;
        found
            .iter()
            .map(|(_, value)| {
                let id =
                    rows::decode_id(value).ok_or_else(|| DirectoryError::broken("tenant name"))?;
                self.tenant_info(TenantId::from_bytes(id))
            })
            .collect()
    }

    /// The tenant of this name.
    pub(crate) fn show(&self, tenant_name: &str) -> Result<TenantInfo, DirectoryError> {
        self.tenant_info(self.tenant_id(tenant_name)?)
    }

    fn tenant_info(&self, tenant_id: TenantId) -> Result<TenantInfo, DirectoryError> {
        let row = self.tenant_row(tenant_id)?;
        Ok(TenantInfo {
            tenant_id,
            account_id: row.account_id,
            name: row.name,
            created_ms: row.created_ms,
            is_suspended: row.state != State::Active,
        })
    }

    fn tenant_id(&self, name: &str) -> Result<TenantId, DirectoryError> {
        let not_found = || DirectoryError::not_found("tenant", name);
        check_name(name, "tenant").map_err(|_| not_found())?;
        let value = self.rows().get(rows::TENANT_NAMES, name.as_bytes())?.ok_or_else(not_found)?;
        let id = rows::decode_id(&value).ok_or_else(|| DirectoryError::broken("tenant name"))?;
        Ok(TenantId::from_bytes(id))
    }

    /// Refuses every request of the tenant from now on.
    pub(crate) async fn suspend(&self, tenant_name: &str) -> Result<(), DirectoryError> {
        self.set_state(tenant_name, State::Off).await
    }

    /// Ends [`Self::suspend`].
    pub(crate) async fn resume(&self, tenant_name: &str) -> Result<(), DirectoryError> {
        self.set_state(tenant_name, State::Active).await
    }

    async fn set_state(&self, tenant_name: &str, state: State) -> Result<(), DirectoryError> {
        let tenant = self.tenant_id(tenant_name)?;
        for _ in 0..ATTEMPTS_MAX {
            let mut row = self.tenant_row(tenant)?;
            let before = row.encode();
            row.state = state;
            let mut commit = Commit::default();
            commit.replace(rows::TENANTS, tenant.as_bytes(), Some(before), row.encode());
            let done = self.try_commit(commit).await;
            // Also after an error: it may have been committed all the same.
            self.shared.credentials.forget_all();
            if done? {
                return Ok(());
            }
        }
        Err(DirectoryError::new(DirectoryErrorKind::Unavailable, "change a tenant: too many races"))
    }

    /// Makes a user without an access key.
    pub(crate) async fn create_user(
        &self,
        tenant_name: &str,
        user_name: &str,
    ) -> Result<UserInfo, DirectoryError> {
        check_name(user_name, "user")?;
        let tenant = self.tenant_id(tenant_name)?;
        let user = UserId::random(&*self.env().rng);
        let created_ms = self.env().clock.now_ms();
        let row = UserRow { is_root: false, created_ms, name: user_name.to_owned() };
        let mut commit = Commit::default();
        add_user(&mut commit, tenant, user, &row);
        if self.try_commit(commit).await? {
            Ok(UserInfo { user, name: row.name, is_root: false, created_ms })
        } else {
            Err(DirectoryError::exists("user", user_name))
        }
    }

    /// Up to `limit` users of a tenant, by name, after the name `after`.
    pub(crate) fn list_users(
        &self,
        tenant_name: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<UserInfo>, DirectoryError> {
        let tenant = self.tenant_id(tenant_name)?;
        let prefix = tenant.as_bytes().as_slice();
        let after = after.map(|after| [prefix, after.as_bytes()].concat());
        let found = self.rows().scan(rows::USER_NAMES, prefix, after.as_deref(), limit)?;
        found
            .iter()
            .map(|(_, value)| {
                let id =
                    rows::decode_id(value).ok_or_else(|| DirectoryError::broken("user name"))?;
                let user = UserId::from_bytes(id);
                let row = self.user_row(tenant, user)?;
                let UserRow { is_root, created_ms, name } = row;
                Ok(UserInfo { user, name, is_root, created_ms })
            })
            .collect()
    }

    fn user_id(&self, tenant: TenantId, user_name: &str) -> Result<UserId, DirectoryError> {
        let not_found = || DirectoryError::not_found("user", user_name);
        check_name(user_name, "user").map_err(|_| not_found())?;
        let row_key = [tenant.as_bytes(), user_name.as_bytes()].concat();
        let value = self.rows().get(rows::USER_NAMES, &row_key)?.ok_or_else(not_found)?;
        let id = rows::decode_id(&value).ok_or_else(|| DirectoryError::broken("user name"))?;
        Ok(UserId::from_bytes(id))
    }

    /// Makes an access key for a user.
    pub(crate) async fn create_access_key(
        &self,
        tenant_name: &str,
        user_name: &str,
    ) -> Result<NewAccessKey, DirectoryError> {
        let tenant = self.tenant_id(tenant_name)?;
        let user = self.user_id(tenant, user_name)?;
        let in_force = self.access_keys_of(tenant, user)?;
        if in_force.iter().filter(|info| info.is_active).count() >= ACCESS_KEYS_PER_USER_MAX {
            let text =
                format!("a user has at most {ACCESS_KEYS_PER_USER_MAX} access keys in force");
            return Err(DirectoryError::new(DirectoryErrorKind::Invalid, text));
        }
        let now_ms = self.env().clock.now_ms();
        for _ in 0..ATTEMPTS_MAX {
            let mut commit = Commit::default();
            let made = self.add_access_key(&mut commit, Owner { tenant, user, now_ms })?;
            if self.try_commit(commit).await? {
                return Ok(made);
            }
        }
        Err(DirectoryError::new(DirectoryErrorKind::Unavailable, "make an access key: no free id"))
    }

    /// The access keys of a user, revoked ones too, by id.
    pub(crate) fn list_access_keys(
        &self,
        tenant_name: &str,
        user_name: &str,
    ) -> Result<Vec<AccessKeyInfo>, DirectoryError> {
        let tenant = self.tenant_id(tenant_name)?;
        self.access_keys_of(tenant, self.user_id(tenant, user_name)?)
    }

    fn access_keys_of(
        &self,
        tenant: TenantId,
        user: UserId,
    ) -> Result<Vec<AccessKeyInfo>, DirectoryError> {
        let prefix = user_row_key(tenant, user);
        let found = self.rows().scan(rows::USER_ACCESS_KEYS, &prefix, None, usize::MAX)?;
        let info = |row_key: &[u8]| {
            let broken = || DirectoryError::broken("access key");
            let id = row_key.get(prefix.len()..).ok_or_else(broken)?;
            let access_key_id = String::from_utf8(id.to_vec()).map_err(|_| broken())?;
            let value = self.rows().get(rows::ACCESS_KEYS, id)?.ok_or_else(broken)?;
            let row = AccessKeyRow::decode(&value).ok_or_else(broken)?;
            let is_active = row.state == State::Active;
            Ok(AccessKeyInfo { access_key_id, created_ms: row.created_ms, is_active })
        };
        found.iter().map(|(row_key, _)| info(row_key)).collect()
    }

    /// Refuses every request signed with this access key from now on, and erases its secret. There
    /// is no way back.
    pub(crate) async fn revoke_access_key(
        &self,
        access_key_id: &str,
    ) -> Result<(), DirectoryError> {
        let not_found = || DirectoryError::not_found("access key", access_key_id);
        for _ in 0..ATTEMPTS_MAX {
            let row_key = access_key_id.as_bytes();
            let before = self.rows().get(rows::ACCESS_KEYS, row_key)?.ok_or_else(not_found)?;
            let mut row = AccessKeyRow::decode(&before)
                .ok_or_else(|| DirectoryError::broken("access key"))?;
            row.state = State::Off;
            row.sealed_secret.clear();
            let mut commit = Commit::default();
            commit.replace(rows::ACCESS_KEYS, row_key, Some(before), row.encode());
            let done = self.try_commit(commit).await;
            self.shared.credentials.forget(access_key_id);
            if done? {
                return Ok(());
            }
        }
        let text = "revoke an access key: too many races";
        Err(DirectoryError::new(DirectoryErrorKind::Unavailable, text))
    }
}

fn add_user(commit: &mut Commit, tenant: TenantId, user: UserId, row: &UserRow) {
    commit.create(rows::USERS, &user_row_key(tenant, user), row.encode());
    let named = [tenant.as_bytes(), row.name.as_bytes()].concat();
    commit.create(rows::USER_NAMES, &named, rows::encode_id(user.as_bytes()));
}
