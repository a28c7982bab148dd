//! The front over a real socket, with stand-ins for authentication and S3.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use kluis_kms::env::{Env, SeededRng};
use kluis_kms::{CACHE_TTL_DEFAULT, RemoteStores, TenantId};
use kluis_storage::{
    BufStats, DiskKind, DiskReport, DiskStats, EngineStats, ReclaimStats, ScrubStats, UserId,
    VolumeUsage,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::keys::{KmsAnswer, refuse_in_clear};
use super::*;
use crate::auth::{AccountId, User};
use crate::body::{BodyPlan, PayloadForm};
use crate::http::{Drain, Settings, Shared, serve};
use crate::kms::KmsRequest;
use crate::metrics::Metrics;

/// Lets everybody in as one user, but refuses paths that end in `/refused` and knows nobody on
/// paths that end in `/anonymous`.
struct OpenGate;

impl Authenticate for OpenGate {
    fn authenticate(&self, parts: &Parts) -> Result<Verified, ApiError> {
        if parts.uri.path().ends_with("/refused") {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "SignatureDoesNotMatch",
                "The signature is \"wrong\" & <bad>.",
            )
            .with("AWSAccessKeyId", "AKIA\u{1}EXAMPLE"));
        }
        let plan = BodyPlan::new(parts, None, PayloadForm::Unsigned, None)?;
        if parts.uri.path().ends_with("/anonymous") {
            return Ok(Verified { caller: Caller::Anonymous, plan });
        }
        Ok(Verified { caller: somebody(), plan })
    }

    fn check_claim(&self, parts: &Parts, _: Service) -> Result<(), ApiError> {
        match parts.headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("refused") => Err(crate::auth::refusal::unknown_access_key("AKIAEXAMPLE")),
            _ => Ok(()),
        }
    }

    fn authenticate_buffered(
        &self,
        _: &Parts,
        _: Service,
        body: &[u8],
    ) -> Result<Arc<User>, ApiError> {
        if body == b"forged" {
            return Err(crate::auth::refusal::bare_signature_mismatch());
        }
        let Caller::User(user) = somebody() else { return Err(access_denied()) };
        Ok(user)
    }
}

/// Panics if the body says so, else answers its length.
struct StubKms;

impl ServeKms for StubKms {
    fn serve(&self, request: KmsRequest) -> KmsAnswer {
        Box::pin(async move {
            assert!(request.body.as_slice() != b"panic", "as asked");
            match request.body.len() {
                0 => Ok(Bytes::new().into()),
                bytes => Ok(Bytes::from(format!("{{\"bytes\":{bytes}}}")).into()),
            }
        })
    }
}

fn somebody() -> Caller {
    Caller::User(Arc::new(User {
        tenant: TenantId::random(&SeededRng::new(1)),
        account_id: AccountId::from_number(111_111_111_111).unwrap(),
        user: UserId::from_bytes([1; 16]),
        name: "root".into(),
        is_root: true,
        access_key_id: "AKIAEXAMPLE".into(),
    }))
}

/// Remembers what it was asked; `/b/panic` panics, `/b/missing` answers an error, others read the
/// body and answer its length.
#[derive(Clone, Default)]
struct StubS3(Arc<Mutex<Vec<String>>>);

impl ServeS3 for StubS3 {
    fn serve(&self, request: Request<s3s::Body>) -> S3Answer {
        let names = request.headers().iter().map(|(name, value)| format!("{name}={value:?}"));
        let names: Vec<_> = names.collect();
        let line = format!("{} {} {}", request.method(), request.uri(), names.join(" "));
        self.0.lock().unwrap().push(line);
        Box::pin(async move {
            assert!(request.uri().path() != "/b/panic", "as asked");
            if request.uri().path() == "/b/missing" {
                let error = ApiError::new(StatusCode::NOT_FOUND, "NoSuchKey", "No such key.");
                return failed(error.with("Key", "missing"));
            }
            match request.into_body().collect().await {
                Ok(body) => Response::new(s3s::Body::from(body.to_bytes().len().to_string())),
                Err(_) => failed(internal_error()),
            }
        })
    }
}

fn failed(error: ApiError) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::empty());
    *response.status_mut() = error.status;
    response.extensions_mut().insert(error);
    response
}

fn stats() -> EngineStats {
    EngineStats {
        fenced: false,
        full: true,
        disk: DiskReport {
            kind: DiskKind::Ring,
            no_ring: None,
            direct: true,
            no_direct: None,
            ring: None,
        },
        disk_stats: DiskStats { reads: 7, writes: 8, syncs: 9, ..DiskStats::default() },
        pool: BufStats::default(),
        usage: VolumeUsage::default(),
        commits: 3,
        commit_batches: 2,
        commit_conflicts: 1,
        tenants: 5,
        reclaim: ReclaimStats { segments_freed: 4, ..ReclaimStats::default() },
        scrub: ScrubStats {
            damaged: 2,
            repaired_ever: 6,
            segments: 9,
            segments_done: 8,
            ..ScrubStats::default()
        },
        mirror: None,
    }
}

struct Node {
    address: SocketAddr,
    s3: StubS3,
}

async fn start(change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config { body_stall_seconds: 1, ..Config::default() };
    change(&mut config);
    let drain = Drain::new();
    let observer = Observer {
        stats: Box::new(stats),
        key_stores: Arc::new(RemoteStores::new(CACHE_TTL_DEFAULT, Env::system())),
        metrics: Metrics::start().unwrap(),
        is_dev: true,
        drain: drain.clone(),
    };
    let s3 = StubS3::default();
    let observer = config.serves_metrics_on_main().then(|| Arc::new(observer));
    let front = Front::new(&config, OpenGate, (s3.clone(), StubKms), observer, &SeededRng::new(7));
    let shared = Shared::new(Arc::new(front), Settings::new(&config), drain).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, None, Arc::new(shared)));
    Node { address, s3 }
}

impl Node {
    /// Sends a request head (and body) and reads until the node closes.
    async fn exchange(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Sends a request without a body; `extra` are header lines.
    async fn ask(&self, method: &str, target: &str, extra: &str) -> String {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}");
        self.exchange(&format!("{head}\r\n")).await
    }

    fn seen(&self) -> String {
        self.s3.0.lock().unwrap().join("\n")
    }
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer
        .lines()
        .find(|line| line.split(':').next().is_some_and(|it| it.eq_ignore_ascii_case(name)));
    line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn an_error_document_is_complete() {
    let node = start(|_| ()).await;
    let answer = node.ask("GET", "/b/a%20b/refused?x=1", "").await;
    let request_id = header(&answer, "x-amz-request-id");
    let host_id = header(&answer, "x-amz-id-2");
    let expected = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>SignatureDoesNotMatch</Code>\
         <Message>The signature is &quot;wrong&quot; &amp; &lt;bad&gt;.</Message>\
         <AWSAccessKeyId>AKIA\u{fffd}EXAMPLE</AWSAccessKeyId>\
         <Resource>/b/a%20b/refused</Resource>\
         <RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
    );
    assert_eq!(body(&answer), expected);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(header(&answer, "content-type"), "application/xml");
    assert_eq!(header(&answer, "content-length"), expected.len().to_string());
    assert_eq!(header(&answer, "server"), "Kluis");
    assert!(header(&answer, "date").ends_with(" GMT"), "{answer}");
}

#[tokio::test]
async fn an_error_of_s3_keeps_its_extra_elements() {
    let node = start(|_| ()).await;
    let answer = node.ask("GET", "/b/missing", "").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(body(&answer).contains("<Code>NoSuchKey</Code><Message>No such key.</Message><Key>"));
}

#[tokio::test]
async fn request_ids_are_16_characters_and_differ() {
    let node = start(|_| ()).await;
    let mut seen = BTreeSet::new();
    for target in ["/", "/b", "/b/k", "/b/missing", "/b/refused", "/health/live"] {
        let answer = node.ask("GET", target, "").await;
        let id = header(&answer, "x-amz-request-id").to_owned();
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{answer}");
        assert!(!header(&answer, "x-amz-id-2").is_empty());
        assert!(seen.insert(id), "a request id came twice");
    }
}

#[tokio::test]
async fn errors_of_head_have_no_body() {
    let node = start(|_| ()).await;
    for target in ["/b/missing", "/b/refused"] {
        let answer = node.ask("HEAD", target, "").await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
        assert_eq!(body(&answer), "");
        assert_eq!(header(&answer, "content-type"), "");
    }
}

#[tokio::test]
async fn a_refusal_reads_no_body_and_closes() {
    let node = start(|_| ()).await;
    let head = "PUT /b/refused HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-length: 1000000\r\n\r\n";
    let answer = node.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(header(&answer, "connection"), "close");
    assert_eq!(node.seen(), "");
}

#[tokio::test]
async fn nobody_takes_no_memory_and_is_asked_for_no_body() {
    let node = start(|_| ()).await;
    for method in ["PUT", "POST", "GET"] {
        let head = format!(
            "{method} /b/anonymous HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
             content-length: 1000000000\r\n\r\n"
        );
        let answer = node.exchange(&head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(body(&answer).contains("<Code>AccessDenied</Code>"), "{answer}");
    }
    assert_eq!(node.seen(), "");
}

#[tokio::test]
async fn what_is_no_object_is_a_document() {
    let node = start(|config| config.domain = Some("s3.test".to_owned())).await;
    for (method, host, target) in [
        ("PUT", "x", "/b?policy"),
        ("PUT", "x", "/b/k?tagging"),
        ("PUT", "x", "/b/k?%74agging"),
        ("POST", "x", "/b/k?uploadId=1"),
        ("DELETE", "x", "/b/k"),
        ("PUT", "b.s3.test", "/?policy"),
        ("PUT", "x", "/b/k?X-Amz-Signature=1&x-amz-copy-source=a"),
    ] {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 9000000\r\n\r\n"
        );
        let answer = node.exchange(&head).await;
        assert!(answer.contains("<Code>MaxMessageLengthExceeded</Code>"), "{target}: {answer}");
    }
    assert_eq!(node.seen(), "");
    for (host, target) in [("x", "/b/k?partNumber=1&uploadId=2"), ("b.s3.test", "/k")] {
        let head =
            format!("PUT {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 9000000\r\n\r\n");
        let answer = node.exchange(&head).await;
        assert!(answer.contains("<Code>RequestTimeout</Code>"), "{target}: {answer}");
    }
}

#[tokio::test]
async fn a_presigned_header_is_decoded_as_signed_and_comes_once() {
    let node = start(|_| ()).await;
    node.ask("GET", "/b/k?X-Amz-Signature=s&x-amz-meta-a=b+c%2Bd&a=b+c", "").await;
    let seen = node.seen();
    assert!(
        seen.starts_with("GET /b/k?a=b+c ") && seen.contains("x-amz-meta-a=\"b c+d\""),
        "{seen}"
    );
    let twice = "/b/k?X-Amz-Signature=s&x-amz-meta-a=1&X-Amz-Meta%2Da=2";
    let answer = node.ask("GET", twice, "").await;
    assert!(answer.contains("<Code>InvalidArgument</Code>"), "{answer}");
    assert_eq!(node.seen().lines().count(), 1);
}

#[tokio::test]
async fn a_panic_is_one_requests_internal_error() {
    let node = start(|_| ()).await;
    let answer = node.ask("GET", "/b/panic", "").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(body(&answer).contains("<Code>InternalError</Code>"));
    assert!(node.ask("GET", "/b/k", "").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_stopped_body_is_a_request_timeout() {
    let node = start(|_| ()).await;
    let head = "PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc";
    let answer = node.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(body(&answer).contains("<Code>RequestTimeout</Code>"), "{answer}");
}

#[tokio::test]
async fn methods_and_forms_that_are_not_served_are_told_so() {
    let node = start(|_| ()).await;
    for (method, extra, code) in [
        ("PATCH", "", "MethodNotAllowed"),
        ("TRACE", "", "MethodNotAllowed"),
        ("OPTIONS", "", "BadRequest"),
        ("OPTIONS", "origin: http://a\r\n", "AccessForbidden"),
        ("POST", "content-type: multipart/form-data; boundary=x\r\n", "NotImplemented"),
        ("POST", "content-length: 9000000\r\n", "MaxMessageLengthExceeded"),
    ] {
        let answer = node.ask(method, "/b", extra).await;
        assert!(answer.contains(&format!("<Code>{code}</Code>")), "{method}: {answer}");
    }
    assert_eq!(node.seen(), "");
}

#[tokio::test]
async fn credentials_and_framing_stay_in_the_front() {
    let node = start(|_| ()).await;
    let extra = "authorization: AWS4-HMAC-SHA256 x\r\nx-amz-date: d\r\n\
                 x-amz-content-sha256: UNSIGNED-PAYLOAD\r\ncontent-encoding: gzip,aws-chunked,br\r\n";
    node.ask("GET", "/b/k?a=1", extra).await;
    assert_eq!(
        node.seen(),
        "GET /b/k?a=1 host=\"x\" connection=\"close\" content-length=\"0\" \
         content-encoding=\"gzip,br\""
    );
}

#[tokio::test]
async fn a_presigned_query_becomes_headers() {
    let node = start(|_| ()).await;
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=9\
                 &X-Amz-SignedHeaders=host&X-Amz-Signature=s&partNumber=2\
                 &x-amz-meta-a=b%20c&X-Amz-Acl=private";
    node.ask("GET", &format!("/b/k?{query}"), "x-amz-acl: kept\r\n").await;
    let seen = node.seen();
    assert!(seen.starts_with("GET /b/k?partNumber=2 "), "{seen}");
    assert!(seen.contains("x-amz-meta-a=\"b c\""), "{seen}");
    assert!(seen.contains("x-amz-acl=\"kept\"") && !seen.contains("private"), "{seen}");
    assert!(!seen.to_lowercase().contains("signature"), "{seen}");
}

#[tokio::test]
async fn a_host_below_the_domain_names_the_bucket() {
    let node = start(|config| config.domain = Some("s3.test".to_owned())).await;
    for (host, target, expected) in [
        ("photos.s3.test", "/a//b", "/photos/a//b"),
        ("photos.S3.Test:9000", "/", "/photos/"),
        ("my.photos.s3.test", "/?acl", "/my.photos/?acl"),
        ("s3.test", "/b/k", "/b/k"),
        ("other.test", "/b/k", "/b/k"),
        ("evils3.test", "/b/k", "/b/k"),
        ("127.0.0.1:9000", "/b/k", "/b/k"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        node.exchange(&head).await;
        let seen = node.seen();
        let line = seen.lines().last().unwrap();
        assert!(line.starts_with(&format!("GET {expected} ")), "{host}{target} gave {line}");
    }
}

#[tokio::test]
async fn health_and_metrics_are_answered_on_loopback() {
    let node = start(|_| ()).await;
    let ready = node.ask("GET", "/health/ready", "").await;
    assert_eq!(
        body(&ready),
        r#"{"status":"ready","fenced":false,"full":true,"degraded":false,"damaged":2,"dev":true,"key_stores_failing":0}"#
    );
    node.ask("GET", "/b/k", "").await;
    let metrics = node.ask("GET", "/metrics", "").await;
    for line in [
        "kluis_io_backend{kind=\"ring\"} 1",
        "kluis_io_operations_total{op=\"read\"} 7",
        "kluis_io_operations_total{op=\"sync\"} 9",
        "kluis_io_operations_total{op=\"write\"} 8",
        "kluis_full 1",
        "kluis_reclaim_segments_total{outcome=\"freed\"} 4",
        "kluis_damaged_extents 2",
        "kluis_scrub_repaired_total 6",
        "kluis_scrub_segments_done 8",
        "kluis_dev_mode 1",
        "kluis_tenants 5",
        "kluis_http_requests_total{operation=\"GetObject\",status=\"200\"}",
        "kluis_http_request_duration_seconds_bucket{operation=\"GetObject\"",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_signed_request_means_the_bucket_of_that_name() {
    let node = start(|_| ()).await;
    node.ask("GET", "/health/live", "authorization: x\r\n").await;
    node.ask("GET", "/metrics?list-type=2", "").await;
    node.ask("PUT", "/health/live", "").await;
    assert_eq!(node.seen().lines().count(), 3);
}

#[tokio::test]
async fn a_public_listener_has_no_health() {
    let node = start(|config| {
        config.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.allow_plain_http_on_public = true;
    })
    .await;
    node.ask("GET", "/metrics", "").await;
    assert_eq!(node.seen().lines().count(), 1);
}

#[test]
fn health_says_what_is_wrong() {
    use crate::health::Health;
    for (health, status, code) in [
        (Health::new(false, false, false), "ready", 200),
        (Health::new(false, true, true), "ready", 200),
        (Health::new(true, false, false), "fenced", 503),
        (Health::new(true, false, false).draining(), "draining", 503),
    ] {
        assert_eq!((health.status, health.status_code().as_u16()), (status, code));
    }
}

#[test]
fn operations_have_the_names_of_aws() {
    let name = |method: &str, target: &str, is_copy: bool| {
        let mut request = Request::builder().method(method).uri(target);
        if is_copy {
            request = request.header("x-amz-copy-source", "a/b");
        }
        let parts = request.body(()).unwrap().into_parts().0;
        operation::name(&parts, parts.uri.path())
    };
    for (method, target, expected) in [
        ("GET", "/", "ListBuckets"),
        ("GET", "/b", "ListObjects"),
        ("GET", "/b/?list-type=2&prefix=x", "ListObjectsV2"),
        ("GET", "/b?location", "GetBucketLocation"),
        ("GET", "/b//", "GetObject"),
        ("GET", "/b/k?uploadId=1", "ListParts"),
        ("HEAD", "/b/", "HeadBucket"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload"),
        ("PUT", "/b/k?partNumber=1&uploadId=1", "UploadPart"),
        ("PUT", "/b/k?x-id=PutObject", "PutObject"),
        ("OPTIONS", "/b", "Preflight"),
        ("PUT", "/", "Unknown"),
    ] {
        assert_eq!(name(method, target, false), expected, "{method} {target}");
    }
    assert_eq!(name("PUT", "/b/k", true), "CopyObject");
    assert_eq!(name("PUT", "/b/k?uploadId=1", true), "UploadPartCopy");
}

/// Sends a call of the KMS API.
async fn call(node: &Node, headers: &str, body: &str) -> String {
    node.exchange(&format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))
    .await
}

const TARGET: &str = "x-amz-target: TrentService.ListKeys\r\n";

#[tokio::test]
async fn a_call_of_the_kms_api_answers_in_json() {
    let node = start(|_| ()).await;
    let headers = format!("{TARGET}authorization: somebody\r\n");
    let answer = call(&node, &headers, "{}").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(header(&answer, "content-type"), "application/x-amz-json-1.1");
    let request_id = header(&answer, "x-amzn-requestid");
    assert!(request_id.len() == 16 && request_id == header(&answer, "x-amz-request-id"));
    assert_eq!(body(&answer), "{\"bytes\":2}");
    assert!(node.seen().is_empty(), "S3 saw it");
    let answer = call(&node, &headers, "").await;
    assert_eq!((header(&answer, "content-length"), body(&answer)), ("0", ""));
}

#[tokio::test]
async fn failures_of_the_kms_api_are_json_too() {
    let node = start(|_| ()).await;
    let signed = format!("{TARGET}authorization: somebody\r\n");
    let refused = format!("{TARGET}authorization: refused\r\n");
    for (headers, body_text, status, code) in [
        (TARGET, "{}", 400, "MissingAuthenticationTokenException"),
        (&*refused, "{}", 400, "UnrecognizedClientException"),
        (&*signed, "forged", 400, "InvalidSignatureException"),
        (&*signed, "panic", 500, "KMSInternalException"),
    ] {
        let answer = call(&node, headers, body_text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(header(&answer, "content-type"), "application/x-amz-json-1.1", "{answer}");
        assert!(body(&answer).contains(&format!("\"__type\":\"{code}\"")), "{answer}");
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_bounded_as_well() {
    let node = start(|_| ()).await;
    let chunks = format!("10000\r\n{}\r\n", "a".repeat(0x10000)).repeat(4);
    for (more, expected) in [("", "{\"bytes\":262144}"), ("1\r\na\r\n", "RequestEntityTooLarge")] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
             {TARGET}authorization: somebody\r\n\r\n{chunks}{more}0\r\n\r\n"
        );
        let answer = node.exchange(&request).await;
        assert!(body(&answer).contains(expected), "{answer}");
    }
    // Refused by what it says of its length, before any of it comes.
    let declared = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 262145\r\n\
         {TARGET}authorization: somebody\r\n\r\n"
    );
    let answer = node.exchange(&declared).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(body(&answer).contains("RequestEntityTooLargeException"), "{answer}");
}

#[tokio::test]
async fn a_stalled_call_ends_and_anonymous_callers_get_no_continue() {
    let node = start(|_| ()).await;
    let stalled = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\
         {TARGET}authorization: somebody\r\n\r\n{{}}"
    );
    let answer = node.exchange(&stalled).await;
    assert!(answer.contains("RequestTimeoutException"), "{answer}");
    let anonymous = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\
         expect: 100-continue\r\n{TARGET}\r\n"
    );
    let answer = node.exchange(&anonymous).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_private_connection_is_tls_or_never_leaves_this_machine() {
    for (address, is_tls, want) in [
        ("203.0.113.7:1", true, true),
        ("127.0.0.1:1", false, true),
        ("[::1]:1", false, true),
        ("[::ffff:127.0.0.1]:1", false, true),
        ("203.0.113.7:1", false, false),
        ("10.0.0.1:1", false, false),
        ("[2001:db8::1]:1", false, false),
    ] {
        let peer = Peer { address: Some(address.parse().unwrap()), is_tls, operator: None };
        assert_eq!(is_private(&peer), want, "{address} {is_tls}");
    }
}

#[test]
fn plaintext_of_the_kms_api_needs_a_private_connection() {
    let peer = |address: &str, is_tls| Peer {
        address: Some(address.parse().unwrap()),
        is_tls,
        operator: None,
    };
    for name in ["Encrypt", "Decrypt", "GenerateDataKey", "GenerateRandom"] {
        let target = format!("TrentService.{name}");
        let refused = refuse_in_clear(&target, &peer("203.0.113.7:1", false));
        assert_eq!(refused.unwrap_err().code, "AccessDeniedException", "{name}");
        refuse_in_clear(&target, &peer("203.0.113.7:1", true)).unwrap();
        refuse_in_clear(&target, &peer("127.0.0.1:1", false)).unwrap();
    }
    for target in ["TrentService.DisableKey", "TrentService.ReEncrypt", "KluisKms.ListJobs", ""] {
        refuse_in_clear(target, &peer("203.0.113.7:1", false)).unwrap();
    }
}
