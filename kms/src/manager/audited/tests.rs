//! Audit: an event before every effect, and no effect without one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::audit::AuditSink;
use crate::error::ErrorKind;
use crate::fixtures::{TestAudit, kms, purpose};
use crate::gate::Access;
use crate::lifecycle::KeyState;
use crate::record::KeyOrigin;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

fn audited_kms(dir: &std::path::Path) -> (Kms, Arc<TestAudit>) {
    let audit = Arc::new(TestAudit::default());
    let (kms, ..) = kms(dir, 1);
    (kms.with_audit(Arc::clone(&audit) as Arc<dyn AuditSink>), audit)
}

fn taken(audit: &TestAudit) -> Vec<(AuditOperation, AuditOutcome)> {
    let events = std::mem::take(&mut *audit.events.lock().unwrap());
    events.iter().map(|event| (event.operation, event.outcome)).collect()
}

#[test]
fn every_verb_is_announced_and_concluded() {
    use AuditOperation as Op;
    let dir = tempfile::tempdir().unwrap();
    let (kms, audit) = audited_kms(dir.path());
    let who = purpose(ADA);
    let done = |operation| vec![(operation, AuditOutcome::Begun), (operation, AuditOutcome::Done)];
    let id = kms.create_key(&who, KeyOrigin::Local).unwrap().id;
    assert_eq!(audit.events.lock().unwrap()[0].tenant_key, Some(id));
    assert_eq!(taken(&audit), done(Op::Create));
    kms.create_tenant_keys(&[ADA]).unwrap();
    assert_eq!(audit.events.lock().unwrap()[0].principal.as_str(), "kluis node");
    assert_eq!(taken(&audit), done(Op::Create));
    kms.rotate(&who, id).unwrap();
    assert_eq!(taken(&audit), done(Op::Rotate));
    kms.retire_material(&who, id, 1).unwrap();
    assert_eq!(taken(&audit), done(Op::RetireMaterial));
    kms.set_rotation(&who, id, Some(365)).unwrap();
    assert_eq!(taken(&audit), done(Op::SetRotation));
    kms.disable(&who, id).unwrap();
    assert_eq!(taken(&audit), done(Op::Disable));
    kms.enable(&who, id).unwrap();
    assert_eq!(taken(&audit), done(Op::Enable));
    kms.schedule_deletion(&who, id, 30).unwrap();
    assert_eq!(taken(&audit), done(Op::ScheduleDeletion));
    assert!(kms.disable(&who, id).is_err());
    let refused = AuditOutcome::Failed(ErrorKind::Conflict);
    assert_eq!(taken(&audit), [(Op::Disable, AuditOutcome::Begun), (Op::Disable, refused)]);
    kms.cancel_deletion(&who, id).unwrap();
    assert_eq!(taken(&audit), done(Op::CancelDeletion));
}

#[test]
fn without_a_trail_only_the_gate_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, audit) = audited_kms(dir.path());
    let who = purpose(ADA);
    let id = kms.create_key(&who, KeyOrigin::Local).unwrap().id;
    let before = kms.describe(ADA, id).unwrap();
    let entry = kms.entry(ADA, id).unwrap();
    audit.is_broken.store(true, Ordering::SeqCst);
    let unavailable = |result: Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    };
    unavailable(kms.create_key(&who, KeyOrigin::Local).map(drop));
    unavailable(kms.rotate(&who, id).map(drop));
    unavailable(kms.set_rotation(&who, id, Some(365)));
    unavailable(kms.enable(&who, id));
    unavailable(kms.permit(&who, id, Access::direct(KeyUse::Write)).map(drop));
    assert_eq!(kms.list(ADA), std::slice::from_ref(&before));
    assert!(entry.gate.is_open());
    let error = kms.disable(&who, id).unwrap_err();
    assert!(error.to_string().contains("its gate is closed"), "{error}");
    assert!(!entry.gate.is_open(), "safe first");
    assert_eq!(kms.describe(ADA, id).unwrap(), before);
    audit.is_broken.store(false, Ordering::SeqCst);
    kms.disable(&who, id).unwrap();
    assert_eq!(kms.describe(ADA, id).unwrap().state, KeyState::Disabled);
}
