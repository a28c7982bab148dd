//! Headers that are lifted before the codec sees them.

use kluis_storage::ETagMatch;

use super::*;
use crate::s3::tests::call;

#[test]
fn ranges_are_read_or_ignored() {
    let from = |first, last| Some(RangeSpec::From { first, last });
    for (text, want) in [
        ("bytes=0-", from(0, None)),
        ("bytes=0-0", from(0, Some(0))),
        ("bytes=5-9", from(5, Some(9))),
        (" bytes=5-9 ", from(5, Some(9))),
        ("bytes=-5", Some(RangeSpec::Suffix { length: 5 })),
        ("bytes=-0", Some(RangeSpec::Suffix { length: 0 })),
        ("bytes=99999999999999999999999-", from(u64::MAX, None)),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=+1-2", None),
        ("bytes=0-4,6-9", None),
        ("bytes 0-4", None),
        ("lines=0-4", None),
        ("", None),
    ] {
        assert_eq!(range(text), want, "{text}");
    }
}

#[test]
fn a_copy_names_both_ends_of_its_range() {
    assert_eq!(copy_range("bytes=0-9").unwrap(), (0, 9));
    for text in ["bytes=0-", "bytes=-5", "bytes=9-0", "0-9", "bytes=0-9,11-12", "bytes=a-9"] {
        assert_eq!(copy_range(text).unwrap_err().api().code, "InvalidArgument", "{text}");
    }
}

#[test]
fn part_numbers_and_pages_have_bounds() {
    assert_eq!(part_number(1).unwrap(), 1);
    assert_eq!(part_number(10_000).unwrap(), 10_000);
    for number in [0, -1, 10_001, i32::MIN] {
        assert_eq!(part_number(number).unwrap_err().api().code, "InvalidArgument");
    }
    assert_eq!(page_size("max-keys", None).unwrap(), 1_000);
    assert_eq!(page_size("max-keys", Some(0)).unwrap(), 0);
    assert_eq!(page_size("max-keys", Some(7)).unwrap(), 7);
    assert_eq!(page_size("max-keys", Some(i32::MAX)).unwrap(), 1_000);
    assert_eq!(page_size("max-keys", Some(-1)).unwrap_err().api().code, "InvalidArgument");
}

#[test]
fn a_range_and_a_part_exclude_each_other() {
    let ranged = call(&[("range", "bytes=0-4")]);
    assert_eq!(extent(&ranged, Some(1)).unwrap_err().api().code, "InvalidRequest");
    let (range, part) = extent(&ranged, None).unwrap();
    assert!(range.is_some() && part.is_none());
    assert_eq!(extent(&call(&[]), Some(3)).unwrap(), (None, Some(3)));
    // What is no range is no range, but it is still a header beside a part number.
    assert!(extent(&call(&[("range", "lines=1")]), None).unwrap().0.is_none());
}

#[test]
fn conditions_are_read_and_bad_dates_ignored() {
    let read = read_conditions(&call(&[
        ("if-match", "\"a\""),
        ("if-none-match", "*"),
        ("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("if-unmodified-since", "yesterday"),
    ]));
    assert!(matches!(read.if_match, Some(ETagMatch::OneOf(tags)) if tags.len() == 1));
    assert_eq!(read.if_none_match, Some(ETagMatch::Any));
    assert_eq!(read.if_modified_since_ms, Some(1_445_412_480_000));
    assert_eq!(read.if_unmodified_since_ms, None);
    let write = write_conditions(&call(&[("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT")]));
    assert!(write.is_empty());
    let source = source_conditions(&call(&[
        ("x-amz-copy-source-if-none-match", "W/\"a\""),
        ("x-amz-copy-source-if-unmodified-since", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("if-match", "b"),
    ]));
    assert!(source.if_none_match.is_some() && source.if_match.is_none());
    assert_eq!(source.if_unmodified_since_ms, Some(1_445_412_480_000));
}

#[test]
fn what_s3s_misreads_is_taken_out() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("range", "lines=1"),
        ("x-amz-meta-a", "=?="),
        ("x-amz-meta-b", "1"),
        ("x-amz-acl", "private"),
        ("content-md5", "x"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-amz-meta-b", HeaderValue::from_static("2"));
    let lifted = lift(&mut headers).0;
    let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(lifted.get("x-amz-meta-b").unwrap(), "1,2");
    assert_eq!(lifted.get("x-amz-meta-a").unwrap(), "=?=");
    assert_eq!(lifted.get("range").unwrap(), "lines=1");
}
