//! The three modes, alone and copied onto each other: what comes back, and what is refused.

use kluis_kms::{CustomerKey, EncryptionContext, TenantKeyId};

use super::*;
use crate::namespace::TenantNs;

/// The least size of a part that is not the last, so that the border of two parts is in the middle.
const PART: usize = 5 << 20;

fn customer_key(byte: u8) -> Arc<CustomerKey> {
    Arc::new(CustomerKey::new(&[byte; 32]).unwrap())
}

const MODES: [SseMode; 3] = [SseMode::S3, SseMode::Kms, SseMode::Customer];

fn context(mode: SseMode) -> EncryptionContext {
    match mode {
        SseMode::Kms => EncryptionContext::new().with(b"team", b"red").unwrap(),
        _ => EncryptionContext::new(),
    }
}

/// One end of a copy.
#[derive(Clone)]
struct End {
    mode: SseMode,
    tenant_key: Option<TenantKeyId>,
    /// The first byte of the customer's key.
    customer: u8,
}

impl End {
    fn key(&self) -> Option<Arc<CustomerKey>> {
        (self.mode == SseMode::Customer).then(|| customer_key(self.customer))
    }

    fn choice(&self) -> SseChoice {
        SseChoice {
            mode: self.mode,
            tenant_key: self.tenant_key,
            context: context(self.mode),
            customer_key: self.key(),
        }
    }

    /// Keys that do not open it, and what they are told.
    fn wrong_keys(&self) -> Vec<(Option<Arc<CustomerKey>>, ErrorKind)> {
        match self.mode {
            SseMode::Customer => vec![
                (None, ErrorKind::CustomerKeyMissing),
                (Some(customer_key(self.customer + 1)), ErrorKind::CustomerKeyWrong),
            ],
            _ => vec![(Some(customer_key(self.customer)), ErrorKind::CustomerKeyUnexpected)],
        }
    }
}

struct World<'a> {
    tenant: &'a Tenant<'a>,
    bucket: BucketInfo,
}

impl World<'_> {
    async fn put(&self, name: &str, end: &End, body: &[u8]) -> PutReceipt {
        let object_key = object(name);
        let request = PutRequest {
            bucket: &self.bucket,
            object_key: &object_key,
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            sse: end.choice(),
            conditions: Conditions::default(),
            body: Box::new(BytesBody::new(body.to_vec(), &[ChecksumAlgorithm::Crc64Nvme])),
        };
        self.tenant.engine().put(&self.tenant.purpose, request).await.unwrap()
    }

    /// An object of two parts.
    async fn put_parts(&self, name: &str, end: &End, parts: [&[u8]; 2]) -> PutReceipt {
        let object_key = object(name);
        let upload = self.begin(&object_key, end).await;
        let mut listed = Vec::new();
        for (number, body) in (1..).zip(parts) {
            let receipt = self.send(&object_key, upload, number, body, end.key()).await.unwrap();
            listed.push(CompletedPart { number, etag: receipt.etag, checksums: Vec::new() });
        }
        for (key, kind) in end.wrong_keys() {
            let refused = self.send(&object_key, upload, 9, b"x", key.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{:?} part", end.mode);
            let refused = self.complete(&object_key, upload, listed.clone(), key).await;
            assert_eq!(refused.unwrap_err().kind(), kind, "{:?} complete", end.mode);
        }
        let made = self.complete(&object_key, upload, listed.clone(), end.key()).await.unwrap();
        let again = self.complete(&object_key, upload, listed, end.key()).await.unwrap();
        assert_eq!(again.etag, made.etag);
        made
    }

    async fn begin(&self, object_key: &ObjectKey, end: &End) -> UploadId {
        let request = CreateUpload {
            bucket: &self.bucket,
            object_key,
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            sse: end.choice(),
            checksum: None,
        };
        self.tenant.engine().create_upload(&self.tenant.purpose, request).await.unwrap().upload
    }

    async fn send(
        &self,
        object_key: &ObjectKey,
        upload: UploadId,
        part_number: u32,
        body: &[u8],
        customer_key: Option<Arc<CustomerKey>>,
    ) -> Result<PartReceipt> {
        let request = UploadPart {
            bucket: &self.bucket,
            object_key,
            upload,
            part_number,
            customer_key,
            body: Box::new(BytesBody::new(body.to_vec(), &[ChecksumAlgorithm::Crc64Nvme])),
        };
        self.tenant.engine().upload_part(&self.tenant.purpose, request).await
    }

    async fn complete(
        &self,
        object_key: &ObjectKey,
        upload: UploadId,
        parts: Vec<CompletedPart>,
        customer_key: Option<Arc<CustomerKey>>,
    ) -> Result<PutReceipt> {
        let request = CompleteUpload {
            bucket: &self.bucket,
            object_key,
            upload,
            parts,
            checksum: None,
            size: None,
            customer_key,
            conditions: Conditions::default(),
        };
        self.tenant.engine().complete_upload(&self.tenant.purpose, request).await
    }

    async fn copy(
        &self,
        (from, to): (&str, &str),
        source_customer_key: Option<Arc<CustomerKey>>,
        sse: SseChoice,
        reencrypt: bool,
    ) -> Result<PutReceipt> {
        let (from, to) = (object(from), object(to));
        let request = CopyRequest {
            source: (&self.bucket, &from),
            source_purpose: &self.tenant.purpose,
            source_conditions: Conditions::default(),
            source_customer_key,
            bucket: &self.bucket,
            object_key: &to,
            headers: None,
            tags: None,
            sse,
            conditions: Conditions::default(),
            checksum: None,
            reencrypt,
        };
        self.tenant.engine().copy(&self.tenant.purpose, request).await
    }

    /// A part copied from bytes `range` of an object, in an upload of its own.
    async fn copy_part(&self, from: &str, to: &str, ends: (&End, &End), range: RangeSpec) {
        let (from, to) = (object(from), object(to));
        let upload = self.begin(&to, ends.1).await;
        let request = |source_customer_key, customer_key| UploadPartCopy {
            source: (&self.bucket, &from),
            source_purpose: &self.tenant.purpose,
            source_conditions: Conditions::default(),
            source_customer_key,
            range: Some(range),
            bucket: &self.bucket,
            object_key: &to,
            upload,
            part_number: 1,
            customer_key,
        };
        let (engine, purpose) = (self.tenant.engine(), &self.tenant.purpose);
        for (key, kind) in ends.0.wrong_keys() {
            let refused = engine.upload_part_copy(purpose, request(key, ends.1.key())).await;
            assert_eq!(refused.unwrap_err().kind(), kind);
        }
        for (key, kind) in ends.1.wrong_keys() {
            let refused = engine.upload_part_copy(purpose, request(ends.0.key(), key)).await;
            assert_eq!(refused.unwrap_err().kind(), kind);
        }
        let sent = engine.upload_part_copy(purpose, request(ends.0.key(), ends.1.key())).await;
        let sent = sent.unwrap();
        let part = CompletedPart { number: 1, etag: sent.etag, checksums: sent.checksums };
        self.complete(&to, upload, vec![part], ends.1.key()).await.unwrap();
    }

    async fn read(
        &self,
        name: &str,
        customer_key: Option<Arc<CustomerKey>>,
        range: Option<RangeSpec>,
        part_number: Option<u32>,
    ) -> Result<(ObjectInfo, Vec<u8>)> {
        let object_key = object(name);
        let request = GetRequest {
            bucket: &self.bucket,
            object_key: &object_key,
            conditions: Conditions::default(),
            range,
            part_number,
            customer_key,
        };
        let (engine, purpose) = (self.tenant.engine(), &self.tenant.purpose);
        let head = engine.head(purpose, request.clone()).await;
        let mut reply = match engine.get(purpose, request).await {
            Ok(reply) => reply,
            Err(error) => {
                assert_eq!(head.unwrap_err().kind(), error.kind(), "HEAD and GET agree");
                return Err(error);
            }
        };
        assert_eq!(head.unwrap().0.version, reply.info.version);
        let mut got = Vec::new();
        while let Some(bytes) = reply.body.next().await? {
            got.extend_from_slice(&bytes);
        }
        Ok((reply.info, got))
    }

    /// An object is `body`, whole, in ranges and by part, under `end`, and opens with nothing else.
    async fn check(&self, name: &str, end: &End, body: &[u8], parts: &[usize]) {
        let (info, got) = self.read(name, end.key(), None, None).await.unwrap();
        assert!(got == body, "{name}");
        assert_eq!(info.sse, end.mode, "{name}");
        if let Some(tenant_key) = end.tenant_key {
            assert_eq!(info.tenant_key, tenant_key, "{name}");
        }
        let size = body.len();
        for first in [0, 1, 65_535, 65_536, PART.saturating_sub(3), size.saturating_sub(2)] {
            let last = (first + 70_000).min(size.saturating_sub(1));
            if first > last || size == 0 {
                continue;
            }
            let range = RangeSpec::From { first: first as u64, last: Some(last as u64) };
            let (_, got) = self.read(name, end.key(), Some(range), None).await.unwrap();
            assert!(got == body[first..=last], "{name} {first}-{last}");
        }
        let mut start = 0;
        for (number, length) in (1..).zip(parts) {
            let (_, got) = self.read(name, end.key(), None, Some(number)).await.unwrap();
            assert!(got == body[start..start + length], "{name} part {number}");
            start += length;
        }
        for (key, kind) in end.wrong_keys() {
            let refused = self.read(name, key, None, None).await.map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), kind, "{name}");
        }
    }

    fn content_rows(&self) -> TenantNs {
        let inner = &self.tenant.engine().inner;
        inner.tenants.namespace(self.tenant.purpose.tenant).unwrap()
    }

    async fn content_of(&self, name: &str) -> ContentId {
        let inner = &self.tenant.engine().inner;
        let ns = self.content_rows();
        inner.held(&ns, &self.bucket, &object(name)).await.unwrap().unwrap().row.content
    }
}

/// The second key of the tenant, or none where keys cannot be made yet.
fn second_key(node: &Node, tenant: &Tenant<'_>) -> TenantKeyId {
    node.engine().kms().create_tenant_key(tenant.purpose.tenant).unwrap().id
}

/// Copies one object from `source` to every mode and key.
async fn copy_to_all(
    world: &World<'_>,
    from: &str,
    source: &End,
    body: &[u8],
    keys: &[TenantKeyId],
) {
    for mode in MODES {
        for key in keys {
            for reencrypt in [false, true] {
                let to = format!("{from}-to-{mode:?}-{key}-{reencrypt}");
                let target = End { mode, tenant_key: Some(*key), customer: 0x90 };
                let of = (from, to.as_str());
                for (wrong, kind) in source.wrong_keys() {
                    let refused = world.copy(of, wrong, target.choice(), reencrypt).await;
                    assert_eq!(refused.unwrap_err().kind(), kind, "{to}");
                }
                let absent = world.read(&to, None, None, None).await.map(|_| ()).unwrap_err();
                assert_eq!(absent.kind(), ErrorKind::NotFound, "a refused copy stores nothing");
                let copied = world.copy(of, source.key(), target.choice(), reencrypt).await;
                assert_eq!((copied.unwrap().sse), mode, "{to}");
                world.check(&to, &target, body, &[body.len()]).await;
                let shares = world.content_of(from).await == world.content_of(&to).await;
                let may = !reencrypt
                    && mode == source.mode
                    && mode != SseMode::Customer
                    && source.tenant_key == Some(*key);
                assert_eq!(shares, may, "{to}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_copies_to_every_mode() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let first = node.engine().kms().default_tenant_key(tenant.purpose.tenant).unwrap();
    let keys = [first, second_key(&node, &tenant)];
    let world = World { tenant: &tenant, bucket: tenant.bucket("matrix").await };
    for mode in MODES {
        let source = End { mode, tenant_key: Some(first), customer: 0x10 };
        for size in [0, 100, 70_001] {
            let from = format!("{mode:?}-{size}");
            let body = bytes(size, 7);
            world.put(&from, &source, &body).await;
            world.check(&from, &source, &body, &[size]).await;
            copy_to_all(&world, &from, &source, &body, &keys).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_parts_copy_in_every_mode() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let first = node.engine().kms().default_tenant_key(tenant.purpose.tenant).unwrap();
    let second = second_key(&node, &tenant);
    let world = World { tenant: &tenant, bucket: tenant.bucket("parts").await };
    let (one, two) = (bytes(PART, 3), bytes(66_000, 4));
    let body = [one.as_slice(), &two].concat();
    for mode in MODES {
        let source = End { mode, tenant_key: Some(second), customer: 0x20 };
        let from = format!("{mode:?}");
        let made = world.put_parts(&from, &source, [&one, &two]).await;
        assert_eq!(made.tenant_key, second, "the key chosen when the upload began");
        world.check(&from, &source, &body, &[one.len(), two.len()]).await;
        for to_mode in MODES {
            for key in [first, second] {
                let target = End { mode: to_mode, tenant_key: Some(key), customer: 0xa0 };
                let to = format!("{from}-to-{to_mode:?}-{key}");
                let sent = world.copy((&from, &to), source.key(), target.choice(), false).await;
                assert_eq!(sent.unwrap().tenant_key, key);
                world.check(&to, &target, &body, &[body.len()]).await;
                // Bytes on both sides of the border between the parts, as a part.
                let (low, high) = (PART - 40_000, PART + 30_000);
                let range = RangeSpec::From { first: low as u64, last: Some(high as u64) };
                let to = format!("{to}-part");
                world.copy_part(&from, &to, (&source, &target), range).await;
                world.check(&to, &target, &body[low..=high], &[high - low + 1]).await;
                tenant.delete(&world.bucket, &to).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_and_configurations_survive_a_restart() {
    let mut node = Node::new().await;
    let ends: Vec<_> =
        MODES.map(|mode| End { mode, tenant_key: None, customer: 0x30 }).into_iter().collect();
    let encryption = BucketEncryption {
        default: Some(DefaultEncryption {
            mode: SseMode::Kms,
            tenant_key: "alias/mine".to_owned(),
            bucket_key: true,
        }),
        customer_keys: true,
    };
    let body = bytes(70_000, 5);
    let (purpose, bucket) = {
        let tenant = node.tenant().await;
        let bucket = tenant.bucket("restart").await;
        let world = World { tenant: &tenant, bucket: bucket.clone() };
        for end in &ends {
            world.put(&format!("{:?}", end.mode), end, &body).await;
        }
        let engine = tenant.engine();
        engine.set_bucket_encryption(&tenant.purpose, &bucket, encryption.clone()).await.unwrap();
        // Whoever looked the bucket up before still finds it: it is the same bucket.
        world.put("after", &ends[0], &body).await;
        (tenant.purpose.clone(), bucket)
    };
    for orderly in [true, false] {
        node.restart(orderly).await;
        let tenant = Tenant { node: &node, purpose: purpose.clone() };
        let found = node.engine().head_bucket(&purpose, &bucket.name).await.unwrap();
        assert_eq!(found.encryption, encryption);
        let world = World { tenant: &tenant, bucket: found };
        for end in &ends {
            world.check(&format!("{:?}", end.mode), end, &body, &[body.len()]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_changes_while_others_write() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("changing").await;
    let (engine, purpose) = (tenant.engine(), &tenant.purpose);
    let configure = async {
        for round in 0..50 {
            let customer_keys = round % 2 == 0;
            let encryption = BucketEncryption { default: None, customer_keys };
            engine.set_bucket_encryption(purpose, &bucket, encryption).await.unwrap();
        }
    };
    let write = async {
        for round in 0..50_u8 {
            tenant.put(&bucket, "o", &bytes(10, round)).await.unwrap();
            let upload = multipart::begin(&tenant, &bucket, &object("u")).await;
            engine.abort_upload(purpose, &bucket, &object("u"), upload).await.unwrap();
        }
    };
    futures::future::join(configure, write).await;
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(10, 49));
    for (mode, tenant_key) in [
        (SseMode::Customer, String::new()),
        (SseMode::S3, "k".to_owned()),
        (SseMode::Kms, "k".repeat(KEY_NAME_BYTES_MAX + 1)),
    ] {
        let default = Some(DefaultEncryption { mode, tenant_key, bucket_key: false });
        let encryption = BucketEncryption { default, customer_keys: false };
        let refused = engine.set_bucket_encryption(purpose, &bucket, encryption).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misuse);
    }
    tenant.delete(&bucket, "o").await.unwrap();
    engine.delete_bucket(purpose, &bucket).await.unwrap();
    // The next bucket of that name is another one, and so is its configuration.
    let again = tenant.bucket("changing").await;
    assert_eq!(again.encryption, BucketEncryption::default());
    let nothing = BucketEncryption::default();
    let gone = engine.set_bucket_encryption(purpose, &bucket, nothing).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customers_key_does_not_outlive_the_tenant_key() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let world = World { tenant: &tenant, bucket: tenant.bucket("off").await };
    let end = End { mode: SseMode::Customer, tenant_key: None, customer: 0x40 };
    let body = bytes(100_000, 6);
    let put = world.put("o", &end, &body).await;
    let kms = node.engine().kms();
    kms.disable(&tenant.purpose, put.tenant_key).unwrap();
    let refused = world.read("o", end.key(), None, None).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyDisabled);
    kms.enable(&tenant.purpose, put.tenant_key).unwrap();
    world.check("o", &end, &body, &[body.len()]).await;
    // Mode and key go together, or nothing is stored.
    for sse in [
        SseChoice { mode: SseMode::Customer, ..SseChoice::default() },
        SseChoice { customer_key: end.key(), ..SseChoice::default() },
    ] {
        let object_key = object("none");
        let request = PutRequest {
            bucket: &world.bucket,
            object_key: &object_key,
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            sse,
            conditions: Conditions::default(),
            body: Box::new(BytesBody::new(vec![1], &[])),
        };
        let refused = tenant.engine().put(&tenant.purpose, request).await.unwrap_err();
        let kinds = [ErrorKind::CustomerKeyMissing, ErrorKind::CustomerKeyUnexpected];
        assert!(kinds.contains(&refused.kind()));
    }
    let absent = world.read("none", None, None, None).await.map(|_| ()).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}
