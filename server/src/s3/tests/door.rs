//! A node without its front: requests go straight to the door, as a verified caller.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kluis_kms::env::Env;
use kluis_kms::{Kms, MemoryStore, RequestId, TenantId};
use kluis_storage::{ETagRule, Engine, EngineConfig, IoConfig, UserId, VolumeConfig};

use crate::auth::{AccountId, Caller, User};
use crate::body::{BodyPlan, DecodedBody, PayloadForm};
use crate::error::ApiError;
use crate::key_policy::KeyPolicies;
use crate::key_policy::testing::{MemoryDirectory, in_memory, with};
use crate::plaintext::Plaintext;
use crate::s3::S3Api;
use crate::s3::door::{Door, Private};

const REGION: &str = "eu-west-1";

/// A node with two tenants, of which the first has a second user.
pub(super) struct Node {
    door: Door,
    pub(super) root: Caller,
    pub(super) other_user: Caller,
    pub(super) other_tenant: Caller,
    /// Whether requests may bring keys; they may.
    pub(super) private: Private,
    pub(super) engine: Engine,
    key_policies: Arc<KeyPolicies>,
    key_directory: Arc<MemoryDirectory>,
    _dir: tempfile::TempDir,
}

/// An answer, read to its end.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) error: Option<ApiError>,
    /// The key that the answer's connection is to be cut with.
    pub(super) plaintext: Option<Plaintext>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The content of the first element of this name.
    pub(super) fn element(&self, name: &str) -> String {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>")).unwrap_or_default();
        rest.split_once(&format!("</{name}>")).unwrap_or_default().0.to_owned()
    }

    /// Every content of elements of this name, in order.
    pub(super) fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let start = format!("<{name}>");
        let parts = text.split(&start).skip(1);
        parts.map(|rest| rest.split_once("</").unwrap().0.to_owned()).collect()
    }

    #[track_caller]
    pub(super) fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {:?}", self.status, self.error);
        self
    }

    #[track_caller]
    pub(super) fn refused(self, status: u16, code: &str) -> Self {
        let found = self.error.as_ref().map(|error| error.code.to_string());
        assert_eq!((self.status, found.as_deref()), (status, Some(code)));
        self
    }
}

fn user(tenant: TenantId, account: u64, id: u8, is_root: bool) -> Caller {
    Caller::User(Arc::new(User {
        tenant,
        account_id: AccountId::from_number(account).unwrap(),
        user: UserId::from_bytes([id; 16]),
        name: if is_root { "root".into() } else { "ann".into() },
        is_root,
        access_key_id: "AKIAEXAMPLE".into(),
    }))
}

impl Node {
    pub(super) async fn new() -> Self {
        Self::with(ETagRule::Auto).await
    }

    pub(super) async fn with(etag_rule: ETagRule) -> Self {
        let env = Env::system();
        let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
        let config = EngineConfig {
            io: IoConfig { direct: false, ..IoConfig::default() },
            volume: VolumeConfig { segment_bytes: 8 << 20, prewrite: false, ..Default::default() },
            pool_bytes: 32 << 20,
            reserve_bytes: 1 << 20,
            ..EngineConfig::default()
        };
        let engine = Engine::open(dir.path(), config, Arc::new(kms), env.clone()).await.unwrap();
        let (first, second) = (TenantId::random(&*env.rng), TenantId::random(&*env.rng));
        for tenant in [first, second] {
            engine.create_namespace(tenant).await.unwrap();
        }
        let (key_policies, key_directory) = in_memory(REGION, env);
        let api = S3Api::new(engine.clone(), REGION, etag_rule, Arc::clone(&key_policies));
        Self {
            door: Door::new(api, 8 << 20),
            root: user(first, 111_111_111_111, 1, true),
            other_user: user(first, 111_111_111_111, 2, false),
            other_tenant: user(second, 222_222_222_222, 3, true),
            private: Private(true),
            engine,
            key_policies,
            key_directory,
            _dir: dir,
        }
    }

    /// Replaces the policy of the first tenant's key.
    pub(super) fn put_key_policy(&self, text: &str) {
        let Caller::User(root) = &self.root else { panic!("root is a user") };
        let id = self.engine.kms().default_tenant_key(root.tenant).unwrap();
        self.key_directory.add_key(root.tenant, id);
        with(root, |asker| self.key_policies.put_policy(asker, id, (text, true))).unwrap();
    }

    /// Sends a request as `caller`.
    pub(super) async fn send_as(
        &self,
        caller: &Caller,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let body = body.into();
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header("host", "localhost:9000").header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, body) = request.body(Full::new(body)).unwrap().into_parts();
        let plan = BodyPlan::new(&parts, None, PayloadForm::Unsigned, None).unwrap();
        let (body, digests) = DecodedBody::new(plan, body);
        parts.extensions.insert(caller.clone());
        parts.extensions.insert(RequestId::from("test"));
        parts.extensions.insert(self.private);
        parts.extensions.insert(digests);
        let response =
            self.door.call(Request::from_parts(parts, s3s::Body::http_body_unsync(body))).await;
        let (mut head, body) = response.into_parts();
        Reply {
            status: head.status.as_u16(),
            error: head.extensions.remove::<ApiError>(),
            plaintext: head.extensions.remove::<Plaintext>(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(super) async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send_as(&self.root, method, uri, headers, body).await
    }

    pub(super) async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::GET, uri, headers, "").await
    }

    pub(super) async fn head(&self, uri: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::HEAD, uri, headers, "").await
    }

    pub(super) async fn put(
        &self,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send(Method::PUT, uri, headers, body).await
    }

    pub(super) async fn delete(&self, uri: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::DELETE, uri, headers, "").await
    }

    /// A node with the bucket `b-1`.
    pub(super) async fn with_bucket() -> Self {
        let node = Self::new().await;
        assert_eq!(node.put("/b-1", &[], "").await.status, StatusCode::OK.as_u16());
        node
    }
}
