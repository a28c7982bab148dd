//! Multipart uploads, from request to answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use kluis_storage::{ChecksumAlgorithm, Digester};

use super::door::Node;

const PART_BYTES: usize = 5 << 20;

fn body(byte: u8, bytes: usize) -> Bytes {
    Bytes::from(vec![byte; bytes])
}

async fn begin(node: &Node, headers: &[(&str, &str)]) -> String {
    node.send(Method::POST, "/b-1/k?uploads", headers, "").await.ok().element("UploadId")
}

async fn part(
    node: &Node,
    id: &str,
    number: u32,
    bytes: Bytes,
    headers: &[(&str, &str)],
) -> String {
    let uri = format!("/b-1/k?partNumber={number}&uploadId={id}");
    let reply = node.put(&uri, headers, bytes).await.ok();
    reply.header("etag").to_owned()
}

fn list(parts: &[(u32, &str)]) -> String {
    let line = |(number, etag): &(u32, &str)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    };
    let lines: String = parts.iter().map(line).collect();
    format!("<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>")
}

async fn complete(
    node: &Node,
    id: &str,
    headers: &[(&str, &str)],
    list: String,
) -> super::door::Reply {
    node.send(Method::POST, &format!("/b-1/k?uploadId={id}"), headers, list).await
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_an_object() {
    let node = Node::with_bucket().await;
    let id = begin(&node, &[("x-amz-meta-a", "1"), ("content-type", "text/plain")]).await;
    let second = part(&node, &id, 2, body(2, 9), &[]).await;
    let first = part(&node, &id, 1, body(1, PART_BYTES), &[]).await;
    assert!(first.ends_with("-1\"") && second.ends_with("-1\""), "{first} {second}");
    let listed = node.get(&format!("/b-1/k?uploadId={id}&max-parts=1"), &[]).await.ok();
    assert_eq!(listed.element("PartNumber"), "1");
    assert_eq!(listed.element("IsTruncated"), "true");
    assert_eq!(listed.element("NextPartNumberMarker"), "1");
    let uploads = node.get("/b-1?uploads", &[]).await.ok();
    assert_eq!((uploads.element("Key"), uploads.element("UploadId")), ("k".into(), id.clone()));
    let parts = list(&[(1, &first), (2, second.trim_matches('"'))]);
    let done = complete(&node, &id, &[], parts.clone()).await.ok();
    let etag = done.element("ETag");
    assert!(etag.ends_with("-2\"") || etag.ends_with("-2&quot;"), "{etag}");
    assert_eq!(done.element("Location"), "http://localhost:9000/b-1/k");
    let again = complete(&node, &id, &[], parts).await.ok();
    assert_eq!(again.element("ETag"), etag, "a repeat answers the same");
    let head = node.head("/b-1/k", &[("x-amz-checksum-mode", "ENABLED")]).await.ok();
    assert_eq!(head.header("content-length"), (PART_BYTES + 9).to_string());
    assert_eq!(head.header("x-amz-meta-a"), "1");
    let mut digester = Digester::new(&[ChecksumAlgorithm::Crc64Nvme]);
    digester.update(&body(1, PART_BYTES));
    digester.update(&body(2, 9));
    let crc = STANDARD.encode(&digester.finish()[0].value);
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), crc);
    assert_eq!(head.header("x-amz-checksum-type"), "FULL_OBJECT");
    let tail = node.get("/b-1/k?partNumber=2", &[]).await.ok();
    assert_eq!((tail.status, tail.body.as_ref()), (206, [2; 9].as_slice()));
    assert_eq!(tail.header("x-amz-mp-parts-count"), "2");
    node.get("/b-1/k?partNumber=3", &[]).await.refused(416, "InvalidPartNumber");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_fit_completes_nothing() {
    let node = Node::with_bucket().await;
    let id = begin(&node, &[]).await;
    let first = part(&node, &id, 1, body(1, PART_BYTES), &[]).await;
    let second = part(&node, &id, 2, body(2, 9), &[]).await;
    let third = part(&node, &id, 3, body(3, 9), &[]).await;
    for (parts, code) in [
        (list(&[]), "MalformedXML"),
        (String::new(), "MalformedXML"),
        (list(&[(2, &second), (1, &first)]), "InvalidPartOrder"),
        (list(&[(1, &second)]), "InvalidPart"),
        (list(&[(1, &first), (7, &second)]), "InvalidPart"),
        (list(&[(2, &second), (3, &third)]), "EntityTooSmall"),
    ] {
        complete(&node, &id, &[], parts).await.refused(400, code);
    }
    let good = list(&[(1, &first), (2, &second)]);
    let size = [("x-amz-mp-object-size", "7")];
    complete(&node, &id, &size, good.clone()).await.refused(400, "InvalidRequest");
    let crc = [("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")];
    complete(&node, &id, &crc, good.clone()).await.refused(400, "BadDigest");
    let absent = [("if-match", "\"x\"")];
    complete(&node, &id, &absent, good.clone()).await.refused(404, "NoSuchKey");
    node.put("/b-1/k", &[], "x").await.ok();
    let create = [("if-none-match", "*")];
    complete(&node, &id, &create, good.clone()).await.refused(412, "PreconditionFailed");
    assert_eq!(node.get("/b-1/k", &[]).await.text(), "x");
    complete(&node, &"0".repeat(32), &[], good).await.refused(404, "NoSuchUpload");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_is_gone() {
    let node = Node::with_bucket().await;
    let id = begin(&node, &[]).await;
    part(&node, &id, 1, body(1, 9), &[]).await;
    let uri = format!("/b-1/k?uploadId={id}");
    assert_eq!(node.delete(&uri, &[]).await.ok().status, 204);
    node.get(&uri, &[]).await.refused(404, "NoSuchUpload");
    node.delete(&uri, &[]).await.refused(404, "NoSuchUpload");
    node.put(&format!("{uri}&partNumber=1"), &[], "x").await.refused(404, "NoSuchUpload");
    node.put("/b-1/k?partNumber=1&uploadId=x", &[], "x").await.refused(404, "NoSuchUpload");
    node.put(&format!("{uri}&partNumber=0"), &[], "x").await.refused(400, "InvalidArgument");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_may_be_copied() {
    let node = Node::with_bucket().await;
    node.put("/b-1/source", &[], "0123456789").await.ok();
    let id = begin(&node, &[]).await;
    let uri = format!("/b-1/k?partNumber=1&uploadId={id}");
    let source = ("x-amz-copy-source", "/b-1/source");
    let range = |text: &'static str| ("x-amz-copy-source-range", text);
    let copied = node.put(&uri, &[source, range("bytes=2-4")], "").await.ok();
    let etag = copied.element("ETag").replace("&quot;", "\"");
    for (text, code) in [("bytes=2-", "InvalidArgument"), ("bytes=2-10", "InvalidArgument")] {
        node.put(&uri, &[source, range(text)], "").await.refused(400, code);
    }
    let absent = ("x-amz-copy-source", "/b-1/none");
    node.put(&uri, &[absent], "").await.refused(404, "NoSuchKey");
    complete(&node, &id, &[], list(&[(1, &etag)])).await.ok();
    assert_eq!(node.get("/b-1/k", &[]).await.ok().text(), "234");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_checksum_counts_its_parts() {
    let node = Node::with_bucket().await;
    let asked = [("x-amz-checksum-algorithm", "SHA256")];
    let made = node.send(Method::POST, "/b-1/k?uploads", &asked, "").await.ok();
    assert_eq!(made.header("x-amz-checksum-algorithm"), "SHA256");
    assert_eq!(made.header("x-amz-checksum-type"), "COMPOSITE");
    let id = made.element("UploadId");
    let uri = format!("/b-1/k?partNumber=1&uploadId={id}");
    let crc = [("x-amz-checksum-crc32", "AAAAAA==")];
    node.put(&uri, &crc, "x").await.refused(400, "InvalidRequest");
    let first = part(&node, &id, 1, body(1, PART_BYTES), &[]).await;
    let second = part(&node, &id, 2, body(2, 9), &[]).await;
    let parts = list(&[(1, &first), (2, &second)]);
    let done = complete(&node, &id, &[], parts).await.ok();
    assert!(done.element("ChecksumSHA256").ends_with("-2"), "{}", done.text());
    assert_eq!(done.element("ChecksumType"), "COMPOSITE");
    let head = node.head("/b-1/k", &[("x-amz-checksum-mode", "ENABLED")]).await.ok();
    assert_eq!(head.header("x-amz-checksum-sha256"), done.element("ChecksumSHA256"));
    let asked = [("x-amz-object-attributes", "ObjectParts")];
    let told = node.get("/b-1/k?attributes&max-parts=1", &asked).await.ok();
    assert_eq!((told.element("PartsCount"), told.element("PartNumber")), ("2".into(), "1".into()));
    let impossible =
        [("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "FULL_OBJECT")];
    node.send(Method::POST, "/b-1/k?uploads", &impossible, "").await.refused(400, "InvalidRequest");
}
