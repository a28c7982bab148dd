//! Continuation tokens: a place in a listing, as an opaque text.
//!
//! Owns: their form. Knows nothing of: what is listed.
//!
//! `base64url(kind ‖ text ‖ be32(CRC-32C of kind and text))`. A token is no secret, since it holds
//! a name that its reader was just shown; the checksum makes one that was cut or edited an
//! `InvalidArgument` and not another place in the listing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kluis_storage::{ChecksumAlgorithm, Digester, ListPosition};

use super::error::{Answer, invalid_argument};

const KIND_KEY: u8 = b'k';
const KIND_PREFIX: u8 = b'p';
const KIND_BUCKET: u8 = b'b';
/// Bytes of the checksum at the end.
const CHECK_BYTES: usize = 4;

/// The token of a place in a listing of objects.
pub(super) fn of_position(position: &ListPosition) -> String {
    match position {
        ListPosition::AfterKey(text) => encode(KIND_KEY, text),
        ListPosition::AfterPrefix(text) => encode(KIND_PREFIX, text),
    }
}

/// The place that a token names.
pub(super) fn position(token: &str) -> Answer<ListPosition> {
    match decode(token) {
        Some((KIND_KEY, text)) => Ok(ListPosition::AfterKey(text)),
        Some((KIND_PREFIX, text)) => Ok(ListPosition::AfterPrefix(text)),
        _ => Err(incorrect(token)),
    }
}

/// The token of a place in a listing of buckets.
pub(super) fn of_bucket(name: &str) -> String {
    encode(KIND_BUCKET, name)
}

/// The bucket name that a token names.
pub(super) fn bucket(token: &str) -> Answer<String> {
    match decode(token) {
        Some((KIND_BUCKET, text)) => Ok(text),
        _ => Err(incorrect(token)),
    }
}

fn incorrect(token: &str) -> super::error::Failure {
    let message = "The continuation token provided is incorrect";
    invalid_argument(message, "continuation-token", token).into()
}

fn encode(kind: u8, text: &str) -> String {
    let mut bytes = Vec::with_capacity(1 + text.len() + CHECK_BYTES);
    bytes.push(kind);
    bytes.extend_from_slice(text.as_bytes());
    let check = check(&bytes);
    bytes.extend_from_slice(&check);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(token: &str) -> Option<(u8, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (body, found) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if check(body) != found {
        return None;
    }
    let (kind, text) = body.split_first()?;
    Some((*kind, String::from_utf8(text.to_vec()).ok()?))
}

fn check(bytes: &[u8]) -> Vec<u8> {
    let mut digester = Digester::new(&[ChecksumAlgorithm::Crc32c]);
    digester.update(bytes);
    digester.finish().pop().map(|checksum| checksum.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_the_round_trip() {
        for text in ["", "a", "photos/2006/", "naïve key\n", "\u{10ffff}"] {
            let key = ListPosition::AfterKey(text.to_owned());
            let prefix = ListPosition::AfterPrefix(text.to_owned());
            assert_eq!(position(&of_position(&key)).unwrap(), key);
            assert_eq!(position(&of_position(&prefix)).unwrap(), prefix);
            assert_eq!(bucket(&of_bucket(text)).unwrap(), text);
        }
    }

    #[test]
    fn a_token_that_was_changed_is_an_invalid_argument() {
        let token = of_position(&ListPosition::AfterKey("photos/2006/january.jpg".to_owned()));
        let mut broken =
            vec![String::new(), "!".to_owned(), "AAAA".to_owned(), format!("{token}A")];
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            broken.push(String::from_utf8(bytes).unwrap());
            broken.push(token[..at].to_owned());
        }
        for text in broken {
            assert_eq!(position(&text).unwrap_err().api().code, "InvalidArgument", "{text}");
        }
        assert!(position(&of_bucket("photos")).is_err(), "a bucket's token is not an object's");
        assert!(bucket(&token).is_err(), "an object's token is not a bucket's");
    }
}
