//! Putting a snapshot back into an empty directory.
//!
//! ```text
//! RESTORING ─► metadata ─► segments ─► keys ─► audit log ─► superblocks ─► rows set right
//!   ─► RESTORING goes: the directory is there
//! ```
//! Owns: that order, and what has to differ from the directory that the snapshot was taken of.
//! Knows nothing of: clients, the command line.
//!
//! Invariants
//! - A directory that holds anything is refused; one that a restore was cut short in is begun anew.
//! - While the mark RESTORING is there, nothing opens the directory.
//! - Every byte is held against its digest before the mark goes.
//! - Keys and audit log are the newest of the repository, whatever snapshot is put back.
//! - Record numbers and incarnations of the new directory are none that the old one will reach.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kluis_kms::Env;
use rustix::fs::{FallocateFlags, fallocate};

use super::files::{self, damaged, io_error};
use super::keys;
use super::manifest::{BackupKind, Head, Listed, Manifest, SegmentCopy, Sum};
use super::progress::Progress;
use super::repository::{FILE_SYSTEM_OWN, Repository};
use super::verify::SnapshotAbout;
use crate::blob::{SegmentRow, SegmentState, segment_file};
use crate::engine::{LOCK, META, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{OPEN_COUNT_MAX, Superblock};
use crate::meta::rocks::checkpoint::advance;
use crate::meta::rocks::{RocksMeta, RocksSettings};
use crate::meta::{Change, Family, MetaStore, RowKey, ScanStep, prefix_end};

/// The mark of a directory that is not whole yet.
pub(crate) const RESTORING: &str = "RESTORING";
/// The names that a restore makes, and so may remove when it begins anew.
const OURS: [&str; 7] = [META, "seg", keys::KEYS, keys::AUDIT, "SUPER.a", "SUPER.b", RESTORING];
/// Opens that the directory of before may still see while its copy lives: 16,384 restores leave the
/// 24 bits of the count.
const OPENS_APART: u64 = 1 << 10;
/// Segments that it may still open: one a second for 34,000 years; 2^24 restores use them up.
const INCARNATIONS_APART: u64 = 1 << 40;
/// Memory for RocksDB while rows are set right.
const CACHE_BYTES: usize = 64 << 20;

/// What to put back.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The repository.
    pub from: PathBuf,
    /// Which snapshot; the newest one with segments if none is named.
    pub snapshot: Option<String>,
    /// The directory to fill.
    pub to: PathBuf,
}

/// What was put back.
#[derive(Clone, Debug)]
pub struct RestoreSummary {
    /// Which snapshot.
    pub snapshot: String,
    /// What it holds.
    pub about: SnapshotAbout,
}

/// Fills an empty directory with a snapshot, the newest keys and the newest audit log. Blocks.
///
/// # Errors
/// - [`ErrorKind::Conflict`]: a process is at work in the repository.
/// - [`ErrorKind::Corrupt`]: a file of the repository is damaged; it is named.
/// - [`ErrorKind::Misuse`]: the directory is not empty, or the snapshot has no segments.
/// - [`ErrorKind::NotFound`]: there is no such snapshot.
pub fn restore(request: &RestoreRequest, env: &Env, progress: &Progress) -> Result<RestoreSummary> {
    let repository = Repository::open_to_read(&request.from)?;
    let id = choose(&repository, request.snapshot.as_deref(), &[BackupKind::Full])?;
    let manifest = repository.manifest(&id)?;
    if manifest.head.kind != BackupKind::Full {
        return Err(Error::new(ErrorKind::Misuse, format!("restore snapshot {id}"))
            .with_source("it holds metadata only")
            .with_advice("choose another, or use --metadata-only beside the volume"));
    }
    let (key_folder, key_files) = keys::keys_index(&repository)?;
    let audit_files = keys::audit_index(&repository)?;
    look(&repository, &manifest, &audit_files)?;

    let to = &request.to;
    files::make_dir(to)?;
    let _lock = lock(to)?;
    clear(to)?;
    files::replace(&to.join(RESTORING), format!("{id}\n").as_bytes())?;
    let filler = Filler { repository: &repository, to, progress };
    filler.metadata(&manifest, &to.join(META))?;
    filler.segments(&manifest)?;
    filler.keys(&key_folder, &key_files, &to.join(keys::KEYS))?;
    filler.audit(&audit_files, &to.join(keys::AUDIT))?;
    filler.superblocks(&manifest.head, env)?;
    progress.begin("rows", 0);
    set_rows_right(to, &manifest.head)?;
    files::sync_dir(to)?;
    files::remove(&to.join(RESTORING))?;
    files::sync_dir(to)?;
    Ok(RestoreSummary { snapshot: id, about: SnapshotAbout::of(&manifest) })
}

/// The snapshot that was asked for, or the newest of one of these kinds.
pub(super) fn choose(
    repository: &Repository,
    asked: Option<&str>,
    kinds: &[BackupKind],
) -> Result<String> {
    if let Some(id) = asked {
        return Ok(id.to_owned());
    }
    for id in repository.snapshots()?.into_iter().rev() {
        if kinds.contains(&repository.manifest(&id)?.head.kind) {
            return Ok(id);
        }
    }
    Err(Error::new(ErrorKind::NotFound, "find a snapshot to restore")
        .with_advice("the repository has none of this kind"))
}

/// Finds what is missing before anything is written.
fn look(repository: &Repository, manifest: &Manifest, audit_files: &[Listed]) -> Result<()> {
    let audit = audit_files.iter().map(|it| (it.sum, it.bytes, format!("audit/{}", it.name)));
    for (sum, bytes, what) in manifest.needs().chain(audit) {
        if !repository.holds(&sum, bytes) {
            let path = repository.data_path(&sum);
            return Err(damaged(&path, &format!("{what}: it is missing, or of another length")));
        }
    }
    Ok(())
}

/// Refuses a directory that holds something, but for what a restore that was cut short left.
fn clear(to: &Path) -> Result<()> {
    let names = files::names(to)?;
    let is_cut_short = names.iter().any(|name| name == RESTORING);
    for name in names.iter().filter(|name| ![LOCK, FILE_SYSTEM_OWN].contains(&name.as_str())) {
        if !(is_cut_short && OURS.contains(&name.as_str())) {
            return Err(Error::new(ErrorKind::Misuse, format!("restore into {}", to.display()))
                .with_source(format!("it holds {name}"))
                .with_advice("give an empty directory"));
        }
    }
    // The mark goes last.
    for name in OURS.iter().filter(|_| is_cut_short) {
        let path = to.join(name);
        if path.is_dir() { files::remove_tree(&path)? } else { files::remove(&path)? }
    }
    Ok(())
}

/// Refuses a directory that a restore was cut short in.
///
/// # Errors
/// [`ErrorKind::Misuse`]: it is such a one.
pub fn refuse_half(dir: &Path) -> Result<()> {
    if !dir.join(RESTORING).exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Misuse, format!("open {}", dir.display()))
        .with_source("a restore into it was cut short")
        .with_advice("run the same `kluis restore` again"))
}

/// Fills the directory.
pub(super) struct Filler<'a> {
    pub(super) repository: &'a Repository,
    pub(super) to: &'a Path,
    pub(super) progress: &'a Progress,
}

impl Filler<'_> {
    pub(super) fn metadata(&self, manifest: &Manifest, folder: &Path) -> Result<()> {
        self.progress.begin("metadata", manifest.files.iter().map(|it| it.bytes).sum());
        files::make_dir(folder)?;
        for file in &manifest.files {
            self.data(&file.sum, &folder.join(&file.name))?;
        }
        files::sync_dir(folder)
    }

    fn segments(&self, manifest: &Manifest) -> Result<()> {
        self.progress.begin("segments", manifest.segments.iter().map(SegmentCopy::end).sum());
        let bytes = manifest.head.segment_bytes;
        let folder = self.to.join("seg");
        files::make_dir(&folder)?;
        for copy in &manifest.segments {
            let path = self.to.join(segment_file(copy.segment));
            let file = files::create(&path)?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes)
                .map_err(|error| io_error("reserve", &path, error.into()))?;
            for piece in &copy.pieces {
                let mut at = piece.from;
                self.read(&self.repository.data_path(&piece.sum), &piece.sum, &mut |bytes| {
                    file.write_all_at(bytes, at)
                        .map_err(|error| io_error("write", &path, error))?;
                    at += bytes.len() as u64;
                    Ok(())
                })?;
            }
            file.sync_all().map_err(|error| io_error("flush", &path, error))?;
        }
        files::sync_dir(&folder)
    }

    pub(super) fn keys(&self, from: &Path, listed: &[Listed], folder: &Path) -> Result<()> {
        self.progress.begin("keys", 0);
        files::make_dir(folder)?;
        for file in listed {
            self.file(&from.join(&file.name), &file.sum, &folder.join(&file.name))?;
        }
        files::sync_dir(folder)
    }

    pub(super) fn audit(&self, listed: &[Listed], folder: &Path) -> Result<()> {
        self.progress.begin("audit log", listed.iter().map(|it| it.bytes).sum());
        if listed.is_empty() {
            return Ok(());
        }
        files::make_dir(folder)?;
        for file in listed {
            self.data(&file.sum, &folder.join(&file.name))?;
        }
        files::sync_dir(folder)
    }

    fn superblocks(&self, head: &Head, env: &Env) -> Result<()> {
        let open_count = head.open_count + OPENS_APART;
        let incarnation_next = head.incarnation_next.checked_add(INCARNATIONS_APART);
        let (true, Some(incarnation_next)) = (open_count <= OPEN_COUNT_MAX, incarnation_next)
        else {
            return Err(Error::new(ErrorKind::Misuse, "restore a volume once too often"));
        };
        for (seq, name) in [(1, "SUPER.b"), (2, "SUPER.a")] {
            let block = Superblock {
                seq,
                volume: head.volume,
                segment_bytes: head.segment_bytes,
                pooled_families: head.pooled_families,
                open_count,
                incarnation_next,
                meta_seq: head.sequence,
                write_time_ms: env.clock.now_ms(),
                clean: false,
            };
            files::replace(&self.to.join(name), &block.encode())?;
        }
        Ok(())
    }

    fn data(&self, sum: &Sum, to: &Path) -> Result<()> {
        self.file(&self.repository.data_path(sum), sum, to)
    }

    fn file(&self, from: &Path, sum: &Sum, to: &Path) -> Result<()> {
        let mut file = files::create(to)?;
        self.read(from, sum, &mut |bytes| {
            std::io::Write::write_all(&mut file, bytes)
                .map_err(|error| io_error("write", to, error))
        })?;
        file.sync_all().map_err(|error| io_error("flush", to, error))
    }

    /// Shows a file of the repository, and fails at its end if it is not what it should be.
    fn read(
        &self,
        from: &Path,
        sum: &Sum,
        visit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (found, _) = files::walk(from, u64::MAX, self.progress, &mut |bytes| {
            self.progress.add(bytes.len() as u64);
            visit(bytes)
        })?;
        if found == *sum {
            return Ok(());
        }
        Err(damaged(from, "its bytes do not have their digest")
            .with_advice("restore another snapshot; `kluis backup verify` lists what is damaged"))
    }
}

/// Sets right what the rows say of the old directory: segments that were free have no file here,
/// and records that were written while the snapshot was taken know later sequence numbers.
fn set_rows_right(to: &Path, head: &Head) -> Result<()> {
    let store = open_rows(&to.join(META), head.pooled_families)?;
    let mut changes = Vec::new();
    let lower = b"S".to_vec();
    store.scan(Family::Gc, &lower, &prefix_end(&lower), &mut |_, value| {
        let row = SegmentRow::decode(value)?;
        if row.state == SegmentState::Free {
            for table in *b"SX" {
                let bytes = [&[table], row.segment.to_be_bytes().as_slice()].concat();
                changes.push(Change::Delete { row: RowKey { family: Family::Gc, bytes } });
            }
        }
        Ok(ScanStep::Next)
    })?;
    if !changes.is_empty() {
        store.write(&changes)?;
    }
    advance(&store, head.watermark)?;
    store.close()
}

/// The rows in a folder that is being put back.
pub(super) fn open_rows(folder: &Path, pooled_families: u32) -> Result<RocksMeta> {
    let pooled = u8::try_from(pooled_families)
        .map_err(|_| Error::new(ErrorKind::Corrupt, format!("share {pooled_families} families")))?;
    let settings = RocksSettings { pooled, cache_bytes: CACHE_BYTES, create: false };
    RocksMeta::open(folder, settings)
}
