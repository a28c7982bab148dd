//! AWS's published signatures (aws-sig-v4-test-suite), and times.

use super::*;

#[track_caller]
fn check(method: &str, expected: &str) {
    let time = "20150830T123600Z";
    let headers = [("host", "example.amazonaws.com"), ("x-amz-date", time)];
    let signed = Signed { method, path: "/", headers: &headers, body: b"", time };
    let scope = Scope { region: "us-east-1", service: "service" };
    let key = ("AKIDEXAMPLE", b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".as_slice());
    assert_eq!(
        authorization(&signed, scope, key),
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={expected}"
        )
    );
}

#[test]
fn get_vanilla() {
    check("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

#[test]
fn post_vanilla() {
    check("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}

#[test]
fn times_are_written_as_aws_writes_them() {
    assert_eq!(time_text(0), "19700101T000000Z");
    assert_eq!(time_text(1_440_938_160_000), "20150830T123600Z");
    assert_eq!(time_text(951_782_399_999), "20000228T235959Z");
    assert_eq!(time_text(951_782_400_000), "20000229T000000Z");
    assert_eq!(time_text(1_709_251_199_000), "20240229T235959Z");
    assert_eq!(time_text(4_107_542_400_000), "21000301T000000Z");
}
