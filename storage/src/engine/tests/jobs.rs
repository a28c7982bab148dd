//! Jobs on keys: what was readable stays readable, through crashes as well.

mod beside;
mod damage;
mod turns;

use std::sync::atomic::Ordering;
use std::time::Duration;

use kluis_kms::{ManualClock, TenantKeyId};

use super::*;
use crate::jobs::{JobInfo, JobKind, JobRequest, JobState};
use crate::namespace::TenantNs;
use crate::rows::ObjectRow;

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
        self.seen(job, |info| info.ended_ms.is_some()).await
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

    fn ns(&self) -> TenantNs {
        self.engine().inner.tenants.namespace(self.purpose.tenant).unwrap()
    }

    /// The row of an object.
    async fn row(&self, bucket: &BucketInfo, object_key: &str) -> ObjectRow {
        let object_key = object(object_key);
        self.engine().inner.held(&self.ns(), bucket, &object_key).await.unwrap().unwrap().row
    }

    /// Content and epoch of every object.
    async fn placed(&self, bucket: &BucketInfo) -> Vec<(ContentId, u32)> {
        let mut placed = Vec::new();
        for size in SIZES {
            let row = self.row(bucket, &format!("o{size}")).await;
            placed.push((row.content, row.wrapped.wrapping_version()));
        }
        placed
    }

    /// Waits until a job is in such a state.
    async fn seen(&self, job: &str, is_so: impl Fn(&JobInfo) -> bool) -> JobInfo {
        for _ in 0..1_000 {
            let info = self.engine().job(self.purpose.tenant, job).await.unwrap();
            if is_so(&info) {
                return info;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the job does not come there");
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

/// What a job did to every object: contents that are new, data keys bound to a later epoch.
fn judge(kind: JobKind, before: &[(ContentId, u32)], after: &[(ContentId, u32)], what: &str) {
    for ((content, epoch), (content_now, epoch_now)) in before.iter().zip(after) {
        match kind {
            JobKind::Rewrap => assert_eq!((content, epoch), (content_now, epoch_now), "{what}"),
            JobKind::DeepRewrap => {
                assert!(content == content_now && epoch_now > epoch, "{what}: not bound anew");
            }
            _ => assert!(content != content_now && epoch_now > epoch, "{what}: not encrypted anew"),
        }
    }
}

/// Lets a job die after each number of its commits, and finishes it after a restart.
async fn survives_crashes(kind: JobKind) {
    for commits in 0..12 {
        let mut node = Node::new().await;
        let (id, bucket, before, placed, job) = {
            let tenant = node.tenant().await;
            let bucket = tenant.bucket("crashed").await;
            tenant.fill(&bucket).await;
            let before = tenant.snapshot(&bucket).await;
            let placed = tenant.placed(&bucket).await;
            tenant.engine().kms().rotate(&tenant.purpose, tenant.key()).unwrap();
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
            (tenant.purpose.tenant, bucket, before, placed, job)
        };
        node.restart(false).await;
        let tenant = Tenant { node: &node, purpose: purpose(id) };
        let info = tenant.ended(&job).await;
        let what = format!("{kind:?} after {commits} commits");
        assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)), "{what}");
        assert!(tenant.snapshot(&bucket).await == before, "{what}");
        judge(kind, &placed, &tenant.placed(&bucket).await, &what);
        let impact = tenant.engine().key_impact(&tenant.purpose, tenant.key()).await.unwrap();
        let is_rewrap = kind != JobKind::Reencrypt;
        let older = impact.bucket_keys.iter().any(|(material, _)| *material == 1);
        assert!(!(is_rewrap && older), "{what}: {:?}", impact.bucket_keys);
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
    let placed = tenant.placed(&bucket).await;
    let (engine, key) = (tenant.engine(), tenant.key());
    let request = JobRequest { kind: JobKind::Reencrypt, tenant_key: key, rate_max: None };
    engine.kms().disable(&tenant.purpose, key).unwrap();
    let refused = engine.start_job(&tenant.purpose, request.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyDisabled);
    engine.kms().enable(&tenant.purpose, key).unwrap();
    // A write under way keeps the job from its work until the key is off.
    let ns = tenant.ns();
    let write = engine.inner.keys.for_write(&ns, &tenant.purpose, bucket.id, None).await.unwrap();
    let job = engine.start_job(&tenant.purpose, request).await.unwrap().job;
    engine.kms().disable(&tenant.purpose, key).unwrap();
    drop(write);
    let waiting = tenant.seen(&job, |info| info.state == JobState::Waiting).await;
    assert!(waiting.cause.is_some() && waiting.done == 0);
    engine.kms().enable(&tenant.purpose, key).unwrap();
    let ended = tenant.ended(&job).await;
    assert_eq!((ended.state, ended.cause), (JobState::Completed, None));
    judge(JobKind::Reencrypt, &placed, &tenant.placed(&bucket).await, "while its key was off");
    assert_eq!(tenant.engine().jobs(tenant.purpose.tenant, None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_clock_decides_what_is_old() {
    // It stands still: everything is made in the millisecond that the jobs begin in.
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let node = Node::with(Env { clock, ..Env::system() }).await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("timeless").await;
    tenant.fill(&bucket).await;
    for round in 0..3 {
        let placed = tenant.placed(&bucket).await;
        let info = tenant.ended(&tenant.begin(JobKind::Reencrypt).await.job).await;
        assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
        assert_eq!(info.done, SIZES.len() as u64);
        let what = format!("round {round}");
        judge(JobKind::Reencrypt, &placed, &tenant.placed(&bucket).await, &what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_after_another_rotation_is_one_of_its_own() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let (engine, key) = (tenant.engine(), tenant.key());
    for number in 0..4 {
        let bucket = tenant.bucket(&format!("bucket-{number}")).await;
        tenant.put(&bucket, "o", b"under material 1").await.unwrap();
    }
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let request = JobRequest { kind: JobKind::Rewrap, tenant_key: key, rate_max: Some(1) };
    let first = engine.start_job(&tenant.purpose, request.clone()).await.unwrap();
    let same = engine.start_job(&tenant.purpose, request).await.unwrap();
    assert_eq!(same.job, first.job);
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let second = tenant.begin(JobKind::Rewrap).await;
    assert!(second.job != first.job && second.material == 3);
    assert_eq!(tenant.ended(&second.job).await.state, JobState::Completed);
    let impact = engine.key_impact(&tenant.purpose, key).await.unwrap();
    assert_eq!(impact.bucket_keys, [(3, 8)]);
    assert_eq!(tenant.ended(&first.job).await.state, JobState::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_survives_that_its_material_is_retired_meanwhile() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("raced").await;
    tenant.put(&bucket, "o", b"what is read").await.unwrap();
    let (engine, key) = (tenant.engine(), tenant.key());
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    engine.inner.keys.forget_tenant_key(key);
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    *engine.inner.keys.between.lock().unwrap() = Some(Arc::clone(&barrier));
    let read = tenant.get(&bucket, "o");
    let retire = async {
        // The read has the rows of before.
        barrier.wait().await;
        let job = tenant.begin(JobKind::Rewrap).await.job;
        assert_eq!(tenant.ended(&job).await.state, JobState::Completed);
        engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap();
        barrier.wait().await;
    };
    let (read, ()) = tokio::join!(read, retire);
    assert_eq!(read.unwrap(), b"what is read");
}
