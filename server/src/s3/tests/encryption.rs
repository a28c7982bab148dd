//! Encryption from request to answer: bucket defaults, keys by name, customers' keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_storage::{ChecksumAlgorithm, Digester};

use super::door::{Node, Reply};
use crate::auth::Caller;
use crate::s3::door::Private;

const MODE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
const OWN: &str = "x-amz-server-side-encryption-customer";
const SOURCE: &str = "x-amz-copy-source-server-side-encryption-customer";

/// The three headers of a customer's key.
struct Sse {
    names: [String; 3],
    values: [String; 3],
}

impl Sse {
    fn new(prefix: &str, byte: u8) -> Self {
        let mut digester = Digester::new(&[ChecksumAlgorithm::Md5]);
        digester.update(&[byte; 32]);
        let md5 = STANDARD.encode(digester.finish().remove(0).value);
        let names = ["algorithm", "key", "key-md5"].map(|name| format!("{prefix}-{name}"));
        Self { names, values: ["AES256".to_owned(), STANDARD.encode([byte; 32]), md5] }
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.names.iter().zip(&self.values).map(|(a, b)| (a.as_str(), b.as_str())).collect()
    }

    #[track_caller]
    fn is_told(&self, reply: &Reply) {
        assert_eq!(reply.header(&format!("{OWN}-algorithm")), "AES256");
        assert_eq!(reply.header(&format!("{OWN}-key-md5")), self.values[2]);
        assert_eq!((reply.header(MODE), reply.header(KEY_ID)), ("", ""));
    }
}

fn configuration(default: &str, rest: &str) -> String {
    let default = if default.is_empty() {
        String::new()
    } else {
        format!(
            "<ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault>"
        )
    };
    format!(
        "<ServerSideEncryptionConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Rule>{default}{rest}</Rule></ServerSideEncryptionConfiguration>"
    )
}

const ALLOW: &str = "<BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType>\
    </BlockedEncryptionTypes>";

/// The ids of two keys of the root user's tenant: the default one and another.
fn two_keys(node: &Node) -> [String; 2] {
    let Caller::User(user) = &node.root else { panic!("the root is a user") };
    let kms = node.engine.kms();
    let first = kms.default_tenant_key(user.tenant).unwrap();
    let second = kms.create_tenant_key(user.tenant).unwrap().id;
    [first, second].map(|id| {
        let hex = id.to_string();
        let at = |from, to| &hex[from..to];
        [at(0, 8), at(8, 12), at(12, 16), at(16, 20), at(20, 32)].join("-")
    })
}

fn arn(key: &str) -> String {
    format!("arn:aws:kms:eu-west-1:111111111111:key/{key}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_says_how_its_objects_are_encrypted() {
    let node = Node::with_bucket().await;
    let [first, second] = two_keys(&node);
    let absent = "ServerSideEncryptionConfigurationNotFoundError";
    node.get("/b-1?encryption", &[]).await.refused(404, absent);
    let aes = configuration("<SSEAlgorithm>AES256</SSEAlgorithm>", "");
    node.put("/b-1?encryption", &[], aes).await.ok();
    let put = node.put("/b-1/aes", &[], "x").await.ok();
    assert_eq!((put.header(MODE), put.header(KEY_ID), put.header(BUCKET_KEY)), ("AES256", "", ""));
    assert!(!put.header("etag").contains('-'), "SSE-S3 owes an MD5");
    let kms = configuration(
        &format!(
            "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{}</KMSMasterKeyID>",
            arn(&second)
        ),
        "<BucketKeyEnabled>true</BucketKeyEnabled>",
    );
    node.put("/b-1?encryption", &[], kms).await.ok();
    let got = node.get("/b-1?encryption", &[]).await.ok();
    for (element, want) in [
        ("SSEAlgorithm", "aws:kms"),
        ("KMSMasterKeyID", arn(&second).as_str()),
        ("BucketKeyEnabled", "true"),
        ("EncryptionType", "SSE-C"),
    ] {
        assert_eq!(got.element(element), want, "{}", got.text());
    }
    for (headers, want) in [
        (vec![], &second),
        (vec![(MODE, "aws:kms")], &first),
        (vec![(MODE, "aws:kms"), (KEY_ID, second.as_str())], &second),
    ] {
        let put = node.put("/b-1/kms", &headers, "x").await.ok();
        let head = node.head("/b-1/kms", &[]).await.ok();
        for reply in [&put, &head] {
            assert_eq!(reply.header(MODE), "aws:kms", "{headers:?}");
            assert_eq!(reply.header(KEY_ID), arn(want), "{headers:?}");
            assert_eq!(reply.header(BUCKET_KEY), "true");
        }
    }
    let begun = node.send(http::Method::POST, "/b-1/up?uploads", &[], "").await.ok();
    assert_eq!(begun.header(KEY_ID), arn(&second), "an upload takes the default as well");
    let part = format!("/b-1/up?partNumber=1&uploadId={}", begun.element("UploadId"));
    assert_eq!(node.put(&part, &[], "x").await.ok().header(KEY_ID), arn(&second));
    let copied = node.put("/b-1/copy", &[("x-amz-copy-source", "/b-1/aes")], "").await.ok();
    assert_eq!(copied.header(KEY_ID), arn(&second), "and a copy");
    node.delete("/b-1?encryption", &[]).await.ok();
    node.get("/b-1?encryption", &[]).await.refused(404, absent);
    assert_eq!(node.put("/b-1/k", &[], "x").await.ok().header(KEY_ID), arn(&first));
    assert_eq!(node.get("/b-1/copy", &[]).await.ok().header(KEY_ID), arn(&second), "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_there_answer_alike() {
    let node = Node::with_bucket().await;
    let [first, _] = two_keys(&node);
    let unknown = "00000000-0000-0000-0000-000000000000";
    let foreign = arn(&first).replace("111111111111", "222222222222");
    for name in [unknown, "alias/none", &foreign, "testkey-1"] {
        let headers = [(MODE, "aws:kms"), (KEY_ID, name)];
        node.put("/b-1/k", &headers, "x").await.refused(400, "KMS.NotFoundException");
        let post = node.send(http::Method::POST, "/b-1/k?uploads", &headers, "").await;
        post.refused(400, "KMS.NotFoundException");
        let document = configuration(
            &format!("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{name}</KMSMasterKeyID>"),
            "",
        );
        let put = node.put("/b-1?encryption", &[], document).await;
        put.refused(400, "KMS.NotFoundException");
    }
    node.get("/b-1/k", &[]).await.refused(404, "NoSuchKey");
    node.put("/b-1?encryption", &[], "<Odd/>").await.refused(400, "MalformedXML");
    node.put("/b-1?encryption", &[], "").await.refused(400, "MalformedXML");
    let dsse = configuration("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>", "");
    node.put("/b-1?encryption", &[], dsse).await.refused(501, "NotImplemented");
    let absent = "ServerSideEncryptionConfigurationNotFoundError";
    node.get("/b-1?encryption", &[]).await.refused(404, absent);
    let caller = &node.other_tenant;
    let foreign = node.send_as(caller, http::Method::GET, "/b-1?encryption", &[], "").await;
    foreign.refused(404, "NoSuchBucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_is_told_as_aws_tells_it() {
    let node = Node::with_bucket().await;
    let [_, second] = two_keys(&node);
    let headers = [(MODE, "aws:kms"), (KEY_ID, second.as_str())];
    node.put("/b-1/k", &headers, "x").await.ok();
    let Caller::User(user) = &node.root else { panic!("the root is a user") };
    let purpose = kluis_kms::Purpose {
        tenant: user.tenant,
        principal: "root".into(),
        reason: kluis_kms::Reason::CustomerInitiated,
        request_id: "test".into(),
        action: "kms:DisableKey",
        rights: kluis_kms::Rights::of_tenant(),
    };
    let id = second.replace('-', "").parse().unwrap();
    node.engine.kms().disable(&purpose, id).unwrap();
    node.get("/b-1/k", &[]).await.refused(400, "KMS.DisabledException");
    node.put("/b-1/k", &headers, "x").await.refused(400, "KMS.DisabledException");
    node.put("/b-1/other", &[], "x").await.ok();
    node.engine.kms().enable(&purpose, id).unwrap();
    assert_eq!(node.get("/b-1/k", &[]).await.ok().text(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_opens_what_it_encrypted() {
    let node = Node::with_bucket().await;
    let (key, other) = (Sse::new(OWN, 1), Sse::new(OWN, 2));
    node.put("/b-1/c", &key.headers(), "secret").await.refused(403, "AccessDenied");
    node.put("/b-1?encryption", &[], configuration("", ALLOW)).await.ok();
    assert_eq!(node.get("/b-1?encryption", &[]).await.ok().element("EncryptionType"), "NONE");
    key.is_told(&node.put("/b-1/c", &key.headers(), "secret").await.ok());
    let got = node.get("/b-1/c", &key.headers()).await.ok();
    assert_eq!(got.text(), "secret");
    key.is_told(&got);
    key.is_told(&node.head("/b-1/c", &key.headers()).await.ok());
    let attributes = [("x-amz-object-attributes", "ObjectSize")];
    node.get("/b-1/c?attributes", &attributes).await.refused(400, "InvalidRequest");
    let with_key: Vec<_> = attributes.into_iter().chain(key.headers()).collect();
    assert_eq!(node.get("/b-1/c?attributes", &with_key).await.ok().element("ObjectSize"), "6");
    node.get("/b-1/c?acl", &[]).await.ok();
    node.get("/b-1/c", &[]).await.refused(400, "InvalidRequest");
    node.head("/b-1/c", &[]).await.refused(400, "InvalidRequest");
    node.get("/b-1/c", &other.headers()).await.refused(403, "AccessDenied");
    node.put("/b-1/plain", &[], "x").await.ok();
    node.get("/b-1/plain", &key.headers()).await.refused(400, "InvalidRequest");
    let both: Vec<_> = key.headers().into_iter().chain([(MODE, "AES256")]).collect();
    node.put("/b-1/c", &both, "x").await.refused(400, "InvalidArgument");
    // The configuration rules new objects; what is there can still be read and copied away.
    node.delete("/b-1?encryption", &[]).await.ok();
    let source = Sse::new(SOURCE, 1);
    let mut headers = source.headers();
    headers.push(("x-amz-copy-source", "/b-1/c"));
    let copied = node.put("/b-1/copy", &headers, "").await.ok();
    assert_eq!(copied.header(MODE), "aws:kms");
    assert_eq!(node.get("/b-1/copy", &[]).await.ok().text(), "secret");
    let bare = [("x-amz-copy-source", "/b-1/c")];
    node.put("/b-1/no", &bare, "").await.refused(400, "InvalidRequest");
    let wrong = Sse::new(SOURCE, 2);
    let mut headers = wrong.headers();
    headers.push(("x-amz-copy-source", "/b-1/c"));
    node.put("/b-1/no", &headers, "").await.refused(403, "AccessDenied");
    node.get("/b-1/no", &[]).await.refused(404, "NoSuchKey");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_bring_the_key_that_the_upload_began_with() {
    let node = Node::with_bucket().await;
    node.put("/b-1?encryption", &[], configuration("", ALLOW)).await.ok();
    let (key, other) = (Sse::new(OWN, 1), Sse::new(OWN, 2));
    let post = http::Method::POST;
    let begun = node.send(post.clone(), "/b-1/up?uploads", &key.headers(), "").await.ok();
    key.is_told(&begun);
    let upload = begun.element("UploadId");
    let part = format!("/b-1/up?partNumber=1&uploadId={upload}");
    node.put(&part, &[], "one").await.refused(400, "InvalidRequest");
    node.put(&part, &other.headers(), "one").await.refused(400, "InvalidRequest");
    let sent = node.put(&part, &key.headers(), "one").await.ok();
    key.is_told(&sent);
    node.put("/b-1/plain", &[], "two").await.ok();
    let mut headers = key.headers();
    headers.push(("x-amz-copy-source", "/b-1/plain"));
    key.is_told(&node.put(&part.replace("r=1", "r=2"), &headers, "").await.ok());
    let bare = [("x-amz-copy-source", "/b-1/plain")];
    node.put(&part, &bare, "").await.refused(400, "InvalidRequest");
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        sent.header("etag").replace('"', "&quot;")
    );
    let end = format!("/b-1/up?uploadId={upload}");
    node.send(post.clone(), &end, &[], list.clone()).await.refused(400, "InvalidRequest");
    node.send(post, &end, &key.headers(), list).await.ok();
    assert_eq!(node.get("/b-1/up", &key.headers()).await.ok().text(), "one");
    node.get("/b-1/up", &[]).await.refused(400, "InvalidRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_needs_a_private_connection() {
    let mut node = Node::with_bucket().await;
    node.put("/b-1?encryption", &[], configuration("", ALLOW)).await.ok();
    let key = Sse::new(OWN, 1);
    node.put("/b-1/c", &key.headers(), "x").await.ok();
    node.private = Private(false);
    node.get("/b-1/c", &key.headers()).await.refused(400, "InvalidRequest");
    node.put("/b-1/d", &key.headers(), "x").await.refused(400, "InvalidRequest");
    node.private = Private(true);
    assert_eq!(node.get("/b-1/c", &key.headers()).await.ok().text(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_encrypted_anew_when_asked() {
    let node = Node::with_bucket().await;
    node.put("/b-1/k", &[], "x").await.ok();
    let copy =
        |value: &'static str| [("x-amz-copy-source", "/b-1/k"), ("x-kluis-reencrypt", value)];
    node.put("/b-1/k", &copy("maybe"), "").await.refused(400, "InvalidArgument");
    node.put("/b-1/k", &copy("false"), "").await.refused(400, "InvalidRequest");
    node.put("/b-1/k", &copy("true"), "").await.ok();
    assert_eq!(node.get("/b-1/k", &[]).await.ok().text(), "x");
}
