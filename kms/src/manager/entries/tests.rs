//! The key directory through the manager: durable, bounded, apart by tenant.

use std::fs;

use super::*;
use crate::directory::ENTRIES_MAX;
use crate::fixtures::{TestAudit, kms, purpose};

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);

fn set(kms: &Kms, tenant: TenantId, changes: &[(&str, Option<&str>)]) -> Result<()> {
    let changes = changes.iter().map(|(name, value)| {
        (name.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
    });
    kms.set_entries(&purpose(tenant), None, changes.collect())
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn values_are_durable_listed_in_order_and_a_tenants_own() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env) = kms(dir.path(), 1);
    set(&kms, ADA, &[("a/two", Some("2")), ("a/one", Some("1")), ("b", Some("3"))]).unwrap();
    set(&kms, BOB, &[("a/one", Some("other"))]).unwrap();
    set(&kms, ADA, &[("a/two", Some("22")), ("b", None), ("never", None)]).unwrap();
    let check = |kms: &Kms| {
        let listed = kms.entry_values(ADA, b"a/");
        let listed: Vec<_> =
            listed.iter().map(|(name, value)| (name.as_slice(), &**value)).collect();
        assert_eq!(listed, [(&b"a/one"[..], &b"1"[..]), (b"a/two", b"22")]);
        assert_eq!(kms.entry_value(ADA, b"b"), None);
        assert_eq!(kms.entry_values(ADA, b"").len(), 2);
        assert_eq!(&*kms.entry_value(BOB, b"a/one").unwrap(), b"other");
    };
    check(&kms);
    drop(kms);
    let bytes = fs::read(dir.path().join("keys/keyring.1")).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"other"), "values are sealed");
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    check(&kms);
    // A deleted name goes on where its versions ended.
    set(&kms, ADA, &[("b", Some("again"))]).unwrap();
    assert_eq!(&*kms.entry_value(ADA, b"b").unwrap(), b"again");
}

#[test]
fn limits_and_contradictions_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let long_name = "n".repeat(ENTRY_NAME_BYTES_MAX + 1);
    let long_value = "v".repeat(ENTRY_VALUE_BYTES_MAX + 1);
    let misuse = Some(ErrorKind::Misuse);
    assert_eq!(kind(set(&kms, ADA, &[("ok", Some("1")), ("", Some("2"))])), misuse);
    assert_eq!(kind(set(&kms, ADA, &[(&long_name, Some("1"))])), misuse);
    assert_eq!(kind(set(&kms, ADA, &[("ok", Some(&long_value))])), misuse);
    assert_eq!(kind(set(&kms, ADA, &[("ok", Some("1")), ("ok", None)])), misuse);
    assert_eq!(kms.entry_values(ADA, b"").len(), 0);
    set(&kms, ADA, &[(&long_name[1..], Some(&long_value[1..]))]).unwrap();
    let many: Vec<_> =
        (1..ENTRIES_MAX).map(|name| (name.to_string().into_bytes(), Some(vec![]))).collect();
    kms.set_entries(&purpose(ADA), None, many).unwrap();
    assert_eq!(kind(set(&kms, ADA, &[("more", Some("1"))])), Some(ErrorKind::Full));
    set(&kms, ADA, &[("1", None), ("more", Some("1"))]).unwrap();
    set(&kms, BOB, &[("more", Some("1"))]).unwrap();
    let unknown = TenantKeyId::from_bytes([9; 16]);
    let foreign = kms.set_entries(&purpose(ADA), Some(unknown), vec![]);
    assert_eq!(kind(foreign), Some(ErrorKind::NotFound));
}

#[test]
fn compaction_keeps_the_living_and_drops_the_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env) = kms(dir.path(), 1);
    let value = "v".repeat(ENTRY_VALUE_BYTES_MAX);
    for round in 0..40 {
        let old = format!("gone/{round}");
        set(&kms, ADA, &[("kept", Some(&value)), (&old, Some("x"))]).unwrap();
        set(&kms, ADA, &[(&old, None)]).unwrap();
    }
    let length = fs::metadata(dir.path().join("keys/keyring.1")).unwrap().len();
    assert!(length < 1_500_000, "{length} bytes after 40 values of 64 KiB");
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.entry_values(ADA, b"").len(), 1);
    assert_eq!(kms.entry_value(ADA, b"kept").unwrap().len(), ENTRY_VALUE_BYTES_MAX);
}

#[test]
fn without_an_audit_trail_nothing_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let audit = Arc::new(TestAudit::default());
    let kms = kms.with_audit(Arc::clone(&audit) as Arc<dyn crate::AuditSink>);
    audit.is_broken.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(kind(set(&kms, ADA, &[("a", Some("1"))])), Some(ErrorKind::Unavailable));
    assert_eq!(kms.entry_value(ADA, b"a"), None);
}
