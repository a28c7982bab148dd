//! Jobs on keys: what was readable stays readable, through crashes as well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kluis_kms::TenantKeyId;

use super::*;
use crate::jobs::{JobInfo, JobKind, JobRequest, JobState};

const SIZES: [usize; 4] = [0, 100, 5_000, 300_000];

impl Tenant<'_> {
    fn key(&self) -> TenantKeyId {
        self.engine().kms().default_tenant_key(self.purpose.tenant).unwrap()
    }

    async fn begin(&self, kind: JobKind) -> JobInfo {
        let request = JobRequest { kind, tenant_key: self.key(), rate_max: None };
        self.engine().start_job(&self.purpose, request).await.unwrap()
    }

    /// The job once it has ended.
    async fn ended(&self, job: &str) -> JobInfo {
        for _ in 0..1_000 {
            let info = self.engine().job(self.purpose.tenant, job).await.unwrap();
            if info.ended_ms.is_some() {
                return info;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the job did not end");
    }

    /// Version, ETag, time and bytes of every object.
    async fn snapshot(&self, bucket: &BucketInfo) -> Vec<(VersionId, ETag, u64, Vec<u8>)> {
        let mut found = Vec::new();
        for size in SIZES {
            let object_key = object(&format!("o{size}"));
            let request = GetRequest {
                bucket,
                object_key: &object_key,
                conditions: Conditions::default(),
                range: None,
                part_number: None,
                customer_key: None,
            };
            let (info, _) = self.engine().head(&self.purpose, request).await.unwrap();
            let body = self.get(bucket, object_key.as_str()).await.unwrap();
            found.push((info.version, info.etag, info.modified_ms, body));
        }
        found
    }

    async fn fill(&self, bucket: &BucketInfo) {
        for (seed, size) in (0_u8..).zip(SIZES) {
            self.put(bucket, &format!("o{size}"), &bytes(size, seed)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_material_retires_only_once_nothing_is_under_it() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("rewrapped").await;
    tenant.fill(&bucket).await;
    let before = tenant.snapshot(&bucket).await;
    let (engine, key) = (tenant.engine(), tenant.key());
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let refused = engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    tenant.put(&bucket, "new", b"under material 2").await.unwrap();
    let impact = engine.key_impact(&tenant.purpose, key).await.unwrap();
    assert_eq!(impact.bucket_keys, [(1, 2), (2, 2)]);
    assert_eq!((impact.objects, impact.buckets), (5, 1));
    let info = tenant.ended(&tenant.begin(JobKind::Rewrap).await.job).await;
    assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    assert_eq!(engine.key_impact(&tenant.purpose, key).await.unwrap().bucket_keys, [(2, 4)]);
    engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap();
    assert!(tenant.snapshot(&bucket).await == before);
}

/// Lets a job die after each number of its commits, and finishes it after a restart.
async fn survives_crashes(kind: JobKind) {
    for commits in 0..12 {
        let mut node = Node::new().await;
        let (id, bucket, before, job) = {
            let tenant = node.tenant().await;
            let bucket = tenant.bucket("crashed").await;
            tenant.fill(&bucket).await;
            let before = tenant.snapshot(&bucket).await;
            tenant.engine().kms().rotate(&tenant.purpose, tenant.key()).unwrap();
            // The job's beginning of an epoch may fall into the same millisecond otherwise.
            tokio::time::sleep(Duration::from_millis(2)).await;
            tenant.engine().inner.jobs.commits_left.store(commits, Ordering::Release);
            let job = tenant.begin(kind).await.job;
            for _ in 0..200 {
                let info = tenant.engine().job(tenant.purpose.tenant, &job).await.unwrap();
                let is_dead = !tenant.engine().inner.jobs.has(tenant.key(), kind);
                if info.ended_ms.is_some() || is_dead {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (tenant.purpose.tenant, bucket, before, job)
        };
        node.restart(false).await;
        let tenant = Tenant { node: &node, purpose: purpose(id) };
        let info = tenant.ended(&job).await;
        assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)), "{commits}");
        assert!(tenant.snapshot(&bucket).await == before, "{kind:?} after {commits} commits");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_survives_crashes() {
    survives_crashes(JobKind::Rewrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_rewrap_survives_crashes() {
    survives_crashes(JobKind::DeepRewrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reencryption_survives_crashes() {
    survives_crashes(JobKind::Reencrypt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_while_its_key_is_off() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("waits").await;
    tenant.fill(&bucket).await;
    let (engine, key) = (tenant.engine(), tenant.key());
    let request = JobRequest { kind: JobKind::Reencrypt, tenant_key: key, rate_max: None };
    engine.kms().disable(&tenant.purpose, key).unwrap();
    let refused = engine.start_job(&tenant.purpose, request.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyDisabled);
    engine.kms().enable(&tenant.purpose, key).unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let job = engine.start_job(&tenant.purpose, request).await.unwrap().job;
    engine.kms().disable(&tenant.purpose, key).unwrap();
    engine.kms().enable(&tenant.purpose, key).unwrap();
    assert_eq!(tenant.ended(&job).await.state, JobState::Completed);
    assert_eq!(tenant.engine().jobs(tenant.purpose.tenant, None).await.unwrap().len(), 1);
}
