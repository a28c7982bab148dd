//! One tenant waits for itself and not for others.

use std::sync::TryLockError;
use std::thread;

use super::*;

fn tenant(byte: u8) -> TenantId {
    TenantId::from_bytes([byte; 16])
}

#[test]
fn a_tenant_waits_for_itself_and_not_for_another() {
    let locks = TenantLocks::default();
    let held = locks.lock(tenant(1));
    assert!(matches!(locks.0[1].try_lock(), Err(TryLockError::WouldBlock)));
    thread::scope(|threads| {
        threads.spawn(|| drop(locks.lock(tenant(2))));
    });
    drop(held);
    drop(locks.lock(tenant(1)));
}
