//! A registry in memory and a directory over it, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kluis_kms::env::{Env, ManualClock, SeededRng};
use kluis_kms::{Kms, MemoryStore, TenantId};
use kluis_storage::{Error, ErrorKind, RegistryChange, RegistryCondition, UserId};

use super::rows::{self, AccessKeyRow, CommitFuture, RowStore, Rows, State};
use super::{Directory, secret_aad};
use crate::auth::testing::wait;

/// Table and row key.
type Place = (u8, Vec<u8>);

/// Rows in memory. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct MemoryRows {
    rows: Arc<Mutex<BTreeMap<Place, Vec<u8>>>>,
    commits: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl MemoryRows {
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, table: u8, row_key: &[u8], value: Vec<u8>) {
        self.rows.lock().unwrap().insert((table, row_key.to_vec()), value);
    }

    pub(crate) fn dump(&self) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        let rows = self.rows.lock().unwrap();
        rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone())).collect()
    }
}

impl RowStore for MemoryRows {
    fn get(&self, table: u8, row_key: &[u8]) -> kluis_storage::Result<Option<Vec<u8>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.rows.lock().unwrap().get(&(table, row_key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: u8,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> kluis_storage::Result<Rows> {
        let rows = self.rows.lock().unwrap();
        let from = (table, prefix.to_vec());
        Ok(rows
            .range(from..)
            .take_while(|((t, row_key), _)| *t == table && row_key.starts_with(prefix))
            .filter(|((_, row_key), _)| after.is_none_or(|after| row_key.as_slice() > after))
            .take(limit)
            .map(|((_, row_key), value)| (row_key.clone(), value.clone()))
            .collect())
    }

    fn commit(
        &self,
        conditions: Vec<RegistryCondition>,
        changes: Vec<RegistryChange>,
    ) -> CommitFuture<'_> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap();
            for condition in conditions {
                if rows.get(&(condition.table, condition.row_key)) != condition.expected.as_ref() {
                    return Err(Error::new(ErrorKind::Conflict, "commit registry rows"));
                }
            }
            for change in changes {
                let row_key = (change.table, change.row_key);
                match change.value {
                    Some(value) => rows.insert(row_key, value),
                    None => rows.remove(&row_key),
                };
            }
            self.commits.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}

/// A directory with a root key of its own.
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) rows: MemoryRows,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) kms: Arc<Kms>,
    env: Env,
    _dir: tempfile::TempDir,
}

impl World {
    /// An empty directory whose clock stands at `now_ms`.
    pub(crate) fn new(now_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(now_ms));
        let rng = Arc::new(SeededRng::new(7));
        let env = Env { clock: clock.clone(), rng: rng.clone() };
        let store = MemoryStore::new(rng).unwrap();
        let kms = Arc::new(Kms::create(dir.path(), &store, env.clone()).unwrap());
        let rows = MemoryRows::default();
        let directory = Directory::over(Box::new(rows.clone()), Arc::clone(&kms), env.clone());
        Self { directory, rows, clock, kms, env, _dir: dir }
    }

    /// The directory as another process would open it.
    pub(crate) fn reopened(&self) -> Directory {
        Directory::over(Box::new(self.rows.clone()), Arc::clone(&self.kms), self.env.clone())
    }

    /// Makes a tenant.
    pub(crate) fn tenant(&self, name: &str) -> super::NewTenant {
        let id = self.directory.reserve_tenant_id();
        self.create(id, name).unwrap()
    }

    /// Makes a tenant, or not.
    pub(crate) fn create(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<super::NewTenant, super::DirectoryError> {
        let mut made = wait(self.directory.create_tenants(&[(tenant, name.to_owned())]))?;
        Ok(made.remove(0))
    }

    /// Gives the root user of `tenant` an access key with a known id and secret.
    pub(crate) fn known_access_key(&self, tenant: TenantId, access_key_id: &str, secret: &str) {
        let users = self.rows.scan(rows::USER_NAMES, tenant.as_bytes(), None, 1).unwrap();
        let user = UserId::from_bytes(rows::decode_id(&users[0].1).unwrap());
        let aad = secret_aad(tenant, user, access_key_id).unwrap();
        let sealed_secret = self.kms.seal_credential(tenant, &aad, secret.as_bytes()).unwrap();
        let row = AccessKeyRow { state: State::Active, created_ms: 0, tenant, user, sealed_secret };
        self.rows.set(rows::ACCESS_KEYS, access_key_id.as_bytes(), row.encode());
    }
}
