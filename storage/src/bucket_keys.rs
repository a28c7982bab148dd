//! Bucket keys: the level between a tenant key and the data keys of a bucket.
//!
//! Owns: their rows, their cache, when a new epoch begins, and which tenant key a bucket's new
//! objects go under (decided in one function, [`BucketKeys::default_tenant_key`]).
//! Knows nothing of: objects, chunks; how a wrap is made is kms's business.
//!
//! Invariants
//! - A bucket key is used only with a permit for the tenant key it is wrapped under; the permit is
//!   asked for on every access, cached or not.
//! - A cached key belongs to one generation of the gate: after a disable it is unwrapped anew.
//! - At most [`USES_MAX`] data keys are wrapped under one epoch (keys.md §2.9: blast radius).
//!   Bytes: docs/FORMAT.md, "Rows", table K.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kluis_kms::{
    BucketKey, BucketKeyPurpose, BucketKeyScope, Env, FieldCipher, FieldName, Kms, Purpose,
    TenantKeyId, UnwrapPermit,
};

use crate::commit::{Committer, Draft};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Condition, ScanStep};
use crate::namespace::{Table, TenantNs};
use crate::rows::BucketKeyRow;
use crate::types::{BucketId, NsId, ObjectKey};

/// Data keys under one epoch of a bucket key.
const USES_MAX: u32 = 1 << 20;
/// Uses that are written down at a time, before they happen: a restart wastes at most so many.
const USES_STEP: u32 = 1 << 16;
/// How long an epoch takes new objects, in milliseconds: 30 days.
const EPOCH_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Bucket keys kept unwrapped: two slots of locked memory each, well under the limit of kms.
const CACHED_MAX: usize = 4_096;
/// Buckets whose current epoch is remembered: 40 bytes each, so 2.5 MiB. Forgetting one costs its
/// next write a commit and a part of its reservation.
const CURRENT_MAX: usize = 1 << 16;
/// Tries to begin an epoch before giving up: each failure means that somebody else began one.
const TRIES_MAX: usize = 16;

/// Both keys of one epoch of one bucket, unwrapped.
pub(crate) struct EpochKeys {
    epoch: u32,
    tenant_key: TenantKeyId,
    created_ms: u64,
    generation: u64,
    data: BucketKey,
    fields: FieldCipher,
}

/// Leave to work in one bucket under one epoch: a permit and the keys that it opened.
#[derive(Clone)]
pub(crate) struct BucketAccess {
    pub(crate) permit: Arc<UnwrapPermit>,
    keys: Arc<EpochKeys>,
}

impl BucketAccess {
    /// The bucket key that wraps data keys.
    pub(crate) fn data(&self) -> &BucketKey {
        &self.keys.data
    }

    /// The tenant key that all of it is under.
    pub(crate) fn tenant_key(&self) -> TenantKeyId {
        self.keys.tenant_key
    }

    /// Seals a metadata field; an empty value stays empty.
    pub(crate) fn seal(
        &self,
        field: &str,
        of: (&ObjectKey, &[u8; 16]),
        value: &[u8],
    ) -> Result<Vec<u8>> {
        let name = FieldName { field, object_key: of.0.as_bytes(), version: of.1 };
        Ok(self.keys.fields.seal(&self.permit, &name, value)?)
    }

    /// Opens a metadata field that was sealed under this epoch.
    pub(crate) fn open(
        &self,
        field: &str,
        of: (&ObjectKey, &[u8; 16]),
        sealed: &[u8],
    ) -> Result<impl std::ops::Deref<Target = Vec<u8>> + use<>> {
        let name = FieldName { field, object_key: of.0.as_bytes(), version: of.1 };
        Ok(self.keys.fields.open(&self.permit, &name, sealed)?)
    }
}

/// Which epoch takes a bucket's new objects, and for how many more.
#[derive(Clone, Copy)]
struct Current {
    epoch: u32,
    uses_left: u32,
}

#[derive(Default)]
struct Cache {
    epochs: HashMap<(NsId, BucketId, u32), (Arc<EpochKeys>, u64)>,
    current: HashMap<(NsId, BucketId), Current>,
    tick: u64,
}

/// The bucket keys of all tenants.
pub(crate) struct BucketKeys {
    kms: Arc<Kms>,
    env: Env,
    committer: Arc<Committer>,
    cache: Mutex<Cache>,
}

impl BucketKeys {
    pub(crate) fn new(kms: Arc<Kms>, env: Env, committer: Arc<Committer>) -> Self {
        Self { kms, env, committer, cache: Mutex::default() }
    }

    /// The tenant key that new objects of `ns` go under.
    pub(crate) fn default_tenant_key(&self, ns: &TenantNs) -> Result<TenantKeyId> {
        Ok(self.kms.default_tenant_key(ns.tenant())?)
    }

    /// Leave to write into `bucket` under its current epoch; counts as one use.
    pub(crate) async fn for_write(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
    ) -> Result<BucketAccess> {
        let tenant_key = self.default_tenant_key(ns)?;
        for _ in 0..TRIES_MAX {
            if let Some(epoch) = self.take_use(ns.ns(), bucket) {
                let access = self.for_epoch(ns, purpose, bucket, epoch).await?;
                if access.keys.tenant_key == tenant_key && !self.is_old(&access.keys) {
                    return Ok(access);
                }
            }
            match self.begin(ns, purpose, bucket, tenant_key).await {
                Ok(current) => self.take_up(ns.ns(), bucket, current),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "begin an epoch of a bucket key"))
    }

    /// Leave to read what was written into `bucket` under `epoch`.
    pub(crate) async fn for_epoch(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        epoch: u32,
    ) -> Result<BucketAccess> {
        if let Some(keys) = self.cached(ns.ns(), bucket, epoch) {
            let permit = Arc::new(self.kms.permit(purpose, keys.tenant_key)?);
            if permit.generation() == keys.generation {
                return Ok(BucketAccess { permit, keys });
            }
        }
        let data = self.row(ns, bucket, BucketKeyPurpose::Data, epoch).await?;
        let meta = self.row(ns, bucket, BucketKeyPurpose::Meta, epoch).await?;
        let permit = Arc::new(self.kms.permit(purpose, data.tenant_key)?);
        let keys = Arc::new(self.unwrap(ns, &permit, bucket, epoch, (&data, &meta))?);
        // Inside the gate, so that whoever closes it wipes these too.
        let in_flight = permit.enter()?;
        self.remember(ns.ns(), bucket, Arc::clone(&keys));
        drop(in_flight);
        Ok(BucketAccess { permit, keys })
    }

    /// Forgets a bucket that was deleted.
    pub(crate) fn forget(&self, ns: NsId, bucket: BucketId) {
        let mut cache = self.cache();
        cache.current.remove(&(ns, bucket));
        cache.epochs.retain(|(of, in_bucket, _), _| (*of, *in_bucket) != (ns, bucket));
    }

    /// Wipes what was unwrapped under a tenant key whose gate closed.
    pub(crate) fn forget_tenant_key(&self, tenant_key: TenantKeyId) {
        self.cache().epochs.retain(|_, (keys, _)| keys.tenant_key != tenant_key);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_use(&self, ns: NsId, bucket: BucketId) -> Option<u32> {
        let mut cache = self.cache();
        let current = cache.current.get_mut(&(ns, bucket))?;
        current.uses_left = current.uses_left.checked_sub(1)?;
        Some(current.epoch)
    }

    fn take_up(&self, ns: NsId, bucket: BucketId, current: Current) {
        let mut cache = self.cache();
        if cache.current.len() >= CURRENT_MAX {
            // Any of them: what its reservation had left is wasted.
            let some = cache.current.keys().next().copied();
            some.and_then(|some| cache.current.remove(&some));
        }
        cache.current.insert((ns, bucket), current);
    }

    fn is_old(&self, keys: &EpochKeys) -> bool {
        self.env.clock.now_ms().saturating_sub(keys.created_ms) > EPOCH_MS
    }

    fn cached(&self, ns: NsId, bucket: BucketId, epoch: u32) -> Option<Arc<EpochKeys>> {
        let mut cache = self.cache();
        cache.tick += 1;
        let tick = cache.tick;
        let (keys, used) = cache.epochs.get_mut(&(ns, bucket, epoch))?;
        *used = tick;
        Some(Arc::clone(keys))
    }

    fn remember(&self, ns: NsId, bucket: BucketId, keys: Arc<EpochKeys>) {
        let mut cache = self.cache();
        cache.tick += 1;
        let tick = cache.tick;
        cache.epochs.insert((ns, bucket, keys.epoch), (keys, tick));
        if cache.epochs.len() > CACHED_MAX {
            let oldest = cache.epochs.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(which, _)| *which) {
                cache.epochs.remove(&oldest);
            }
        }
    }

    async fn row(
        &self,
        ns: &TenantNs,
        bucket: BucketId,
        purpose: BucketKeyPurpose,
        epoch: u32,
    ) -> Result<BucketKeyRow> {
        let parts: [&[u8]; 3] = [bucket.as_bytes(), tag(purpose), &epoch.to_be_bytes()];
        let value = ns.get(Table::BucketKeys, &parts).await?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("find epoch {epoch} of a bucket key"))
        })?;
        BucketKeyRow::decode(&value)
    }

    fn unwrap(
        &self,
        ns: &TenantNs,
        permit: &UnwrapPermit,
        bucket: BucketId,
        epoch: u32,
        rows: (&BucketKeyRow, &BucketKeyRow),
    ) -> Result<EpochKeys> {
        let scope = |purpose| BucketKeyScope { bucket: *bucket.as_bytes(), epoch, purpose };
        let data =
            self.kms.unwrap_bucket_key(permit, &rows.0.wrapped, &scope(BucketKeyPurpose::Data))?;
        let meta =
            self.kms.unwrap_bucket_key(permit, &rows.1.wrapped, &scope(BucketKeyPurpose::Meta))?;
        Ok(EpochKeys {
            epoch,
            tenant_key: rows.0.tenant_key,
            created_ms: rows.0.created_ms,
            generation: permit.generation(),
            data,
            fields: meta.field_cipher(ns.tenant(), bucket.as_bytes())?,
        })
    }

    /// The newest epoch with uses reserved, or a new one if there is none that takes new objects.
    async fn begin(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        tenant_key: TenantKeyId,
    ) -> Result<Current> {
        let newest = self.newest(ns, bucket).await?;
        if let Some((epoch, held)) = &newest {
            let row = BucketKeyRow::decode(held)?;
            let young = self.env.clock.now_ms().saturating_sub(row.created_ms) <= EPOCH_MS;
            if row.tenant_key == tenant_key && young && row.uses <= USES_MAX - USES_STEP {
                return self.reserve(ns, bucket, *epoch, (held, row)).await;
            }
        }
        let last = newest.map_or(0, |(epoch, _)| epoch);
        let epoch = last.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "begin an epoch: the numbers are used up")
        })?;
        self.create(ns, purpose, bucket, epoch, tenant_key).await
    }

    async fn newest(&self, ns: &TenantNs, bucket: BucketId) -> Result<Option<(u32, Bytes)>> {
        let prefix = [bucket.as_bytes(), tag(BucketKeyPurpose::Data)].concat();
        let skip = prefix.len();
        ns.fold(Table::BucketKeys, &prefix, &[], None, move |newest, rest, value| {
            if let Some(epoch) = rest.get(skip..).and_then(|epoch| epoch.first_chunk()) {
                *newest = Some((u32::from_be_bytes(*epoch), Bytes::copy_from_slice(value)));
            }
            Ok(ScanStep::Next)
        })
        .await
    }

    async fn reserve(
        &self,
        ns: &TenantNs,
        bucket: BucketId,
        epoch: u32,
        (held, mut row): (&Bytes, BucketKeyRow),
    ) -> Result<Current> {
        let parts: [&[u8]; 3] =
            [bucket.as_bytes(), tag(BucketKeyPurpose::Data), &epoch.to_be_bytes()];
        let row_key = ns.row(Table::BucketKeys, &parts);
        row.uses += USES_STEP;
        let unchanged = Condition::RowIs { row: row_key.clone(), expected: Some(held.clone()) };
        let change = Change::Put { row: row_key, value: row.encode().into() };
        self.committer.commit(Draft::new(vec![unchanged], vec![change])).await?;
        Ok(Current { epoch, uses_left: USES_STEP })
    }

    async fn create(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        epoch: u32,
        tenant_key: TenantKeyId,
    ) -> Result<Current> {
        let permit = self.kms.permit(purpose, tenant_key)?;
        let created_ms = self.env.clock.now_ms();
        let (mut conditions, mut changes) = (Vec::new(), Vec::new());
        for purpose in [BucketKeyPurpose::Data, BucketKeyPurpose::Meta] {
            let scope = BucketKeyScope { bucket: *bucket.as_bytes(), epoch, purpose };
            let (_, _, wrapped) = self.kms.create_bucket_key(&permit, &scope)?;
            let row = BucketKeyRow { tenant_key, created_ms, uses: USES_STEP, wrapped };
            let parts: [&[u8]; 3] = [bucket.as_bytes(), tag(purpose), &epoch.to_be_bytes()];
            let row_key = ns.row(Table::BucketKeys, &parts);
            conditions.push(Condition::RowIs { row: row_key.clone(), expected: None });
            changes.push(Change::Put { row: row_key, value: row.encode().into() });
        }
        self.committer.commit(Draft::new(conditions, changes)).await?;
        Ok(Current { epoch, uses_left: USES_STEP })
    }
}

/// The byte between bucket and epoch in a row key.
fn tag(purpose: BucketKeyPurpose) -> &'static [u8] {
    match purpose {
        BucketKeyPurpose::Data => b"d",
        BucketKeyPurpose::Meta => b"m",
    }
}
