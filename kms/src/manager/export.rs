//! The files of the keyring for whoever copies them: all of one epoch, of one moment.
//!
//! Owns: which files there are, and that none of them changes meanwhile. Knows nothing of: where
//! they are copied to; their bytes are sealed, and stay so.
//!
//! Invariants
//! - What is shown is a keyring that opens: no change of a key and no next epoch comes between its
//!   files.

use std::path::{Path, PathBuf};

use super::{Kms, Paths, lock, read};
use crate::error::Result;
use crate::keyring::RootFile;
use crate::private_file;

impl Kms {
    /// Shows `root.sealed`, journal and slots to `visit`. Changes of keys wait until it returns;
    /// the use of keys does not.
    pub fn with_key_files<T>(&self, visit: impl FnOnce(&[PathBuf]) -> T) -> T {
        let _writer = lock(&self.writer);
        let epoch = read(&self.vault).epoch;
        visit(&self.paths.of_epoch(epoch))
    }
}

/// As [`Kms::with_key_files`], for a directory that nobody has open, without its passphrase.
///
/// # Errors
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): a process has it open.
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): `root.sealed` is damaged.
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): it is missing or cannot be read.
pub fn with_key_files_at_rest<T>(dir: &Path, visit: impl FnOnce(&[PathBuf]) -> T) -> Result<T> {
    let paths = Paths::under(dir);
    private_file::check_dir(&paths.keys)?;
    let _lock = private_file::lock_dir(&paths.keys)?;
    let root_file = RootFile::read(&paths.root)?;
    Ok(visit(&paths.of_epoch(root_file.epoch)))
}

impl Paths {
    fn of_epoch(&self, epoch: u32) -> [PathBuf; 3] {
        [self.root.clone(), self.keyring(epoch), self.slots(epoch)]
    }
}

#[cfg(test)]
mod tests;
