//! Bucket keys: the level between a tenant key and the data keys of a bucket.
//!
//! Owns: when a new epoch begins, when an old wrap is made anew, and which tenant key a bucket's
//! new objects go under (decided in one function, [`BucketKeys::default_tenant_key`]).
//! Knows nothing of: objects, chunks; how a wrap is made is kms's business.
//!
//! Invariants
//! - A bucket key is used only with a permit for the tenant key it is wrapped under; the permit is
//!   asked for on every access, cached or not.
//! - A cached key belongs to one generation of the gate: after a disable it is unwrapped anew.
//! - At most [`USES_MAX`] data keys are wrapped under one epoch (keys.md §2.9: blast radius).
//! - New objects go under an epoch that was made under the tenant key's current material, so a
//!   rotation begins a new epoch. Epochs are counted per bucket, over all its tenant keys, and a
//!   number is never used again.
//! - An epoch that was closed takes no new objects: a write whose lease was not counted when it was
//!   closed goes under a later one. No clock decides it.
//!   Bytes: docs/FORMAT.md, "Rows", tables K and X.

mod cache;
mod rows;

use std::sync::Arc;

use bytes::Bytes;
use kluis_kms::{
    Access, BucketKey, BucketKeyPurpose, BucketKeyScope, Env, FieldCipher, FieldName, KeyUse, Kms,
    Purpose, TenantId, TenantKeyId, UnwrapPermit, WrapGuard,
};
use tokio::sync::Semaphore;

use crate::commit::{Committer, Draft};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::ScanStep;
use crate::namespace::{Table, TenantNs, blocking};
use crate::rows::BucketKeyRow;
use crate::types::{BucketId, NsId, ObjectKey};
use cache::{Cache, Current, WriteLease};
pub(crate) use rows::{IndexName, PURPOSES, RowName, change_row, delete_all, material_prefix};

/// Data keys under one epoch of a bucket key.
const USES_MAX: u32 = 1 << 20;
/// Uses that are written down at a time, before they happen: a restart wastes at most so many.
const USES_STEP: u32 = 1 << 16;
/// How long an epoch takes new objects, in milliseconds: 30 days.
const EPOCH_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Tries to begin an epoch before giving up: each failure means that somebody else began one.
const TRIES_MAX: usize = 16;
/// Wraps made anew at once beside requests. What finds no room is done at its next load, or by a
/// job.
const LAZY_MAX: usize = 8;

/// Both keys of one epoch of one bucket, unwrapped.
pub(crate) struct EpochKeys {
    epoch: u32,
    tenant_key: TenantKeyId,
    created_ms: u64,
    born_material: u32,
    /// What the data key's wrap was under when it was opened, for the audit trail.
    material: u32,
    generation: u64,
    data: BucketKey,
    fields: FieldCipher,
}

/// Leave to work in one bucket under one epoch: a permit and the keys that it opened.
#[derive(Clone)]
pub(crate) struct BucketAccess {
    pub(crate) permit: Arc<UnwrapPermit>,
    keys: Arc<EpochKeys>,
    /// Counts a write as under way until its commit: jobs wait for those under old epochs.
    _lease: Option<Arc<WriteLease>>,
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

/// What an epoch has to be to take a new object.
#[derive(Clone, Copy)]
struct Wanted {
    tenant_key: TenantKeyId,
    /// The tenant key's current material.
    material: u32,
}

/// The bucket keys of all tenants.
pub(crate) struct BucketKeys {
    kms: Arc<Kms>,
    env: Env,
    committer: Arc<Committer>,
    cache: Cache,
    lazy: Arc<Semaphore>,
    /// Met twice, once, between the reading of an epoch's rows and their use: a test does there
    /// what else may happen then.
    #[cfg(test)]
    pub(crate) between: std::sync::Mutex<Option<Arc<tokio::sync::Barrier>>>,
}

impl BucketKeys {
    pub(crate) fn new(kms: Arc<Kms>, env: Env, committer: Arc<Committer>) -> Self {
        let lazy = Arc::new(Semaphore::new(LAZY_MAX));
        Self {
            kms,
            env,
            committer,
            cache: Cache::default(),
            lazy,
            #[cfg(test)]
            between: std::sync::Mutex::default(),
        }
    }

    /// The tenant key that new objects of `ns` go under.
    pub(crate) fn default_tenant_key(&self, ns: &TenantNs) -> Result<TenantKeyId> {
        Ok(self.kms.default_tenant_key(ns.tenant())?)
    }

    /// Leave to write into `bucket` under the current epoch of `tenant_key`, or of the default key
    /// where none is named; counts as one use.
    pub(crate) async fn for_write(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        tenant_key: Option<TenantKeyId>,
    ) -> Result<BucketAccess> {
        let tenant_key = match tenant_key {
            Some(named) => named,
            None => self.default_tenant_key(ns)?,
        };
        let access = Access::in_bucket(KeyUse::Write, *bucket.as_bytes());
        let of = (ns.ns(), bucket, tenant_key);
        for _ in 0..TRIES_MAX {
            if let Some((epoch, lease)) = self.cache.take_use(of) {
                let leave = self.for_epoch(ns, purpose, bucket, epoch, access).await?;
                // Asked behind the lease: a rotation, or the end of the epoch, that this does not
                // see finds the lease.
                let material = self.material(ns.tenant(), tenant_key)?;
                let wanted = Wanted { tenant_key, material };
                let keys = &leave.keys;
                let made = (keys.tenant_key, keys.born_material, keys.created_ms);
                if self.cache.is_current(of, epoch) && self.takes_new(&wanted, made) {
                    return Ok(BucketAccess { _lease: Some(Arc::new(lease)), ..leave });
                }
            }
            let material = self.material(ns.tenant(), tenant_key)?;
            let wanted = Wanted { tenant_key, material };
            let seen = self.cache.closings();
            match self.begin(ns, purpose, bucket, &wanted).await {
                Ok(current) => self.take_up(ns, of, current, seen).await?,
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "begin an epoch of a bucket key"))
    }

    /// Makes an epoch the current one, unless it was closed since `seen`.
    async fn take_up(
        &self,
        ns: &TenantNs,
        of: (NsId, BucketId, TenantKeyId),
        current: Current,
        mut seen: u64,
    ) -> Result<()> {
        let name = RowName { bucket: of.1, purpose: BucketKeyPurpose::Data, epoch: current.epoch };
        for _ in 0..TRIES_MAX {
            if self.cache.take_up(of, current, seen) {
                break;
            }
            seen = self.cache.closings();
            if name.held(ns).await?.is_none_or(|(_, row)| row.is_closed) {
                break;
            }
        }
        Ok(())
    }

    /// What epochs are closed by is in their rows: from now on writes go under later ones.
    pub(crate) fn closed(&self, ns: NsId, tenant_key: TenantKeyId, epochs: &[(BucketId, u32)]) {
        self.cache.close(ns, tenant_key, epochs);
    }

    /// Leave to read what was written into `bucket` under `epoch`.
    pub(crate) async fn for_epoch(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        epoch: u32,
        access: Access,
    ) -> Result<BucketAccess> {
        let mut seen: Option<(BucketKeyRow, BucketKeyRow)> = None;
        for _ in 0..TRIES_MAX {
            let mut rows = None;
            let outcome = self.open_epoch(ns, purpose, (bucket, epoch), access, &mut rows).await;
            match outcome {
                // The material may have been retired since the rows were read: what was wrapped
                // anew before that is in them by now.
                Err(error)
                    if matches!(error.kind(), ErrorKind::KeyDestroyed | ErrorKind::KeyUnusable)
                        && rows.is_some()
                        && rows != seen =>
                {
                    seen = rows;
                }
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "open a bucket key that is being wrapped anew"))
    }

    /// One try of [`Self::for_epoch`]; `rows` are those that were tried, none where the keys were
    /// unwrapped already.
    async fn open_epoch(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        (bucket, epoch): (BucketId, u32),
        mut access: Access,
        rows: &mut Option<(BucketKeyRow, BucketKeyRow)>,
    ) -> Result<BucketAccess> {
        if let Some(keys) = self.cache.epoch(ns.ns(), bucket, epoch) {
            access.material = Some(keys.material);
            let permit = Arc::new(self.kms.permit(purpose, keys.tenant_key, access)?);
            let is_stale = keys.data.is_stale(&*self.env.clock);
            if permit.generation() == keys.generation && !is_stale {
                return Ok(BucketAccess { permit, keys, _lease: None });
            }
        }
        let name = |purpose| RowName { bucket, purpose, epoch };
        let data = name(BucketKeyPurpose::Data).read(ns).await?;
        let meta = name(BucketKeyPurpose::Meta).read(ns).await?;
        access.material = data.material();
        let permit = Arc::new(self.kms.permit(purpose, data.tenant_key, access)?);
        *rows = Some((data.clone(), meta.clone()));
        #[cfg(test)]
        self.meet().await;
        let is_old = data.material().min(meta.material())
            < Some(self.material(ns.tenant(), data.tenant_key)?);
        let keys = Arc::new(self.unwrap(ns, &permit, bucket, epoch, (data, meta)).await?);
        // Inside the gate, so that whoever closes it wipes these too.
        let in_flight = permit.enter()?;
        self.cache.remember(ns.ns(), bucket, Arc::clone(&keys));
        drop(in_flight);
        if is_old {
            self.rewrap_beside(ns, &permit, bucket, epoch);
        }
        Ok(BucketAccess { permit, keys, _lease: None })
    }

    #[cfg(test)]
    async fn meet(&self) {
        let barrier = self.between.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(barrier) = barrier {
            barrier.wait().await;
            barrier.wait().await;
        }
    }

    /// Forgets a bucket that was deleted.
    pub(crate) fn forget(&self, ns: NsId, bucket: BucketId) {
        self.cache.forget_bucket(ns, bucket);
    }

    /// Wipes what was unwrapped under a tenant key whose gate closed.
    pub(crate) fn forget_tenant_key(&self, tenant_key: TenantKeyId) {
        self.cache.forget_tenant_key(tenant_key);
    }

    /// The epochs of a namespace that writes under way will commit under.
    pub(crate) fn writes_under_way(&self, ns: NsId) -> Vec<(BucketId, u32)> {
        self.cache.writes(ns)
    }

    /// A commit that puts one bucket key under its tenant key's current material, and writes down
    /// what an earlier build left out of the index; none if there is nothing to do. The guard is
    /// held until the commit returned.
    ///
    /// # Errors
    /// Those of the tenant key.
    pub(crate) async fn rewrapped(
        &self,
        ns: &TenantNs,
        permit: &Arc<UnwrapPermit>,
        name: RowName,
    ) -> Result<Option<(Draft, WrapGuard)>> {
        rewrapped(&self.kms, ns, permit, name).await
    }

    /// Makes the wraps of an epoch anew beside the request that loaded it. Best effort.
    fn rewrap_beside(
        &self,
        ns: &TenantNs,
        permit: &Arc<UnwrapPermit>,
        bucket: BucketId,
        epoch: u32,
    ) {
        let Ok(room) = Arc::clone(&self.lazy).try_acquire_owned() else { return };
        let (kms, committer) = (Arc::clone(&self.kms), Arc::clone(&self.committer));
        let (ns, permit) = (ns.clone(), Arc::clone(permit));
        tokio::spawn(async move {
            let _room = room;
            for purpose in PURPOSES {
                let name = RowName { bucket, purpose, epoch };
                let outcome = match rewrapped(&kms, &ns, &permit, name).await {
                    Ok(Some((draft, guard))) => {
                        let outcome = committer.commit(draft).await;
                        drop(guard);
                        outcome
                    }
                    other => other.map(|_| ()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a bucket key was not wrapped anew; later again");
                }
            }
        });
    }

    fn material(&self, tenant: TenantId, tenant_key: TenantKeyId) -> Result<u32> {
        Ok(self.kms.current_material(tenant, tenant_key)?)
    }

    fn takes_new(&self, wanted: &Wanted, made: (TenantKeyId, u32, u64)) -> bool {
        let (tenant_key, born_material, created_ms) = made;
        let age_ms = self.env.clock.now_ms().saturating_sub(created_ms);
        (tenant_key, born_material) == (wanted.tenant_key, wanted.material) && age_ms <= EPOCH_MS
    }

    async fn unwrap(
        &self,
        ns: &TenantNs,
        permit: &Arc<UnwrapPermit>,
        bucket: BucketId,
        epoch: u32,
        (data, meta): (BucketKeyRow, BucketKeyRow),
    ) -> Result<EpochKeys> {
        let erased = || Error::new(ErrorKind::KeyDestroyed, "unwrap an erased bucket key");
        let (tenant_key, created_ms) = (data.tenant_key, data.created_ms);
        let born_material = data.born_material;
        let wraps = (data.wrapped.ok_or_else(erased)?, meta.wrapped.ok_or_else(erased)?);
        let (kms, permit, tenant) = (Arc::clone(&self.kms), Arc::clone(permit), ns.tenant());
        // The key may be in a store that takes its time.
        blocking(move || {
            let scope = |purpose| BucketKeyScope { bucket: *bucket.as_bytes(), epoch, purpose };
            let data = kms.unwrap_bucket_key(&permit, &wraps.0, &scope(BucketKeyPurpose::Data))?;
            let meta = kms.unwrap_bucket_key(&permit, &wraps.1, &scope(BucketKeyPurpose::Meta))?;
            Ok(EpochKeys {
                epoch,
                tenant_key,
                created_ms,
                born_material,
                material: wraps.0.wrapping_version(),
                generation: permit.generation(),
                data,
                fields: meta.field_cipher(tenant, bucket.as_bytes())?,
            })
        })
        .await
    }

    /// The newest epoch under the wanted key with uses reserved, or a new one if there is none that
    /// takes new objects.
    async fn begin(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: BucketId,
        wanted: &Wanted,
    ) -> Result<Current> {
        let (last, newest) = newest(ns, bucket, wanted.tenant_key).await?;
        if let Some((epoch, held)) = newest {
            let row = BucketKeyRow::decode(&held)?;
            let made = (row.tenant_key, row.born_material, row.created_ms);
            let has_room =
                row.wrapped.is_some() && !row.is_closed && row.uses <= USES_MAX - USES_STEP;
            if has_room && self.takes_new(wanted, made) {
                return self.reserve(ns, bucket, epoch, (&held, row)).await;
            }
        }
        let epoch = last.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "begin an epoch: the numbers are used up")
        })?;
        self.create(ns, purpose, bucket, epoch, wanted.tenant_key).await
    }

    async fn reserve(
        &self,
        ns: &TenantNs,
        bucket: BucketId,
        epoch: u32,
        (held, before): (&Bytes, BucketKeyRow),
    ) -> Result<Current> {
        let name = RowName { bucket, purpose: BucketKeyPurpose::Data, epoch };
        let row =
            BucketKeyRow { uses: before.uses + USES_STEP, is_indexed: true, ..before.clone() };
        let mut draft = Draft::default();
        change_row(&mut draft, ns, name, Some((held, &before)), &row);
        self.committer.commit(draft).await?;
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
        let access = Access::in_bucket(KeyUse::Write, *bucket.as_bytes());
        let permit = Arc::new(self.kms.permit(purpose, tenant_key, access)?);
        let created_ms = self.env.clock.now_ms();
        let guard = self.kms.begin_wrap(&permit)?;
        let (kms, wrapping) = (Arc::clone(&self.kms), Arc::clone(&permit));
        let wraps = blocking(move || {
            let mut wraps = Vec::new();
            for purpose in PURPOSES {
                let scope = BucketKeyScope { bucket: *bucket.as_bytes(), epoch, purpose };
                wraps.push((purpose, kms.create_bucket_key(&wrapping, &scope)?.2));
            }
            Ok(wraps)
        })
        .await?;
        let mut draft = Draft::default();
        for (purpose, wrapped) in wraps {
            let row = BucketKeyRow {
                tenant_key,
                created_ms,
                uses: USES_STEP,
                born_material: wrapped.wrapping_version(),
                is_indexed: true,
                is_closed: false,
                wrapped: Some(wrapped),
            };
            change_row(&mut draft, ns, RowName { bucket, purpose, epoch }, None, &row);
        }
        self.committer.commit(draft).await?;
        drop(guard);
        Ok(Current { epoch, uses_left: USES_STEP })
    }
}

/// The number of a bucket's last epoch, 0 for none, and its newest one under `tenant_key`.
async fn newest(
    ns: &TenantNs,
    bucket: BucketId,
    tenant_key: TenantKeyId,
) -> Result<(u32, Option<(u32, Bytes)>)> {
    let prefix = [bucket.as_bytes().as_slice(), rows::tag(BucketKeyPurpose::Data)].concat();
    ns.fold(Table::BucketKeys, &prefix, &[], (0, None), move |(last, newest), rest, value| {
        *last = RowName::decode(rest)?.epoch;
        if BucketKeyRow::decode(value)?.tenant_key == tenant_key {
            *newest = Some((*last, Bytes::copy_from_slice(value)));
        }
        Ok(ScanStep::Next)
    })
    .await
}

async fn rewrapped(
    kms: &Arc<Kms>,
    ns: &TenantNs,
    permit: &Arc<UnwrapPermit>,
    name: RowName,
) -> Result<Option<(Draft, WrapGuard)>> {
    let Some((held, before)) = name.held(ns).await? else { return Ok(None) };
    let Some(wrapped) = before.wrapped.clone() else { return Ok(None) };
    if before.tenant_key != permit.tenant_key() {
        return Ok(None);
    }
    let guard = kms.begin_wrap(permit)?;
    let current = kms.describe(permit.tenant(), permit.tenant_key())?.current_material;
    let mut row = BucketKeyRow { is_indexed: true, ..before.clone() };
    if wrapped.wrapping_version() < current {
        let (kms, permit) = (Arc::clone(kms), Arc::clone(permit));
        let RowName { bucket, purpose, epoch } = name;
        let scope = BucketKeyScope { bucket: *bucket.as_bytes(), epoch, purpose };
        let wrap = move || Ok(kms.rewrap_bucket_key(&permit, &wrapped, &scope)?);
        row.wrapped = Some(blocking(wrap).await?);
    }
    if row == before {
        return Ok(None);
    }
    let mut draft = Draft::default();
    change_row(&mut draft, ns, name, Some((&held, &before)), &row);
    Ok(Some((draft, guard)))
}
