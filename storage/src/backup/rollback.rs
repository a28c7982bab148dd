//! Putting metadata back beside a volume that is alive: its disk was lost, the segments were not.
//!
//! ```text
//! meta.new/ from the snapshot ─► compare with the segments ─► rows of segments ─► location rows
//!   ─► past the watermark ─► keys and audit log, where they are missing ─► meta.new becomes meta
//! ```
//! Owns: that order, and saying what is lost. Knows nothing of: names, keys.
//!
//! Invariants
//! - `meta/` is there when all of it is right, and not before; it is never written over.
//! - What was acknowledged after the snapshot is lost, and only who says so gets it done.
//! - Extents that were moved since are found by their headers, and their rows follow them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use kluis_kms::{Env, TenantId};

use super::files;
use super::keys;
use super::manifest::BackupKind;
use super::progress::Progress;
use super::repository::Repository;
use super::restore::{Filler, choose, open_rows, refuse_half};
use super::verify::SnapshotAbout;
use crate::blob::{Location, SegmentRow, SegmentState, Survey};
use crate::engine::{EngineConfig, META, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{BufPool, open_disk};
use crate::meta::rocks::checkpoint::{advance, view};
use crate::meta::{Change, Family, MetaStore, RowKey, ScanStep, prefix_end};
use crate::namespace::{MetaReader, Table, TenantNs};
use crate::rows::NamespaceRow;
use crate::types::NsId;

/// Where the metadata becomes whole.
const META_NEW: &str = "meta.new";
/// Changes in one batch.
const BATCH: usize = 1_000;

/// What to put back.
#[derive(Clone, Debug)]
pub struct MetadataRequest {
    /// The repository.
    pub from: PathBuf,
    /// Which snapshot; the newest if none is named.
    pub snapshot: Option<String>,
    /// The data directory, with its volume and without `meta/`.
    pub to: PathBuf,
    /// Whether what was acknowledged after the snapshot may be lost.
    pub accept_loss: bool,
}

/// What was put back.
#[derive(Clone, Debug)]
pub struct MetadataSummary {
    /// Which snapshot.
    pub snapshot: String,
    /// What it holds.
    pub about: SnapshotAbout,
    /// Writes to the metadata that the volume knows of and that are not in the snapshot.
    pub lost_writes: u64,
    /// Segments that were put into use, or were filled further, after the snapshot.
    pub changed_segments: u64,
    /// Extents that had been moved since.
    pub moved_extents: u64,
}

/// Puts the metadata of a snapshot back beside the volume that it is of.
///
/// # Errors
/// - [`ErrorKind::Conflict`]: acknowledged writes would be lost and that is not accepted.
/// - [`ErrorKind::Corrupt`]: a file of the repository is damaged; it is named.
/// - [`ErrorKind::Misuse`]: there is metadata, or the volume is another one.
/// - [`ErrorKind::NotFound`]: there is no volume, or no such snapshot.
pub async fn restore_metadata(
    request: &MetadataRequest,
    config: &EngineConfig,
    env: Env,
    progress: &Progress,
) -> Result<MetadataSummary> {
    let to = &request.to;
    if !to.join("SUPER.a").exists() {
        let during = format!("put metadata back into {}", to.display());
        return Err(Error::new(ErrorKind::NotFound, during)
            .with_source("there is no volume in it")
            .with_advice("restore all of it into an empty directory"));
    }
    let _lock = lock(to)?;
    refuse_half(to)?;
    if !files::names(&to.join(META))?.is_empty() {
        let during = format!("put metadata back into {}", to.display());
        return Err(Error::new(ErrorKind::Misuse, during)
            .with_source("it has metadata")
            .with_advice("move the folder meta/ away, and keep it"));
    }
    let repository = Repository::open_to_read(&request.from)?;
    let kinds = [BackupKind::Full, BackupKind::Metadata];
    let id = choose(&repository, request.snapshot.as_deref(), &kinds)?;
    let manifest = repository.manifest(&id)?;
    let starting = |cause| Error::new(ErrorKind::Unavailable, "open the disk").with_source(cause);
    let pool = BufPool::new(config.pool_bytes, false).map_err(starting)?;
    let (disk, _) = open_disk(to, &config.io, &pool).map_err(starting)?;
    let survey = Survey::begin(disk, pool, env).await?;
    if survey.block().volume != manifest.head.volume {
        return Err(Error::new(ErrorKind::Misuse, format!("put metadata back of {id}"))
            .with_source("it is of another volume"));
    }

    let filler = Filler { repository: &repository, to, progress };
    let new = to.join(META_NEW);
    files::remove_tree(&new)?;
    filler.metadata(&manifest, &new)?;
    progress.begin("segments", 0);
    let found = view(&new, b"S")?;
    let rows: Vec<_> =
        found.rows.iter().map(|row| SegmentRow::decode(row)).collect::<Result<_>>()?;
    let differences = survey.compare(&rows).await?;
    let lost_writes = differences.watermark.saturating_sub(found.sequence);
    if lost_writes > 0 && !request.accept_loss {
        files::remove_tree(&new)?;
        let during = format!("put metadata back of {id}");
        return Err(Error::new(ErrorKind::Conflict, during)
            .with_source(format!("{lost_writes} writes that came after it would be lost"))
            .with_advice("if there is nothing newer, repeat it with --accept-loss"));
    }
    let pooled = manifest.head.pooled_families;
    let store: Arc<dyn MetaStore> = Arc::new(open_rows(&new, pooled)?);
    put_rows(&*store, &differences.rows)?;
    let moved_extents = follow(&store, &survey, (&rows, &differences.rows)).await?;
    progress.begin("rows", 0);
    advance(&*store, differences.watermark)?;
    store.close()?;
    drop(store);
    put_missing(&repository, &filler)?;
    files::rename(&new, &to.join(META))?;
    Ok(MetadataSummary {
        snapshot: id,
        about: SnapshotAbout::of(&manifest),
        lost_writes,
        changed_segments: differences.rows.len() as u64,
        moved_extents,
    })
}

/// Puts keys and audit log back where they were lost as well.
fn put_missing(repository: &Repository, filler: &Filler<'_>) -> Result<()> {
    let (keys_folder, audit_folder) = (filler.to.join(keys::KEYS), filler.to.join(keys::AUDIT));
    if !keys_folder.exists() {
        let new = filler.to.join("keys.new");
        files::remove_tree(&new)?;
        let (from, listed) = keys::keys_index(repository)?;
        filler.keys(&from, &listed, &new)?;
        files::rename(&new, &keys_folder)?;
    }
    if !audit_folder.exists() {
        let new = filler.to.join("audit.new");
        files::remove_tree(&new)?;
        filler.audit(&keys::audit_index(repository)?, &new)?;
        if new.exists() {
            files::rename(&new, &audit_folder)?;
        }
    }
    Ok(())
}

fn put_rows(store: &dyn MetaStore, rows: &[SegmentRow]) -> Result<()> {
    let put = |row: &SegmentRow| {
        let bytes = [b"S".as_slice(), row.segment.to_be_bytes().as_slice()].concat();
        let key = RowKey { family: Family::Gc, bytes };
        Change::Put { row: key, value: row.encode().to_vec().into() }
    };
    let changes: Vec<_> = rows.iter().map(put).collect();
    if changes.is_empty() { Ok(()) } else { store.write(&changes).map(drop) }
}

/// Has location rows whose segment is in another use name where the extent lies now.
async fn follow(
    store: &Arc<dyn MetaStore>,
    survey: &Survey,
    (old, newer): (&[SegmentRow], &[SegmentRow]),
) -> Result<u64> {
    let namespaces = namespaces(store)?;
    let table: BTreeMap<u32, SegmentRow> =
        old.iter().chain(newer).map(|row| (row.segment, *row)).collect();
    let is_there = |location: &Location| {
        table.get(&location.segment()).is_some_and(|row| {
            row.state != SegmentState::Free && row.incarnation == location.incarnation()
        })
    };
    let (mut changes, mut moved) = (Vec::new(), 0);
    for row in newer {
        for (id, location) in survey.extents(row).await? {
            let Some(ns) = namespaces.get(&id.ns) else { continue };
            let number = id.number.to_be_bytes();
            let row = ns.row(Table::Locations, &[id.stream.as_bytes(), &number]);
            let Some(held) = store.get(row.family, &row.bytes)? else { continue };
            if !is_there(&Location::decode(&held)?) {
                changes.push(Change::Put { row, value: location.encode().to_vec().into() });
                moved += 1;
            }
            if changes.len() == BATCH {
                store.write(&std::mem::take(&mut changes))?;
            }
        }
    }
    if !changes.is_empty() {
        store.write(&changes)?;
    }
    Ok(moved)
}

/// The namespaces of all tenants.
fn namespaces(store: &Arc<dyn MetaStore>) -> Result<HashMap<NsId, TenantNs>> {
    let reader = MetaReader::new(Arc::clone(store));
    let lower = b"N".to_vec();
    let mut found = HashMap::new();
    store.scan(Family::Sys, &lower, &prefix_end(&lower), &mut |row_key, value| {
        let tenant = row_key.get(1..).and_then(|id| id.first_chunk::<16>());
        let tenant = tenant
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read the key of a namespace row"))?;
        let row = NamespaceRow::decode(value)?;
        let tenant = TenantId::from_bytes(*tenant);
        found.insert(row.ns, TenantNs::new(reader.clone(), tenant, row.family, row.ns));
        Ok(ScanStep::Next)
    })?;
    Ok(found)
}
