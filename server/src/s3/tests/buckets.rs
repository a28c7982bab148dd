//! The verbs on buckets, their listings and their settings, from request to answer.

use http::Method;

use super::door::{Node, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_made_listed_and_removed() {
    let node = Node::new().await;
    let made = node.put("/photos", &[], "").await.ok();
    assert_eq!(made.header("location"), "/photos");
    node.put("/photos", &[], "").await.refused(409, "BucketAlreadyOwnedByYou");
    node.send_as(&node.other_user, Method::PUT, "/photos", &[], "")
        .await
        .refused(409, "BucketAlreadyExists");
    node.put("/music", &[], "").await.ok();
    let listed = node.get("/", &[]).await.ok();
    assert_eq!(listed.elements("Name"), ["music", "photos"]);
    let first = node.get("/?max-buckets=1", &[]).await.ok();
    assert_eq!(first.elements("Name"), ["music"]);
    let token = first.element("ContinuationToken");
    let uri = format!("/?max-buckets=1&continuation-token={token}");
    let second = node.get(&uri, &[]).await.ok();
    assert_eq!(second.elements("Name"), ["photos"]);
    assert_eq!(second.element("ContinuationToken"), "");
    assert_eq!(node.head("/photos", &[]).await.ok().header("x-amz-bucket-region"), "eu-west-1");
    let location = node.get("/photos?location", &[]).await.ok();
    assert!(location.text().contains(">eu-west-1</LocationConstraint>"), "{}", location.text());
    node.put("/photos/a", &[], "x").await.ok();
    node.delete("/photos", &[]).await.refused(409, "BucketNotEmpty");
    assert_eq!(node.delete("/photos/a", &[]).await.ok().status, 204);
    assert_eq!(node.delete("/photos", &[]).await.ok().status, 204);
    node.head("/photos", &[]).await.refused(404, "NoSuchBucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_refused_for_what_it_cannot_be() {
    let node = Node::new().await;
    let lock = [("x-amz-bucket-object-lock-enabled", "true")];
    node.put("/photos", &lock, "").await.refused(501, "NotImplemented");
    let public = [("x-amz-acl", "public-read")];
    node.put("/photos", &public, "").await.refused(400, "InvalidBucketAclWithObjectOwnership");
    let elsewhere = "<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint>\
        </CreateBucketConfiguration>";
    node.put("/photos", &[], elsewhere).await.refused(400, "InvalidLocationConstraint");
    node.put("/Photos", &[], "").await.refused(400, "InvalidBucketName");
    node.put("/photos", &[], "<Create").await.refused(400, "MalformedXML");
    node.put("/photos?renameObject", &[], "").await.refused(501, "NotImplemented");
    node.put(
        "/photos?cors",
        &[],
        "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod>\
        <AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>",
    )
    .await
    .refused(501, "NotImplemented");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_others_are_absent_or_denied() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "secret").await.ok();
    for uri in ["/b-1/k", "/b-1?list-type=2", "/b-1?location", "/b-1/k?tagging", "/b-1?policy"] {
        let absent = uri.replace("b-1", "b-2");
        let foreign = node.send_as(&node.other_tenant, Method::GET, uri, &[], "").await;
        let missing = node.send_as(&node.other_tenant, Method::GET, &absent, &[], "").await;
        let told = |reply: &Reply| {
            let error = reply.error.clone().unwrap();
            (reply.status, error.code, error.message, error.extra)
        };
        assert_eq!(told(&foreign), told(&missing), "{uri}");
        let denied = node.send_as(&node.other_user, Method::GET, uri, &[], "").await;
        denied.refused(403, "AccessDenied");
    }
    let owner = [("x-amz-expected-bucket-owner", "222222222222")];
    node.get("/b-1/k", &owner).await.refused(403, "AccessDenied");
    let owner = [("x-amz-expected-bucket-owner", "111111111111")];
    node.get("/b-1/k", &owner).await.ok();
    let listed = node.send_as(&node.other_user, Method::GET, "/", &[], "").await.ok();
    assert!(listed.elements("Name").is_empty(), "{}", listed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_page_and_fold() {
    let node = Node::with_bucket().await;
    for name in ["a", "b/1", "b/2", "c/1", "d", "e+%20f"] {
        node.put(&format!("/b-1/{name}"), &[], "x").await.ok();
    }
    let mut seen = Vec::new();
    let mut uri = "/b-1?list-type=2&delimiter=/&max-keys=2".to_owned();
    loop {
        let page = node.get(&uri, &[]).await.ok();
        seen.extend(page.elements("Key"));
        seen.extend(page.elements("Prefix").into_iter().skip(1));
        let token = page.element("NextContinuationToken");
        assert_eq!(page.element("IsTruncated"), (!token.is_empty()).to_string());
        if token.is_empty() {
            break;
        }
        uri = format!("/b-1?list-type=2&delimiter=/&max-keys=2&continuation-token={token}");
    }
    seen.sort();
    assert_eq!(seen, ["a", "b/", "c/", "d", "e+ f"]);
    let old = node.get("/b-1?delimiter=/&max-keys=2", &[]).await.ok();
    assert_eq!(old.element("NextMarker"), "b/");
    assert!(old.text().contains("<Owner>"));
    let next = node.get("/b-1?delimiter=/&max-keys=2&marker=b/", &[]).await.ok();
    assert_eq!(next.elements("Prefix").into_iter().skip(1).collect::<Vec<_>>(), ["c/"]);
    assert_eq!(next.elements("Key"), ["d"]);
    let plain = node.get("/b-1?max-keys=2", &[]).await.ok();
    assert_eq!(
        (plain.element("IsTruncated"), plain.element("NextMarker")),
        ("true".into(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_encode_start_and_refuse() {
    let node = Node::with_bucket().await;
    for name in ["a", "b/1", "b/2", "c/1", "d", "e+%20f"] {
        node.put(&format!("/b-1/{name}"), &[], "x").await.ok();
    }
    let encoded = node.get("/b-1?list-type=2&encoding-type=url&prefix=e%2B", &[]).await.ok();
    assert_eq!(encoded.elements("Key"), ["e%2B%20f"]);
    assert_eq!(
        (encoded.element("KeyCount"), encoded.element("Prefix")),
        ("1".into(), "e%2B".into())
    );
    let after = node.get("/b-1?list-type=2&start-after=c/1&fetch-owner=true", &[]).await.ok();
    assert_eq!(after.elements("Key"), ["d", "e+ f"]);
    assert!(after.text().contains("<Owner>"));
    let nothing = node.get("/b-1?list-type=2&max-keys=0", &[]).await.ok();
    assert_eq!(
        (nothing.element("KeyCount"), nothing.element("IsTruncated")),
        ("0".into(), "false".into())
    );
    let versions = node.get("/b-1?versions&prefix=b/", &[]).await.ok();
    assert_eq!(versions.elements("VersionId"), ["null", "null"]);
    for (uri, code) in [
        ("/b-1?list-type=2&max-keys=-1", "InvalidArgument"),
        ("/b-1?list-type=2&max-keys=x", "InvalidArgument"),
        ("/b-1?list-type=2&continuation-token=forged", "InvalidArgument"),
        ("/b-1?encoding-type=base64", "InvalidArgument"),
        ("/b-1?versions&version-id-marker=null", "InvalidArgument"),
    ] {
        node.get(uri, &[]).await.refused(400, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_not_there_answer_as_aws_does() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "x").await.ok();
    for (query, code) in [
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("policy", "NoSuchBucketPolicy"),
        ("policyStatus", "NoSuchBucketPolicy"),
        ("cors", "NoSuchCORSConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("tagging", "NoSuchTagSet"),
        ("website", "NoSuchWebsiteConfiguration"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
        ("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("analytics&id=x", "NoSuchConfiguration"),
        ("inventory&id=x", "NoSuchConfiguration"),
        ("metrics&id=x", "NoSuchConfiguration"),
        ("intelligent-tiering&id=x", "NoSuchConfiguration"),
    ] {
        node.get(&format!("/b-1?{query}"), &[]).await.refused(404, code);
        node.get(&format!("/b-2?{query}"), &[]).await.refused(404, "NoSuchBucket");
    }
    for query in [
        "accelerate",
        "acl",
        "logging",
        "notification",
        "ownershipControls",
        "requestPayment",
        "versioning",
        "analytics",
        "inventory",
        "metrics",
        "intelligent-tiering",
        "uploads",
    ] {
        node.get(&format!("/b-1?{query}"), &[]).await.ok();
    }
    for query in [
        "cors",
        "encryption",
        "lifecycle",
        "policy",
        "replication",
        "tagging",
        "website",
        "publicAccessBlock",
        "ownershipControls",
    ] {
        assert_eq!(node.delete(&format!("/b-1?{query}"), &[]).await.ok().status, 204, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acl_grants_the_owner_everything_and_no_other() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "x").await.ok();
    let acl = node.get("/b-1/k?acl", &[]).await.ok();
    assert_eq!(acl.element("Permission"), "FULL_CONTROL");
    assert!(acl.text().contains("CanonicalUser"), "{}", acl.text());
    node.put("/b-1/k?acl", &[("x-amz-acl", "private")], "").await.ok();
    node.get("/b-1/k?retention", &[]).await.refused(400, "InvalidRequest");
    let payer = node.get("/b-1?requestPayment", &[]).await.ok();
    assert_eq!(payer.element("Payer"), "BucketOwner");
}
