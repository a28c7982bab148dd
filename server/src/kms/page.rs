//! Pages of a listing: `Limit`, `Marker`, `NextMarker`, `Truncated`.
//!
//! Owns: the form of markers. Knows nothing of: what is listed, but that each item has a place that
//! sorts.
//!
//! A marker is `base64url(operation ‖ 0 ‖ place ‖ be32(CRC-32C))`. It is no secret, since it holds
//! the name of an item that its reader was just shown; the checksum makes one that was cut, edited
//! or taken from another listing an `InvalidMarkerException` and not another page.
//!
//! Invariants
//! - Following the markers shows every item that is there throughout exactly once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kluis_storage::{ChecksumAlgorithm, Digester};
use serde_json::{Map, Value};

use super::error::{Answer, KmsError};
use super::fields::{Fields, Length};

/// The longest page (AWS: 1 to 1,000).
const LIMIT_MAX: i64 = 1_000;
/// A page if the caller does not say how long.
const LIMIT_DEFAULT: usize = 100;
/// The longest marker (AWS).
const MARKER_CHARS_MAX: usize = 1_024;
/// Bytes of the checksum at the end of a marker.
const CHECK_BYTES: usize = 4;

/// Which page a caller wants.
#[derive(Debug)]
pub(super) struct Page {
    operation: &'static str,
    limit: usize,
    after: Option<Vec<u8>>,
}

impl Page {
    /// The page that a call of `operation` asks for.
    ///
    /// # Errors
    /// `InvalidMarkerException`: no listing of this operation gave the marker out.
    pub(super) fn of(operation: &'static str, fields: &Fields) -> Answer<Self> {
        let limit = fields.integer("Limit", (1, LIMIT_MAX))?;
        let marker = fields.text("Marker", Length::up_to(MARKER_CHARS_MAX))?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT);
        let after = match marker {
            None => None,
            Some(marker) => Some(decode(operation, marker).ok_or_else(|| {
                let message = "The marker that specifies where pagination should begin is invalid.";
                KmsError::new("InvalidMarkerException", message)
            })?),
        };
        Ok(Self { operation, limit, after })
    }

    /// Cuts the page out of `items`, which are places and what is shown there, sorted by place and
    /// each place once.
    pub(super) fn cut(
        &self,
        name: &str,
        items: impl IntoIterator<Item = (Vec<u8>, Value)>,
    ) -> Map<String, Value> {
        let is_after = |place: &[u8]| self.after.as_deref().is_none_or(|after| place > after);
        let mut rest = items.into_iter().filter(|(place, _)| is_after(place));
        let (mut shown, mut last) = (Vec::new(), Vec::new());
        for (place, item) in rest.by_ref().take(self.limit) {
            shown.push(item);
            last = place;
        }
        let is_truncated = rest.next().is_some();
        let mut reply = Map::new();
        reply.insert(name.to_owned(), Value::Array(shown));
        if is_truncated {
            reply.insert("NextMarker".to_owned(), encode(self.operation, &last).into());
        }
        reply.insert("Truncated".to_owned(), is_truncated.into());
        reply
    }
}

fn encode(operation: &str, place: &[u8]) -> String {
    let mut bytes = [operation.as_bytes(), &[0], place].concat();
    let check = check(&bytes);
    bytes.extend_from_slice(&check);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(operation: &str, marker: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(marker).ok()?;
    let (body, sent) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if check(body) != sent {
        return None;
    }
    Some(body.strip_prefix(operation.as_bytes())?.strip_prefix(&[0])?.to_vec())
}

fn check(bytes: &[u8]) -> Vec<u8> {
    let mut digester = Digester::new(&[ChecksumAlgorithm::Crc32c]);
    digester.update(bytes);
    digester.finish().pop().map(|checksum| checksum.value).unwrap_or_default()
}
