//! Files of a repository and of a directory that is put back: private, whole and durable.
//!
//! Owns: how they are made, copied, replaced and overwritten. Knows nothing of: what they hold.
//!
//! Invariants
//! - Every file is readable by its owner only, and every folder is closed to others.
//! - [`replace`] leaves the old file or the new one, also after a crash.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::manifest::Sum;
use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are moved at a time.
const STEP_BYTES: usize = 1 << 20;

/// Puts the path and the step into an error.
pub(super) fn io_error(step: &str, path: &Path, cause: io::Error) -> Error {
    let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let kind = if full { ErrorKind::Full } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{step} {}", path.display())).with_source(cause)
}

/// A file that is not as it was written.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("read {}", path.display())).with_source(what.to_owned())
}

/// Makes a folder, if it is not there.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(io_error("make the folder", path, error)),
    }
}

/// Makes a file that is not there.
pub(super) fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_error("make", path, error))
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| io_error("flush the folder", path, error))
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Writes a file by way of another beside it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    remove(&beside)?;
    let mut file = create(&beside)?;
    file.write_all(bytes).map_err(|error| io_error("write", &beside, error))?;
    file.sync_all().map_err(|error| io_error("flush", &beside, error))?;
    rename(&beside, path)
}

/// Gives a file another name, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| io_error("rename to", to, error))?;
    sync_parent(to)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder and what is in it, if it is there.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Overwrites every file of a folder with zeros, flushed, then removes the folder.
pub(super) fn shred_tree(path: &Path) -> Result<()> {
    for name in names(path)? {
        let file = path.join(name);
        let shred = || -> io::Result<()> {
            let mut left = fs::metadata(&file)?.len();
            let mut open = OpenOptions::new().write(true).open(&file)?;
            let zeros = vec![0; STEP_BYTES];
            while left > 0 {
                let step = usize::try_from(left).unwrap_or(STEP_BYTES).min(STEP_BYTES);
                open.write_all(zeros.get(..step).unwrap_or_default())?;
                left -= step as u64;
            }
            open.sync_all()
        };
        shred().map_err(|error| io_error("overwrite", &file, error))?;
    }
    remove_tree(path)?;
    sync_parent(path)
}

/// The names in a folder, in order; none if there is no folder.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let failed = |error| io_error("list", path, error);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        found.push(name.into_string().map_err(|_| damaged(path, "a name in it is not UTF-8"))?);
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads a file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |error| io_error("read", path, error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > most {
        return Err(damaged(path, "it is longer than such a file can be"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Length of a file; none if there is none.
pub(super) fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.len())
}

/// Shows the first `most` bytes of a file step by step; the digest and number of what there was.
pub(super) fn walk(
    path: &Path,
    most: u64,
    progress: &Progress,
    visit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(Sum, u64)> {
    let failed = |error| io_error("read", path, error);
    let mut file = File::open(path).map_err(failed)?.take(most);
    // Slots pass through here.
    let mut buffer = Zeroizing::new(vec![0; STEP_BYTES]);
    let (mut digest, mut total) = (Sha256::new(), 0);
    loop {
        progress.check()?;
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok((Sum(digest.finalize().into()), total));
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        digest.update(bytes);
        total += count as u64;
        visit(bytes)?;
    }
}

/// Copies the first `most` bytes of a file to a new one, durably.
pub(super) fn copy(from: &Path, most: u64, to: &Path, progress: &Progress) -> Result<(Sum, u64)> {
    let mut file = create(to)?;
    let copied = walk(from, most, progress, &mut |bytes| {
        progress.add(bytes.len() as u64);
        file.write_all(bytes).map_err(|error| io_error("write", to, error))
    })?;
    file.sync_all().map_err(|error| io_error("flush", to, error))?;
    Ok(copied)
}

/// Whether `inner` lies in `outer`, links followed as far as the folders are there.
pub(super) fn is_inside(inner: &Path, outer: &Path) -> bool {
    let real = |path: &Path| -> PathBuf {
        path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?))).map_or_else(
            || path.to_owned(),
            |(there, found)| found.join(path.strip_prefix(there).unwrap_or(Path::new(""))),
        )
    };
    real(inner).starts_with(real(outer))
}
