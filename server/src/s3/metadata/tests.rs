//! User metadata: limits, encodings.

use super::*;
use crate::s3::tests::call;

fn value(kept: &ObjectHeaders, name: &str) -> Option<String> {
    kept.0.get(name).cloned()
}

#[test]
fn content_headers_and_metadata_are_kept() {
    let kept = of_request(&call(&[
        ("content-type", "text/plain; charset=utf-8"),
        ("content-disposition", "attachment; filename=\"ü.txt\""),
        ("expires", "whenever"),
        ("x-amz-meta-plain", "a"),
        ("x-amz-meta-utf8", "naïve"),
        ("x-amz-meta-word", "=?UTF-8?B?w4TDlg==?="),
        ("x-amz-meta-empty", ""),
        ("x-amz-date", "20150830T123600Z"),
    ]))
    .unwrap();
    assert_eq!(value(&kept, "content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(value(&kept, "content-disposition").unwrap(), "attachment; filename=\"ü.txt\"");
    assert_eq!(value(&kept, "expires").unwrap(), "whenever");
    assert_eq!(value(&kept, "x-amz-meta-plain").unwrap(), "a");
    assert_eq!(value(&kept, "x-amz-meta-utf8").unwrap(), "naïve");
    assert_eq!(value(&kept, "x-amz-meta-word").unwrap(), "ÄÖ");
    assert_eq!(value(&kept, "x-amz-meta-empty").unwrap(), "");
    assert_eq!(kept.0.len(), 7);
}

#[test]
fn an_object_without_a_type_gets_that_of_aws() {
    let kept = of_request(&call(&[])).unwrap();
    assert_eq!(value(&kept, "content-type").unwrap(), "binary/octet-stream");
}

#[test]
fn framing_is_no_coding() {
    for (sent, want) in [
        ("aws-chunked", None),
        ("AWS-Chunked", None),
        ("aws-chunked,gzip", Some("gzip")),
        ("gzip, aws-chunked", Some("gzip")),
        ("br, gzip", Some("br,gzip")),
    ] {
        let kept = of_request(&call(&[("content-encoding", sent)])).unwrap();
        assert_eq!(value(&kept, "content-encoding").as_deref(), want, "{sent}");
    }
}

#[test]
fn metadata_has_a_limit_and_no_control_characters() {
    let fits = "v".repeat(USER_BYTES_MAX - 1);
    assert!(of_request(&call(&[("x-amz-meta-k", &fits)])).is_ok());
    let over = "v".repeat(USER_BYTES_MAX);
    let failure = of_request(&call(&[("x-amz-meta-k", &over)])).unwrap_err();
    assert_eq!(failure.api().code, "MetadataTooLarge");
    assert_eq!(failure.api().extra[0], ("Size", (USER_BYTES_MAX + 1).to_string()));
    let newline = of_request(&call(&[("x-amz-meta-k", "=?UTF-8?Q?a=0Ab?=")])).unwrap_err();
    assert_eq!(newline.api().code, "InvalidArgument");
}

#[test]
fn redirects_have_a_form() {
    for (location, fits) in [("/a", true), ("https://x/", true), ("ftp://x", false), ("a", false)] {
        let kept = of_request(&call(&[(REDIRECT, location)]));
        assert_eq!(kept.is_ok(), fits, "{location}");
    }
}

#[test]
fn what_was_kept_goes_out_again() {
    let kept = of_request(&call(&[
        ("content-disposition", "attachment; filename=\"ü.txt\""),
        ("cache-control", "no-cache"),
        ("x-amz-meta-utf8", "naïve"),
    ]))
    .unwrap();
    let overrides = overrides(&[("cache-control", Some("max-age=1")), ("expires", None)]).unwrap();
    let mut headers = HeaderMap::new();
    answer(&kept, &overrides, &mut headers).unwrap();
    assert_eq!(headers.get("cache-control").unwrap(), "max-age=1");
    assert_eq!(headers.get_all("cache-control").iter().count(), 1);
    let disposition = headers.get("content-disposition").unwrap();
    assert_eq!(disposition.as_bytes(), "attachment; filename=\"ü.txt\"".as_bytes());
    assert_eq!(headers.get("x-amz-meta-utf8").unwrap(), "=?UTF-8?B?bmHDr3Zl?=");
    assert!(!headers.contains_key("expires"));
}

#[test]
fn an_override_that_no_header_can_carry_is_refused() {
    let failure = overrides(&[("content-type", Some("a\nb"))]).unwrap_err();
    assert_eq!(failure.api().code, "InvalidArgument");
}
