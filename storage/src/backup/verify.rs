//! Looking at a repository: what there is, and whether all of it is as it was written.
//!
//! Owns: what is read and how damage is told. Knows nothing of: keys; a digest is enough.
//!
//! Invariants
//! - A file is called sound only if all of its bytes were read and have the digest that its name,
//!   or the list that names it, says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files;
use super::keys;
use super::manifest::{BackupKind, Manifest, Sum};
use super::progress::Progress;
use super::repository::Repository;
use crate::error::{ErrorKind, Result};

/// Damage that is listed; more is only counted.
const DAMAGED_MAX: usize = 1_000;

/// A snapshot, as `kluis backup list` shows it.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: String,
    /// What it says of itself; none if its manifest is damaged.
    pub about: Option<SnapshotAbout>,
}

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotAbout {
    /// What it holds.
    pub kind: BackupKind,
    /// When it was taken, in Unix milliseconds.
    pub created_ms: u64,
    /// How far the metadata goes.
    pub sequence: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of metadata and segments.
    pub bytes: u64,
    /// Bytes of segments that could not be read when it was taken.
    pub unreadable_bytes: u64,
}

/// A file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryDamage {
    /// Which.
    pub path: PathBuf,
    /// What is wrong, and what it is part of.
    pub what: String,
}

/// What a check of a repository found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Snapshots whose manifest is sound.
    pub snapshots: u64,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How much is damaged or missing.
    pub damaged: u64,
    /// That, as far as it is listed.
    pub findings: Vec<RepositoryDamage>,
}

impl SnapshotAbout {
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            kind: manifest.head.kind,
            created_ms: manifest.head.created_ms,
            sequence: manifest.head.sequence,
            segments: manifest.segments.len() as u64,
            bytes: manifest.needs().map(|(_, bytes, _)| bytes).sum(),
            unreadable_bytes: manifest.head.unreadable_bytes,
        }
    }
}

/// The snapshots of a repository, the oldest first.
///
/// # Errors
/// [`ErrorKind::Conflict`]: a process is at work in it. [`ErrorKind::Misuse`]: it is none.
pub fn list(from: &Path) -> Result<Vec<SnapshotInfo>> {
    let repository = Repository::open_to_read(from)?;
    let mut found = Vec::new();
    for id in repository.snapshots()? {
        let about = match repository.manifest(&id) {
            Ok(manifest) => Some(SnapshotAbout::of(&manifest)),
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            Err(error) => return Err(error),
        };
        found.push(SnapshotInfo { id, about });
    }
    Ok(found)
}

/// Reads every file that a snapshot needs, or all snapshots, and the keys and the audit log.
///
/// # Errors
/// - [`ErrorKind::Conflict`]: a process is at work in the repository.
/// - [`ErrorKind::Misuse`]: it is none. [`ErrorKind::NotFound`]: there is no such snapshot.
pub fn verify(from: &Path, snapshot: Option<&str>, progress: &Progress) -> Result<VerifyReport> {
    let repository = Repository::open_to_read(from)?;
    let mut check = Check { report: VerifyReport::default(), progress };
    let ids = match snapshot {
        Some(id) => vec![id.to_owned()],
        None => repository.snapshots()?,
    };
    let mut needed: BTreeMap<Sum, (u64, String)> = BTreeMap::new();
    for id in ids {
        match repository.manifest(&id) {
            Ok(manifest) => {
                check.report.snapshots += 1;
                for (sum, bytes, what) in manifest.needs() {
                    needed.entry(sum).or_insert((bytes, format!("{what} of snapshot {id}")));
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                check.found(repository.manifest_path(&id), error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    match keys::audit_index(&repository) {
        Ok(listed) => needed.extend(
            listed.into_iter().map(|it| (it.sum, (it.bytes, format!("audit/{}", it.name)))),
        ),
        Err(error) => check.found(repository.path(keys::AUDIT), error.to_string()),
    }
    progress.begin("verify", needed.values().map(|(bytes, _)| bytes).sum());
    for (sum, (bytes, what)) in needed {
        check.file(repository.data_path(&sum), (&sum, bytes), &what)?;
    }
    match keys::keys_index(&repository) {
        Ok((folder, listed)) => {
            for it in listed {
                check.file(folder.join(&it.name), (&it.sum, it.bytes), "the keys")?;
            }
        }
        Err(error) => check.found(repository.path(keys::KEYS), error.to_string()),
    }
    Ok(check.report)
}

struct Check<'a> {
    report: VerifyReport,
    progress: &'a Progress,
}

impl Check<'_> {
    fn found(&mut self, path: PathBuf, what: String) {
        self.report.damaged += 1;
        if self.report.findings.len() < DAMAGED_MAX {
            self.report.findings.push(RepositoryDamage { path, what });
        }
    }

    fn file(&mut self, path: PathBuf, (sum, bytes): (&Sum, u64), what: &str) -> Result<()> {
        self.progress.check()?;
        self.report.files += 1;
        let progress = self.progress;
        let read = files::walk(&path, u64::MAX, progress, &mut |bytes| {
            progress.add(bytes.len() as u64);
            Ok(())
        });
        match read {
            Ok((found, length)) => {
                self.report.bytes += length;
                if length != bytes {
                    self.found(path, format!("{what}: {length} bytes instead of {bytes}"));
                } else if found != *sum {
                    self.found(path, format!("{what}: its bytes do not have their digest"));
                }
            }
            Err(error) => self.found(path, format!("{what}: {error}")),
        }
        Ok(())
    }
}
