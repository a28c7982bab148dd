//! The list of damaged extents.
//!
//! Owns: the rows, their copy in memory, what enters and leaves. Does not know: who finds damage,
//! keys.
//!
//! Invariants
//! - An entry is made only while the extent's location row names the place, decided by the commit
//!   that makes it; one whose row names another place is shown to nobody, and removed.
//! - There are at most [`DAMAGE_MAX`] entries; more are counted.
//! - What a read called tampered stays until the extent is gone: no checksum says otherwise.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kluis_kms::{Env, TenantId};

use super::row::{DAMAGE, DamageKind, DamagePlace, DamageRow};
use crate::blob::{ExtentId, Location, Volume};
use crate::commit::{Committer, Draft};
use crate::error::{ErrorKind, Result};
use crate::meta::{Change, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::{MetaReader, Table};
use crate::tenants::Tenants;

/// Entries of the list: 1.3 MiB in memory. Whoever has more needs a new disk, not a longer list.
pub const DAMAGE_MAX: usize = 10_000;
/// Entries whose location rows are looked up together.
const LOOK_UP: usize = 256;

/// A damaged extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedExtent {
    /// What is wrong with it.
    pub kind: DamageKind,
    /// Where it lies.
    pub place: DamagePlace,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is called.
    pub id: ExtentId,
    /// When it was found, in Unix milliseconds.
    pub found_ms: u64,
}

/// What scrubbing works on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) reader: &'a MetaReader,
    pub(crate) committer: &'a Committer,
    pub(crate) tenants: &'a Tenants,
    pub(crate) env: &'a Env,
    pub(crate) list: &'a DamageList,
}

impl Ground<'_> {
    /// The location row of an extent; `None` in a namespace that is not there.
    pub(super) fn location_row(&self, id: ExtentId) -> Option<RowKey> {
        let ns = self.tenants.namespace_of(id.ns)?;
        Some(ns.row(Table::Locations, &[id.stream.as_bytes(), &id.number.to_be_bytes()]))
    }

    /// What the location rows of `ids` hold, in order.
    pub(super) async fn locations(&self, ids: &[ExtentId]) -> Result<Vec<Option<Bytes>>> {
        let rows: Vec<_> = ids.iter().map(|id| self.location_row(*id)).collect();
        let known = rows.iter().flatten().cloned().collect();
        let mut held = self.reader.get_many(known).await?.into_iter();
        Ok(rows.iter().map(|row| row.as_ref().and_then(|_| held.next().flatten())).collect())
    }
}

/// The list.
#[derive(Default)]
pub(crate) struct DamageList {
    entries: Mutex<BTreeMap<DamagePlace, DamageRow>>,
    /// Damaged extents that found no place in the list.
    unlisted: AtomicU64,
}

impl DamageList {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<DamagePlace, DamageRow>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the rows that there are.
    pub(crate) async fn load(&self, reader: &MetaReader) -> Result<()> {
        let found = stored(reader).await?;
        self.entries().extend(found);
        Ok(())
    }

    /// How many extents are listed.
    pub(crate) fn len(&self) -> u64 {
        self.entries().len() as u64
    }

    /// How many were damaged and are not listed.
    pub(crate) fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// A new pass counts anew.
    pub(super) fn forget_unlisted(&self) {
        self.unlisted.store(0, Ordering::Relaxed);
    }

    /// What is listed at a place.
    pub(super) fn at(&self, place: DamagePlace) -> Option<DamageKind> {
        self.entries().get(&place).map(|row| row.kind)
    }

    /// What is listed in one use of a segment.
    pub(super) fn within(&self, segment: u32, incarnation: u64) -> Vec<(DamagePlace, ExtentId)> {
        let from = DamagePlace { segment, offset: 0, incarnation: 0 };
        let to = DamagePlace { segment, offset: u64::MAX, incarnation: u64::MAX };
        let entries = self.entries();
        let within = entries.range(from..=to).filter(|(it, _)| it.incarnation == incarnation);
        within.map(|(place, row)| (*place, row.id)).collect()
    }

    /// Takes note of a damaged extent; whether it is new.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`], [`ErrorKind::Unavailable`]: the row could not be written.
    pub(crate) async fn record(
        &self,
        ground: Ground<'_>,
        id: ExtentId,
        location: &Location,
        kind: DamageKind,
    ) -> Result<bool> {
        let place = DamagePlace::of(location);
        let Some(row) = ground.location_row(id) else { return Ok(false) };
        let known = self.at(place);
        if known == Some(kind) || known == Some(DamageKind::Tampered) {
            return Ok(false);
        }
        if known.is_none() && self.entries().len() >= DAMAGE_MAX {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let damage = DamageRow { kind, id, found_ms: ground.env.clock.now_ms() };
        let mut draft = Draft::default();
        draft.expect(row, Some(location.encode().to_vec().into()));
        draft.put(place.row(), damage.encode());
        match ground.committer.commit(draft).await {
            Ok(()) => {}
            // It was deleted or moved meanwhile.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(false),
            Err(error) => return Err(error),
        }
        self.entries().insert(place, damage);
        let tenant = ground.tenants.namespace_of(id.ns).map(|ns| ns.tenant().to_string());
        tracing::error!(
            kind = kind.as_str(), segment = place.segment, offset = place.offset, tenant,
            stream = %id.stream, extent = id.number, "a stored extent is damaged"
        );
        Ok(known.is_none())
    }

    /// Takes an extent off the list that reads well again.
    pub(super) async fn reads_well(&self, ground: Ground<'_>, place: DamagePlace) -> Result<()> {
        match self.at(place) {
            None | Some(DamageKind::Tampered) => Ok(()),
            Some(kind) => {
                tracing::info!(
                    kind = kind.as_str(),
                    segment = place.segment,
                    offset = place.offset,
                    "an extent that was damaged reads well again"
                );
                self.remove(ground, &[place]).await
            }
        }
    }

    async fn remove(&self, ground: Ground<'_>, places: &[DamagePlace]) -> Result<()> {
        let changes = places.iter().map(|place| Change::Delete { row: place.row() }).collect();
        ground.committer.commit(Draft::new(Vec::new(), changes)).await?;
        let mut entries = self.entries();
        for place in places {
            entries.remove(place);
        }
        Ok(())
    }

    /// Removes what is no longer there: extents that were deleted or moved.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) async fn tidy(&self, ground: Ground<'_>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.page(after, LOOK_UP);
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            let gone: Vec<_> = self
                .judged(ground, &page)
                .await?
                .into_iter()
                .filter_map(|(place, _, is_there)| (!is_there).then_some(place))
                .collect();
            if !gone.is_empty() {
                self.remove(ground, &gone).await?;
            }
        }
    }

    /// At most `limit` entries behind `after`, and where to go on if there may be more.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unavailable`]: location rows could not be read.
    pub(crate) async fn list(
        &self,
        ground: Ground<'_>,
        after: Option<DamagePlace>,
        limit: usize,
    ) -> Result<(Vec<DamagedExtent>, Option<DamagePlace>)> {
        let page = self.page(after, limit);
        let next = page.last().map(|(place, _)| *place).filter(|_| page.len() == limit);
        let judged = self.judged(ground, &page).await?;
        let listed = judged.into_iter().filter(|(_, _, is_there)| *is_there);
        let listed = listed.filter_map(|(place, row, _)| {
            let tenant = ground.tenants.namespace_of(row.id.ns)?.tenant();
            let DamageRow { kind, id, found_ms } = row;
            Some(DamagedExtent { kind, place, tenant, id, found_ms })
        });
        Ok((listed.collect(), next))
    }

    fn page(&self, after: Option<DamagePlace>, limit: usize) -> Vec<(DamagePlace, DamageRow)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries();
        let page = entries.range((from, Bound::Unbounded)).take(limit);
        page.map(|(place, row)| (*place, *row)).collect()
    }

    /// Whether the location row of each entry still names its place.
    async fn judged(
        &self,
        ground: Ground<'_>,
        page: &[(DamagePlace, DamageRow)],
    ) -> Result<Vec<(DamagePlace, DamageRow, bool)>> {
        let ids: Vec<_> = page.iter().map(|(_, row)| row.id).collect();
        let held = ground.locations(&ids).await?;
        let judged = page.iter().zip(held).map(|((place, row), held)| {
            let there = held.and_then(|held| Location::decode(&held).ok());
            (*place, *row, there.is_some_and(|there| DamagePlace::of(&there) == *place))
        });
        Ok(judged.collect())
    }
}

/// The rows of the list as they are stored; those that cannot be read are left out.
pub(crate) async fn stored(reader: &MetaReader) -> Result<BTreeMap<DamagePlace, DamageRow>> {
    let lower = vec![DAMAGE];
    let upper = prefix_end(&lower);
    reader
        .fold(Family::Gc, lower, upper, BTreeMap::new(), |rows, row_key, value| {
            match DamageRow::decode(row_key, value) {
                Ok((place, row)) => drop(rows.insert(place, row)),
                Err(error) => tracing::warn!(%error, "a row of damage cannot be read"),
            }
            Ok(ScanStep::Next)
        })
        .await
}
