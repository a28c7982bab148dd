//! Entries: what they say comes back, to its own tenant only, and no code means two things.

use std::collections::HashSet;

use super::*;
use crate::fixtures::{mac_key, ramp, tenant, tenant_key_id};
use crate::gate::{JobId, KeyUse};

fn event() -> AuditEvent {
    AuditEvent {
        operation: AuditOperation::Use(KeyUse::Read),
        tenant: tenant(),
        principal: "arn:aws:iam::123456789012:user/ada".into(),
        reason: Some(Reason::TenantJob { job: JobId::from("rewrap-7") }),
        request_id: "4442587FB7D0A2F9".into(),
        action: "s3:GetObject",
        tenant_key: Some(tenant_key_id()),
        access: Access {
            key_use: KeyUse::Read,
            material: Some(3),
            bucket: Some(ramp(0x20)),
            version: Some(ramp(0x40)),
        },
        outcome: AuditOutcome::Failed(ErrorKind::KeyDisabled),
    }
}

const LINK: Link =
    Link { sequence: 9, tenant_sequence: 4, previous: [1; 32], tenant_previous: [2; 32] };

fn encoded(event: &AuditEvent) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sealed = Sealed::seal(event, 1_700_000_000_123, &mac_key(), &[7; NONCE_BYTES]);
    let hash = sealed.write(&LINK, &mut bytes);
    assert_eq!(bytes.len(), sealed.entry_bytes());
    assert_eq!(hash.as_slice(), Sha256::digest(&bytes).as_slice());
    bytes
}

#[test]
fn an_entry_says_what_happened() {
    let event = event();
    let mut bytes = encoded(&event);
    bytes.push(0xff);
    let (entry, rest) = Entry::split(&bytes).unwrap();
    assert_eq!(rest, [0xff]);
    assert_eq!(entry.link, LINK);
    assert_eq!(entry.subject, Subject::of(&event, 1_700_000_000_123));
    let body = entry.open(&mac_key()).unwrap();
    assert_eq!(body.principal, event.principal.as_str());
    assert_eq!((body.reason, body.access), (event.reason, event.access));
    assert_eq!((body.action.as_str(), body.is_cut), ("s3:GetObject", false));
    assert_eq!(body.request_id, "4442587FB7D0A2F9");
}

#[test]
fn an_entry_without_anything_optional_is_the_shortest() {
    let event = AuditEvent {
        principal: "".into(),
        reason: None,
        request_id: "".into(),
        action: "",
        tenant_key: None,
        access: Access::direct(KeyUse::Attributes),
        ..event()
    };
    let bytes = encoded(&event);
    assert_eq!(bytes.len(), ENTRY_BYTES_MIN);
    let (entry, _) = Entry::split(&bytes).unwrap();
    assert_eq!(entry.subject.tenant_key, None);
    assert_eq!(entry.open(&mac_key()).unwrap().reason, None);
    for end in 0..bytes.len() {
        assert!(Entry::split(&bytes[..end]).is_none(), "{end} bytes are no entry");
    }
}

#[test]
fn a_long_text_is_cut_between_two_characters_and_says_so() {
    let event = AuditEvent {
        principal: "é".repeat(4000).into(),
        request_id: "x".repeat(4000).into(),
        reason: Some(Reason::TenantJob { job: JobId::from("j".repeat(4000)) }),
        ..event()
    };
    let bytes = encoded(&event);
    assert!(bytes.len() <= ENTRY_BYTES_MAX);
    let body = Entry::split(&bytes).unwrap().0.open(&mac_key()).unwrap();
    assert!(body.is_cut);
    assert_eq!(body.principal, "é".repeat(480));
    assert_eq!(body.request_id.len(), 960);
}

#[test]
fn a_body_opens_for_what_its_header_names_and_nothing_else() {
    let bytes = encoded(&event());
    // Operation, outcome, time, tenant, key: one byte of each.
    for at in [1, 2, 29, 30, 46] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let Some((entry, _)) = Entry::split(&bytes) else { continue };
        let kind = entry.open(&mac_key()).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Corrupt, "byte {at}");
    }
    let (entry, _) = Entry::split(&bytes).unwrap();
    let other = MacSecret::fill_with(crate::secret::copy_of(&[9; 32])).unwrap();
    assert_eq!(entry.open(&other).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn another_tenants_key_does_not_open_a_body() {
    let mut bytes = encoded(&event());
    let other = TenantId::from_bytes([0xee; 16]);
    bytes[30..46].copy_from_slice(other.as_bytes());
    let (entry, _) = Entry::split(&bytes).unwrap();
    assert_eq!(entry.subject.tenant, other);
    assert!(entry.open(&mac_key()).is_err());
}

#[test]
fn codes_and_names_are_given_once() {
    let mut names = HashSet::new();
    let operations: Vec<_> = (0..=u8::MAX).filter_map(AuditOperation::of_code).collect();
    assert_eq!(operations.len(), 17);
    for operation in operations {
        assert_eq!(AuditOperation::of_code(operation.code()), Some(operation));
        assert!(names.insert(operation.name()));
    }
    let outcomes: Vec<_> = (0..=u8::MAX).filter_map(AuditOutcome::of_code).collect();
    assert_eq!(outcomes.len(), 19);
    for outcome in outcomes {
        assert_eq!(AuditOutcome::of_code(outcome.code()), Some(outcome));
        assert!(names.insert(outcome.name()));
    }
    for code in 1..=7 {
        let reason = reason_of_code(code, "a job").unwrap().unwrap();
        assert_eq!(reason_code(Some(&reason)), code);
    }
    assert_eq!((reason_of_code(0, ""), reason_of_code(8, "")), (Some(None), None));
}
