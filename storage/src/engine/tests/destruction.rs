//! Destruction by the clock: nothing that a tenant keeps beside its keys holds it up.

use kluis_kms::{ENTRIES_MAX, KeyState};

use super::*;

const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_key_directory_does_not_hold_a_destruction_up() {
    let (node, clock) = Node::shifted().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("dying").await;
    tenant.put(&bucket, "a", b"body").await.unwrap();
    let (engine, kms, id) = (tenant.engine(), tenant.engine().kms(), tenant.purpose.tenant);
    let key = kms.default_tenant_key(id).unwrap();
    let entry = |name| (format!("x/{name}").into_bytes(), Some(Vec::new()));
    kms.set_entries(&tenant.purpose, None, (0..ENTRIES_MAX).map(entry).collect()).unwrap();
    kms.schedule_deletion(&tenant.purpose, key, 7).unwrap();
    clock.advance_ms(WEEK_MS + 1);
    engine.run_due().await.unwrap();
    assert_eq!(kms.describe(id, key).unwrap().state, KeyState::Destroyed);
    let report = engine.erasure_report(id, key).await.unwrap().unwrap();
    for part in ["evidence", "impact", "purge_job"] {
        assert!(report.json.contains(part), "{part} in {}", report.json);
    }
}
