//! Which tenant lives where: from a tenant id to its namespace.
//!
//! Owns: the namespace rows in `sys`, the choice between a dedicated and a pooled family.
//! Knows nothing of: users, access keys, names of tenants.
//!
//! Invariants
//! - The first `dedicated_max` tenants get a family of their own; later ones share the pooled
//!   families, chosen by a hash of the tenant id. A tenant never moves by itself.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kluis_kms::{Env, TenantId};
use sha2::{Digest as _, Sha256};

use crate::commit::{Committer, Draft};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Condition, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::{MetaReader, TenantNs, blocking};
use crate::rows::NamespaceRow;
use crate::types::NsId;

/// The byte in front of every namespace row key in `sys`.
const NAMESPACE: u8 = b'N';

/// How many families there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FamilyPlan {
    pub(crate) dedicated_max: usize,
    pub(crate) pooled: u8,
}

/// Namespaces by tenant, and tenants by namespace.
#[derive(Default)]
struct Known {
    rows: HashMap<TenantId, NamespaceRow>,
    tenants: HashMap<NsId, TenantId>,
}

impl Known {
    fn extend(&mut self, rows: impl IntoIterator<Item = (TenantId, NamespaceRow)>) {
        for (tenant, row) in rows {
            self.tenants.insert(row.ns, tenant);
            self.rows.insert(tenant, row);
        }
    }
}

/// The namespaces of all tenants, in memory: 100 bytes each, so 10,000 take 1 MiB.
pub(crate) struct Tenants {
    reader: MetaReader,
    committer: Arc<Committer>,
    env: Env,
    plan: FamilyPlan,
    known: RwLock<Known>,
    /// One creation at a time: the choice of a family depends on the count.
    creating: tokio::sync::Mutex<()>,
}

impl Tenants {
    /// Reads every namespace row.
    pub(crate) async fn open(
        reader: MetaReader,
        committer: Arc<Committer>,
        env: Env,
        plan: FamilyPlan,
    ) -> Result<Self> {
        let mut known = Known::default();
        known.extend(read_rows(&reader).await?);
        let (known, creating) = (RwLock::new(known), tokio::sync::Mutex::default());
        Ok(Self { reader, committer, env, plan, known, creating })
    }

    /// The namespace of `tenant`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such tenant.
    pub(crate) fn namespace(&self, tenant: TenantId) -> Result<TenantNs> {
        let row = self.row(tenant).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("find the namespace of tenant {tenant}"))
        })?;
        Ok(TenantNs::new(self.reader.clone(), tenant, row.family, row.ns))
    }

    /// The namespace that extents are named by, if there is one with that id.
    pub(crate) fn namespace_of(&self, ns: NsId) -> Option<TenantNs> {
        let known = self.known();
        let tenant = *known.tenants.get(&ns)?;
        let row = known.rows.get(&tenant)?;
        Some(TenantNs::new(self.reader.clone(), tenant, row.family, row.ns))
    }

    /// How many tenants there are.
    pub(crate) fn count(&self) -> usize {
        self.known().rows.len()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every namespace.
    pub(crate) fn all(&self) -> Vec<TenantNs> {
        let known = self.known();
        known
            .rows
            .iter()
            .map(|(tenant, row)| TenantNs::new(self.reader.clone(), *tenant, row.family, row.ns))
            .collect()
    }

    /// Makes namespaces for those of `tenants` that have none, in one commit.
    pub(crate) async fn create(&self, tenants: &[TenantId]) -> Result<()> {
        let _one_at_a_time = self.creating.lock().await;
        let mut created = Vec::new();
        for tenant in tenants.iter().filter(|tenant| self.row(**tenant).is_none()) {
            created.push((*tenant, self.place(*tenant, self.count() + created.len()).await?));
        }
        let key = |tenant: &TenantId| RowKey {
            family: Family::Sys,
            bytes: [&[NAMESPACE], tenant.as_bytes().as_slice()].concat(),
        };
        let conditions = created
            .iter()
            .map(|(tenant, _)| Condition::RowIs { row: key(tenant), expected: None })
            .collect();
        let changes = created
            .iter()
            .map(|(tenant, row)| Change::Put { row: key(tenant), value: row.encode().into() })
            .collect();
        if let Err(error) = self.committer.commit(Draft::new(conditions, changes)).await {
            // An earlier creation may have been carried out after its caller had left.
            if error.kind() == ErrorKind::Conflict {
                let found = read_rows(&self.reader).await?;
                self.known.write().unwrap_or_else(PoisonError::into_inner).extend(found);
            }
            return Err(error);
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).extend(created);
        Ok(())
    }

    fn row(&self, tenant: TenantId) -> Option<NamespaceRow> {
        self.known().rows.get(&tenant).copied()
    }

    /// A new namespace for the tenant that comes after `before` others; makes its family.
    async fn place(&self, tenant: TenantId, before: usize) -> Result<NamespaceRow> {
        let ns = NsId::random(&*self.env.rng);
        let family = if before < self.plan.dedicated_max {
            let family = Family::Dedicated(ns);
            let store = Arc::clone(self.reader.store());
            blocking(move || store.ensure_family(family)).await?;
            family
        } else {
            let hash: [u8; 32] = Sha256::digest(tenant.as_bytes()).into();
            let [first, ..] = hash;
            Family::Pooled(first % self.plan.pooled.max(1))
        };
        Ok(NamespaceRow { ns, family, created_ms: self.env.clock.now_ms() })
    }
}

/// Every namespace row.
async fn read_rows(reader: &MetaReader) -> Result<HashMap<TenantId, NamespaceRow>> {
    let lower = vec![NAMESPACE];
    let upper = prefix_end(&lower);
    reader
        .fold(Family::Sys, lower, upper, HashMap::new(), |rows, row_key, value| {
            let id = row_key.get(1..).and_then(|id| id.first_chunk::<16>()).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "read a namespace row: its key is too short")
            })?;
            rows.insert(TenantId::from_bytes(*id), NamespaceRow::decode(value)?);
            Ok(ScanStep::Next)
        })
        .await
}
