//! `encoding-type=url` of listings.
//!
//! Owns: which characters are escaped. Knows nothing of: paging, XML.
//!
//! Source: AWS, ListObjectsV2, `EncodingType`. A space is `%20`, which every client undoes, and not
//! `+`, which only some do.

use s3s::dto::EncodingType;

use super::error::{Answer, invalid_argument};

/// How names are written in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameEncoding {
    /// As they are, except what XML 1.0 cannot carry; XML escapes what it must.
    Plain,
    /// Percent-encoded.
    Url,
}

impl NameEncoding {
    /// Reads the `encoding-type` of a request.
    pub(super) fn read(asked: Option<&EncodingType>) -> Answer<Self> {
        match asked.map(EncodingType::as_str) {
            None | Some("") => Ok(Self::Plain),
            Some("url") => Ok(Self::Url),
            Some(other) => {
                let message = "Invalid Encoding Method specified in Request";
                Err(invalid_argument(message, "encoding-type", other).into())
            }
        }
    }

    /// Writes a name.
    pub(super) fn name(self, text: &str) -> String {
        match self {
            Self::Plain => text.chars().map(carried).collect(),
            Self::Url => percent_encode(text),
        }
    }

    /// The element that tells the client.
    pub(super) fn element(self) -> Option<EncodingType> {
        (self == Self::Url).then(|| EncodingType::from_static(EncodingType::URL))
    }
}

/// The character, or U+FFFD for one that XML 1.0 has no way to write (§2.2 "Characters"). One of
/// these would make the whole listing unreadable, and names have them.
///
/// A carriage return stays: s3s writes it raw, and parsers read it as a line feed. Who has such
/// names asks for `encoding-type=url`.
fn carried(character: char) -> char {
    match character {
        '\t' | '\n' | '\r' => character,
        '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        _ => character,
    }
}

/// Percent-encodes everything but letters, digits, `-._~/` and `*`.
pub(super) fn percent_encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/*".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit =
                |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
    encoded
}

/// Undoes percent-encoding, and `+` for a space, as in a form. `None` when it is malformed.
pub(super) fn form_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = (digit()? << 4) | digit()?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_clients_expect() {
        for (name, want) in [
            ("foo/bar/xyz", "foo/bar/xyz"),
            ("asdf+b", "asdf%2Bb"),
            ("quux ab/thud", "quux%20ab/thud"),
            ("naïve\n\u{1}", "na%C3%AFve%0A%01"),
            ("%41", "%2541"),
            ("a-b._~*", "a-b._~*"),
            ("<&>\"'", "%3C%26%3E%22%27"),
        ] {
            assert_eq!(NameEncoding::Url.name(name), want);
            assert_eq!(form_decode(want).as_deref(), Some(name), "{want}");
        }
    }

    #[test]
    fn a_plain_name_is_what_xml_can_carry() {
        for (name, want) in
            [("naïve <&>\t\n", "naïve <&>\t\n"), ("\u{1}a\0\u{ffff}", "\u{fffd}a\u{fffd}\u{fffd}")]
        {
            assert_eq!(NameEncoding::Plain.name(name), want);
        }
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for text in ["%", "%4", "%zz", "%ff", "a%+1"] {
            assert_eq!(form_decode(text), None, "{text}");
        }
        assert_eq!(form_decode("a+b").as_deref(), Some("a b"));
    }

    #[test]
    fn only_url_is_an_encoding() {
        let read = |text: &'static str| NameEncoding::read(Some(&EncodingType::from_static(text)));
        assert_eq!(read("url").unwrap(), NameEncoding::Url);
        assert_eq!(NameEncoding::read(None).unwrap(), NameEncoding::Plain);
        assert_eq!(read("base64").unwrap_err().api().code, "InvalidArgument");
    }
}
