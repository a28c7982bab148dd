//! Automatic rotation by the clock.

use super::*;
use crate::error::ErrorKind;
use crate::fixtures::{purpose, timed_kms};
use crate::manager::write;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

#[test]
fn a_key_rotates_when_its_period_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = timed_kms(dir.path(), 1);
    let who = purpose(ADA);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    for days in [89, 2561] {
        let error = kms.set_rotation(&who, id, Some(days)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
    kms.set_rotation(&who, id, Some(90)).unwrap();
    let start_ms = 1_700_000_000_000;
    assert_eq!(kms.describe(ADA, id).unwrap().rotation, Some((90, start_ms + 90 * DAY_MS)));
    clock.advance_ms(90 * DAY_MS - 1);
    assert!(kms.run_due().unwrap().is_empty());
    clock.advance_ms(1);
    assert_eq!(kms.run_due().unwrap(), [(ADA, id)]);
    assert!(kms.run_due().unwrap().is_empty());
    let info = kms.describe(ADA, id).unwrap();
    assert_eq!(info.current_material, 2);
    assert!(info.materials[1].is_automatic && !info.materials[0].is_automatic);
    assert_eq!(info.rotation, Some((90, start_ms + 180 * DAY_MS)));
    // Not while it is off; once, and from then on, after years.
    kms.disable(&who, id).unwrap();
    assert_eq!(kms.set_rotation(&who, id, None).unwrap_err().kind(), ErrorKind::KeyDisabled);
    clock.advance_ms(1000 * DAY_MS);
    assert!(kms.run_due().unwrap().is_empty());
    kms.enable(&who, id).unwrap();
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.run_due().unwrap(), [(ADA, id)]);
    assert!(kms.run_due().unwrap().is_empty());
    assert_eq!(kms.describe(ADA, id).unwrap().rotation, Some((90, start_ms + 1180 * DAY_MS)));
    kms.set_rotation(&who, id, None).unwrap();
    assert_eq!(kms.describe(ADA, id).unwrap().rotation, None);
}

#[test]
fn a_rotation_that_fails_is_tried_again_and_skips_no_period() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, _, _, clock) = timed_kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    kms.set_rotation(&purpose(ADA), id, Some(90)).unwrap();
    let before = kms.describe(ADA, id).unwrap();
    clock.advance_ms(90 * DAY_MS);
    let read_only = std::fs::File::open(dir.path().join("keys/slots.1")).unwrap();
    let writable = write(&kms.vault).slots.swap_file(read_only);
    assert!(kms.run_due().unwrap().is_empty());
    assert_eq!(kms.describe(ADA, id).unwrap(), before);
    write(&kms.vault).slots.swap_file(writable);
    assert_eq!(kms.run_due().unwrap(), [(ADA, id)]);
    let after = kms.describe(ADA, id).unwrap();
    assert_eq!(after.current_material, 2);
    assert_eq!(after.rotation, before.rotation.map(|(days, due)| (days, due + 90 * DAY_MS)));
}
