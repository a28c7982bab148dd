//! Signed requests end to end: what verifies, and each way of being refused.

use kluis_kms::Clock as _;

use super::super::creds::testing::World;
use super::super::testing::{
    EMPTY_SHA256, EXAMPLE_ID, EXAMPLE_MS, EXAMPLE_SECRET, Signer, head, set, wait,
};
use super::*;

mod properties;
mod refusals;

struct Node {
    world: World,
    authenticator: Authenticator,
}

fn node() -> Node {
    let world = World::new(EXAMPLE_MS);
    let tenant = world.tenant("acme");
    world.known_access_key(tenant.tenant_id, EXAMPLE_ID, EXAMPLE_SECRET);
    let clock = world.clock.clone();
    let authenticator = Authenticator::new(world.directory.clone(), "us-east-1", clock);
    Node { world, authenticator }
}

impl Node {
    fn check(&self, parts: &Parts) -> Result<Caller, ApiError> {
        self.authenticator.authenticate(parts).map(|verified| verified.caller)
    }
}

#[track_caller]
fn check_user(node: &Node, parts: &Parts) {
    match node.check(parts) {
        Ok(Caller::User(user)) => {
            assert!(user.is_root);
            assert_eq!(&*user.name, "root");
        }
        Ok(Caller::Anonymous) => panic!("taken for anonymous"),
        Err(error) => panic!("{error:?}"),
    }
}

fn extra<'a>(error: &'a ApiError, name: &str) -> &'a str {
    let found = error.extra.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}

const SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";

fn example(method: &str, uri: &str, more: &[(&str, &str)], signed: &str, signature: &str) -> Parts {
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={signed},Signature={signature}");
    let mut headers = vec![
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("authorization", authorization.as_str()),
    ];
    if more.iter().all(|(name, _)| *name != "x-amz-content-sha256") {
        headers.push(("x-amz-content-sha256", EMPTY_SHA256));
    }
    headers.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    headers.extend_from_slice(more);
    head(method, uri, &headers)
}

/// AWS, "Signature calculations for the Authorization header: Transferring payload in a single
/// chunk", its four examples.
#[test]
fn the_published_header_examples_verify() {
    let node = node();
    check_user(
        &node,
        &example(
            "GET",
            "/test.txt",
            &[("range", "bytes=0-9")],
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
    );
    check_user(
        &node,
        &example(
            "PUT",
            "/test$file.text",
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                (
                    "x-amz-content-sha256",
                    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
                ),
            ],
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
    );
    check_user(
        &node,
        &example(
            "GET",
            "/?lifecycle",
            &[],
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
    );
    check_user(
        &node,
        &example(
            "GET",
            "/?max-keys=2&prefix=J",
            &[],
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    );
}

/// AWS, "Authenticating Requests: Using Query Parameters", its example.
const PRESIGNED: &str = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
     AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
     &X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
     aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

#[test]
fn the_published_presigned_example_verifies_until_it_expires() {
    let node = node();
    let parts = head("GET", PRESIGNED, &[("host", "examplebucket.s3.amazonaws.com")]);
    check_user(&node, &parts);
    node.world.clock.advance_ms(86_400_000);
    check_user(&node, &parts);
    node.world.clock.advance_ms(1_000);
    let error = node.check(&parts).unwrap_err();
    assert_eq!((error.status.as_u16(), error.code.as_ref()), (403, "AccessDenied"));
    assert_eq!(error.message, "Request has expired");
    assert_eq!(extra(&error, "X-Amz-Expires"), "86400");
    assert_eq!(extra(&error, "Expires"), "2013-05-25T00:00:00Z");
    assert_eq!(extra(&error, "ServerTime"), "2013-05-25T00:00:01Z");
}

/// AWS, "… Transferring payload in multiple chunks" and "… including trailing headers", their
/// heads.
#[test]
fn the_published_chunked_heads_verify() {
    let node = node();
    let common = [
        ("host", "s3.amazonaws.com"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
    ];
    let mut signed = common.to_vec();
    signed.push(("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"));
    signed.push(("content-length", "66824"));
    let parts = example(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &signed,
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
         x-amz-decoded-content-length;x-amz-storage-class",
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    );
    check_user(&node, &parts);
    let mut trailing = common.to_vec();
    trailing.push(("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"));
    trailing.push(("x-amz-trailer", "x-amz-checksum-crc32c"));
    let parts = example(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &trailing,
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
         x-amz-storage-class;x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    );
    check_user(&node, &parts);
}

fn request() -> Parts {
    head("GET", "/bucket/object?x=1", &[("host", "localhost:9000"), ("x-amz-meta-a", "1")])
}

fn signed(change: impl FnOnce(&mut Signer)) -> Parts {
    let mut signer = Signer::example();
    change(&mut signer);
    let mut parts = request();
    signer.sign(&mut parts, "UNSIGNED-PAYLOAD");
    parts
}

fn replaced(parts: &mut Parts, from: &str, to: &str) {
    let text = parts.headers["authorization"].to_str().unwrap().replacen(from, to, 1);
    set(parts, "authorization", &text);
}

fn requeried(parts: &mut Parts, from: &str, to: &str) {
    parts.uri = parts.uri.to_string().replacen(from, to, 1).parse().unwrap();
}

#[test]
fn refusals_carry_the_fields_of_aws() {
    let node = node();
    let error = node.check(&signed(|s| s.date = s.date.plus_seconds(901))).unwrap_err();
    assert_eq!(extra(&error, "RequestTime"), "20130524T001501Z");
    assert_eq!(extra(&error, "ServerTime"), "2013-05-24T00:00:00Z");
    assert_eq!(extra(&error, "MaxAllowedSkewMilliseconds"), "900000");

    let mut parts = signed(|_| {});
    replaced(&mut parts, "us-east-1", "eu-west-1");
    assert_eq!(extra(&node.check(&parts).unwrap_err(), "Region"), "us-east-1");

    let error = node.check(&signed(|s| s.secret = "x".into())).unwrap_err();
    assert_eq!(extra(&error, "AWSAccessKeyId"), EXAMPLE_ID);
    assert!(extra(&error, "StringToSign").starts_with("AWS4-HMAC-SHA256\n20130524T000000Z\n"));
    assert!(extra(&error, "StringToSignBytes").starts_with("41 57 53 34 2d"));
    assert!(extra(&error, "CanonicalRequest").starts_with("GET\n/bucket/object\nx=1\nhost:"));
    assert_eq!(extra(&error, "SignatureProvided").len(), 64);

    let mut parts = signed(|_| {});
    set(&mut parts, "x-amz-tagging", "a=b");
    set(&mut parts, "x-amz-copy-source", "/b/k");
    let error = node.check(&parts).unwrap_err();
    assert_eq!(extra(&error, "HeadersNotSigned"), "x-amz-copy-source, x-amz-tagging");
}

#[test]
fn a_huge_request_is_not_echoed() {
    let node = node();
    let mut parts = request();
    set(&mut parts, "x-amz-meta-big", &"a".repeat(20_000));
    let mut signer = Signer::example();
    signer.secret = "x".into();
    signer.sign(&mut parts, "UNSIGNED-PAYLOAD");
    let error = node.check(&parts).unwrap_err();
    assert_eq!(error.code, "SignatureDoesNotMatch");
    assert_eq!(extra(&error, "CanonicalRequest"), "");
}

#[test]
fn a_key_of_the_sender_is_not_echoed() {
    let node = node();
    let mut parts = request();
    let header = "x-amz-copy-source-server-side-encryption-customer-key";
    set(&mut parts, header, "c2VjcmV0");
    let mut signer = Signer::example();
    signer.secret = "x".into();
    signer.sign(&mut parts, "UNSIGNED-PAYLOAD");
    let error = node.check(&parts).unwrap_err();
    assert_eq!(error.code, "SignatureDoesNotMatch");
    assert!(!format!("{error:?}").contains("c2VjcmV0"));
}

#[test]
fn no_credentials_or_an_empty_header_is_anonymous() {
    let node = node();
    assert_eq!(node.check(&head("GET", "/b/k", &[])).unwrap(), Caller::Anonymous);
    let parts = head("GET", "/b/k", &[("authorization", " ")]);
    assert_eq!(node.check(&parts).unwrap(), Caller::Anonymous);
    let form = ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let error = node.check(&head("PUT", "/b/k", &[form])).unwrap_err();
    assert_eq!((error.status.as_u16(), error.code.as_ref()), (400, "InvalidRequest"));
}

#[test]
fn odd_paths_verify_in_both_forms() {
    let node = node();
    let paths = [
        "/b//k/../x",
        "/b/a+b",
        "/b/a%2Fb",
        "/b/%25",
        "/b/a=b&c!(*)'",
        "/b/%E2%82%AC",
        "/b/a%20b/",
    ];
    for path in paths {
        for path_as_sent in [false, true] {
            let mut signer = Signer::example();
            signer.path_as_sent = path_as_sent;
            let mut parts = head("GET", path, &[("host", "h")]);
            signer.sign(&mut parts, EMPTY_SHA256);
            check_user(&node, &parts);
        }
    }
}

#[test]
fn http2_hosts_come_from_the_authority() {
    let node = node();
    let mut parts = head("GET", "/b/k", &[("host", "h2.example:9000")]);
    Signer::example().sign(&mut parts, EMPTY_SHA256);
    parts.headers.remove("host");
    parts.uri = "https://h2.example:9000/b/k".parse().unwrap();
    check_user(&node, &parts);
    parts.uri = "https://evil.example:9000/b/k".parse().unwrap();
    assert_eq!(node.check(&parts).unwrap_err().code, "SignatureDoesNotMatch");
}

#[test]
fn a_date_header_stands_in_for_the_other() {
    let node = node();
    let mut parts =
        head("GET", "/b/k", &[("host", "h"), ("date", "Fri, 24 May 2013 00:00:00 GMT")]);
    Signer::example().sign(&mut parts, EMPTY_SHA256);
    check_user(&node, &parts);
}

#[test]
fn revoked_keys_are_unknown_and_suspended_tenants_are_told() {
    let node = node();
    let other = node.world.tenant("other");
    let signer = Signer::new(&other.access_key_id, other.secret_access_key.expose());
    let sign = |signer: &Signer| {
        let mut parts = request();
        signer.sign(&mut parts, "UNSIGNED-PAYLOAD");
        parts
    };
    check_user(&node, &sign(&signer));

    wait(node.world.directory.suspend("other")).unwrap();
    let error = node.check(&sign(&signer)).unwrap_err();
    assert_eq!((error.status.as_u16(), error.code.as_ref()), (403, "AccountProblem"));
    let mut guess = signer.clone();
    guess.secret = "guess".into();
    assert_eq!(node.check(&sign(&guess)).unwrap_err().code, "SignatureDoesNotMatch");

    wait(node.world.directory.resume("other")).unwrap();
    check_user(&node, &sign(&signer));

    let id = &other.access_key_id;
    wait(node.world.directory.revoke_access_key(id)).unwrap();
    let revoked = node.check(&sign(&signer)).unwrap_err();
    guess.access_key_id = "AKIAAAAAAAAAAAAAAAAA".into();
    let mut unknown = node.check(&sign(&guess)).unwrap_err();
    assert_eq!(revoked.code, "InvalidAccessKeyId");
    unknown.extra.clear();
    assert_eq!((revoked.status, revoked.message), (unknown.status, unknown.message));
}

#[test]
fn presigned_urls_may_carry_the_payload_form_in_their_query() {
    let node = node();
    let uri = format!("/b/k?X-Amz-Content-Sha256={EMPTY_SHA256}");
    let mut parts = head("PUT", &uri, &[("host", "h")]);
    Signer::example().presign(&mut parts, "60", EMPTY_SHA256);
    check_user(&node, &parts);
}

#[test]
fn a_presigned_url_from_the_future_is_not_valid_yet() {
    let node = node();
    let mut signer = Signer::example();
    signer.date = signer.date.plus_seconds(901);
    let mut parts = head("GET", "/b/k", &[("host", "h")]);
    signer.presign(&mut parts, "60", "UNSIGNED-PAYLOAD");
    let error = node.check(&parts).unwrap_err();
    assert_eq!((error.status.as_u16(), error.message.as_ref()), (403, "Request is not valid yet"));
}

#[test]
fn other_services_sign_the_body_itself() {
    let node = node();
    let mut signer = Signer::example();
    signer.scope.service = "kms".into();
    let body = br#"{"KeyId":"x"}"#;
    let mut parts =
        head("POST", "/", &[("host", "h"), ("x-amz-target", "TrentService.DescribeKey")]);
    signer.sign(&mut parts, &signing::sha256_hex(body));
    let check = |body: &[u8], service| {
        node.authenticator.authenticate_buffered(&parts, service, body).map_err(|error| error.code)
    };
    assert!(check(body, Service::Kms).is_ok());
    assert_eq!(check(b"{}", Service::Kms).unwrap_err(), "SignatureDoesNotMatch");
    assert_eq!(check(body, Service::S3).unwrap_err(), "AuthorizationHeaderMalformed");
    assert_eq!(check(body, Service::Sts).unwrap_err(), "AuthorizationHeaderMalformed");
    let bare = head("POST", "/", &[("host", "h")]);
    let error = node.authenticator.authenticate_buffered(&bare, Service::Kms, b"").unwrap_err();
    assert_eq!(error.code, "MissingAuthenticationToken");
}

#[test]
fn a_second_request_needs_no_registry() {
    let node = node();
    check_user(&node, &signed(|_| {}));
    let reads = node.world.rows.reads();
    for _ in 0..10 {
        check_user(&node, &signed(|_| {}));
    }
    assert_eq!(node.world.rows.reads(), reads);
    assert_eq!(node.world.clock.now_ms(), EXAMPLE_MS);
}

#[test]
fn a_key_is_found_in_headers_and_in_a_query() {
    let in_query = |text| holds_secret(&[], &QueryParams::parse(Some(text)));
    assert!(in_query("x=1&X-Amz-Server-Side-Encryption-Customer-Key=abc"));
    assert!(in_query("x-amz-server-side-encryption-customer%2Dkey=abc"));
    assert!(!in_query("x-amz-server-side-encryption-customer-key-MD5=abc"));
    let name = "x-amz-server-side-encryption-customer-key".to_owned();
    assert!(holds_secret(&[name], &QueryParams::parse(None)));
}
