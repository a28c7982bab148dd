//! What S3 may do with a key, as its callers meet it.

use serde_json::json;

use super::super::testing::{ACCOUNT, World};
use super::*;

fn rights(world: &World, user: &User) -> S3KeyRights {
    S3KeyRights {
        policies: Arc::clone(&world.policies),
        user: Arc::new(user.clone()),
        bucket: Some(BucketName::new("photos").unwrap()),
        origin: Origin { ip: Some("192.0.2.1".parse().unwrap()), is_tls: true },
    }
}

/// Whether a user may read and write, and see what listings show.
fn uses(world: &World, user: &User) -> [bool; 3] {
    let rights = rights(world, user);
    [KeyUse::Read, KeyUse::Write, KeyUse::Attributes].map(|use_| rights.may_use(world.id, use_))
}

#[test]
fn a_key_without_policy_is_for_every_user() {
    let world = World::new();
    for user in [&world.root, &world.ann] {
        assert_eq!(uses(&world, user), [true, true, true]);
    }
    let reads = world.directory.reads();
    assert_eq!(uses(&world, &world.bob), [true, true, true]);
    assert_eq!(world.directory.reads(), reads, "answered from memory");
}

#[test]
fn reading_writing_and_listing_are_told_apart() {
    let world = World::new();
    world.put(
        &json!({"Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/ann")},
            "Action": "kms:Decrypt",
            "Resource": "*"
        }})
        .to_string(),
    );
    assert_eq!(uses(&world, &world.ann), [true, false, true]);
    assert_eq!(uses(&world, &world.bob), [false, false, true]);
    assert_eq!(uses(&world, &world.root), [false, false, true]);
}

#[test]
fn conditions_see_the_service_the_bucket_and_the_client() {
    let world = World::new();
    let allow = |condition: &serde_json::Value| {
        world.put(
            &json!({"Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy",
                 "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
                 "Condition": condition}
            ]})
            .to_string(),
        );
        uses(&world, &world.ann)[0]
    };
    let service = "s3.eu-west-1.amazonaws.com";
    assert!(allow(&json!({"StringEquals": {"kms:ViaService": service}})));
    assert!(!allow(&json!({"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}})));
    assert!(!allow(&json!({"Null": {"kms:ViaService": "true"}})));
    let pair = "kms:EncryptionContext:aws:s3:arn";
    assert!(allow(&json!({"StringEquals": {pair: "arn:aws:s3:::photos"}})));
    assert!(!allow(&json!({"StringEquals": {pair: "arn:aws:s3:::other"}})));
    assert!(allow(&json!({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})));
    assert!(allow(&json!({"Bool": {"aws:SecureTransport": "true"}})));
    assert!(!allow(&json!({"Bool": {"aws:SecureTransport": "false"}})));
    assert!(allow(&json!({"StringEquals": {"kluis:Reason": "customer-initiated"}})));
}
