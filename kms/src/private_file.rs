//! Files that only their owner may read, and writes that survive power loss.
//!
//! Owns: opening, permission checks, replacing a file whole, the lock on the key directory. Knows
//! nothing of: what the files hold.
//!
//! Invariants
//! - A file that its group or others may touch, or that another user owns, is refused, not fixed:
//!   someone may have read it already.
//! - [`replace`] leaves the old file or the new one, never a mix, also after a crash.
//!   See docs/KEYS.md, "Files".

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

const OTHERS: u32 = 0o077;

/// Puts the path and the step into an I/O error.
pub(crate) fn io_error(step: &str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{step} {}", path.display())).with_source(error)
}

/// Makes the directory, for its owner only, or checks the one that is there.
pub(crate) fn ensure_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_dir(path),
        Err(error) => Err(io_error("make the directory", path, error)),
    }
}

/// Refuses a directory that others may enter.
pub(crate) fn check_dir(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| io_error("look at", path, error))?;
    check_owner_only(path, &metadata, "chmod 700 it, and think about who may have read it")
}

fn check_owner_only(path: &Path, metadata: &Metadata, advice: &'static str) -> Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let during = format!("open {} with mode {mode:04o}", path.display());
        return Err(Error::new(ErrorKind::Refused, during).with_advice(advice));
    }
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != us && us != 0 {
        let during = format!("open {}, which belongs to user {owner}", path.display());
        return Err(Error::new(ErrorKind::Refused, during)
            .with_advice("chown it to the user the node runs as"));
    }
    Ok(())
}

/// Opens a file for reading and, if asked, for writing; refuses one that others may touch.
pub(crate) fn open(path: &Path, writable: bool) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .open(path)
        .map_err(|error| io_error("open", path, error))?;
    let metadata = file.metadata().map_err(|error| io_error("look at", path, error))?;
    if !metadata.is_file() {
        let during = format!("open {}, which is not a file", path.display());
        return Err(Error::new(ErrorKind::Refused, during));
    }
    check_owner_only(
        path,
        &metadata,
        "chmod 600 it, and change what it protects: others had access",
    )?;
    Ok(file)
}

/// Reads a whole file of at most `bytes_max` bytes. The bytes are wiped on drop.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>> {
    let file = open(path, false)?;
    let length = file.metadata().map_err(|error| io_error("look at", path, error))?.len();
    if length > bytes_max {
        let during = format!("read {} of {length} bytes", path.display());
        return Err(Error::new(ErrorKind::Corrupt, during));
    }
    // Room for all, so that the buffer does not move and leave a copy.
    let capacity = usize::try_from(length).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let mut bounded = file.take(bytes_max);
    bounded.read_to_end(&mut bytes).map_err(|error| io_error("read", path, error))?;
    Ok(bytes)
}

/// Makes an empty file for its owner only, in place of one that is there.
pub(crate) fn create(path: &Path) -> Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", path, error));
        }
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_error("create", path, error))
}

/// Writes `bytes` to `path` by way of a file beside it, and makes the change durable.
/// Returns the new file, open for writing.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<File> {
    let beside = path.with_extension("new");
    let mut file = create(&beside)?;
    file.write_all(bytes).map_err(|error| io_error("write", &beside, error))?;
    file.sync_all().map_err(|error| io_error("flush", &beside, error))?;
    fs::rename(&beside, path).map_err(|error| io_error("rename to", path, error))?;
    sync_parent(path)?;
    Ok(file)
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("flush the directory", parent, error))
}

/// Takes the directory for this process; the lock ends with the returned file.
pub(crate) fn lock_dir(path: &Path) -> Result<File> {
    let directory = File::open(path).map_err(|error| io_error("open", path, error))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(fs::TryLockError::WouldBlock) => {
            let during = format!("lock {}", path.display());
            Err(Error::new(ErrorKind::Conflict, during)
                .with_advice("another process has this keyring open: stop it first"))
        }
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", path, error)),
    }
}
