//! Keys and audit log in a repository: the newest only.
//!
//! ```text
//! keys/NNNNNNNNNN/   INDEX, root.sealed, keyring.E, slots.E
//! audit/INDEX        names of the log's files, whose bytes lie under data/
//! ```
//! Owns: that older keys are overwritten and go. Knows nothing of: what the files say; all of it is
//! sealed or authenticated by kms.
//!
//! Invariants
//! - A key that was destroyed before the last run is not in the repository, whichever snapshot is
//!   put back.
//! - There is a whole set of keys at every moment after the first run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kluis_kms::{AuditFiles, Kms, audit_files_at_rest, with_key_files_at_rest};

use super::files::{self, damaged};
use super::manifest::{Listed, TEXT_BYTES_MAX, decode_list, encode_list};
use super::progress::Progress;
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result};

pub(super) const KEYS: &str = "keys";
pub(super) const AUDIT: &str = "audit";
const INDEX: &str = "INDEX";
const HEAD: &str = "head";
/// Digits of a generation of keys.
const DIGITS: usize = 10;

/// Where keys and audit log come from.
pub(super) enum KeySource {
    /// A data directory that nobody has open.
    AtRest(PathBuf),
    /// A running node's.
    Running(Arc<Kms>),
}

impl KeySource {
    fn with_files(&self, visit: impl FnOnce(&[PathBuf]) -> Result<()>) -> Result<()> {
        match self {
            Self::AtRest(dir) => with_key_files_at_rest(dir, visit)?,
            Self::Running(kms) => kms.with_key_files(visit),
        }
    }

    fn audit(&self) -> Result<AuditFiles> {
        Ok(match self {
            Self::AtRest(dir) => audit_files_at_rest(dir)?,
            Self::Running(kms) => kms.audit_log().files()?,
        })
    }
}

/// Puts the keys as they are now into the repository, and takes the older ones out.
pub(super) fn store_keys(
    repository: &Repository,
    source: &KeySource,
    progress: &Progress,
) -> Result<()> {
    let generations = generations(repository)?;
    let newest = generations.last().copied().unwrap_or(0);
    let held = keys_index(repository).ok().map(|(_, held)| held);
    let next = repository.temporary(KEYS);
    files::make_dir(&next)?;
    let mut listed = Vec::new();
    source.with_files(|paths| {
        for path in paths {
            let name = name_of(path)?;
            let (sum, bytes) = files::walk(path, u64::MAX, progress, &mut |_| Ok(()))?;
            listed.push(Listed { name, bytes, sum });
        }
        // The usual case; nothing is written, and no older copy is left to be overwritten.
        if held.as_ref() == Some(&listed) {
            return Ok(());
        }
        listed.clear();
        for path in paths {
            let name = name_of(path)?;
            let (sum, bytes) = files::copy(path, u64::MAX, &next.join(&name), progress)?;
            listed.push(Listed { name, bytes, sum });
        }
        Ok(())
    })?;
    let mut kept = newest;
    if held.as_ref() != Some(&listed) {
        files::replace(&next.join(INDEX), encode_list(&listed).as_bytes())?;
        kept = newest + 1;
        files::make_dir(&repository.path(KEYS))?;
        files::rename(&next, &generation_path(repository, kept))?;
    }
    for older in generations.into_iter().filter(|number| *number != kept) {
        files::shred_tree(&generation_path(repository, older))?;
    }
    Ok(())
}

/// Puts the audit log into the repository, and takes out what it grew out of and segments that are
/// past their retention.
pub(super) fn store_audit(
    repository: &Repository,
    source: &KeySource,
    progress: &Progress,
) -> Result<()> {
    let AuditFiles { segments, head } = source.audit()?;
    let Some(head) = head else { return Ok(()) };
    let known = audit_index(repository).unwrap_or_default();
    // The last two, the segment that was appended to and `head`, are never taken for what they
    // were.
    let closed: Vec<&Listed> = known.iter().rev().skip(2).collect();
    let last = segments.len();
    let mut listed = Vec::new();
    for (number, (path, bytes)) in segments.iter().enumerate() {
        let name = name_of(path)?;
        let same = closed.iter().find(|it| it.name == name && it.bytes == *bytes);
        if let Some(same) = same.filter(|_| number + 1 < last)
            && repository.holds(&same.sum, same.bytes)
        {
            listed.push((*same).clone());
            continue;
        }
        let mut writer = repository.writer()?;
        let copied = files::walk(path, *bytes, progress, &mut |bytes| writer.write(bytes));
        // It may have been past its retention meanwhile.
        if copied.is_err() && !path.exists() {
            continue;
        }
        copied?;
        let (sum, bytes) = writer.finish()?;
        listed.push(Listed { name, bytes, sum });
    }
    let mut writer = repository.writer()?;
    writer.write(&head)?;
    let (sum, bytes) = writer.finish()?;
    listed.push(Listed { name: HEAD.to_owned(), bytes, sum });
    files::make_dir(&repository.path(AUDIT))?;
    let text = encode_list(&listed);
    files::replace(&repository.path(AUDIT).join(INDEX), text.as_bytes())?;
    for old in known.iter().filter(|old| !listed.iter().any(|it| it.sum == old.sum)) {
        files::remove(&repository.data_path(&old.sum))?;
    }
    Ok(())
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| damaged(path, "its name is not UTF-8"))
}

fn generation_path(repository: &Repository, number: u64) -> PathBuf {
    repository.path(KEYS).join(format!("{number:0DIGITS$}"))
}

/// The generations of keys that are there, the oldest first.
fn generations(repository: &Repository) -> Result<Vec<u64>> {
    let names = files::names(&repository.path(KEYS))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The folder of the newest keys, and what is in it.
///
/// # Errors
/// [`ErrorKind::NotFound`]: no run got as far. [`ErrorKind::Corrupt`]: the index is damaged.
pub(super) fn keys_index(repository: &Repository) -> Result<(PathBuf, Vec<Listed>)> {
    let newest = generations(repository)?.last().copied().ok_or_else(|| {
        let during = format!("find the keys in {}", repository.path(KEYS).display());
        Error::new(ErrorKind::NotFound, during).with_advice("no backup into it has ended yet")
    })?;
    let folder = generation_path(repository, newest);
    let listed = index(&folder)?;
    Ok((folder, listed))
}

/// The files of the audit log, `head` last; nothing if there is none.
pub(super) fn audit_index(repository: &Repository) -> Result<Vec<Listed>> {
    let folder = repository.path(AUDIT);
    if folder.join(INDEX).exists() { index(&folder) } else { Ok(Vec::new()) }
}

fn index(folder: &Path) -> Result<Vec<Listed>> {
    let path = folder.join(INDEX);
    let text = files::read(&path, TEXT_BYTES_MAX)?;
    decode_list(&text).ok_or_else(|| damaged(&path, "the list does not match its digest"))
}
