//! Backup and restore of a node.
//!
//! A repository is a folder, on another disk, that snapshots of one node are kept in. `take.rs`
//! copies into it while clients are at work; [`restore`] fills an empty directory from it;
//! [`verify`], [`list`] and [`prune`] look after it. Start at `take.rs`.
//! Owns: the requests, and that a node does one thing at a time. Knows nothing of: plaintext, the
//! command line; all it moves is ciphertext, sealed keys and rows.
//!
//! Invariants
//! - No key is opened here: a backup is taken, verified and put back without a passphrase.
//!   Bytes: docs/FORMAT.md, "Backup repository". Why so: docs/adr/0014-backup.md.

mod files;
mod keys;
mod manifest;
mod progress;
mod prune;
mod repository;
mod restore;
mod rollback;
mod take;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kluis_kms::Env;

pub use manifest::BackupKind;
pub use progress::{Progress, ProgressView};
pub use prune::{PruneReport, prune};
pub use restore::{RestoreRequest, RestoreSummary, refuse_half, restore};
pub use rollback::{MetadataRequest, MetadataSummary, restore_metadata};
pub use verify::{RepositoryDamage, SnapshotAbout, SnapshotInfo, VerifyReport, list, verify};

use crate::check::wait_until_gone;
use crate::engine::{Engine, EngineConfig, Inner, open_parts};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::blocking;
use keys::KeySource;
use take::Source;

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// The repository; made if the folder is empty or not there.
    pub to: PathBuf,
    /// With segments or without.
    pub kind: BackupKind,
    /// Bytes a second that are read at most; `None` for as fast as it goes.
    pub rate_bytes: Option<u64>,
    /// Snapshots of each kind that stay, the newest; `None` for all.
    pub keep: Option<usize>,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// The snapshot that was taken.
    pub snapshot: String,
    /// What it holds.
    pub kind: BackupKind,
    /// When, in Unix milliseconds.
    pub created_ms: u64,
    /// How far the metadata goes.
    pub sequence: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of metadata and segments that were copied.
    pub copied_bytes: u64,
    /// Bytes that the repository had.
    pub reused_bytes: u64,
    /// Bytes of segments that the device could not read.
    pub unreadable_bytes: u64,
    /// Older snapshots that were removed.
    pub removed_snapshots: u64,
    /// Whether the repository is on the disk of the data directory, and so lost with it.
    pub same_disk: bool,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// How the backups of a running node stand.
#[derive(Clone, Debug)]
pub struct BackupStatus {
    /// How far the one is that runs.
    pub running: Option<ProgressView>,
    /// How the last one ended that is over.
    pub last: Option<std::result::Result<BackupSummary, String>>,
}

/// The backups of a node: one at a time.
pub(crate) struct Backups {
    dir: PathBuf,
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Progress>>,
    last: Option<std::result::Result<BackupSummary, String>>,
    is_closing: bool,
}

impl Backups {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), turn: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the one that runs, and takes no more.
    pub(crate) async fn close(&self) {
        let running = {
            let mut state = self.state();
            state.is_closing = true;
            state.running.clone()
        };
        if let Some(progress) = running {
            progress.stop();
        }
        drop(self.turn.lock().await);
    }
}

impl Engine {
    /// Takes a snapshot while clients are at work, and returns when it is durable.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: another one runs, here or in the repository.
    /// - [`ErrorKind::Full`], [`ErrorKind::Unavailable`]: a disk is full or fails, or the node
    ///   closes. What was copied is used by the next run.
    /// - [`ErrorKind::Misuse`]: the folder holds something else, or lies in the data directory.
    pub async fn backup(&self, request: BackupRequest) -> Result<BackupSummary> {
        let backups = &self.inner.backups;
        let Ok(_turn) = backups.turn.try_lock() else {
            return Err(Error::new(ErrorKind::Conflict, "back up while another backup runs"));
        };
        let progress = Arc::new(Progress::default());
        {
            let mut state = backups.state();
            if state.is_closing {
                return Err(Error::new(ErrorKind::Unavailable, "back up a node that closes"));
            }
            state.running = Some(Arc::clone(&progress));
        }
        let source = source_of(&self.inner);
        let runtime = tokio::runtime::Handle::current();
        let taken = blocking(move || take::take(&source, &request, &progress, runtime)).await;
        let mut state = backups.state();
        state.running = None;
        state.last = Some(match &taken {
            Ok(summary) => Ok(summary.clone()),
            Err(error) => Err(error.to_string()),
        });
        taken
    }

    /// How the backups stand.
    pub fn backup_status(&self) -> BackupStatus {
        let state = self.inner.backups.state();
        let running = state.running.as_ref().map(|progress| progress.view());
        BackupStatus { running, last: state.last.clone() }
    }
}

fn source_of(inner: &Inner) -> Source {
    Source {
        dir: inner.backups.dir.clone(),
        volume: inner.volume.clone(),
        store: Arc::clone(inner.reader.store()),
        pool: inner.pool.clone(),
        env: inner.env.clone(),
        keys: KeySource::Running(Arc::clone(&inner.kms)),
    }
}

/// Takes a snapshot of a directory that no node has open. Recovers it, as a start does; needs no
/// passphrase.
///
/// # Errors
/// As [`Engine::backup`]; [`ErrorKind::NotFound`]: there is no volume in the directory.
pub async fn backup_at_rest(
    dir: &Path,
    config: &EngineConfig,
    env: Env,
    request: BackupRequest,
    progress: Arc<Progress>,
) -> Result<BackupSummary> {
    if !dir.join("SUPER.a").exists() {
        return Err(Error::new(ErrorKind::NotFound, format!("back up {}", dir.display()))
            .with_advice("it is no data directory"));
    }
    let opened = open_parts(dir, config, &env).await?;
    let source = Source {
        dir: dir.to_owned(),
        volume: opened.volume.clone(),
        store: Arc::clone(opened.reader.store()),
        pool: opened.pool.clone(),
        env,
        keys: KeySource::AtRest(dir.to_owned()),
    };
    let runtime = tokio::runtime::Handle::current();
    let taken = blocking(move || take::take(&source, &request, &progress, runtime)).await;
    opened.volume.close().await?;
    let store = opened.reader.store().alive();
    drop(opened);
    wait_until_gone(&store).await;
    taken
}
