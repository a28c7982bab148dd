//! Grants from their making to their end.

use super::super::KmsRequestContext;
use super::super::grant::Constraint;
use super::super::testing::{ACCOUNT, NOW_MS, World, context, user, with, with_request};
use super::*;
use crate::auth::User;

/// A policy under which the account's users may do nothing by themselves.
const CLOSED: &str = r#"{"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*",
    "Principal": {"AWS": "111122223333"}, "Condition": {"Null": {"aws:username": "true"}}}}"#;

fn for_user(name: &str, operations: &[&str]) -> NewGrant {
    NewGrant {
        grantee: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
        operations: operations.iter().map(ToString::to_string).collect(),
        ..NewGrant::default()
    }
}

fn make(world: &World, maker: &User, new: NewGrant) -> Result<Grant, PolicyError> {
    with(maker, |asker| world.policies.create_grant(asker, world.id, new))
}

fn closed() -> World {
    let world = World::new();
    world.put(CLOSED);
    world
}

#[test]
fn a_grant_allows_at_once_and_until_it_is_revoked() {
    let world = closed();
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    let grant = make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    assert_eq!((grant.grant_id.len(), grant.created_ms), (GRANT_ID_CHARS, NOW_MS));
    assert_eq!(grant.issuer, format!("arn:aws:iam::{ACCOUNT}:root"));
    assert!(world.may(&world.ann, "kms:Decrypt"));
    assert!(!world.may(&world.ann, "kms:Encrypt"));
    assert!(!world.may(&world.bob, "kms:Decrypt"));
    let by_ann = with(&world.ann, |a| world.policies.revoke_grant(a, world.id, &grant.grant_id));
    assert!(matches!(by_ann, Err(PolicyError::Denied(_))));
    with(&world.root, |a| world.policies.revoke_grant(a, world.id, &grant.grant_id)).unwrap();
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    let again = with(&world.root, |a| world.policies.revoke_grant(a, world.id, &grant.grant_id));
    assert!(matches!(again, Err(PolicyError::GrantNotFound)));
}

#[test]
fn an_explicit_deny_wins_over_a_grant() {
    let world = World::new();
    make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    world.put(
        r#"{"Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*",
             "Condition": {"StringEquals": {"aws:username": "ann"}}}]}"#,
    );
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    world.put(CLOSED);
    assert!(world.may(&world.ann, "kms:Decrypt"));
}

#[test]
fn a_constraint_asks_for_the_encryption_context() {
    let world = closed();
    let mut new = for_user("ann", &["Decrypt"]);
    new.constraint = Some(Constraint::EncryptionContextSubset(context(&[("a", "1")]).context));
    make(&world, &world.root, new).unwrap();
    assert!(world.may_with(&world.ann, "kms:Decrypt", &context(&[("a", "1"), ("b", "2")])));
    assert!(!world.may_with(&world.ann, "kms:Decrypt", &context(&[("a", "2")])));
    assert!(!world.may(&world.ann, "kms:Decrypt"));
}

#[test]
fn the_same_name_and_parameters_give_the_same_grant() {
    let world = World::new();
    let named = |operations: &[&str]| NewGrant {
        name: Some("backup".to_owned()),
        ..for_user("ann", operations)
    };
    let first = make(&world, &world.root, named(&["Decrypt", "Encrypt"])).unwrap();
    let same = make(&world, &world.root, named(&["Encrypt", "Decrypt"])).unwrap();
    assert_eq!(first, same);
    let other = make(&world, &world.root, named(&["Decrypt"])).unwrap();
    assert_ne!(first.grant_id, other.grant_id);
    let unnamed = make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    assert_ne!(unnamed.grant_id, other.grant_id);
}

#[test]
fn whoever_lives_by_a_grant_hands_on_no_more() {
    let world = closed();
    make(&world, &world.root, for_user("ann", &["CreateGrant", "Decrypt"])).unwrap();
    assert!(make(&world, &world.ann, for_user("bob", &["Decrypt"])).is_ok());
    let wider = make(&world, &world.ann, for_user("bob", &["Encrypt"]));
    assert!(matches!(wider, Err(PolicyError::Denied(_))));
    assert!(world.may(&world.bob, "kms:Decrypt"));
    assert!(!world.may(&world.bob, "kms:Encrypt"));
    let further = make(&world, &world.bob, for_user("bob", &["Decrypt"]));
    assert!(matches!(further, Err(PolicyError::Denied(_))));
}

#[test]
fn conditions_see_the_grant_that_is_asked_for() {
    let world = World::new();
    world.put(
        r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Resource": "*",
        "Action": ["kms:CreateGrant", "kms:PutKeyPolicy"], "Condition": {
            "ForAllValues:StringEquals": {"kms:GrantOperations": ["Decrypt"]},
            "ArnLike": {"kms:GranteePrincipal": "arn:aws:iam::*:user/a*"},
            "StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}}}}"#,
    );
    let bound = |name: &str, operations: &[&str]| NewGrant {
        constraint: Some(Constraint::EncryptionContextEquals(context(&[("a", "1")]).context)),
        ..for_user(name, operations)
    };
    assert!(make(&world, &world.bob, bound("ann", &["Decrypt"])).is_ok());
    for refused in [
        bound("ann", &["Decrypt", "Encrypt"]),
        bound("bob", &["Decrypt"]),
        for_user("ann", &["Decrypt"]),
    ] {
        assert!(matches!(make(&world, &world.bob, refused), Err(PolicyError::Denied(_))));
    }
}

#[test]
fn a_key_has_no_more_grants_than_the_limit() {
    let world = World::new();
    for _ in 0..GRANTS_MAX {
        make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    }
    let one_more = make(&world, &world.root, for_user("ann", &["Decrypt"]));
    assert!(matches!(one_more, Err(PolicyError::LimitExceeded(_))));
    assert_eq!(world.directory.names(world.root.tenant).len(), GRANTS_MAX);
}

/// A page of the key's grants, as root sees them.
fn list(
    world: &World,
    filter: GrantFilter<'_>,
    page: (Option<&str>, usize),
) -> Result<GrantPage, PolicyError> {
    with(&world.root, |asker| world.policies.list_grants(asker, world.id, filter, page))
}

#[test]
fn lists_are_filtered_and_paged() {
    let world = World::new();
    for name in ["ann", "bob", "ann"] {
        make(&world, &world.root, for_user(name, &["Decrypt"])).unwrap();
    }
    let all = list(&world, GrantFilter::default(), (None, 100)).unwrap();
    assert_eq!((all.grants.len(), all.next.as_deref()), (3, None));
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = list(&world, GrantFilter::default(), (after.as_deref(), 1)).unwrap();
        assert_eq!(page.grants.len(), 1);
        seen.extend(page.grants);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, all.grants);
    let grantee = format!("arn:aws:iam::{ACCOUNT}:user/ann");
    let anns =
        list(&world, GrantFilter { grantee: Some(&grantee), ..GrantFilter::default() }, (None, 9));
    assert_eq!(anns.unwrap().grants.len(), 2);
    let one = &all.grants[1].1.grant_id;
    let found =
        list(&world, GrantFilter { grant_id: Some(one), ..GrantFilter::default() }, (None, 9));
    assert_eq!(found.unwrap().grants, all.grants[1..2]);
    let bad =
        list(&world, GrantFilter { grant_id: Some("x"), ..GrantFilter::default() }, (None, 9));
    assert!(matches!(bad, Err(PolicyError::InvalidGrantId)));
}

#[test]
fn retiring_is_for_the_parties_of_the_grant() {
    let world = closed();
    let bob = format!("arn:aws:iam::{ACCOUNT}:user/bob");
    let new = || NewGrant { retiring: Some(bob.clone()), ..for_user("ann", &["Decrypt"]) };
    let retire = |user: &User, grant: &Grant| {
        with(user, |a| {
            let which = GrantRef::Id(world.id, &grant.grant_id);
            world.policies.retire_grant(a, which)
        })
    };
    let grant = make(&world, &world.root, new()).unwrap();
    // Its holder may not, unless the grant says so.
    assert!(matches!(retire(&world.ann, &grant), Err(PolicyError::Denied(_))));
    retire(&world.bob, &grant).unwrap();
    assert!(!world.may(&world.ann, "kms:Decrypt"));
    let own = make(&world, &world.root, for_user("ann", &["Decrypt", "RetireGrant"])).unwrap();
    assert!(matches!(retire(&world.bob, &own), Err(PolicyError::Denied(_))));
    retire(&world.ann, &own).unwrap();
    let third = make(&world, &world.root, new()).unwrap();
    let token = KeyPolicies::grant_token(world.id, &third);
    let by_token = |user: &User, token: &str| {
        with(user, |a| world.policies.retire_grant(a, GrantRef::Token(token)))
    };
    for bad in ["", "x", &token[1..], &"z".repeat(96)] {
        assert!(matches!(by_token(&world.root, bad), Err(PolicyError::InvalidGrantToken)), "{bad}");
    }
    // Another tenant's root learns nothing of the key, though it has the token.
    assert!(matches!(by_token(&world.stranger, &token), Err(PolicyError::NotFound)));
    by_token(&world.root, &token).unwrap();
    assert!(matches!(by_token(&world.root, &token), Err(PolicyError::GrantNotFound)));
}

#[test]
fn retirable_grants_are_listed_over_all_keys() {
    let world = World::new();
    let second = world.add_key(0x3c);
    let bob = format!("arn:aws:iam::{ACCOUNT}:user/bob");
    let new = || NewGrant { retiring: Some(bob.clone()), ..for_user("ann", &["Decrypt"]) };
    for id in [second, world.id, second] {
        with(&world.root, |asker| world.policies.create_grant(asker, id, new())).unwrap();
    }
    make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    let list = |user: &User, page: (Option<&str>, usize)| {
        with(user, |asker| world.policies.list_retirable(asker, &bob, page))
    };
    let first = list(&world.bob, (None, 2)).unwrap();
    let ids: Vec<_> = first.grants.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [world.id, second]);
    let rest = list(&world.root, (first.next.as_deref(), 2)).unwrap();
    assert_eq!((rest.grants.len(), rest.next), (1, None));
    assert!(matches!(list(&world.ann, (None, 2)), Err(PolicyError::Denied(_))));
    assert!(matches!(list(&world.stranger, (None, 2)), Err(PolicyError::Invalid(_))));
}

#[test]
fn a_dry_run_checks_and_changes_nothing() {
    let world = closed();
    let request = KmsRequestContext::default();
    let dry = |user: &User, new| {
        with_request(user, &request, |asker| {
            let asker = Asker { is_dry_run: true, ..asker };
            world.policies.create_grant(asker, world.id, new)
        })
    };
    assert!(dry(&world.root, for_user("ann", &["Decrypt"])).is_ok());
    assert!(matches!(dry(&world.ann, for_user("ann", &["Decrypt"])), Err(PolicyError::Denied(_))));
    assert!(!world.may(&world.ann, "kms:Decrypt"));
}

#[test]
fn a_grant_names_nobody_of_another_tenant_and_reaches_no_other_key() {
    let world = World::new();
    let mut foreign = for_user("ann", &["Decrypt"]);
    foreign.grantee = world.stranger.arn();
    assert!(matches!(make(&world, &world.root, foreign), Err(PolicyError::Invalid(_))));
    let by_stranger = make(&world, &world.stranger, for_user("ann", &["Decrypt"]));
    assert!(matches!(by_stranger, Err(PolicyError::NotFound)));
    // The other tenant has a user of the same name: it is another user.
    let namesake = user(2, "444455556666", "ann");
    world.put(CLOSED);
    make(&world, &world.root, for_user("ann", &["Decrypt"])).unwrap();
    let own_closed = CLOSED.replace(ACCOUNT, "444455556666");
    with(&world.stranger, |asker| {
        world.policies.put_policy(asker, world.strange_id, (&own_closed, false))
    })
    .unwrap();
    let request = KmsRequestContext::default();
    let may =
        |user: &User, id| world.policies.authorise(user, "kms:Decrypt", Some(id), &request).is_ok();
    assert!(may(&world.ann, world.id));
    assert!(!may(&namesake, world.strange_id));
}

#[test]
fn a_grant_that_could_not_be_written_does_not_count() {
    let world = closed();
    world.directory.break_disk();
    let made = make(&world, &world.root, for_user("ann", &["Decrypt"]));
    assert!(matches!(made, Err(PolicyError::Kms(_))));
    assert!(!world.may(&world.ann, "kms:Decrypt"));
}
