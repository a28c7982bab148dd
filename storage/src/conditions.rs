//! Conditional requests: what must hold of an object before it is read, replaced or deleted.
//!
//! Owns: the order in which conditions are looked at. Knows nothing of: headers, rows.
//!
//! Sources: RFC 9110 §13.2.2 (precedence for reads); AWS, "Conditional writes" and "Conditional
//! deletes" (`If-Match` on a name that is not there is 404, `*` in `If-None-Match` is create-only).

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Conditions, ETag, ETagMatch};

/// What conditions are decided on.
#[derive(Clone, Debug)]
pub(crate) struct Validators {
    pub(crate) etag: ETag,
    pub(crate) modified_ms: u64,
    pub(crate) size: u64,
}

impl ETagMatch {
    fn matches(&self, etag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(etags) => etags.contains(etag),
        }
    }
}

impl Conditions {
    /// Whether there is nothing to decide.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since_ms.is_none()
            && self.if_unmodified_since_ms.is_none()
            && self.if_match_size.is_none()
            && self.if_match_modified_ms.is_none()
    }

    /// Decides a read of an object that is there.
    pub(crate) fn check_read(&self, held: &Validators) -> Result<()> {
        let failed = || Error::new(ErrorKind::PreconditionFailed, "decide a conditional read");
        match (&self.if_match, self.if_unmodified_since_ms) {
            (Some(wanted), _) if !wanted.matches(&held.etag) => return Err(failed()),
            (None, Some(since)) if seconds(held.modified_ms) > seconds(since) => {
                return Err(failed());
            }
            _ => {}
        }
        let unchanged = match (&self.if_none_match, self.if_modified_since_ms) {
            (Some(known), _) => known.matches(&held.etag),
            (None, Some(since)) => seconds(held.modified_ms) <= seconds(since),
            (None, None) => false,
        };
        if unchanged {
            return Err(Error::new(ErrorKind::NotModified, "decide a conditional read"));
        }
        Ok(())
    }

    /// Decides the source of a copy: what would be 304 for a read is 412 here.
    pub(crate) fn check_source(&self, held: &Validators) -> Result<()> {
        self.check_read(held).map_err(|error| match error.kind() {
            ErrorKind::NotModified => {
                Error::new(ErrorKind::PreconditionFailed, "decide a conditional copy")
            }
            _ => error,
        })
    }

    /// Decides a write or a delete, against what is there now, if anything.
    pub(crate) fn check_write(&self, held: Option<&Validators>) -> Result<()> {
        let failed = || Error::new(ErrorKind::PreconditionFailed, "decide a conditional write");
        let Some(held) = held else {
            let expects_one = self.if_match.is_some()
                || self.if_match_size.is_some()
                || self.if_match_modified_ms.is_some();
            return if expects_one {
                Err(Error::new(ErrorKind::NotFound, "decide a conditional write"))
            } else {
                Ok(())
            };
        };
        let holds = self.if_match.as_ref().is_none_or(|wanted| wanted.matches(&held.etag))
            && self.if_none_match.as_ref().is_none_or(|known| !known.matches(&held.etag))
            && self.if_match_size.is_none_or(|size| size == held.size)
            && self
                .if_match_modified_ms
                .is_none_or(|time| seconds(time) == seconds(held.modified_ms))
            && self
                .if_unmodified_since_ms
                .is_none_or(|since| seconds(held.modified_ms) <= seconds(since));
        if holds { Ok(()) } else { Err(failed()) }
    }
}

/// HTTP dates have whole seconds.
fn seconds(ms: u64) -> u64 {
    ms / 1_000
}

#[cfg(test)]
mod tests;
