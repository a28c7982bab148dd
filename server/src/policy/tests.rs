//! Who may do what, as a table.

use kluis_kms::TenantId;
use kluis_storage::{BucketId, BucketName, ETagRule};

use super::*;
use crate::auth::AccountId;
use crate::key_policy::testing::World;

/// What `caller` asks, over policies that nobody wrote.
macro_rules! asked {
    ($caller:expr, $request_id:expr) => {
        Asked {
            caller: $caller,
            request_id: $request_id,
            origin: Origin::default(),
            key_policies: &World::new().policies,
        }
    };
}

fn user(id: u8, is_root: bool) -> Arc<User> {
    Arc::new(User {
        tenant: TenantId::from_bytes([9; 16]),
        account_id: AccountId::from_number(123_456_789_012).unwrap(),
        user: UserId::from_bytes([id; 16]),
        name: "ann".into(),
        is_root,
        access_key_id: "AKIAEXAMPLE".into(),
    })
}

fn bucket(owner: u8) -> BucketInfo {
    BucketInfo {
        id: BucketId::from_bytes([1; 16]),
        name: BucketName::new("photos").unwrap(),
        owner: UserId::from_bytes([owner; 16]),
        created_ms: 0,
        etag_rule: ETagRule::Auto,
        location: String::new(),
        encryption: kluis_storage::BucketEncryption::default(),
    }
}

#[test]
fn a_bucket_is_for_its_owner_and_for_root() {
    let request_id = RequestId::from("R");
    for (caller, owner, allowed) in [
        (Caller::User(user(1, false)), 1, true),
        (Caller::User(user(1, false)), 2, false),
        (Caller::User(user(1, true)), 1, true),
        (Caller::User(user(1, true)), 2, true),
        (Caller::Anonymous, 1, false),
    ] {
        let verdict = on_bucket::<GetObject>(asked!(&caller, &request_id), bucket(owner));
        assert_eq!(verdict.is_ok(), allowed, "{caller:?} on a bucket of {owner}");
        if let Err(error) = verdict {
            assert_eq!((error.code.as_ref(), error.status.as_u16()), ("AccessDenied", 403));
        }
    }
}

#[test]
fn the_account_is_for_everyone_who_signed_in() {
    let request_id = RequestId::from("R");
    for is_root in [false, true] {
        let caller = Caller::User(user(1, is_root));
        assert!(on_account::<CreateBucket>(asked!(&caller, &request_id)).is_ok());
    }
    let nobody = Caller::Anonymous;
    assert!(on_account::<ListAllMyBuckets>(asked!(&nobody, &request_id)).is_err());
    assert!(on_account::<LookUpBucket>(asked!(&nobody, &request_id)).is_err());
}

#[test]
fn a_right_names_its_tenant_principal_and_bucket() {
    let request_id = RequestId::from("R7");
    let caller = Caller::User(user(1, false));
    let right = on_bucket::<PutObject>(asked!(&caller, &request_id), bucket(1)).unwrap();
    let purpose = right.purpose();
    assert_eq!(purpose.tenant, TenantId::from_bytes([9; 16]));
    assert_eq!(purpose.principal.as_str(), "arn:aws:iam::123456789012:user/ann");
    assert_eq!(purpose.request_id.as_str(), "R7");
    assert_eq!(purpose.reason, Reason::CustomerInitiated);
    assert_eq!(right.bucket().name.as_str(), "photos");
    let caller = Caller::User(user(1, true));
    let root = on_account::<CreateBucket>(asked!(&caller, &request_id)).unwrap();
    assert_eq!(root.purpose().principal.as_str(), "arn:aws:iam::123456789012:root");
}

#[test]
fn listings_show_what_may_be_used() {
    let other = UserId::from_bytes([2; 16]);
    assert!(sees_bucket(&user(1, true), other));
    assert!(!sees_bucket(&user(1, false), other));
    assert!(sees_bucket(&user(2, false), other));
}

#[test]
fn a_refusal_names_the_action_and_no_bucket() {
    let caller = Caller::User(user(1, false));
    let verdict = on_bucket::<PutObject>(asked!(&caller, &RequestId::from("R")), bucket(2));
    let Err(error) = verdict else { panic!("it is another's bucket") };
    let want =
        "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: s3:PutObject";
    assert_eq!(error.message, want);
}
