//! The repository: a folder that snapshots of one node are kept in.
//!
//! Owns: its layout, its lock, how files come in and go. Knows nothing of: what a snapshot means.
//!
//! Invariants
//! - A file under `data/` is named by the digest of its bytes, and is never changed: it comes in
//!   whole by a rename, and goes when no snapshot needs it.
//! - A snapshot is there once its manifest is, and everything that it needs came in before.
//! - One process at a time adds or removes; while one reads, none does.
//! - A repository is of one volume; another's node is refused, since it would replace the keys.
//!   Bytes: docs/FORMAT.md, "Backup repository".

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::files::{self, damaged, io_error};
use super::manifest::{Manifest, Sum, TEXT_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::format::VolumeId;

/// What tells a repository; the volume's id follows on a second line.
const MARK: &str = "KLUIS-BACKUP";
/// The mark's first line, up to the format's version.
const MARK_LINE: &str = "kluis backup repository ";
/// The format that this build writes and reads.
const VERSION: u32 = 1;
const LOCK: &str = "LOCK";
const SNAPSHOTS: &str = "snapshots";
const DATA: &str = "data";
const TMP: &str = "tmp";
/// A mark is two short lines.
const MARK_BYTES_MAX: u64 = 4096;
/// What a new file system has in its root.
pub(super) const FILE_SYSTEM_OWN: &str = "lost+found";

/// An open repository.
pub(super) struct Repository {
    root: PathBuf,
    volume: VolumeId,
    _lock: File,
}

impl Repository {
    /// Opens the repository of `volume`, or makes it in a folder that is empty or not there.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: another process is at work in it.
    /// - [`ErrorKind::Misuse`]: the folder holds something else, or is another node's.
    pub(super) fn open_or_make(root: &Path, volume: VolumeId) -> Result<Self> {
        files::make_dir(root)?;
        if !root.join(MARK).exists() {
            let names = files::names(root)?;
            if let Some(other) =
                names.iter().find(|name| ![FILE_SYSTEM_OWN, LOCK].contains(&name.as_str()))
            {
                let during = format!("make a repository in {}", root.display());
                return Err(Error::new(ErrorKind::Misuse, during)
                    .with_source(format!("it holds {other} and is no repository"))
                    .with_advice("give an empty folder"));
            }
            let lock = lock(root, FlockOperation::NonBlockingLockExclusive)?;
            let text = format!("{MARK_LINE}{VERSION}\nvolume {volume}\n");
            files::replace(&root.join(MARK), text.as_bytes())?;
            drop(lock);
        }
        let repository = Self::open(root, FlockOperation::NonBlockingLockExclusive)?;
        if repository.volume != volume {
            let during = format!("back up into {}", root.display());
            return Err(Error::new(ErrorKind::Misuse, during)
                .with_source(format!("it is the repository of volume {}", repository.volume))
                .with_advice("give every node a repository of its own"));
        }
        repository.tidy()?;
        Ok(repository)
    }

    /// Opens a repository to remove something.
    ///
    /// # Errors
    /// As [`Self::open_to_read`].
    pub(super) fn open_to_write(root: &Path) -> Result<Self> {
        let repository = Self::open(root, FlockOperation::NonBlockingLockExclusive)?;
        repository.tidy()?;
        Ok(repository)
    }

    /// Opens a repository to read it.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: another process is at work in it.
    /// - [`ErrorKind::Misuse`]: it is no repository, or a later build's.
    pub(super) fn open_to_read(root: &Path) -> Result<Self> {
        Self::open(root, FlockOperation::NonBlockingLockShared)
    }

    fn open(root: &Path, operation: FlockOperation) -> Result<Self> {
        let misuse = |what: &str, advice| {
            let during = format!("open the repository {}", root.display());
            Err(Error::new(ErrorKind::Misuse, during)
                .with_source(what.to_owned())
                .with_advice(advice))
        };
        let path = root.join(MARK);
        if !path.exists() {
            return misuse("it is none", "`kluis backup --to DIR` makes one");
        }
        let text = files::read(&path, MARK_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|_| damaged(&path, "it is not UTF-8"))?;
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(MARK_LINE)?.parse().ok());
        let volume = lines.next().and_then(|line| line.strip_prefix("volume ")?.parse().ok());
        match (version, volume) {
            (Some(newer), _) if newer > VERSION => misuse(
                &format!("it is of format {newer}"),
                "it was written by a later release: use that release",
            ),
            (Some(VERSION), Some(volume)) => {
                let lock = lock(root, operation)?;
                Ok(Self { root: root.to_owned(), volume, _lock: lock })
            }
            _ => Err(damaged(&path, "it does not say which repository this is")),
        }
    }

    /// Makes the folders, and removes what a process that was cut short left.
    fn tidy(&self) -> Result<()> {
        files::remove_tree(&self.root.join(TMP))?;
        for name in [SNAPSHOTS, DATA, TMP] {
            files::make_dir(&self.root.join(name))?;
        }
        Ok(())
    }

    /// A path in the repository.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a file may be made that gets its name later.
    pub(super) fn temporary(&self, name: &str) -> PathBuf {
        self.root.join(TMP).join(name)
    }

    /// The ids of all snapshots, the oldest first.
    pub(super) fn snapshots(&self) -> Result<Vec<String>> {
        files::names(&self.root.join(SNAPSHOTS))
    }

    /// Where a snapshot's manifest lies.
    pub(super) fn manifest_path(&self, id: &str) -> PathBuf {
        self.root.join(SNAPSHOTS).join(id)
    }

    /// Reads a snapshot's manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is damaged. [`ErrorKind::NotFound`]: there is none.
    pub(super) fn manifest(&self, id: &str) -> Result<Manifest> {
        let path = self.manifest_path(id);
        if super::manifest::plain(id).is_none() || !path.is_file() {
            return Err(Error::new(ErrorKind::NotFound, format!("find snapshot {id}"))
                .with_advice("`kluis backup list` shows those that there are"));
        }
        let manifest = Manifest::decode(&files::read(&path, TEXT_BYTES_MAX)?)
            .ok_or_else(|| damaged(&path, "the manifest does not match its digest"))?;
        if manifest.head.volume != self.volume {
            return Err(damaged(&path, "it is of another volume"));
        }
        Ok(manifest)
    }

    /// Adds a snapshot; from here on it is there.
    pub(super) fn put_manifest(&self, id: &str, manifest: &Manifest) -> Result<()> {
        let beside = self.temporary(id);
        let mut file = files::create(&beside)?;
        file.write_all(manifest.encode().as_bytes())
            .map_err(|error| io_error("write", &beside, error))?;
        file.sync_all().map_err(|error| io_error("flush", &beside, error))?;
        files::rename(&beside, &self.manifest_path(id))
    }

    /// Removes a snapshot. What only it needs stays until [`Self::sweep`].
    pub(super) fn remove_manifest(&self, id: &str) -> Result<()> {
        files::remove(&self.manifest_path(id))?;
        files::sync_dir(&self.root.join(SNAPSHOTS))
    }

    /// Where the bytes of this digest lie.
    pub(super) fn data_path(&self, sum: &Sum) -> PathBuf {
        let name = sum.to_string();
        let folder: String = name.chars().take(2).collect();
        self.root.join(DATA).join(folder).join(name)
    }

    /// Whether the bytes of this digest are there, as far as their number tells.
    pub(super) fn holds(&self, sum: &Sum, bytes: u64) -> bool {
        files::length(&self.data_path(sum)) == Some(bytes)
    }

    /// A writer of bytes whose digest is not yet known.
    pub(super) fn writer(&self) -> Result<DataWriter<'_>> {
        let path = self.temporary("data");
        files::remove(&path)?;
        let file = files::create(&path)?;
        Ok(DataWriter { repository: self, path, file, digest: Sha256::new(), bytes: 0 })
    }

    /// Removes every file under `data/` that is not `needed`; how many, and their bytes.
    pub(super) fn sweep(&self, needed: &BTreeSet<Sum>) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let data = self.root.join(DATA);
        for folder in files::names(&data)? {
            for name in files::names(&data.join(&folder))? {
                let is_needed = name.parse().is_ok_and(|sum| needed.contains(&sum));
                let path = data.join(&folder).join(&name);
                if !is_needed {
                    bytes += files::length(&path).unwrap_or(0);
                    count += 1;
                    files::remove(&path)?;
                }
            }
        }
        Ok((count, bytes))
    }
}

/// Takes the repository's lock.
fn lock(root: &Path, operation: FlockOperation) -> Result<File> {
    let path = root.join(LOCK);
    // A repository on a medium that cannot be written can be read all the same.
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => files::create(&path)?,
        opened => opened.map_err(|error| io_error("open", &path, error))?,
    };
    flock(&file, operation).map_err(|cause| {
        Error::new(ErrorKind::Conflict, format!("lock the repository {}", root.display()))
            .with_source(cause)
            .with_advice("another process is at work in it: wait until it has ended")
    })?;
    Ok(file)
}

/// Bytes on their way into the repository.
pub(super) struct DataWriter<'a> {
    repository: &'a Repository,
    path: PathBuf,
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl DataWriter<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| io_error("write", &self.path, error))
    }

    /// Makes the bytes durable under the name of their digest. A file of that name is replaced: it
    /// holds the same, or is damaged.
    pub(super) fn finish(self) -> Result<(Sum, u64)> {
        self.file.sync_all().map_err(|error| io_error("flush", &self.path, error))?;
        let sum = Sum(self.digest.finalize().into());
        let to = self.repository.data_path(&sum);
        if let Some(folder) = to.parent() {
            files::make_dir(folder)?;
        }
        files::rename(&self.path, &to)?;
        Ok((sum, self.bytes))
    }
}

#[cfg(test)]
mod tests;
