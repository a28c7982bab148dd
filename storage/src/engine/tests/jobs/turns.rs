//! Jobs beside jobs, and a node that closes under them.

use super::*;

/// More than a job at 1 MiB a second is done with while a test runs.
const LARGE: usize = 32 << 20;

impl Tenant<'_> {
    async fn crawl(&self) -> JobInfo {
        let (kind, tenant_key) = (JobKind::Reencrypt, self.key());
        let request = JobRequest { kind, tenant_key, rate_max: Some(1) };
        self.engine().start_job(&self.purpose, request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_keep_to_their_rate_hold_no_others_up() {
    let node = Node::new().await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let tenant = node.tenant().await;
        let bucket = tenant.bucket("large").await;
        tenant.put(&bucket, "o", &bytes(LARGE, 1)).await.unwrap();
        slow.push(tenant);
    }
    let mut crawling = Vec::new();
    for tenant in &slow {
        crawling.push(tenant.crawl().await.job);
    }
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("small").await;
    tenant.fill(&bucket).await;
    for kind in [JobKind::Rewrap, JobKind::Reencrypt] {
        tenant.engine().kms().rotate(&tenant.purpose, tenant.key()).unwrap();
        let info = tenant.ended(&tenant.begin(kind).await.job).await;
        assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    }
    for (slow, job) in slow.iter().zip(&crawling) {
        let info = slow.engine().job(slow.purpose.tenant, job).await.unwrap();
        assert_eq!((info.state, info.done), (JobState::Running, 0));
        // And they hear of a cancellation in the middle of an object.
        slow.engine().cancel_job(&slow.purpose, job).await.unwrap();
        let info = slow.ended(job).await;
        assert_eq!((info.state, info.done), (JobState::Cancelled, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_does_not_wait_for_the_end_of_an_object() {
    let mut node = Node::new().await;
    let (id, bucket, job) = {
        let tenant = node.tenant().await;
        let bucket = tenant.bucket("large").await;
        tenant.put(&bucket, "o", &bytes(LARGE / 2, 1)).await.unwrap();
        let job = tenant.crawl().await.job;
        // Its phases before are over: it reads.
        tenant.seen(&job, |info| info.total == 1).await;
        (tenant.purpose.tenant, bucket, job)
    };
    node.restart(true).await;
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    let info = tenant.engine().job(id, &job).await.unwrap();
    assert_eq!((info.state, info.done, info.ended_ms), (JobState::Running, 0, None));
    tenant.engine().cancel_job(&tenant.purpose, &job).await.unwrap();
    tenant.ended(&job).await;
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(LARGE / 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_so_many_jobs_and_no_more() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let (engine, ns) = (tenant.engine(), tenant.ns());
    let bucket = tenant.bucket("many").await;
    let (mut writes, mut jobs) = (Vec::new(), Vec::new());
    let mut refused = None;
    for _ in 0..9 {
        let origin = kluis_kms::KeyOrigin::Local;
        let tenant_key = engine.kms().create_key(&tenant.purpose, origin).unwrap().id;
        // A write that is never over keeps each job waiting.
        let keys = &engine.inner.keys;
        let write = keys.for_write(&ns, &tenant.purpose, bucket.id, Some(tenant_key)).await;
        writes.push(write.unwrap());
        let request = JobRequest { kind: JobKind::Reencrypt, tenant_key, rate_max: None };
        match engine.start_job(&tenant.purpose, request).await {
            Ok(info) => jobs.push(info.job),
            Err(error) => refused = Some(error.kind()),
        }
    }
    assert_eq!((jobs.len(), refused), (8, Some(ErrorKind::Conflict)));
    // Another tenant is not concerned.
    let other = node.tenant().await;
    let info = other.ended(&other.begin(JobKind::Rewrap).await.job).await;
    assert_eq!(info.state, JobState::Completed);
    engine.cancel_job(&tenant.purpose, &jobs[0]).await.unwrap();
    tenant.ended(&jobs[0]).await;
    tenant.begin(JobKind::Rewrap).await;
}
