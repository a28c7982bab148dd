//! The fence: guards of older materials hold a count back, others do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::fixtures::{kms, purpose};
use crate::gate::{Access, KeyUse};

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

#[test]
fn a_count_waits_for_wraps_under_older_materials_only() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    let current = kms.begin_wrap(&permit).unwrap();
    kms.wait_for_wraps(ADA, id).unwrap();
    kms.rotate(&purpose(ADA), id).unwrap();
    let newer = kms.begin_wrap(&permit).unwrap();
    let is_committed = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            kms.wait_for_wraps(ADA, id).unwrap();
            assert!(is_committed.load(Ordering::SeqCst), "the fence let go too early");
        });
        for _ in 0..1_000 {
            thread::yield_now();
        }
        assert!(!waiter.is_finished());
        is_committed.store(true, Ordering::SeqCst);
        drop(current);
        waiter.join().unwrap();
    });
    drop(newer);
    assert!(lock(&kms.entry(ADA, id).unwrap().fence.counts).is_empty());
}
