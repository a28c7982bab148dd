//! The right to the key decides over bytes, and over nothing else.

use http::Method;
use serde_json::json;

use super::door::{Node, Reply};

const ANN: &str = "arn:aws:iam::111111111111:user/ann";

const BLUE: &str = "<Tagging><TagSet><Tag><Key>colour</Key><Value>blue</Value></Tag></TagSet>\
    </Tagging>";

/// Leaves the key to the account, but for what ann may not do.
fn denying_ann(actions: &[&str]) -> String {
    json!({"Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "kms:*",
         "Resource": "*"},
        {"Effect": "Deny", "Principal": {"AWS": ANN}, "Action": actions, "Resource": "*"}
    ]})
    .to_string()
}

async fn as_ann(node: &Node, method: Method, uri: &str, body: &'static str) -> Reply {
    node.send_as(&node.other_user, method, uri, &[], body).await
}

#[tokio::test]
async fn who_may_not_use_the_key_neither_reads_nor_writes_but_lists() {
    let node = Node::new().await;
    as_ann(&node, Method::PUT, "/anns", "").await.ok();
    as_ann(&node, Method::PUT, "/anns/a", "secret").await.ok();

    node.put_key_policy(&denying_ann(&["kms:Decrypt"]));
    as_ann(&node, Method::GET, "/anns/a", "").await.refused(403, "AccessDenied");
    as_ann(&node, Method::PUT, "/anns/b", "more").await.ok();
    // Root may read what ann may not: the right is the caller's, not the bucket's.
    assert_eq!(node.get("/anns/a", &[]).await.ok().text(), "secret");

    node.put_key_policy(&denying_ann(&["kms:Decrypt", "kms:GenerateDataKey"]));
    as_ann(&node, Method::PUT, "/anns/c", "most").await.refused(403, "AccessDenied");
    let listed = as_ann(&node, Method::GET, "/anns?list-type=2", "").await.ok();
    assert_eq!(listed.elements("Key"), ["a", "b"]);

    node.put_key_policy(&denying_ann(&["kms:DisableKey"]));
    assert_eq!(as_ann(&node, Method::GET, "/anns/b", "").await.ok().text(), "more");
}

/// Leaves the key to the account, but for reading in one bucket.
fn denying_reads_of(bucket: &str) -> String {
    json!({"Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "kms:*",
         "Resource": "*"},
        {"Effect": "Deny", "Principal": {"AWS": ANN}, "Action": "kms:Decrypt", "Resource": "*",
         "Condition": {"StringEquals":
            {"kms:EncryptionContext:aws:s3:arn": format!("arn:aws:s3:::{bucket}")}}}
    ]})
    .to_string()
}

#[tokio::test]
async fn a_copy_needs_the_right_to_read_where_its_source_is() {
    let node = Node::new().await;
    for uri in ["/from", "/onto"] {
        as_ann(&node, Method::PUT, uri, "").await.ok();
    }
    as_ann(&node, Method::PUT, "/from/a", "secret").await.ok();
    let begun = as_ann(&node, Method::POST, "/onto/parts?uploads", "").await.ok();
    let upload = begun.element("UploadId");
    let source = ("x-amz-copy-source", "from/a");
    let part = format!("/onto/parts?partNumber=1&uploadId={upload}");
    let ways = [
        ("shared", "/onto/shared", vec![source]),
        ("anew", "/onto/anew", vec![source, ("x-kluis-reencrypt", "true")]),
        ("of a range", part.as_str(), vec![source, ("x-amz-copy-source-range", "bytes=0-2")]),
        ("as a part", part.as_str(), vec![source]),
    ];
    let copy = async |uri: &str, headers: &[(&str, &str)]| {
        node.send_as(&node.other_user, Method::PUT, uri, headers, "").await
    };

    node.put_key_policy(&denying_reads_of("from"));
    as_ann(&node, Method::GET, "/from/a", "").await.refused(403, "AccessDenied");
    for (what, uri, headers) in &ways {
        let reply = copy(uri, headers).await;
        assert_eq!(reply.status, 403, "{what}: {}", reply.text());
        reply.refused(403, "AccessDenied");
    }
    let listed = as_ann(&node, Method::GET, "/onto?list-type=2", "").await.ok();
    assert!(listed.elements("Key").is_empty(), "nothing was copied");

    // What may be read at its source may be copied to where it may not be read.
    node.put_key_policy(&denying_reads_of("onto"));
    for (what, uri, headers) in &ways {
        let reply = copy(uri, headers).await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    }
    as_ann(&node, Method::GET, "/onto/anew", "").await.refused(403, "AccessDenied");
}

#[tokio::test]
async fn tags_are_read_and_written_by_the_right_to_the_key() {
    let node = Node::new().await;
    as_ann(&node, Method::PUT, "/anns", "").await.ok();
    let tag = [("x-amz-tagging", "colour=red")];
    for (uri, headers) in [("/anns/a", &tag[..]), ("/anns/bare", &[])] {
        node.send_as(&node.other_user, Method::PUT, uri, headers, "x").await.ok();
    }

    node.put_key_policy(&denying_ann(&["kms:Decrypt"]));
    for uri in ["/anns/a?tagging", "/anns/bare?tagging"] {
        as_ann(&node, Method::GET, uri, "").await.refused(403, "AccessDenied");
    }
    as_ann(&node, Method::PUT, "/anns/a?tagging", BLUE).await.ok();
    as_ann(&node, Method::GET, "/anns/a?acl", "").await.ok();
    as_ann(&node, Method::GET, "/anns/absent?acl", "").await.refused(404, "NoSuchKey");

    node.put_key_policy(&denying_ann(&["kms:GenerateDataKey"]));
    as_ann(&node, Method::PUT, "/anns/bare?tagging", BLUE).await.refused(403, "AccessDenied");
    as_ann(&node, Method::DELETE, "/anns/a?tagging", "").await.refused(403, "AccessDenied");
    let read = as_ann(&node, Method::GET, "/anns/a?tagging", "").await.ok();
    assert_eq!(read.element("Value"), "blue", "nothing was changed by what was refused");
}

#[tokio::test]
async fn a_policy_of_one_tenant_says_nothing_of_another_one() {
    let node = Node::new().await;
    node.send_as(&node.other_tenant, Method::PUT, "/theirs", &[], "").await.ok();
    node.send_as(&node.other_tenant, Method::PUT, "/theirs/a", &[], "x").await.ok();
    node.put_key_policy(
        r#"{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}}"#,
    );
    let theirs = node.send_as(&node.other_tenant, Method::GET, "/theirs/a", &[], "").await.ok();
    assert_eq!(theirs.text(), "x");
}

#[tokio::test]
async fn what_was_decrypted_for_an_answer_names_its_key() {
    let node = Node::new().await;
    as_ann(&node, Method::PUT, "/anns", "").await.ok();
    as_ann(&node, Method::PUT, "/anns/a", "x").await.ok();
    let begun = as_ann(&node, Method::POST, "/anns/parts?uploads", "").await.ok();
    let upload = begun.element("UploadId");
    let crate::auth::Caller::User(root) = &node.root else { panic!("root is a user") };
    let key = node.engine.kms().default_tenant_key(root.tenant).unwrap();
    let attributes = [("x-amz-object-attributes", "ETag")];
    for (uri, headers) in [
        ("/anns/a", &[][..]),
        ("/anns/a?tagging", &[]),
        ("/anns/a?attributes", &attributes),
        (&format!("/anns/parts?uploadId={upload}"), &[]),
    ] {
        let reply = node.send_as(&node.other_user, Method::GET, uri, headers, "").await.ok();
        assert_eq!(reply.plaintext.map(|plaintext| plaintext.tenant_key), Some(key), "{uri}");
    }
}
