//! The verbs on objects put whole, from request to answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use kluis_storage::{ChecksumAlgorithm, Digester, ETagRule};

use super::door::Node;

fn digest(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Vec<u8> {
    let mut digester = Digester::new(&[algorithm]);
    digester.update(bytes);
    digester.finish().remove(0).value
}

fn content_md5(bytes: &[u8]) -> String {
    STANDARD.encode(digest(ChecksumAlgorithm::Md5, bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_comes_back_as_it_went() {
    let node = Node::with_bucket().await;
    let headers = [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("expires", "whenever"),
        ("content-encoding", "aws-chunked,gzip"),
        ("x-amz-meta-colour", "naïve"),
        ("x-amz-meta-odd", "=?="),
        ("x-amz-tagging", "a=1&b=2"),
    ];
    let name = "/b-1/..//%01%C3%A4%2F+%20x";
    let put = node.put(name, &headers, "hello world").await.ok();
    assert!(put.header("etag").ends_with("-1\""), "{}", put.header("etag"));
    assert_eq!(put.header("x-amz-server-side-encryption"), "aws:kms");
    let arn = put.header("x-amz-server-side-encryption-aws-kms-key-id").to_owned();
    assert!(arn.starts_with("arn:aws:kms:eu-west-1:111111111111:key/"), "{arn}");
    let crc = STANDARD.encode(digest(ChecksumAlgorithm::Crc64Nvme, b"hello world"));
    assert_eq!(put.header("x-amz-checksum-crc64nvme"), crc);
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    let got = node.get(name, &mode).await.ok();
    let head = node.head(name, &mode).await.ok();
    assert_eq!((got.status, got.text().as_str()), (200, "hello world"));
    assert_eq!(got.headers, head.headers, "HEAD and GET have the same headers");
    for (header, want) in [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("expires", "whenever"),
        ("content-encoding", "gzip"),
        ("content-length", "11"),
        ("accept-ranges", "bytes"),
        ("x-amz-meta-colour", "=?UTF-8?B?bmHDr3Zl?="),
        ("x-amz-meta-odd", "=?="),
        ("x-amz-tagging-count", "2"),
        ("x-amz-checksum-crc64nvme", crc.as_str()),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("x-amz-server-side-encryption-aws-kms-key-id", arn.as_str()),
        ("etag", put.header("etag")),
    ] {
        assert_eq!(got.header(header), want, "{header}");
    }
    let overrides =
        "?response-content-type=text/x&response-expires=Wed,%2021%20Oct%202015%2007:28:00%20GMT";
    let overridden = node.get(&format!("{name}{overrides}"), &[]).await.ok();
    assert_eq!(overridden.header("content-type"), "text/x");
    assert_eq!(overridden.header("expires"), "Wed, 21 Oct 2015 07:28:00 GMT");
    assert!(overridden.header("x-amz-checksum-crc64nvme").is_empty(), "only when asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_and_checked() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "0123456789").await.ok();
    node.put("/b-1/empty", &[], "").await.ok();
    for (range, status, want, content_range) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=5-500", 206, "56789", "bytes 5-9/10"),
        ("bytes=-500", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=3-1", 200, "0123456789", ""),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
        ("rows=0-1", 200, "0123456789", ""),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let reply = node.send(method.clone(), "/b-1/k", &[("range", range)], "").await.ok();
            assert_eq!(reply.status, status, "{method} {range}");
            assert_eq!(reply.header("content-range"), content_range, "{method} {range}");
            assert_eq!(reply.header("content-length"), want.len().to_string(), "{method} {range}");
            if method == Method::GET {
                assert_eq!(reply.text(), want, "{range}");
            }
        }
    }
    for (uri, range) in [
        ("/b-1/k", "bytes=10-"),
        ("/b-1/k", "bytes=-0"),
        ("/b-1/empty", "bytes=0-"),
        ("/b-1/empty", "bytes=-1"),
    ] {
        let reply = node.get(uri, &[("range", range)]).await.refused(416, "InvalidRange");
        assert!(reply.header("content-range").starts_with("bytes */"), "{uri} {range}");
    }
    let part = node.get("/b-1/k?partNumber=1", &[]).await.ok();
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 0-9/10"));
    node.get("/b-1/k?partNumber=2", &[]).await.refused(416, "InvalidPartNumber");
    node.get("/b-1/k?partNumber=0", &[]).await.refused(400, "InvalidArgument");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_reads_writes_and_deletes() {
    let node = Node::with_bucket().await;
    let put = node.put("/b-1/k", &[("if-none-match", "*")], "one").await.ok();
    let etag = put.header("etag").to_owned();
    let bare = etag.trim_matches('"');
    for (headers, status) in [
        (vec![("if-match", etag.as_str())], 200),
        (vec![("if-match", bare)], 200),
        (vec![("if-match", "\"x\"")], 412),
        (vec![("if-none-match", etag.as_str())], 304),
        (vec![("if-none-match", "\"x\", \"y\"")], 200),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT")], 200),
        (vec![("if-unmodified-since", "Wed, 21 Oct 2015 07:28:00 GMT")], 412),
        (vec![("if-unmodified-since", "nonsense")], 200),
    ] {
        let reply = node.get("/b-1/k", &headers).await;
        assert_eq!(reply.status, status, "{headers:?}");
        if status == 304 {
            assert_eq!(reply.header("etag"), etag, "304 names what the client has");
        }
    }
    node.put("/b-1/k", &[("if-none-match", "*")], "two").await.refused(412, "PreconditionFailed");
    node.put("/b-1/k", &[("if-match", "\"x\"")], "two").await.refused(412, "PreconditionFailed");
    node.put("/b-1/none", &[("if-match", "\"x\"")], "two").await.refused(404, "NoSuchKey");
    assert_eq!(node.get("/b-1/k", &[]).await.text(), "one");
    node.put("/b-1/k", &[("if-match", &etag)], "two").await.ok();
    node.delete("/b-1/k", &[("if-match", &etag)]).await.refused(412, "PreconditionFailed");
    node.delete("/b-1/k", &[("x-amz-if-match-size", "7")]).await.refused(412, "PreconditionFailed");
    node.delete("/b-1/k", &[("x-amz-if-match-size", "3")]).await.ok();
    node.delete("/b-1/k", &[("if-match", &etag)]).await.refused(404, "NoSuchKey");
    node.delete("/b-1/k", &[]).await.ok();
    node.delete("/b-1/k?versionId=null", &[]).await.ok();
    node.get("/b-1/k?versionId=x", &[]).await.refused(400, "InvalidArgument");
    node.get("/b-1/k", &[]).await.refused(404, "NoSuchKey");
}

#[tokio::test(flavor = "multi_thread")]
async fn etags_are_md5_where_they_are_owed() {
    let node = Node::with_bucket().await;
    let md5 = format!("\"{}\"", hex::encode(digest(ChecksumAlgorithm::Md5, b"hello")));
    let sent = content_md5(b"hello");
    let by_md5 = node.put("/b-1/k", &[("content-md5", &sent)], "hello").await.ok();
    assert_eq!(by_md5.header("etag"), md5);
    let aes = [("x-amz-server-side-encryption", "AES256")];
    let by_aes = node.put("/b-1/k", &aes, "hello").await.ok();
    assert_eq!(by_aes.header("etag"), md5);
    assert_eq!(by_aes.header("x-amz-server-side-encryption"), "AES256");
    assert!(by_aes.header("x-amz-server-side-encryption-aws-kms-key-id").is_empty());
    let got = node.get("/b-1/k", &[]).await.ok();
    assert_eq!(got.header("x-amz-server-side-encryption"), "AES256");
    let wrong = content_md5(b"other");
    node.put("/b-1/k", &[("content-md5", &wrong)], "hello").await.refused(400, "BadDigest");
    node.put("/old", &[("x-kluis-etag", "md5")], "").await.ok();
    assert_eq!(node.put("/old/k", &[], "hello").await.ok().header("etag"), md5);
    node.put("/blind", &[("x-kluis-etag", "opaque")], "").await.ok();
    let blind = node.put("/blind/k", &[("content-md5", &sent)], "hello").await.ok();
    assert!(blind.header("etag").ends_with("-1\""));
    let node = Node::with(ETagRule::Md5).await;
    node.put("/b-1", &[], "").await.ok();
    assert_eq!(node.put("/b-1/k", &[], "hello").await.ok().header("etag"), md5);
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_headers_are_taken_or_refused() {
    let node = Node::with_bucket().await;
    let kms = ("x-amz-server-side-encryption", "aws:kms");
    let put = node.put("/b-1/k", &[kms], "x").await.ok();
    let arn = put.header("x-amz-server-side-encryption-aws-kms-key-id").to_owned();
    let id = "x-amz-server-side-encryption-aws-kms-key-id";
    node.put("/b-1/k", &[kms, (id, &arn)], "x").await.ok();
    node.put("/b-1/k", &[kms, (id, "testkey-1")], "x").await.refused(400, "KMS.NotFoundException");
    let context = STANDARD.encode(r#"{"team":"red"}"#);
    let context = ("x-amz-server-side-encryption-context", context.as_str());
    node.put("/b-1/k", &[kms, context], "red").await.ok();
    assert_eq!(node.get("/b-1/k", &[]).await.ok().text(), "red");
    let customer = ("x-amz-server-side-encryption-customer-algorithm", "AES256");
    node.put("/b-1/k", &[customer], "x").await.refused(400, "InvalidArgument");
    node.get("/b-1/k", &[kms]).await.refused(400, "InvalidArgument");
    let lock = ("x-amz-object-lock-legal-hold", "ON");
    node.put("/b-1/k", &[lock], "x").await.refused(400, "InvalidRequest");
    let class = ("x-amz-storage-class", "GLACIER");
    node.put("/b-1/k", &[class], "x").await.refused(400, "InvalidStorageClass");
    let public = ("x-amz-acl", "public-read");
    node.put("/b-1/k", &[public], "x").await.refused(400, "AccessControlListNotSupported");
    node.put("/b-1/k", &[("x-amz-acl", "private")], "x").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_or_replace() {
    let node = Node::with_bucket().await;
    let headers = [("content-type", "text/plain"), ("x-amz-meta-a", "1"), ("x-amz-tagging", "t=1")];
    let put = node.put("/b-1/k", &headers, "hello").await.ok();
    let source = ("x-amz-copy-source", "b-1/k");
    let copied = node.put("/b-1/copy", &[source], "").await.ok();
    assert!(copied.element("ETag").contains('-'), "{}", copied.text());
    assert!(!copied.element("ChecksumCRC64NVME").is_empty(), "{}", copied.text());
    let got = node.get("/b-1/copy", &[]).await.ok();
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-a")), ("hello", "1"));
    assert_eq!(got.header("x-amz-tagging-count"), "1");
    let replace = ("x-amz-metadata-directive", "REPLACE");
    let retag = ("x-amz-tagging-directive", "REPLACE");
    node.put("/b-1/copy", &[source, replace, retag, ("x-amz-meta-b", "2")], "").await.ok();
    let got = node.get("/b-1/copy", &[]).await.ok();
    assert_eq!((got.header("x-amz-meta-a"), got.header("x-amz-meta-b")), ("", "2"));
    assert_eq!(got.header("x-amz-tagging-count"), "");
    node.put("/b-1/k", &[source], "").await.refused(400, "InvalidRequest");
    node.put("/b-1/k", &[source, replace], "").await.ok();
    let bad = ("x-amz-metadata-directive", "MERGE");
    node.put("/b-1/copy", &[source, bad], "").await.refused(400, "InvalidArgument");
    let stale = ("x-amz-copy-source-if-none-match", put.header("etag"));
    node.put("/b-1/k2", &[source, stale], "").await.refused(412, "PreconditionFailed");
    let fresh = ("x-amz-copy-source-if-none-match", "\"x\"");
    node.put("/b-1/k2", &[source, fresh], "").await.ok();
    let wrong = ("x-amz-copy-source-if-match", "\"x\"");
    node.put("/b-1/k3", &[source, wrong], "").await.refused(412, "PreconditionFailed");
    node.put("/b-1/k2", &[source, ("if-none-match", "*")], "")
        .await
        .refused(412, "PreconditionFailed");
    let absent = ("x-amz-copy-source", "b-1/none");
    node.put("/b-1/k3", &[absent], "").await.refused(404, "NoSuchKey");
    let foreign = ("x-amz-copy-source", "b-2/k");
    node.put("/b-1/k3", &[foreign], "").await.refused(404, "NoSuchBucket");
    let point = "arn:aws:s3:eu-west-1:111111111111:accesspoint/point/object/k";
    node.put("/b-1/k3", &[("x-amz-copy-source", point)], "").await.refused(501, "NotImplemented");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_objects_are_deleted_at_once() {
    let node = Node::with_bucket().await;
    for name in ["a", "b", "c"] {
        node.put(&format!("/b-1/{name}"), &[], "x").await.ok();
    }
    let list = "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object>\
        <Object><Key>b</Key><ETag>\"x\"</ETag></Object>\
        <Object><Key>c</Key><VersionId>3HL4kqtJvjVBH40Nrjfkd_ab.cdEf-gh</VersionId></Object></Delete>";
    let md5 = content_md5(list.as_bytes());
    let post = |headers: Vec<(&'static str, String)>, body: String| {
        let node = &node;
        async move {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            node.send(Method::POST, "/b-1?delete", &headers, body).await
        }
    };
    post(vec![], list.to_owned()).await.refused(400, "InvalidRequest");
    let reply = post(vec![("content-md5", md5)], list.to_owned()).await.ok();
    assert_eq!(reply.elements("Code"), ["PreconditionFailed", "NoSuchVersion"]);
    let deleted: Vec<_> = reply.text().split("<Deleted>").skip(1).map(str::to_owned).collect();
    assert_eq!(deleted.len(), 2, "{}", reply.text());
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>b</Key></Object></Delete>";
    let crc = STANDARD.encode(digest(ChecksumAlgorithm::Crc32, quiet.as_bytes()));
    let reply = post(vec![("x-amz-checksum-crc32", crc)], quiet.to_owned()).await.ok();
    assert!(!reply.text().contains("<Deleted>"), "{}", reply.text());
    node.head("/b-1/b", &[]).await.refused(404, "NoSuchKey");
    node.head("/b-1/c", &[]).await.ok();
    let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1_001));
    let md5 = content_md5(many.as_bytes());
    post(vec![("content-md5", md5)], many).await.refused(400, "MalformedXML");
    let wrong = content_md5(b"other");
    post(vec![("content-md5", wrong)], quiet.to_owned()).await.refused(400, "BadDigest");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_put_read_and_removed() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "x").await.ok();
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";
    node.put("/b-1/k?tagging", &[], tags).await.ok();
    let got = node.get("/b-1/k?tagging", &[]).await.ok();
    assert_eq!((got.element("Key"), got.element("Value")), ("a".into(), "1".into()));
    assert_eq!(node.delete("/b-1/k?tagging", &[]).await.ok().status, 204);
    assert!(!node.get("/b-1/k?tagging", &[]).await.ok().text().contains("<Tag>"));
    let long = tags.replace('1', &"v".repeat(257));
    node.put("/b-1/k?tagging", &[], long).await.refused(400, "InvalidTag");
    node.get("/b-1/none?tagging", &[]).await.refused(404, "NoSuchKey");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_told_without_quotes() {
    let node = Node::with_bucket().await;
    let put = node.put("/b-1/k", &[], "hello").await.ok();
    let asked = [("x-amz-object-attributes", "ETag,Checksum,ObjectSize,StorageClass")];
    let reply = node.get("/b-1/k?attributes", &asked).await.ok();
    assert_eq!(reply.element("ETag"), put.header("etag").trim_matches('"'));
    assert_eq!(reply.element("ObjectSize"), "5");
    assert_eq!(reply.element("ChecksumCRC64NVME"), put.header("x-amz-checksum-crc64nvme"));
    assert!(!reply.header("last-modified").is_empty());
    assert_eq!(reply.header("content-type"), "application/xml");
    let asked = [("x-amz-object-attributes", "Colour")];
    node.get("/b-1/k?attributes", &asked).await.refused(400, "InvalidArgument");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_documents_are_kept_byte_for_byte() {
    let node = Node::with_bucket().await;
    for (uri, written) in [
        ("/b-1/%20a%20", " a "),
        ("/b-1/a%0Ab", "a&#10;b"),
        ("/b-1/%3C%26%3E", "&lt;&amp;&gt;"),
        ("/b-1/a%2Fb%2F", "a/b/"),
    ] {
        node.put(uri, &[], "x").await.ok();
        let list = format!("<Delete><Object><Key>{written}</Key></Object></Delete>");
        let md5 = content_md5(list.as_bytes());
        let sent = node.send(Method::POST, "/b-1?delete", &[("content-md5", &md5)], list).await;
        sent.ok();
        node.head(uri, &[]).await.refused(404, "NoSuchKey");
    }
}
