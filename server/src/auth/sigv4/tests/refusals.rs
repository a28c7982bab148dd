//! Requests that are right but for one thing, and the answer to each.

use super::*;
use Edit::{Auth, Gone, Header, More, Query, Sign, To};

/// What is wrong with the request.
enum Edit {
    /// Another text in `Authorization`.
    Auth(&'static str, &'static str),
    /// A header that is gone.
    Gone(&'static str),
    /// A header that was set after signing.
    Header(&'static str, &'static str),
    /// A header that is there once more.
    More(&'static str, &'static str),
    /// Another text in the URI.
    Query(&'static str, &'static str),
    /// A signer that is not right.
    Sign(fn(&mut Signer)),
    /// Another method.
    To(&'static str),
}

/// Status and code.
type Answer = (u16, &'static str);

const ARGUMENT: Answer = (400, "InvalidArgument");
const DENIED: Answer = (403, "AccessDenied");
const MALFORMED: Answer = (400, "AuthorizationHeaderMalformed");
const MECHANISM: Answer = (400, "InvalidRequest");
const MISMATCH: Answer = (403, "SignatureDoesNotMatch");
const MISSING: Answer = (400, "MissingSecurityHeader");
const NOT_IMPLEMENTED: Answer = (501, "NotImplemented");
const QUERY: Answer = (400, "AuthorizationQueryParametersError");
const SKEWED: Answer = (403, "RequestTimeTooSkewed");
const TOKEN: Answer = (400, "InvalidToken");
const UNKNOWN: Answer = (403, "InvalidAccessKeyId");

/// Name, damage, answer, and words of its message.
type Case = (&'static str, Edit, Answer, &'static str);

const ECDSA: &str = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD";

const HEADER_CASES: &[Case] = &[
    ("SigV2", Header("authorization", "AWS AKID:sig"), MECHANISM, "use AWS4"),
    ("SigV4A", Auth("HMAC-SHA256", "ECDSA-P256-SHA256"), MECHANISM, "use AWS4"),
    ("Basic", Header("authorization", "Basic YTpi"), ARGUMENT, "Unsupported"),
    ("no components", Header("authorization", "AWS4-HMAC-SHA256"), MALFORMED, "component"),
    ("no credential", Auth("Credential=", "Credentials="), MALFORMED, "component"),
    ("no signature", Auth(", Signature=", "; Signature="), MALFORMED, "missing Signature"),
    ("credential twice", Auth("Sig", "Credential=x, Sig"), MALFORMED, "component"),
    ("four parts", Auth("/s3/", "/"), MALFORMED, "mal-formed"),
    ("six parts", Auth("/s3/", "/s3/s3/"), MALFORMED, "mal-formed"),
    ("no id", Auth(EXAMPLE_ID, ""), MALFORMED, "mal-formed"),
    ("terminal", Auth("aws4_request", "aws5_request"), MALFORMED, "incorrect terminal"),
    ("service", Auth("/s3/", "/kms/"), MALFORMED, "incorrect service"),
    ("region", Auth("us-east-1", "eu-1"), MALFORMED, "'eu-1' is wrong; expecting 'us-east-1'"),
    ("day's form", Auth("/20130524/", "/2013052/"), MALFORMED, "incorrect date format"),
    ("other day", Auth("/20130524/", "/20130523/"), MALFORMED, "Invalid credential date"),
    ("no date", Gone("x-amz-date"), DENIED, "Date"),
    ("bad date", Header("x-amz-date", "yesterday"), DENIED, "Date"),
    ("late", Sign(|signer| signer.date = signer.date.plus_seconds(901)), SKEWED, "too large"),
    ("early", Sign(early), SKEWED, "too large"),
    ("no payload hash", Gone("x-amz-content-sha256"), MECHANISM, "x-amz-content-sha256"),
    ("bad payload hash", Header("x-amz-content-sha256", "beef"), ARGUMENT, "valid sha256"),
    ("two payload hashes", More("x-amz-content-sha256", "beef"), ARGUMENT, "valid sha256"),
    ("ECDSA chunks", Header("x-amz-content-sha256", ECDSA), NOT_IMPLEMENTED, "not supported"),
    ("session token", Header("x-amz-security-token", "x"), TOKEN, "malformed"),
    ("unsigned header", Header("x-amz-copy-source", "/b/k"), DENIED, "not signed"),
    ("unsigned rule", Header("x-kluis-etag", "md5"), DENIED, "not signed"),
    ("unsigned host", Auth("=host;", "="), DENIED, "not signed"),
    ("signed header gone", Gone("x-amz-meta-a"), MISSING, "missing"),
    ("unknown id", Sign(|signer| signer.access_key_id.push('X')), UNKNOWN, "does not exist"),
    ("odd id", Sign(|signer| signer.access_key_id.push('%')), UNKNOWN, "does not exist"),
    ("other secret", Sign(|signer| signer.secret.push('x')), MISMATCH, "does not match"),
    ("other signature", Auth("Signature=", "Signature=0"), MISMATCH, "does not match"),
    ("no hex", Auth("Signature=", "Signature=é"), ARGUMENT, "Authorization"),
    ("other method", To("DELETE"), MISMATCH, "does not match"),
    ("other path", Query("object", "objecT"), MISMATCH, "does not match"),
    ("path in pieces", Query("bucket/", "bucket//"), MISMATCH, "does not match"),
    ("other query", Query("x=1", "x=2"), MISMATCH, "does not match"),
    ("more query", Query("x=1", "x=1&acl"), MISMATCH, "does not match"),
    ("other host", Header("host", "evil:9000"), MISMATCH, "does not match"),
    ("other value", Header("x-amz-meta-a", "2"), MISMATCH, "does not match"),
    ("value twice", More("x-amz-meta-a", "1"), MISMATCH, "does not match"),
    ("two headers", More("authorization", "AWS4-HMAC-SHA256 x"), ARGUMENT, "Authorization"),
    ("both places", Query("x=1", "X-Amz-Signature=1"), ARGUMENT, "Only one auth mechanism"),
];

const QUERY_CASES: &[Case] = &[
    ("no algorithm", Query("X-Amz-Algorithm", "Y"), QUERY, "requires"),
    ("no credential", Query("X-Amz-Credential", "Y"), QUERY, "requires"),
    ("no date", Query("X-Amz-Date", "Y"), QUERY, "requires"),
    ("no expires", Query("X-Amz-Expires", "Y"), QUERY, "requires"),
    ("no headers", Query("X-Amz-SignedHeaders", "Y"), QUERY, "requires"),
    ("no signature", Query("X-Amz-Signature", "Y"), QUERY, "requires"),
    ("expires twice", Query("?", "?X-Amz-Expires=1&"), QUERY, "requires"),
    ("signature twice", Query("?", "?X-Amz-Signature=1&"), QUERY, "requires"),
    ("algorithm", Query("HMAC-SHA256", "HMAC-SHA1"), QUERY, "only supports"),
    ("four parts", Query("%2Fs3", ""), QUERY, "mal-formed"),
    ("region", Query("us-east-1", "us-west-2"), QUERY, "expecting 'us-east-1'"),
    ("service", Query("%2Fs3", "%2Fsns"), QUERY, "incorrect service"),
    ("terminal", Query("aws4_request", "aws5_request"), QUERY, "incorrect terminal"),
    ("day's form", Query("%2F20130524", "%2F32234Z34"), QUERY, "incorrect date format"),
    ("other day", Query("%2F20130524", "%2F20130523"), QUERY, "Invalid credential date"),
    ("date's form", Query("20130524T000000Z", "20130524"), QUERY, "ISO8601"),
    ("expires soon", Query("Expires=600", "Expires=soon"), QUERY, "should be a number"),
    ("expires at once", Query("Expires=600", "Expires=0"), QUERY, "non-negative"),
    ("expires before", Query("Expires=600", "Expires=-1"), QUERY, "non-negative"),
    ("expires late", Query("Expires=600", "Expires=604801"), QUERY, "less than a week"),
    ("expires never", Query("=600", "=99999999999999999999"), QUERY, "less than a week"),
    ("expires later", Query("Expires=600", "Expires=601"), MISMATCH, "does not match"),
    ("header added", Header("x-amz-acl", "public-read"), DENIED, "not signed"),
    ("source added", Header("x-amz-copy-source", "/b/k"), DENIED, "not signed"),
    ("host not signed", Query("SignedHeaders=host", "SignedHeaders=a"), DENIED, "not signed"),
    ("token added", Query("?", "?X-Amz-Security-Token=x&"), TOKEN, "malformed"),
    ("version added", Query("?", "?versionId=1&"), MISMATCH, "does not match"),
    ("ACL added", Query("?", "?x-amz-acl=private&"), MISMATCH, "does not match"),
    ("other method", To("PUT"), MISMATCH, "does not match"),
    ("other secret", Sign(|signer| signer.secret.push('x')), MISMATCH, "does not match"),
    ("unknown id", Sign(|signer| signer.access_key_id.push('X')), UNKNOWN, "does not exist"),
    ("expired", Sign(|signer| early_by(signer, 601)), DENIED, "has expired"),
    ("future", Sign(|signer| signer.date = signer.date.plus_seconds(901)), DENIED, "not valid yet"),
];

fn early(signer: &mut Signer) {
    early_by(signer, 901);
}

fn early_by(signer: &mut Signer, seconds: u64) {
    signer.date = AmzDate::from_unix_ms(EXAMPLE_MS - seconds * 1_000);
    signer.scope.day = signer.date.day();
}

#[track_caller]
fn check_refused(node: &Node, case: &Case, sign: fn(&Signer) -> Parts) {
    let (name, edit, (status, code), words) = case;
    let mut signer = Signer::example();
    if let Sign(change) = edit {
        change(&mut signer);
    }
    let mut parts = sign(&signer);
    match edit {
        Auth(from, to) => replaced(&mut parts, from, to),
        Gone(header) => drop(parts.headers.remove(*header)),
        Header(header, value) => set(&mut parts, header, value),
        More(header, value) => drop(parts.headers.append(*header, value.parse().unwrap())),
        Query(from, to) => requeried(&mut parts, from, to),
        Sign(_) => {}
        To(method) => parts.method = method.parse().unwrap(),
    }
    let error = node.check(&parts).expect_err(name);
    assert_eq!((error.status.as_u16(), error.code.as_ref()), (*status, *code), "{name}: {error:?}");
    assert!(error.message.contains(words), "{name}: {}", error.message);
}

#[test]
fn every_refusal_of_a_header_has_the_code_of_aws() {
    let node = node();
    check_user(&node, &signed(|_| {}));
    for case in HEADER_CASES {
        check_refused(&node, case, |signer| {
            let mut parts = request();
            signer.sign(&mut parts, "UNSIGNED-PAYLOAD");
            parts
        });
    }
}

#[test]
fn every_refusal_of_a_presigned_url_has_the_code_of_aws() {
    let node = node();
    check_user(&node, &presigned(&Signer::example()));
    for case in QUERY_CASES {
        check_refused(&node, case, presigned);
    }
}

fn presigned(signer: &Signer) -> Parts {
    let mut parts = head("GET", "/bucket/object", &[("host", "localhost:9000")]);
    signer.presign(&mut parts, "600", "UNSIGNED-PAYLOAD");
    parts
}

#[test]
fn signature_version_2_is_refused_in_a_query_too() {
    let parts = head("GET", "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[]);
    let error = node().check(&parts).unwrap_err();
    assert_eq!((error.status.as_u16(), error.code.as_ref()), MECHANISM);
}
