//! Encoded words of mail headers, by which S3 carries metadata that is not ASCII.
//!
//! Owns: reading and writing them. Knows nothing of: which header.
//!
//! s3s has a reader of its own, which slices out of bounds on `=?=` and refuses words that it does
//! not know. Here a value that is no well-formed word is an ordinary text.
//! Source: RFC 2047 §2 and §4; AWS, "Working with object metadata".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of text in one word: 45 are 60 base64 digits, and 72 characters with the frame; a word has
/// at most 75.
const WORD_BYTES: usize = 45;

/// The text of a header value: of its encoded words, if it consists of nothing else.
pub(super) fn decode(value: &str) -> String {
    words(value).unwrap_or_else(|| value.to_owned())
}

fn words(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut found = false;
    // White space between two words belongs to neither (RFC 2047 §6.2).
    for word in value.split_ascii_whitespace() {
        bytes.extend(one_word(word)?);
        found = true;
    }
    // Joined before it is read: a writer may have cut a character in two.
    found.then(|| String::from_utf8(bytes).ok()).flatten()
}

fn one_word(word: &str) -> Option<Vec<u8>> {
    let inner = word.strip_prefix("=?")?.strip_suffix("?=")?;
    let mut parts = inner.splitn(3, '?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    // A language may follow the charset (RFC 2231 §5).
    let charset = charset.split('*').next()?;
    if !["utf-8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset)) {
        return None;
    }
    match encoding {
        "B" | "b" => STANDARD.decode(text).ok(),
        "Q" | "q" => quoted(text),
        _ => None,
    }
}

fn quoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from((digit()? << 4) | digit()?).ok()?
            }
            b'?' => return None,
            other if other.is_ascii() => other,
            _ => return None,
        });
    }
    Some(bytes)
}

/// The text as a header value: as it is in ASCII, else in encoded words.
pub(super) fn encode(text: &str) -> String {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t') {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        if word.len() + character.len_utf8() > WORD_BYTES {
            words.push(frame(&word));
            word.clear();
        }
        word.push(character);
    }
    words.push(frame(&word));
    words.join(" ")
}

fn frame(text: &str) -> String {
    format!("=?UTF-8?B?{}?=", STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_round_trip() {
        let long = "これはとても長い文字列であり、複数の語に分けられる必要があります。".repeat(4);
        for text in ["", "plain", "naïve", "ÄMÄZÕÑ S3", "a\tb", "\u{10ffff}", &long] {
            let encoded = encode(text);
            assert!(encoded.is_ascii());
            assert!(encoded.split(' ').all(|word| word.len() <= 75 || text.is_ascii()));
            assert_eq!(decode(&encoded), text);
        }
    }

    #[test]
    fn words_are_read_in_both_encodings() {
        for (value, want) in [
            ("=?UTF-8?B?w4TDlg==?=", "ÄÖ"),
            ("=?utf-8?b?w4TDlg==?=", "ÄÖ"),
            ("=?UTF-8?Q?=C3=84_b?=", "Ä b"),
            ("=?UTF-8*en?Q?a?=", "a"),
            ("=?UTF-8?B?w4Q=?= =?UTF-8?Q?b?=", "Äb"),
        ] {
            assert_eq!(decode(value), want, "{value}");
        }
    }

    #[test]
    fn what_is_no_word_stays_as_it_is() {
        for value in [
            "=?=",
            "=??=",
            "=?UTF-8?=",
            "=?UTF-8?B?!?=",
            "=?latin1?Q?=E4?=",
            "=?UTF-8?X?a?=",
            "=?UTF-8?Q?=E4?=",
            "=?UTF-8?Q?=4?=",
            "a =?UTF-8?Q?b?=",
            "=?UTF-8?Q?b?= a",
            "=?",
        ] {
            assert_eq!(decode(value), value);
        }
    }
}
