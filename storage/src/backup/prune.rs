//! Taking old snapshots out of a repository.
//!
//! Owns: which go, and the order. Knows nothing of: when.
//!
//! Invariants
//! - A snapshot goes before anything that it needs; a crash between leaves files that nobody needs
//!   and that the next run removes.
//! - Nothing is removed while a manifest cannot be read: nobody knows what it needs.

use std::collections::BTreeSet;
use std::path::Path;

use super::keys;
use super::manifest::{BackupKind, Sum};
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots.
    pub snapshots: u64,
    /// Files that none of the others needs.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Keeps the newest `keep` snapshots of each kind, and removes the others and what only they need.
///
/// # Errors
/// - [`ErrorKind::Conflict`]: another process is at work in the repository.
/// - [`ErrorKind::Corrupt`]: a manifest is damaged; nothing was removed.
/// - [`ErrorKind::Misuse`]: it is no repository, or `keep` is 0.
pub fn prune(from: &Path, keep: usize) -> Result<PruneReport> {
    prune_open(&Repository::open_to_write(from)?, keep)
}

pub(super) fn prune_open(repository: &Repository, keep: usize) -> Result<PruneReport> {
    if keep == 0 {
        return Err(Error::new(ErrorKind::Misuse, "keep no snapshot"));
    }
    let (mut needed, mut leaving) = (BTreeSet::<Sum>::new(), Vec::new());
    let (mut full, mut metadata) = (0, 0);
    for id in repository.snapshots()?.into_iter().rev() {
        let manifest = repository.manifest(&id).map_err(|error| {
            let during = format!("remove snapshots while {id} cannot be read");
            Error::new(ErrorKind::Corrupt, during)
                .with_source(error)
                .with_advice("put its manifest back, or remove that file to give it up")
        })?;
        let kept = match manifest.head.kind {
            BackupKind::Full => &mut full,
            BackupKind::Metadata => &mut metadata,
        };
        if *kept < keep {
            *kept += 1;
            needed.extend(manifest.needs().map(|(sum, _, _)| sum));
        } else {
            leaving.push(id);
        }
    }
    needed.extend(keys::audit_index(repository)?.iter().map(|it| it.sum));
    for id in &leaving {
        repository.remove_manifest(id)?;
    }
    let (files, bytes) = repository.sweep(&needed)?;
    Ok(PruneReport { snapshots: leaving.len() as u64, files, bytes })
}
