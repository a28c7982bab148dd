//! The right to the key decides over bytes, and over nothing else.

use http::Method;
use serde_json::json;

use super::door::{Node, Reply};

const ANN: &str = "arn:aws:iam::111111111111:user/ann";

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
