//! Jobs beside requests: writes, reads, deletes, copies and uploads that are under way.

use std::sync::atomic::{AtomicBool, Ordering};

use kluis_kms::KeyUse;

use super::super::multipart;
use super::*;

/// A copy inside a bucket.
async fn copy(tenant: &Tenant<'_>, bucket: &BucketInfo, from: &str, to: &str) -> PutReceipt {
    let (from, to) = (object(from), object(to));
    let request = CopyRequest {
        source: (bucket, &from),
        source_purpose: &tenant.purpose,
        source_conditions: Conditions::default(),
        source_customer_key: None,
        bucket,
        object_key: &to,
        headers: None,
        tags: None,
        sse: SseChoice::default(),
        conditions: Conditions::default(),
        checksum: None,
        reencrypt: false,
    };
    tenant.engine().copy(&tenant.purpose, request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reencryption_begins_while_writes_go_on() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("busy").await;
    tenant.fill(&bucket).await;
    let placed = tenant.placed(&bucket).await;
    let (engine, ns) = (tenant.engine(), tenant.ns());
    let keys = &engine.inner.keys;
    let write = async || keys.for_write(&ns, &tenant.purpose, bucket.id, None).await.unwrap();
    // One write is always under way, and each begins before the last one is over.
    let mut under_way = write().await;
    let job = tenant.begin(JobKind::Reencrypt).await.job;
    let mut info = engine.job(tenant.purpose.tenant, &job).await.unwrap();
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        under_way = write().await;
        info = engine.job(tenant.purpose.tenant, &job).await.unwrap();
        if info.ended_ms.is_some() {
            break;
        }
    }
    drop(under_way);
    assert_eq!(info.state, JobState::Completed);
    judge(JobKind::Reencrypt, &placed, &tenant.placed(&bucket).await, "while writes went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_copy_keeps_a_data_key_that_is_being_replaced() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("copied").await;
    for round in 0..6 {
        tenant.put(&bucket, "source", &bytes(9_000, round)).await.unwrap();
        let old = tenant.row(&bucket, "source").await.content;
        let is_over = AtomicBool::new(false);
        let copies = async {
            let mut number = 0;
            while !is_over.load(Ordering::Acquire) {
                copy(&tenant, &bucket, "source", &format!("copy-{}", number % 40)).await;
                number += 1;
            }
        };
        let job = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let job = tenant.begin(JobKind::Reencrypt).await.job;
            let info = tenant.ended(&job).await;
            is_over.store(true, Ordering::Release);
            assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
        };
        tokio::join!(copies, job);
        for listed in tenant.list(&bucket, "", None, 100).await {
            assert!(tenant.row(&bucket, &listed).await.content != old, "{listed}, round {round}");
            assert!(tenant.get(&bucket, &listed).await.unwrap() == bytes(9_000, round));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_began_before_is_waited_for() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("slow").await;
    tenant.fill(&bucket).await;
    let (engine, ns) = (tenant.engine(), tenant.ns());
    let keys = &engine.inner.keys;
    let slow = keys.for_write(&ns, &tenant.purpose, bucket.id, None).await.unwrap();
    let job = tenant.begin(JobKind::Reencrypt).await.job;
    // Once later writes go elsewhere the epochs are closed; the job still waits for this one.
    let is_elsewhere = async || {
        tenant.put(&bucket, "probe", b"x").await.unwrap();
        let old = tenant.row(&bucket, "o0").await.wrapped.wrapping_version();
        tenant.row(&bucket, "probe").await.wrapped.wrapping_version() > old
    };
    for _ in 0..1_000 {
        if is_elsewhere().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is_elsewhere().await);
    assert_eq!(engine.job(tenant.purpose.tenant, &job).await.unwrap().done, 0);
    drop(slow);
    assert_eq!(tenant.ended(&job).await.state, JobState::Completed);
}

/// Puts, gets, deletes and uploads beside a job; every byte is what was last written.
async fn goes_beside_requests(kind: JobKind) {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("beside").await;
    tenant.fill(&bucket).await;
    let before = tenant.snapshot(&bucket).await;
    let placed = tenant.placed(&bucket).await;
    let is_over = AtomicBool::new(false);
    let goes_on = || !is_over.load(Ordering::Acquire);
    let writes = async {
        let mut seed = 0_u8;
        while goes_on() {
            seed = seed.wrapping_add(1);
            let name = format!("written-{}", seed % 8);
            tenant.put(&bucket, &name, &bytes(6_000, seed)).await.unwrap();
            assert!(tenant.get(&bucket, &name).await.unwrap() == bytes(6_000, seed));
            if seed.is_multiple_of(3) {
                tenant.delete(&bucket, &name).await.unwrap();
            }
        }
    };
    let reads = async {
        while goes_on() {
            assert!(tenant.snapshot(&bucket).await == before);
        }
    };
    let uploads = async {
        let object_key = object("of-parts");
        while goes_on() {
            let upload = multipart::begin(&tenant, &bucket, &object_key).await;
            let place = (&bucket, &object_key, upload);
            let part = multipart::send(&tenant, place, 1, bytes(50_000, 7)).await.unwrap();
            multipart::complete(&tenant, place, vec![part]).await.unwrap();
            assert!(tenant.get(&bucket, "of-parts").await.unwrap() == bytes(50_000, 7));
        }
    };
    let jobs = async {
        for round in 0..3 {
            tenant.engine().kms().rotate(&tenant.purpose, tenant.key()).unwrap();
            let info = tenant.ended(&tenant.begin(kind).await.job).await;
            assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)), "{round}");
        }
        is_over.store(true, Ordering::Release);
    };
    tokio::join!(writes, reads, uploads, jobs);
    judge(kind, &placed, &tenant.placed(&bucket).await, "beside requests");
    assert!(tenant.snapshot(&bucket).await == before);
    // What lies under older materials is none of theirs: each of them can go.
    if kind != JobKind::Reencrypt {
        let current = tenant.engine().kms().describe(tenant.purpose.tenant, tenant.key()).unwrap();
        for material in 1..current.current_material {
            let (engine, key) = (tenant.engine(), tenant.key());
            engine.retire_material(&tenant.purpose, key, material, false).await.unwrap();
        }
    }
    for name in tenant.list(&bucket, "", None, 100).await {
        tenant.get(&bucket, &name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_goes_beside_requests() {
    goes_beside_requests(JobKind::Rewrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_rewrap_goes_beside_requests() {
    goes_beside_requests(JobKind::DeepRewrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reencryption_goes_beside_requests() {
    goes_beside_requests(JobKind::Reencrypt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_upload_is_bound_anew_and_completes() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("open").await;
    let object_key = object("of-parts");
    let upload = multipart::begin(&tenant, &bucket, &object_key).await;
    let place = (&bucket, &object_key, upload);
    let first = multipart::send(&tenant, place, 1, bytes(5 << 20, 1)).await.unwrap();
    let (engine, key) = (tenant.engine(), tenant.key());
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let info = tenant.ended(&tenant.begin(JobKind::DeepRewrap).await.job).await;
    assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap();
    let last = multipart::send(&tenant, place, 2, bytes(100, 2)).await.unwrap();
    multipart::complete(&tenant, place, vec![first, last]).await.unwrap();
    let body = tenant.get(&bucket, "of-parts").await.unwrap();
    assert!(body == [bytes(5 << 20, 1), bytes(100, 2)].concat());
    let row = tenant.row(&bucket, "of-parts").await;
    let name = crate::bucket_keys::RowName {
        bucket: bucket.id,
        purpose: kluis_kms::BucketKeyPurpose::Data,
        epoch: row.wrapped.wrapping_version(),
    };
    assert_eq!(name.read(&tenant.ns()).await.unwrap().born_material, 2);
    let access = kluis_kms::Access::in_bucket(KeyUse::Read, *bucket.id.as_bytes());
    let epoch = row.wrapped.wrapping_version();
    let keys = &engine.inner.keys;
    keys.for_epoch(&tenant.ns(), &tenant.purpose, bucket.id, epoch, access).await.unwrap();
}
