//! The precedence table of RFC 9110 §13.2.2, and S3's rules for writes.

use super::*;

fn held() -> Validators {
    Validators { etag: ETag::new("abc"), modified_ms: 10_500, size: 7 }
}

fn one(etag: &str) -> ETagMatch {
    ETagMatch::OneOf(vec![ETag::new(etag)])
}

#[track_caller]
fn check(result: Result<()>, expected: Option<ErrorKind>) {
    assert_eq!(result.err().map(|error| error.kind()), expected);
}

#[test]
fn reads_follow_the_rfc() {
    use ErrorKind::{NotModified, PreconditionFailed};
    let none = Conditions::default;
    let cases = [
        (Conditions { if_match: Some(one("abc")), ..none() }, None),
        (Conditions { if_match: Some(one("x")), ..none() }, Some(PreconditionFailed)),
        (Conditions { if_match: Some(ETagMatch::Any), ..none() }, None),
        (Conditions { if_none_match: Some(one("abc")), ..none() }, Some(NotModified)),
        (Conditions { if_none_match: Some(one("x")), ..none() }, None),
        (Conditions { if_modified_since_ms: Some(10_900), ..none() }, Some(NotModified)),
        (Conditions { if_modified_since_ms: Some(9_999), ..none() }, None),
        (Conditions { if_unmodified_since_ms: Some(10_000), ..none() }, None),
        (Conditions { if_unmodified_since_ms: Some(9_999), ..none() }, Some(PreconditionFailed)),
        // If-Match that holds overrules If-Unmodified-Since; If-None-Match overrules
        // If-Modified-Since.
        (
            Conditions { if_match: Some(one("abc")), if_unmodified_since_ms: Some(0), ..none() },
            None,
        ),
        (
            Conditions {
                if_none_match: Some(one("x")),
                if_modified_since_ms: Some(99_000),
                ..none()
            },
            None,
        ),
        (
            Conditions { if_match: Some(one("abc")), if_none_match: Some(one("abc")), ..none() },
            Some(NotModified),
        ),
    ];
    for (conditions, expected) in cases {
        check(conditions.check_read(&held()), expected);
    }
}

#[test]
fn a_copy_source_that_is_unchanged_is_412() {
    let conditions = Conditions { if_none_match: Some(one("abc")), ..Conditions::default() };
    check(conditions.check_source(&held()), Some(ErrorKind::PreconditionFailed));
}

#[test]
fn writes_follow_s3() {
    use ErrorKind::{NotFound, PreconditionFailed};
    let none = Conditions::default;
    let any = Some(ETagMatch::Any);
    let there = Some(held());
    let cases = [
        (Conditions { if_none_match: any.clone(), ..none() }, None, None),
        (Conditions { if_none_match: any, ..none() }, there.clone(), Some(PreconditionFailed)),
        (Conditions { if_match: Some(one("abc")), ..none() }, there.clone(), None),
        (
            Conditions { if_match: Some(one("x")), ..none() },
            there.clone(),
            Some(PreconditionFailed),
        ),
        (Conditions { if_match: Some(one("abc")), ..none() }, None, Some(NotFound)),
        (Conditions { if_match_size: Some(7), ..none() }, there.clone(), None),
        (Conditions { if_match_size: Some(8), ..none() }, there.clone(), Some(PreconditionFailed)),
        (Conditions { if_match_modified_ms: Some(10_000), ..none() }, there.clone(), None),
        (
            Conditions { if_match_modified_ms: Some(11_000), ..none() },
            there,
            Some(PreconditionFailed),
        ),
        (none(), None, None),
    ];
    for (conditions, current, expected) in cases {
        check(conditions.check_write(current.as_ref()), expected);
    }
}
