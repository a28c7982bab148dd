//! The check of an audit log that no node has open.
//!
//! Owns: where a closed log should end, and what is said of an end that is not there. Knows nothing
//! of: how the keys are opened, who asks.
//!
//! Invariants
//! - Nothing is written: what is found is found again by the next check, and by the next start.
//! - A head may lag behind the segments (it is not flushed with them), never the other way round.
//! - A group that a crash cut short was never acknowledged and is told, not counted as damage.
//!   See docs/KEYS.md, "Audit".

use std::path::Path;

use super::log::AUDIT_DIR;
use super::read::{AuditVerdict, check_segments};
use super::segment::{Chain, Head, Keys, SegmentReader, Step, head_path, segments};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::MacSecret;

/// Where the sound entries of a closed log end.
struct End {
    segment: u64,
    offset: u64,
    chain: Chain,
    torn_bytes: u64,
}

/// Checks the whole log under the data directory `dir`.
///
/// # Errors
/// [`ErrorKind::Conflict`]: a node has it open. [`ErrorKind::NotFound`]: there is no log.
/// [`ErrorKind::Refused`]: others may read a file. [`ErrorKind::Unavailable`]: a file cannot be
/// read.
pub(crate) fn verify_closed(dir: &Path, mac_key: &MacSecret) -> Result<AuditVerdict> {
    let dir = dir.join(AUDIT_DIR);
    let absent =
        || Error::new(ErrorKind::NotFound, format!("find an audit log in {}", dir.display()));
    if !dir.is_dir() {
        return Err(absent());
    }
    private_file::check_dir(&dir)?;
    let _lock = private_file::lock_dir(&dir)?;
    let keys = Keys::derive(mac_key)?;
    let numbers = segments(&dir)?;
    let written = Head::read(&dir, &keys)?;
    let Some(last) = numbers.last().copied() else {
        if head_path(&dir).exists() {
            let mut verdict = AuditVerdict::default();
            verdict.harm(0, 0, "every segment is missing");
            return Ok(verdict);
        }
        return Err(absent());
    };
    let end = sound_end(&dir, last, &keys)?;
    let first = numbers.first().copied().unwrap_or(last);
    let head = Head {
        first_segment: written.map_or(first, |written| written.first_segment),
        segment: last.max(written.map_or(0, |written| written.segment)),
        end: end.as_ref().map_or(0, |end| end.offset),
        next_sequence: end.as_ref().map_or(0, |end| end.chain.next_sequence),
        hash: end.as_ref().map_or([0; 32], |end| end.chain.head),
    };
    let mut verdict = check_segments(&dir, &keys, &head)?;
    verdict.torn_bytes = end.as_ref().map_or(0, |end| end.torn_bytes);
    match (written, &end) {
        (None, _) => verdict.harm(last, 0, "the head is damaged or missing"),
        (Some(written), Some(end))
            if (written.segment, written.end) > (end.segment, end.offset) =>
        {
            verdict.harm(last, end.offset, "the log ends before it did: entries were cut off");
        }
        _ => {}
    }
    Ok(verdict)
}

/// Where the last segment's sound groups end; none if not even its beginning is sound.
fn sound_end(dir: &Path, segment: u64, keys: &Keys) -> Result<Option<End>> {
    let Some((mut reader, checkpoint)) = SegmentReader::open(dir, segment, None, keys)? else {
        return Ok(None);
    };
    let mut chain = checkpoint.chain;
    let step = loop {
        match reader.next(&mut chain, keys, &mut |_, _| Ok(()))? {
            Step::Group => {}
            step => break step,
        }
    };
    let left_bytes = reader.end() - reader.offset();
    let is_torn = step == Step::Unsound && reader.is_torn()?;
    // What is unsound and not torn is damage: the check is told to go up to the file's end.
    let offset = if step == Step::End || is_torn { reader.offset() } else { reader.end() };
    let torn_bytes = if is_torn { left_bytes } else { 0 };
    Ok(Some(End { segment, offset, chain, torn_bytes }))
}

#[cfg(test)]
mod tests;
