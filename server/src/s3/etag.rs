//! ETags as HTTP and clients write them.
//!
//! Owns: reading quoted, unquoted, weak and listed ETags. Knows nothing of: how one is made.
//!
//! Source: RFC 9110 §8.8.3 and §13.1; clients that leave the quotes out (docs/ARCHITECTURE.md,
//! "ETag").

use kluis_storage::{ETag, ETagMatch};

/// An ETag with what its sender said about it.
#[derive(Debug, PartialEq, Eq)]
struct Written<'a> {
    text: &'a str,
    weak: bool,
}

/// What an `If-Match` header holds. Comparison is strong, so weak ETags match nothing.
pub(super) fn if_match(header: &str) -> ETagMatch {
    read(header, |written| !written.weak)
}

/// What an `If-None-Match` header holds. Comparison is weak.
pub(super) fn if_none_match(header: &str) -> ETagMatch {
    read(header, |_| true)
}

/// A single ETag of an XML document, with or without its quotes.
pub(super) fn single(text: &str) -> ETag {
    ETag::new(text.trim().trim_matches('"'))
}

fn read(header: &str, keep: impl Fn(&Written<'_>) -> bool) -> ETagMatch {
    if header.trim() == "*" {
        return ETagMatch::Any;
    }
    let tags = split(header).into_iter().filter(|written| keep(written));
    ETagMatch::OneOf(tags.map(|written| ETag::new(written.text)).collect())
}

/// Cuts a list at the commas outside quotes.
fn split(header: &str) -> Vec<Written<'_>> {
    let mut tags = Vec::new();
    let mut rest = header;
    while !rest.trim_start_matches([' ', '\t', ',']).is_empty() {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (weak, body) = match rest.strip_prefix("W/") {
            Some(body) if body.starts_with('"') => (true, body),
            _ => (false, rest),
        };
        let (text, after) = match body.strip_prefix('"') {
            // A quote that is never closed runs to the end: it will match nothing.
            Some(inner) => inner.split_once('"').unwrap_or((inner, "")),
            None => body.split_once(',').unwrap_or((body, "")),
        };
        tags.push(Written { text: text.trim(), weak });
        rest = after;
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: ETagMatch) -> Vec<String> {
        match found {
            ETagMatch::Any => vec!["any".to_owned()],
            ETagMatch::OneOf(tags) => tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        }
    }

    #[test]
    fn quoted_unquoted_and_lists_are_read() {
        for (header, want) in [
            ("*", vec!["any"]),
            (" * ", vec!["any"]),
            ("\"abc\"", vec!["abc"]),
            ("abc", vec!["abc"]),
            ("abc-1", vec!["abc-1"]),
            ("\"a\", \"b\"", vec!["a", "b"]),
            ("\"a\",\"b\",c", vec!["a", "b", "c"]),
            ("a , b", vec!["a", "b"]),
            ("\"a,b\"", vec!["a,b"]),
            (",, \"a\" ,", vec!["a"]),
            ("\"*\"", vec!["*"]),
            ("\"open", vec!["open"]),
            ("\"\"", vec![""]),
            ("", vec![]),
        ] {
            assert_eq!(texts(if_none_match(header)), want, "{header}");
            assert_eq!(texts(if_match(header)), want, "{header}");
        }
    }

    #[test]
    fn weak_tags_only_match_weakly() {
        assert_eq!(texts(if_none_match("W/\"a\", \"b\"")), ["a", "b"]);
        assert_eq!(texts(if_match("W/\"a\", \"b\"")), ["b"]);
        assert!(texts(if_match("W/\"a\"")).is_empty(), "a weak tag never matches strongly");
    }

    #[test]
    fn a_single_tag_loses_its_quotes() {
        assert_eq!(single("\"abc-1\"").as_str(), "abc-1");
        assert_eq!(single(" abc ").as_str(), "abc");
    }
}
