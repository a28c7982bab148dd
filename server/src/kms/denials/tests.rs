//! Who is noted, how often, and that reads and others are not.

use std::sync::Arc;

use kluis_kms::{AuditOperation, AuditRecord};
use serde_json::json;

use super::super::tests::{World, user};
use super::*;

fn refused(world: &World) -> Vec<AuditRecord> {
    let records = world.api.kms.audit_log().read(TenantId::from_bytes([1; 16]), 0, 10_000).unwrap();
    let denied = AuditOutcome::Failed(ErrorKind::AccessDenied);
    records.into_iter().filter(|record| record.header.outcome == denied).collect()
}

#[test]
fn a_refused_change_of_a_key_is_on_record_with_who_and_what() {
    let world = World::new();
    let (key, app) = (world.key(), user(1, "app"));
    let calls = [
        ("DisableKey", json!({"KeyId": key})),
        ("PutKeyPolicy", json!({"KeyId": key, "PolicyName": "default", "Policy": "{}"})),
        ("ScheduleKeyDeletion", json!({"KeyId": key})),
        ("CreateAlias", json!({"AliasName": "alias/x", "TargetKeyId": key})),
    ];
    for (operation, fields) in &calls {
        let error = world.ask(&app, operation, fields).unwrap_err();
        assert_eq!(error.code, "AccessDeniedException", "{operation}");
    }
    let records = refused(&world);
    let actions: Vec<_> = records.iter().map(|record| record.action.as_str()).collect();
    let wanted =
        ["kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:CreateAlias"];
    assert_eq!(actions, wanted);
    for record in &records {
        assert_eq!(record.principal, app.arn());
        assert_eq!(record.request_id, "4442587FB7D0A2F9");
        assert!(record.header.tenant_key.is_some());
    }
    assert_eq!(records[0].header.operation, AuditOperation::Disable);
    assert_eq!(records[2].header.operation, AuditOperation::ScheduleDeletion);
    assert_eq!(world.describe(&key)["KeyState"], "Enabled");
}

#[test]
fn a_flood_of_one_refusal_is_one_entry_and_hides_no_other() {
    let world = World::new();
    let (key, app) = (world.key(), user(1, "app"));
    for _ in 0..50 {
        world.ask(&app, "DisableKey", &json!({"KeyId": key})).unwrap_err();
    }
    assert_eq!(refused(&world).len(), 1);
    world.ask(&app, "ScheduleKeyDeletion", &json!({"KeyId": key})).unwrap_err();
    world.ask(&user(1, "other"), "DisableKey", &json!({"KeyId": key})).unwrap_err();
    assert_eq!(refused(&world).len(), 3);
    world.clock.advance_ms(60_000);
    world.ask(&app, "DisableKey", &json!({"KeyId": key})).unwrap_err();
    assert_eq!(refused(&world).len(), 4);
}

#[test]
fn a_key_of_another_tenant_is_on_nobodys_record() {
    let world = World::new();
    let key = world.key();
    let thief = user(2, "root");
    let before = world.api.kms.audit_log().read(thief.tenant, 0, 100).unwrap().len();
    let error = world.ask(&thief, "DisableKey", &json!({"KeyId": key})).unwrap_err();
    assert_eq!(error.code, "NotFoundException");
    assert_eq!(refused(&world).len(), 0);
    assert_eq!(world.api.kms.audit_log().read(thief.tenant, 0, 100).unwrap().len(), before);
}

#[test]
fn what_is_remembered_is_bounded() {
    let denials = Denials::default();
    let principal = Arc::<str>::from("app");
    let refusal = |number: u8, other: u8| {
        let mut id = [number; 16];
        id[0] = other;
        (Principal::new(Arc::clone(&principal)), "DisableKey", Some(TenantKeyId::from_bytes(id)))
    };
    let tenant = TenantId::from_bytes([1; 16]);
    let taken = (0..=u8::MAX)
        .flat_map(|number| [refusal(number, 0), refusal(number, 1)])
        .filter(|refusal| denials.take(tenant, refusal.clone(), 0))
        .count();
    assert_eq!(taken, PER_TENANT_MAX);
    let other = TenantId::from_bytes([2; 16]);
    assert!(denials.take(other, refusal(1, 1), 0), "another tenant's share is its own");
    assert!(denials.take(tenant, refusal(9, 9), QUIET_NS), "what is over makes room");
    let few = Denials::default();
    let tenants = (0..2_000_u32).filter(|number| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        few.take(TenantId::from_bytes(id), refusal(1, 1), 0)
    });
    assert_eq!(tenants.count(), TENANTS_MAX);
}
