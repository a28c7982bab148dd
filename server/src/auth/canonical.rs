//! The bytes that a signature is over.
//!
//! Owns: percent-coding, the canonical path, query and headers, and putting them together. Pure.
//! Knows nothing of: keys, clocks, which headers have to be signed.
//!
//! Invariants
//! - The path is decoded once and encoded once. Nothing is normalised: `//`, `.` and `..` are parts
//!   of an object's name like any other.
//! - Everything is bytes; a header or name that is not UTF-8 is signed as it came.
//!
//! Source: AWS, "Create a signed AWS API request", with the exceptions it makes for S3.

use http::HeaderMap;

/// Percent-decodes once. An escape that is not one stays as it is.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let escape = (*byte == b'%').then(|| tail.split_at_checked(2)).flatten();
        let value = escape.and_then(|(digits, _)| hex_byte(digits));
        match (value, escape) {
            (Some(value), Some((_, after))) => {
                decoded.push(value);
                rest = after;
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let number = value(digits.first()?)? * 16 + value(digits.get(1)?)?;
    u8::try_from(number).ok()
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3), and `/` where `slashes` says so.
fn encode_into(out: &mut Vec<u8>, text: &[u8], slashes: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for byte in text {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain || (slashes && *byte == b'/') {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

/// The canonical form of an S3 path as it came in the request line.
pub(crate) fn path(raw_path: &str) -> Vec<u8> {
    if raw_path.is_empty() {
        return b"/".to_vec();
    }
    let mut out = Vec::with_capacity(raw_path.len());
    encode_into(&mut out, &decode(raw_path.as_bytes()), true);
    out
}

/// The parameters of a query, decoded, in the order of the request. `+` is a space.
pub(crate) struct QueryParams(Vec<(Vec<u8>, Vec<u8>)>);

impl QueryParams {
    /// Reads a raw query.
    pub(crate) fn parse(raw_query: Option<&str>) -> Self {
        let spaced = |text: &[u8]| -> Vec<u8> {
            let spaces: Vec<u8> =
                text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            decode(&spaces)
        };
        let pair = |piece: &str| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            (spaced(name.as_bytes()), spaced(value.as_bytes()))
        };
        let pieces = raw_query.unwrap_or_default().split('&').filter(|piece| !piece.is_empty());
        Self(pieces.map(pair).collect())
    }

    /// Whether there is a parameter of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name.as_bytes())
    }

    /// The value of the parameter `name`; `Err` if there are two.
    pub(crate) fn single(&self, name: &str) -> Result<Option<&[u8]>, ()> {
        let mut values = self.0.iter().filter(|(found, _)| found == name.as_bytes());
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(|(_, value)| value.as_slice())),
            (_, Some(_)) => Err(()),
        }
    }

    /// All parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The canonical form, without the parameter `left_out`.
    pub(crate) fn canonical(&self, left_out: Option<&str>) -> Vec<u8> {
        let encoded = |text: &[u8]| {
            let mut out = Vec::with_capacity(text.len());
            encode_into(&mut out, text, false);
            out
        };
        let kept = |name: &[u8]| left_out.is_none_or(|left_out| name != left_out.as_bytes());
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = self
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (encoded(name), encoded(value)))
            .collect();
        pairs.sort_unstable();
        let joined: Vec<Vec<u8>> =
            pairs.into_iter().map(|(name, value)| [name, value].join(&b'=')).collect();
        joined.join(&b'&')
    }
}

/// Appends `value` without blanks around it, and with one space for each run of blanks inside.
fn trim_into(out: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// The value of the header `name` as it is signed: its lines joined by commas. `None` if there is
/// no such header. With HTTP/2 the host is in `authority` and not among the headers.
pub(crate) fn header_value(
    headers: &HeaderMap,
    authority: Option<&str>,
    name: &str,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut found = false;
    for value in headers.get_all(name) {
        if found {
            out.push(b',');
        }
        found = true;
        trim_into(&mut out, value.as_bytes());
    }
    if !found && name == "host" {
        out.extend_from_slice(authority?.as_bytes());
        found = true;
    }
    found.then_some(out)
}

/// The pieces of a canonical request that stay the same when the path is tried in another form.
pub(crate) struct CanonicalParts<'a> {
    /// The HTTP method.
    pub(crate) method: &'a str,
    /// [`QueryParams::canonical`].
    pub(crate) query: Vec<u8>,
    /// Names and signed values, sorted by name.
    pub(crate) headers: Vec<(&'a str, Vec<u8>)>,
    /// The last line: a hash in hex, or one of the words that stand for it.
    pub(crate) payload: &'a str,
}

impl CanonicalParts<'_> {
    /// The canonical request of the path in this canonical form.
    pub(crate) fn with_path(&self, path: &[u8]) -> Vec<u8> {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let mut out = Vec::with_capacity(512);
        for line in [self.method.as_bytes(), path, &self.query] {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(names.join(";").as_bytes());
        out.push(b'\n');
        out.extend_from_slice(self.payload.as_bytes());
        out
    }
}

#[cfg(test)]
mod tests;
