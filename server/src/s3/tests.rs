//! Parsing and encoding shared by the verbs.

use http::HeaderValue;

use super::*;

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    answer.unwrap_err().api().code.to_string()
}

/// A call with these headers, by a test's own hand.
pub(super) fn call(headers: &[(&'static str, &str)]) -> Call<()> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let lifted = headers::lift(&mut map);
    Call {
        input: (),
        caller: Caller::Anonymous,
        request_id: RequestId::from("test"),
        origin: Origin::default(),
        digests: None,
        headers: map,
        lifted: lifted.0,
        customer: customer::Keys::default(),
        encryption: None,
        uri: Uri::from_static("/bucket/object"),
    }
}

#[test]
fn one_version_exists_and_it_is_null() {
    assert!(check_version(None).is_ok());
    assert!(check_version(Some("null")).is_ok());
    assert_eq!(code(check_version(Some("3HL4kqtJvjVBH40Nrjfkd_ab.cdEf-gh"))), "NoSuchVersion");
    for text in ["", "1", "nul", "not a version", &"x".repeat(33)] {
        assert_eq!(code(check_version(Some(text))), "InvalidArgument", "{text}");
    }
}

#[test]
fn the_expected_owner_is_an_account() {
    let check = |expected| check_expected_owner(expected, "123456789012");
    assert!(check(None).is_ok());
    assert!(check(Some("123456789012")).is_ok());
    assert_eq!(code(check(Some("210987654321"))), "AccessDenied");
    for text in ["1", "1234567890123", "12345678901x"] {
        assert_eq!(code(check(Some(text))), "InvalidBucketOwnerAWSAccountID", "{text}");
    }
}

#[test]
fn object_keys_have_a_length() {
    assert!(object_key("a").is_ok());
    assert!(object_key("//../\u{1}\n").is_ok());
    assert!(object_key(&"k".repeat(1_024)).is_ok());
    assert_eq!(code(object_key(&"k".repeat(1_025))), "KeyTooLongError");
}

#[test]
fn headers_are_found_wherever_they_went() {
    let call = call(&[("content-type", " text/plain "), ("x-amz-acl", "private"), ("range", "")]);
    assert_eq!(call.header("content-type"), Some("text/plain"));
    assert_eq!(call.header("x-amz-acl"), Some("private"));
    assert_eq!(call.header("range"), None);
    assert!(call.has_header("range") && !call.has_header("if-match"));
}

mod buckets;
mod door;
mod encryption;
mod key_policy;
mod multipart;
mod verbs;
