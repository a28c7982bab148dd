//! The engine as its callers use it: real RocksDB, real files, a real key manager.

mod backup;
mod destruction;
mod encryption;
mod golden;
mod isolation;
mod jobs;
mod multipart;
mod objects;
mod reclaiming;
mod restart;
mod rollback;
mod scrubbing;

use std::sync::Arc;

use kluis_kms::{Env, Kms, MemoryStore, Purpose, Reason, Rights, ShiftedClock, TenantId};

use super::*;
use crate::body::BytesBody;
use crate::digest::ChecksumAlgorithm;
use crate::requests::*;
use crate::types::*;

/// A node's engine in a directory of its own.
struct Node {
    dir: tempfile::TempDir,
    store: MemoryStore,
    env: Env,
    engine: Option<Engine>,
}

/// Small limits, so that rare states are reached with little data.
fn small() -> EngineConfig {
    EngineConfig {
        volume: VolumeConfig { segment_bytes: 8 << 20, prewrite: false, ..Default::default() },
        pool_bytes: 32 << 20,
        dedicated_namespaces_max: 1,
        pooled_families: 2,
        reserve_bytes: 1 << 20,
        ballast_bytes: 0,
        ..EngineConfig::default()
    }
}

impl Node {
    async fn new() -> Self {
        Self::with(Env::system()).await
    }

    /// A node whose clock is moved by hand.
    async fn shifted() -> (Self, Arc<ShiftedClock>) {
        let clock = Arc::new(ShiftedClock::default());
        let env = Env { clock: Arc::clone(&clock) as _, ..Env::system() };
        (Self::with(env).await, clock)
    }

    async fn with(env: Env) -> Self {
        let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
        let engine = Engine::open(dir.path(), small(), Arc::new(kms), env.clone()).await.unwrap();
        Self { dir, store, env, engine: Some(engine) }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Closes, or just drops everything as a crash of the process would, and opens again.
    async fn restart(&mut self, orderly: bool) {
        let engine = self.engine.take().unwrap();
        if orderly {
            engine.close().await.unwrap();
        }
        let store = engine.inner.reader.store().alive();
        drop(engine);
        // The volume's tasks hold the store until they notice.
        while store.strong_count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let kms = Kms::open(self.dir.path(), &self.store, self.env.clone()).unwrap();
        let opened = Engine::open(self.dir.path(), small(), Arc::new(kms), self.env.clone()).await;
        self.engine = Some(opened.unwrap());
    }

    async fn tenant(&self) -> Tenant<'_> {
        let id = TenantId::random(&*self.env.rng);
        self.engine().create_namespace(id).await.unwrap();
        Tenant { node: self, purpose: purpose(id) }
    }
}

fn purpose(tenant: TenantId) -> Purpose {
    Purpose {
        tenant,
        principal: "root".into(),
        reason: Reason::CustomerInitiated,
        request_id: "test".into(),
        action: "kluis:Test",
        rights: Rights::of_tenant(),
    }
}

fn name(text: &str) -> BucketName {
    BucketName::new(text).unwrap()
}

fn object(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// Bytes that tell their place.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap().wrapping_add(seed)).collect()
}

struct Tenant<'a> {
    node: &'a Node,
    purpose: Purpose,
}

impl Tenant<'_> {
    fn engine(&self) -> &Engine {
        self.node.engine()
    }

    async fn bucket(&self, text: &str) -> BucketInfo {
        let request = CreateBucket {
            name: name(text),
            owner: UserId::from_bytes([1; 16]),
            location: String::new(),
            etag_rule: ETagRule::Auto,
        };
        self.engine().create_bucket(&self.purpose, request).await.unwrap()
    }

    async fn put(&self, bucket: &BucketInfo, object_key: &str, body: &[u8]) -> Result<PutReceipt> {
        self.put_if(bucket, object_key, body, Conditions::default()).await
    }

    async fn put_if(
        &self,
        bucket: &BucketInfo,
        object_key: &str,
        body: &[u8],
        conditions: Conditions,
    ) -> Result<PutReceipt> {
        let mut headers = ObjectHeaders::default();
        headers.0.insert("x-amz-meta-a".to_owned(), "b".to_owned());
        let body = BytesBody::new(body.to_vec(), &[ChecksumAlgorithm::Crc64Nvme]);
        let object_key = object(object_key);
        let request = PutRequest {
            bucket,
            object_key: &object_key,
            headers,
            tags: Tags(vec![("tag".to_owned(), "value".to_owned())]),
            sse: SseChoice::default(),
            conditions,
            body: Box::new(body),
        };
        self.engine().put(&self.purpose, request).await
    }

    async fn get(&self, bucket: &BucketInfo, object_key: &str) -> Result<Vec<u8>> {
        self.get_part(bucket, object_key, None, None).await
    }

    async fn get_part(
        &self,
        bucket: &BucketInfo,
        object_key: &str,
        range: Option<RangeSpec>,
        part_number: Option<u32>,
    ) -> Result<Vec<u8>> {
        let object_key = object(object_key);
        let conditions = Conditions::default();
        let request = GetRequest {
            bucket,
            object_key: &object_key,
            conditions,
            range,
            part_number,
            customer_key: None,
        };
        let mut reply = self.engine().get(&self.purpose, request).await?;
        let mut got = Vec::new();
        while let Some(bytes) = reply.body.next().await? {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got.len() as u64, reply.range.end - reply.range.start);
        Ok(got)
    }

    async fn delete(&self, bucket: &BucketInfo, object_key: &str) -> Result<DeleteReceipt> {
        let object_key = object(object_key);
        let conditions = Conditions::default();
        let request = DeleteRequest { bucket, object_key: &object_key, conditions };
        self.engine().delete(&self.purpose, request).await
    }

    async fn list(
        &self,
        bucket: &BucketInfo,
        prefix: &str,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let request = ListRequest {
                bucket,
                prefix: prefix.to_owned(),
                delimiter: delimiter.map(str::to_owned),
                after,
                limit,
            };
            let page = self.engine().list(&self.purpose, request).await.unwrap();
            assert!(page.entries.len() <= limit);
            names.extend(page.entries.into_iter().map(|entry| match entry {
                ListEntry::Object(listed) => listed.object_key,
                ListEntry::Prefix(prefix) => prefix,
            }));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    }
}
