//! What is refused, and what is kept.

use super::*;

#[track_caller]
fn check_refused(text: &str, why: &str) {
    let message = read(text).unwrap_err();
    assert!(message.contains(why), "{text}: {message}");
}

#[test]
fn values_are_read_in_order() {
    let want = Json::Object(vec![
        ("b".to_owned(), Json::List(vec![Json::Number("-1".to_owned()), Json::Null])),
        ("a".to_owned(), Json::Text("\u{e9}".to_owned())),
        ("c".to_owned(), Json::Bool(true)),
        ("d".to_owned(), Json::Number("1.5".to_owned())),
    ]);
    assert_eq!(read(r#" {"b": [-1, null], "a": "\u00e9", "c": true, "d": 1.5} "#), Ok(want));
}

#[test]
fn a_member_that_stands_twice_is_refused_at_every_depth() {
    check_refused(r#"{"a": 1, "a": 1}"#, "twice");
    check_refused(r#"[{"x": {"a": 1, "b": 2, "\u0061": 3}}]"#, "twice");
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&nested(usize::from(DEPTH_MAX))).is_ok());
    check_refused(&nested(usize::from(DEPTH_MAX) + 1), "too deeply");
    // Far past the bound nothing overflows.
    assert!(read(&nested(16_000)).is_err());
}

#[test]
fn what_is_not_one_document_is_refused() {
    check_refused("", "EOF");
    check_refused("{} {}", "trailing");
    check_refused("{'a': 1}", "line 1");
    check_refused("{\"a\": 1,}", "line 1");
    check_refused("NaN", "line 1");
}
