//! Events as JSON: the operator's fields, lines, and lists with gaps.

use kluis_kms::{
    Access, AuditEvent, AuditOperation, AuditOutcome, AuditRecord, AuditSink, Env, JobId, KeyUse,
    Kms, MemoryStore, Purpose, Reason, Rights, TenantId,
};

use super::*;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

/// Three events of a tenant in a log.
fn records() -> (Vec<AuditRecord>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::seeded(1, 1_700_000_000_123);
    let store = MemoryStore::new(std::sync::Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir.path(), &store, env).unwrap();
    let purpose = Purpose {
        tenant: ADA,
        principal: "arn:aws:iam::123456789012:user/ada".into(),
        reason: Reason::TenantJob { job: JobId::from("rewrap-7") },
        request_id: "4442587FB7D0A2F9".into(),
        action: "s3:GetObject",
        rights: Rights::of_tenant(),
    };
    let id = Some(TenantKeyId::from_bytes([0x1f; 16]));
    let access = Access::in_bucket(KeyUse::Read, [0xbb; 16]).of_version([0xcc; 16]);
    let event = AuditEvent {
        access: Access { material: Some(2), ..access },
        ..AuditEvent::of_change(&purpose, id, AuditOperation::Use(KeyUse::Read), AuditOutcome::Done)
    };
    kms.audit_log().record(&[event.clone(), event.clone(), event]).unwrap();
    (kms.audit_log().read(ADA, 0, 10).unwrap(), dir)
}

#[test]
fn the_operator_sees_what_is_in_clear() {
    let (records, _dir) = records();
    let event = header(&records[0].header);
    for (name, value) in [
        ("Time", "2023-11-14T22:13:20.123Z"),
        ("Tenant", "adadadadadadadadadadadadadadadad"),
        ("Operation", "tenant_key.use.read"),
        ("KeyId", "1f1f1f1f-1f1f-1f1f-1f1f-1f1f1f1f1f1f"),
        ("Outcome", "done"),
        ("PreviousHash", NO_HASH),
    ] {
        assert_eq!(event[name], value, "{name}");
    }
    assert_eq!((&event["Sequence"], &event["NodeSequence"]), (&json!(1), &json!(1)));
    let shown = event.to_string();
    for hidden in ["user/ada", "GetObject", "rewrap-7", "bbbbbbbb", "cccccccc", "4442587F"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}

#[test]
fn a_line_has_its_time_as_text_to_the_millisecond() {
    for ms in [0, 1, 123, 499, 500, 999] {
        let seconds = format!("1700000000.{ms:03}").parse::<f64>().unwrap();
        let shown = line(json!({"Time": seconds, "Outcome": "done"}));
        assert_eq!(shown["Time"], format!("2023-11-14T22:13:20.{ms:03}Z"));
        assert_eq!(shown["Outcome"], "done");
    }
    let text = json!({"Time": "2023-11-14T22:13:20.000Z"});
    assert_eq!(line(text.clone()), text);
    assert_eq!(line(json!({"Time": -1})), json!({"Time": -1}));
}

#[test]
fn a_gap_a_swap_and_an_edit_break_the_chain() {
    let (records, _dir) = records();
    let events: Vec<_> = records.iter().map(|record| header(&record.header)).collect();
    let check = |events: &[&Value]| {
        let mut chain = ChainCheck::default();
        events.iter().map(|event| chain.take(event)).collect::<Result<Vec<_>, _>>()
    };
    let [one, two, three] = events.as_slice() else { panic!("not three events") };
    assert!(check(&[one, two, three]).is_ok());
    assert!(check(&[two, three]).is_ok(), "a list may begin later");
    assert!(check(&[one, three]).unwrap_err().contains("missing"));
    assert!(check(&[one, three, two]).is_err());
    let mut edited = two.clone();
    edited["EntryHash"] = NO_HASH.into();
    assert!(check(&[one, &edited, three]).unwrap_err().contains("event 3"));
    let mut first = one.clone();
    first["PreviousHash"] = "11".into();
    assert!(check(&[&first]).is_err());
    assert!(check(&[&json!({})]).is_err());
}
