//! Who may do what with a key: without a policy, with one, and from another tenant.

use serde_json::json;

use super::testing::{ACCOUNT, World, user, with, with_request};
use super::*;

const USES: [&str; 4] = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"];
const ADMINISTRATION: [&str; 6] = [
    "kms:CreateGrant",
    "kms:DisableKey",
    "kms:PutKeyPolicy",
    "kms:RetireKeyMaterial",
    "kms:ScheduleKeyDeletion",
    "kms:UpdateAlias",
];

fn put(world: &World, user: &User, text: &str, is_bypass: bool) -> Result<(), PolicyError> {
    with(user, |asker| world.policies.put_policy(asker, world.id, (text, is_bypass)))
}

/// A policy that names one user for some actions, and root for everything.
fn for_user(name: &str, actions: &[&str]) -> String {
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
         "Condition": {"ArnEquals": {"aws:PrincipalArn": format!("arn:aws:iam::{ACCOUNT}:root")}}},
        {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/{name}")},
         "Action": actions, "Resource": "*"}
    ]})
    .to_string()
}

#[test]
fn without_a_policy_root_does_everything_and_users_use_the_key() {
    let world = World::new();
    for action in USES {
        assert!(world.may(&world.root, action) && world.may(&world.ann, action), "{action}");
    }
    for action in ADMINISTRATION {
        assert!(world.may(&world.root, action) && !world.may(&world.ann, action), "{action}");
    }
}

#[test]
fn what_concerns_no_key_is_for_everyone() {
    let world = World::new();
    let request = KmsRequestContext::default();
    let may = |user: &User, action| world.policies.authorise(user, action, None, &request).is_ok();
    for action in ["kms:CreateKey", "kms:ListKeys", "kms:ListAliases", "kms:GenerateRandom"] {
        assert!(may(&world.ann, action) && may(&world.root, action), "{action}");
    }
    assert!(!may(&world.ann, "kms:ListAuditEvents"));
    assert!(may(&world.root, "kms:ListAuditEvents"));
}

#[test]
fn a_statement_that_names_a_user_gives_what_it_says() {
    let world = World::new();
    put(&world, &world.root, &for_user("ann", &["kms:DisableKey", "kms:Encrypt"]), false).unwrap();
    assert!(world.may(&world.ann, "kms:DisableKey") && world.may(&world.ann, "kms:Encrypt"));
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    assert!(!world.may(&world.bob, "kms:Encrypt"));
    assert!(world.may(&world.root, "kms:Decrypt"));
}

#[test]
fn a_refusal_says_who_what_and_why() {
    let world = World::new();
    let request = KmsRequestContext::default();
    let text = |action| {
        world.policies.authorise(&world.ann, action, Some(world.id), &request).unwrap_err()
    };
    let arn = world.policies.key_arn(&world.ann, world.id);
    assert_eq!(arn, "arn:aws:kms:eu-west-1:111122223333:key/1a1a1a1a-1a1a-1a1a-1a1a-1a1a1a1a1a1a");
    assert_eq!(
        text("kms:DisableKey").to_string(),
        format!(
            "User: arn:aws:iam::{ACCOUNT}:user/ann is not authorized to perform: kms:DisableKey \
             on resource: {arn} because no resource-based policy allows the kms:DisableKey action"
        )
    );
    world.put(
        r#"{"Statement": {"Sid": "Never", "Effect": "Deny", "Principal": "*",
            "Action": "kms:Decrypt", "Resource": "*"}}"#,
    );
    assert!(
        text("kms:Decrypt")
            .to_string()
            .ends_with("with an explicit deny in a resource-based policy (statement Never)")
    );
}

#[test]
fn a_policy_that_locks_its_writer_out_needs_the_bypass() {
    let world = World::new();
    let text = for_user("ann", &["kms:*"]).replace(":root", ":user/nobody");
    assert!(matches!(put(&world, &world.root, &text, false), Err(PolicyError::Lockout)));
    assert!(world.may(&world.root, "kms:Decrypt"), "nothing changed");
    put(&world, &world.root, &text, true).unwrap();
    assert!(!world.may(&world.root, "kms:PutKeyPolicy"));
    let locked_out = put(&world, &world.root, &text, true);
    assert!(matches!(locked_out, Err(PolicyError::Denied(_))));
    put(&world, &world.ann, &for_user("ann", &["kms:*"]), false).unwrap();
    assert!(world.may(&world.root, "kms:PutKeyPolicy"));
}

#[test]
fn the_bypass_can_be_denied() {
    let world = World::new();
    world.put(
        r#"{"Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*",
             "Condition": {"Bool": {"kms:BypassPolicyLockoutSafetyCheck": "true"}}}]}"#,
    );
    let text = for_user("ann", &["kms:*"]);
    assert!(matches!(put(&world, &world.root, &text, true), Err(PolicyError::Denied(_))));
    put(&world, &world.root, &text, false).unwrap();
}

#[test]
fn a_malformed_policy_changes_nothing() {
    let world = World::new();
    let before = with(&world.root, |a| world.policies.policy_of(a, world.id)).unwrap();
    for text in ["", "{}", r#"{"Statement": {"Effect": "Deny"}}"#] {
        let put = put(&world, &world.root, text, true);
        assert!(matches!(put, Err(PolicyError::Malformed(_))), "{text}");
    }
    let after = with(&world.root, |a| world.policies.policy_of(a, world.id)).unwrap();
    assert_eq!(before, after);
    assert!(world.directory.purposes().is_empty());
}

#[test]
fn a_policy_is_given_back_as_it_was_put() {
    let world = World::new();
    let text = for_user("ann", &["kms:Decrypt"]) + "\n";
    put(&world, &world.root, &text, false).unwrap();
    assert_eq!(with(&world.root, |a| world.policies.policy_of(a, world.id)).unwrap(), text);
    let by_bob = with(&world.bob, |a| world.policies.policy_of(a, world.id));
    assert!(matches!(by_bob, Err(PolicyError::Denied(_))));
    let purposes = world.directory.purposes();
    assert_eq!((purposes[0].action, purposes[0].tenant), ("kms:PutKeyPolicy", world.root.tenant));
    assert_eq!(purposes[0].principal.as_str(), world.root.arn());
}

#[test]
fn a_new_key_names_a_creator_who_is_not_root() {
    let world = World::new();
    let make = |user: &User, text: Option<&str>| {
        with(user, |asker| {
            let policy = world.policies.check_new_policy(asker, text, false)?;
            if let Some((name, value)) = policy.into_entry(world.id) {
                let name = String::from_utf8(name).unwrap();
                world.directory.put(user.tenant, &name, &value.unwrap());
                world.policies.forget(user.tenant, world.id);
            }
            Ok(())
        })
    };
    make(&world.root, None).unwrap();
    assert!(world.directory.names(world.root.tenant).is_empty());
    make(&world.ann, None).unwrap();
    for action in ADMINISTRATION.iter().chain(&USES) {
        assert!(world.may(&world.ann, action) && world.may(&world.root, action), "{action}");
    }
    assert!(world.may(&world.bob, "kms:Decrypt") && !world.may(&world.bob, "kms:DisableKey"));
    let lockout = make(&world.ann, Some(&for_user("bob", &["kms:*"])));
    assert!(matches!(lockout, Err(PolicyError::Lockout)));
    assert!(matches!(make(&world.ann, Some("{")), Err(PolicyError::Malformed(_))));
}

#[test]
fn no_policy_names_or_reaches_another_tenant() {
    let world = World::new();
    let foreign = for_user("ann", &["kms:*"]).replace(ACCOUNT, "444455556666");
    assert!(matches!(put(&world, &world.root, &foreign, true), Err(PolicyError::Malformed(_))));
    let everyone = r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "kms:*",
        "Resource": "*"}}"#;
    put(&world, &world.root, everyone, false).unwrap();
    // "Everyone" is everyone of the tenant: to another one the key does not exist.
    for text in [everyone, "{"] {
        let by_stranger = put(&world, &world.stranger, text, true);
        assert!(matches!(by_stranger, Err(PolicyError::NotFound)));
    }
    let read = with(&world.stranger, |a| world.policies.policy_of(a, world.id));
    assert!(matches!(read, Err(PolicyError::NotFound)));
    // A policy of one tenant's key says nothing of the other's.
    let deny = r#"{"Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"},
        {"Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*"}]}"#;
    put(&world, &world.root, deny, false).unwrap();
    let request = KmsRequestContext::default();
    let strange = Some(world.strange_id);
    assert!(world.policies.authorise(&world.stranger, "kms:Decrypt", strange, &request).is_ok());
    let namesake = user(2, "444455556666", "ann");
    assert!(world.policies.authorise(&namesake, "kms:Decrypt", strange, &request).is_ok());
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    assert!(world.directory.names(world.stranger.tenant).is_empty());
}

#[test]
fn a_stored_policy_that_cannot_be_read_allows_nothing() {
    let world = World::new();
    let name = format!("k/{}/policy", world.id);
    world.directory.put(world.root.tenant, &name, b"{\"Statement\": \"of a later release\"}");
    for user in [&world.root, &world.ann] {
        assert!(!world.may(user, "kms:Decrypt"));
    }
    assert!(!world.may(&world.ann, "kms:PutKeyPolicy"));
    put(&world, &world.root, &for_user("ann", &["kms:Decrypt"]), false).unwrap();
    assert!(world.may(&world.ann, "kms:Decrypt"));
}

#[test]
fn values_come_from_the_user_the_key_and_the_clock() {
    let world = World::new();
    let alias = "a/alias/photos";
    world.directory.put(world.root.tenant, alias, world.id.as_bytes());
    let allows = |condition: &serde_json::Value, extra: Vec<(&'static str, Vec<String>)>| {
        let text = json!({"Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*",
             "Condition": condition},
            {"Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*"}]});
        world.put(&text.to_string());
        let request = KmsRequestContext { extra, ..KmsRequestContext::default() };
        world.may_with(&world.ann, "kms:Decrypt", &request)
    };
    let none = Vec::new;
    assert!(allows(&json!({"StringEquals": {"aws:username": "ann"}}), none()));
    assert!(allows(&json!({"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}), none()));
    assert!(allows(&json!({"StringEquals": {"kms:CallerAccount": [ACCOUNT]}}), none()));
    assert!(allows(&json!({"StringEquals": {"kms:KeyOrigin": "AWS_KMS"}}), none()));
    assert!(allows(&json!({"StringEquals": {"kms:KeySpec": "SYMMETRIC_DEFAULT"}}), none()));
    let aliases = json!({"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/photos"}});
    assert!(allows(&aliases, none()));
    let noon = json!({"DateLessThan": {"aws:CurrentTime": "2026-11-24T12:00:00Z"}});
    assert!(allows(&noon, none()));
    world.clock.advance_ms(3 * 3600 * 1000);
    assert!(!allows(&noon, none()));
    let named = json!({"StringEquals": {"kms:RequestAlias": "alias/photos"}});
    assert!(!allows(&named, none()));
    assert!(allows(&named, vec![("kms:RequestAlias", vec!["alias/photos".to_owned()])]));
    // What says who calls cannot be brought along.
    let spoofed = json!({"StringEquals": {"aws:username": "root"}});
    assert!(!allows(&spoofed, vec![("aws:username", vec!["root".to_owned()])]));
}

#[test]
fn rules_are_read_once_and_again_after_a_change() {
    let world = World::new();
    assert!(world.may(&world.ann, "kms:Decrypt"));
    let reads = world.directory.reads();
    assert!(world.may(&world.ann, "kms:Decrypt"));
    assert_eq!(world.directory.reads(), reads);
    put(&world, &world.root, &for_user("bob", &["kms:Decrypt"]), false).unwrap();
    assert!(!world.may(&world.ann, "kms:Decrypt"));
}

#[test]
fn a_policy_that_was_not_written_does_not_count() {
    let world = World::new();
    world.directory.break_disk();
    let put = put(&world, &world.root, &for_user("ann", &["kms:*"]), false);
    assert!(matches!(put, Err(PolicyError::Kms(_))));
    assert!(world.may(&world.bob, "kms:Decrypt"));
}

#[test]
fn a_dry_run_of_a_policy_checks_it_only() {
    let world = World::new();
    let request = KmsRequestContext::default();
    let dry = |text: &str| {
        with_request(&world.root, &request, |asker| {
            let asker = Asker { is_dry_run: true, ..asker };
            world.policies.put_policy(asker, world.id, (text, false))
        })
    };
    dry(&for_user("ann", &["kms:*"])).unwrap();
    assert!(matches!(dry("{"), Err(PolicyError::Malformed(_))));
    assert!(world.directory.names(world.root.tenant).is_empty());
}
