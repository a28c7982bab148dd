//! Access control lists: one canned list, which says what is so anyway.
//!
//! Owns: which ACL headers are accepted, and the ACL verbs. Knows nothing of: rights; those are
//! `policy.rs`.
//!
//! A bucket behaves like one of AWS with `BucketOwnerEnforced`: `private` and
//! `bucket-owner-full-control` are accepted and change nothing, everything else is refused, so that
//! no client believes in a grant that does not exist.

use http::StatusCode;
use kluis_storage::BucketInfo;
use s3s::S3Response;
use s3s::dto::{
    AccessControlPolicy, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput,
    GetObjectAclOutput, Grant, Grantee, Owner, Permission, PutBucketAclInput, PutBucketAclOutput,
    PutObjectAclInput, PutObjectAclOutput, Type,
};

use super::error::{Answer, Failure, Subject, bad_request};
use super::{Call, S3Api, check_version, object_key};
use crate::auth::User;
use crate::error::ApiError;
use crate::policy::{self, Authorised, Operation};

const HEADER: &str = "x-amz-acl";
const GRANTS: [&str; 5] = [
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
];

/// Refuses an ACL on an object that would grant something.
pub(super) fn check_request<Input>(call: &Call<Input>) -> Answer<()> {
    match call.header(HEADER) {
        Some("private" | "bucket-owner-full-control" | "bucket-owner-read") | None => {}
        Some("authenticated-read" | "aws-exec-read" | "public-read" | "public-read-write") => {
            return Err(not_supported());
        }
        Some(other) => {
            return Err(super::invalid_argument("Unknown canned ACL", HEADER, other).into());
        }
    }
    if GRANTS.into_iter().any(|name| call.has_header(name)) {
        return Err(not_supported());
    }
    Ok(())
}

/// Refuses an ACL on a bucket to be made that would grant something.
pub(super) fn check_new_bucket<Input>(call: &Call<Input>) -> Answer<()> {
    check_request(call).map_err(|failure| {
        if failure.api().code != "AccessControlListNotSupported" {
            return failure;
        }
        let message =
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting";
        bad_request("InvalidBucketAclWithObjectOwnership", message).into()
    })
}

fn not_supported() -> Failure {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "AccessControlListNotSupported",
        "The bucket does not allow ACLs",
    )
    .into()
}

/// The owner of a bucket, as listings and ACLs show it. Its name is known if it is the caller.
pub(super) fn owner(bucket: &BucketInfo, user: &User) -> Owner {
    let display_name = (bucket.owner == user.user).then(|| user.name.to_string());
    Owner { display_name, id: Some(bucket.owner.to_string()) }
}

/// The caller as an owner.
pub(super) fn caller(user: &User) -> Owner {
    Owner { display_name: Some(user.name.to_string()), id: Some(user.user.to_string()) }
}

/// Answers GetBucketAcl.
pub(super) async fn get_bucket(
    api: &S3Api,
    call: Call<GetBucketAclInput>,
) -> Answer<S3Response<GetBucketAclOutput>> {
    let right = api.on_bucket::<policy::GetAcl, _>(&call, &call.input.bucket).await?;
    let owner = owner(right.bucket(), right.user());
    let grants = Some(vec![full_control(&owner)]);
    Ok(S3Response::new(GetBucketAclOutput { grants, owner: Some(owner) }))
}

/// Answers GetObjectAcl.
pub(super) async fn get_object(
    api: &S3Api,
    call: Call<GetObjectAclInput>,
) -> Answer<S3Response<GetObjectAclOutput>> {
    let right = api.on_bucket::<policy::GetAcl, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    require_object(api, &right, &call.input.key).await?;
    let owner = owner(right.bucket(), right.user());
    let grants = Some(vec![full_control(&owner)]);
    let output = GetObjectAclOutput { grants, owner: Some(owner), request_charged: None };
    Ok(S3Response::new(output))
}

/// Answers PutBucketAcl.
pub(super) async fn put_bucket(
    api: &S3Api,
    call: Call<PutBucketAclInput>,
) -> Answer<S3Response<PutBucketAclOutput>> {
    let right = api.on_bucket::<policy::PutAcl, _>(&call, &call.input.bucket).await?;
    check_request(&call)?;
    check_document(call.input.access_control_policy.as_ref(), right.bucket())?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

/// Answers PutObjectAcl.
pub(super) async fn put_object(
    api: &S3Api,
    call: Call<PutObjectAclInput>,
) -> Answer<S3Response<PutObjectAclOutput>> {
    let right = api.on_bucket::<policy::PutAcl, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    check_request(&call)?;
    check_document(call.input.access_control_policy.as_ref(), right.bucket())?;
    require_object(api, &right, &call.input.key).await?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}

async fn require_object<Op: Operation<Target = BucketInfo>>(
    api: &S3Api,
    right: &Authorised<Op>,
    name: &str,
) -> Answer<()> {
    let object_key = object_key(name)?;
    // What is looked at is open to everyone who may ask, whatever key the body needs.
    let found = api.engine.check_object(right.purpose(), right.bucket(), &object_key).await;
    found.map_err(|cause| Subject::Object.failed(&cause))
}

/// A document may grant the owner full control, which it has.
fn check_document(document: Option<&AccessControlPolicy>, bucket: &BucketInfo) -> Answer<()> {
    let owner = bucket.owner.to_string();
    let grants = document.and_then(|document| document.grants.as_deref()).unwrap_or_default();
    let is_known = |grant: &Grant| {
        let grantee = grant.grantee.as_ref().and_then(|grantee| grantee.id.as_deref());
        let permission = grant.permission.as_ref().map(Permission::as_str);
        grantee == Some(owner.as_str()) && permission == Some(Permission::FULL_CONTROL)
    };
    if grants.iter().all(is_known) { Ok(()) } else { Err(not_supported()) }
}

fn full_control(owner: &Owner) -> Grant {
    let grantee = Grantee {
        display_name: owner.display_name.clone(),
        email_address: None,
        id: owner.id.clone(),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    Grant {
        grantee: Some(grantee),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }
}
