//! Policies over a key directory in memory, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kluis_kms::env::{Env, ManualClock, SeededRng};
use kluis_kms::{Error, ErrorKind, Purpose, RequestId, TenantId, TenantKeyId};
use kluis_storage::UserId;

use super::directory::{Changes, KeyDirectory, Value};
use super::{Asker, KeyPolicies, KmsRequestContext};
use crate::auth::{AccountId, User};

/// 2026-11-24T10:00:00Z.
pub(crate) const NOW_MS: u64 = 1_795_514_400_000;
/// The account of the first tenant.
pub(crate) const ACCOUNT: &str = "111122223333";

/// A key directory in memory.
#[derive(Default)]
pub(crate) struct MemoryDirectory {
    keys: Mutex<BTreeSet<(TenantId, TenantKeyId)>>,
    values: Mutex<BTreeMap<(TenantId, Vec<u8>), Value>>,
    reads: AtomicUsize,
    is_broken: Mutex<bool>,
    purposes: Mutex<Vec<Purpose>>,
}

impl MemoryDirectory {
    /// Makes a key known.
    pub(crate) fn add_key(&self, tenant: TenantId, id: TenantKeyId) {
        self.keys.lock().unwrap().insert((tenant, id));
    }

    pub(crate) fn put(&self, tenant: TenantId, name: &str, value: &[u8]) {
        self.values.lock().unwrap().insert((tenant, name.as_bytes().to_vec()), value.into());
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// From now on nothing can be written.
    pub(crate) fn break_disk(&self) {
        *self.is_broken.lock().unwrap() = true;
    }

    /// Every change's purpose.
    pub(crate) fn purposes(&self) -> Vec<Purpose> {
        self.purposes.lock().unwrap().clone()
    }

    /// All names of a tenant's entries.
    pub(crate) fn names(&self, tenant: TenantId) -> Vec<String> {
        let values = self.values.lock().unwrap();
        let own = values.keys().filter(|(owner, _)| *owner == tenant);
        own.map(|(_, name)| String::from_utf8(name.clone()).unwrap()).collect()
    }
}

impl KeyDirectory for MemoryDirectory {
    fn value(&self, tenant: TenantId, name: &[u8]) -> Option<Value> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.values.lock().unwrap().get(&(tenant, name.to_vec())).cloned()
    }

    fn values(&self, tenant: TenantId, prefix: &[u8]) -> Vec<(Vec<u8>, Value)> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let values = self.values.lock().unwrap();
        let named =
            values.iter().filter(|((owner, name), _)| *owner == tenant && name.starts_with(prefix));
        named.map(|((_, name), value)| (name.clone(), Arc::clone(value))).collect()
    }

    fn set(&self, who: &Purpose, id: TenantKeyId, changes: Changes) -> kluis_kms::Result<()> {
        if *self.is_broken.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "write to a broken disk"));
        }
        if self.origin(who.tenant, id).is_none() {
            return Err(Error::new(ErrorKind::NotFound, "find a key"));
        }
        self.purposes.lock().unwrap().push(who.clone());
        let mut values = self.values.lock().unwrap();
        for (name, value) in changes {
            match value {
                Some(value) => values.insert((who.tenant, name), value.into()),
                None => values.remove(&(who.tenant, name)),
            };
        }
        Ok(())
    }

    fn origin(&self, tenant: TenantId, id: TenantKeyId) -> Option<&'static str> {
        self.keys.lock().unwrap().contains(&(tenant, id)).then_some("AWS_KMS")
    }

    fn keys(&self, tenant: TenantId) -> Vec<TenantKeyId> {
        let keys = self.keys.lock().unwrap();
        keys.iter().filter(|(owner, _)| *owner == tenant).map(|(_, id)| *id).collect()
    }
}

/// Policies over a directory in memory.
pub(crate) fn in_memory(region: &str, env: Env) -> (Arc<KeyPolicies>, Arc<MemoryDirectory>) {
    let directory = Arc::new(MemoryDirectory::default());
    let shared: Arc<dyn KeyDirectory> = directory.clone();
    (Arc::new(KeyPolicies::over(shared, region, env)), directory)
}

/// Two tenants with one key each; the first has the users ann and bob beside root.
pub(crate) struct World {
    pub(crate) policies: Arc<KeyPolicies>,
    pub(crate) directory: Arc<MemoryDirectory>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) root: User,
    pub(crate) ann: User,
    pub(crate) bob: User,
    pub(crate) stranger: User,
    pub(crate) id: TenantKeyId,
    pub(crate) strange_id: TenantKeyId,
}

/// A user of a tenant whose id is this byte 16 times.
pub(crate) fn user(tenant: u8, account: &str, name: &str) -> User {
    let id = name.bytes().fold(0, u8::wrapping_add);
    User {
        tenant: TenantId::from_bytes([tenant; 16]),
        account_id: AccountId::parse(account.as_bytes()).unwrap(),
        user: UserId::from_bytes([id; 16]),
        name: name.into(),
        is_root: name == "root",
        access_key_id: "AKIAEXAMPLE".into(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let env = Env { clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        let root = user(1, ACCOUNT, "root");
        let stranger = user(2, "444455556666", "root");
        let (id, strange_id) =
            (TenantKeyId::from_bytes([0x1a; 16]), TenantKeyId::from_bytes([0x2b; 16]));
        let (policies, directory) = in_memory("eu-west-1", env);
        directory.add_key(root.tenant, id);
        directory.add_key(stranger.tenant, strange_id);
        Self {
            policies,
            directory,
            clock,
            root,
            ann: user(1, ACCOUNT, "ann"),
            bob: user(1, ACCOUNT, "bob"),
            stranger,
            id,
            strange_id,
        }
    }

    /// Adds a key to the first tenant.
    pub(crate) fn add_key(&self, byte: u8) -> TenantKeyId {
        let id = TenantKeyId::from_bytes([byte; 16]);
        self.directory.add_key(self.root.tenant, id);
        id
    }

    /// Whether a user may do something to the first tenant's key, without more.
    pub(crate) fn may(&self, user: &User, action: &str) -> bool {
        self.may_with(user, action, &KmsRequestContext::default())
    }

    /// Whether a user may do something to the first tenant's key.
    pub(crate) fn may_with(&self, user: &User, action: &str, request: &KmsRequestContext) -> bool {
        self.policies.authorise(user, action, Some(self.id), request).is_ok()
    }

    /// Replaces the key's policy as root, whatever it says.
    #[track_caller]
    pub(crate) fn put(&self, text: &str) {
        with(&self.root, |asker| self.policies.put_policy(asker, self.id, (text, true))).unwrap();
    }
}

/// Calls a verb as a user, in a request that brings nothing along.
pub(crate) fn with<T>(user: &User, call: impl FnOnce(Asker<'_>) -> T) -> T {
    with_request(user, &KmsRequestContext::default(), call)
}

/// Calls a verb as a user.
pub(crate) fn with_request<T>(
    user: &User,
    request: &KmsRequestContext,
    call: impl FnOnce(Asker<'_>) -> T,
) -> T {
    let request_id = RequestId::from("R");
    call(Asker { user, request_id: &request_id, request, is_dry_run: false })
}

/// An encryption context.
pub(crate) fn context(pairs: &[(&str, &str)]) -> KmsRequestContext {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    KmsRequestContext { context: pairs.collect(), ..KmsRequestContext::default() }
}
