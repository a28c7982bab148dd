//! The files of the audit log for whoever copies them.
//!
//! Owns: which segments there are and how far each goes. Knows nothing of: where they are copied
//! to, what an entry says.
//!
//! Invariants
//! - The head that is given is that of the segments as long as they are given: a copy of them is a
//!   whole log.

use std::path::{Path, PathBuf};

use super::log::{AUDIT_DIR, AuditLog};
use super::segment::{head_path, segment_path, segments};
use crate::error::Result;
use crate::private_file::{self, io_error};

/// A log as files.
#[derive(Debug)]
pub struct AuditFiles {
    /// The segments, oldest first, and how many bytes of each belong to the log. Old ones may be
    /// removed while they are copied.
    pub segments: Vec<(PathBuf, u64)>,
    /// What the file `head` is to hold; none if there is no log.
    pub head: Option<Vec<u8>>,
}

impl AuditLog {
    /// The log as it is now; what was noted before the call is among it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): the directory cannot be read.
    pub fn files(&self) -> Result<AuditFiles> {
        let head = self.view().head;
        let mut found = list(&self.dir, head.first_segment..=head.segment)?;
        if let Some((_, bytes)) = found.last_mut() {
            *bytes = head.end;
        }
        Ok(AuditFiles { segments: found, head: Some(head.encode(&self.keys)) })
    }
}

/// The log of a data directory that nobody has open, without its passphrase.
///
/// # Errors
/// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): a process has it open.
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): it cannot be read.
pub fn audit_files_at_rest(dir: &Path) -> Result<AuditFiles> {
    let dir = dir.join(AUDIT_DIR);
    if !dir.exists() {
        return Ok(AuditFiles { segments: Vec::new(), head: None });
    }
    private_file::check_dir(&dir)?;
    let _lock = private_file::lock_dir(&dir)?;
    let segments = list(&dir, 0..=u64::MAX)?;
    let path = head_path(&dir);
    let head = if path.exists() {
        Some(std::fs::read(&path).map_err(|error| io_error("read", &path, error))?)
    } else {
        None
    };
    Ok(AuditFiles { segments, head })
}

fn list(dir: &Path, wanted: std::ops::RangeInclusive<u64>) -> Result<Vec<(PathBuf, u64)>> {
    let numbers = segments(dir)?.into_iter().filter(|number| wanted.contains(number));
    let paths = numbers.map(|number| segment_path(dir, number));
    // One that is gone meanwhile was past its retention.
    let sized = paths.filter_map(|path| Some((path.metadata().ok()?.len(), path)));
    Ok(sized.map(|(bytes, path)| (path, bytes)).collect())
}
