//! Principal + action + resource → [`Authorised`], or a refusal.
//!
//! Owns: every decision about who may do what over S3; whether they may use the key that an object
//! lies under is decided by [`crate::key_policy`] when it is used. Knows nothing of: HTTP, the
//! engine, clocks. It is pure: it looks at its arguments and at nothing else.
//!
//! Invariants
//! - Nothing but this file builds an [`Authorised`]; a verb cannot run without one.
//! - An [`Authorised`] carries the bucket it was decided for, so that a verb cannot be authorised
//!   on one bucket and act on another.
//! - Names are looked up in the caller's own tenant only (the [`Purpose`] says which), so that
//!   another tenant's bucket is not refused but absent.
//!   Rules: docs/ARCHITECTURE.md, "Rights".

use std::marker::PhantomData;
use std::sync::Arc;

use http::StatusCode;
use kluis_kms::{Principal, Purpose, Reason, RequestId, Rights};
use kluis_storage::{BucketInfo, BucketName, UserId};

use crate::auth::{Caller, User};
use crate::error::ApiError;
use crate::key_policy::{KeyPolicies, Origin, S3KeyRights};

/// Who asks, in which request, and where the policies of keys are.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Who calls.
    pub(crate) caller: &'a Caller,
    /// In which request.
    pub(crate) request_id: &'a RequestId,
    /// Where the request comes from.
    pub(crate) origin: Origin,
    /// What decides on the use of keys, whenever one is used for this request.
    pub(crate) key_policies: &'a Arc<KeyPolicies>,
}

/// Something a caller may be allowed to do.
pub(crate) trait Operation {
    /// What it is done to: nothing, for operations on the account, or a bucket.
    type Target;
    /// Its name in the vocabulary of AWS policies.
    const ACTION: &'static str;
}

macro_rules! operations {
    ($($name:ident on $target:ty, $action:literal;)*) => {
        $(
            #[doc = concat!("`", $action, "`.")]
            #[derive(Debug)]
            pub(crate) enum $name {}

            impl Operation for $name {
                type Target = $target;
                const ACTION: &'static str = $action;
            }
        )*
    };
}

operations! {
    // A bucket's name may be looked up by everyone in the tenant: what was found is authorised
    // in a second step.
    LookUpBucket on (), "kluis:LookUpBucket";
    CreateBucket on (), "s3:CreateBucket";
    ListAllMyBuckets on (), "s3:ListAllMyBuckets";

    AbortMultipartUpload on BucketInfo, "s3:AbortMultipartUpload";
    DeleteBucket on BucketInfo, "s3:DeleteBucket";
    DeleteObject on BucketInfo, "s3:DeleteObject";
    DeleteObjectTagging on BucketInfo, "s3:DeleteObjectTagging";
    GetAcl on BucketInfo, "s3:GetBucketAcl";
    GetBucketConfiguration on BucketInfo, "s3:GetBucketConfiguration";
    GetBucketLocation on BucketInfo, "s3:GetBucketLocation";
    GetObject on BucketInfo, "s3:GetObject";
    GetObjectAttributes on BucketInfo, "s3:GetObjectAttributes";
    GetObjectTagging on BucketInfo, "s3:GetObjectTagging";
    ListBucket on BucketInfo, "s3:ListBucket";
    ListBucketMultipartUploads on BucketInfo, "s3:ListBucketMultipartUploads";
    ListBucketVersions on BucketInfo, "s3:ListBucketVersions";
    ListMultipartUploadParts on BucketInfo, "s3:ListMultipartUploadParts";
    PutAcl on BucketInfo, "s3:PutBucketAcl";
    PutBucketConfiguration on BucketInfo, "s3:PutBucketConfiguration";
    PutObject on BucketInfo, "s3:PutObject";
    PutObjectTagging on BucketInfo, "s3:PutObjectTagging";
}

/// The right to do `Op`, once decided. It cannot be made outside this file, copied or widened.
pub(crate) struct Authorised<Op: Operation> {
    purpose: Purpose,
    user: Arc<User>,
    target: Op::Target,
    operation: PhantomData<Op>,
}

impl<Op: Operation> Authorised<Op> {
    /// Who acts, for which tenant and why: what the engine and the keys ask for.
    pub(crate) fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// The user that acts.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }
}

impl<Op: Operation<Target = BucketInfo>> Authorised<Op> {
    /// The bucket that was decided on.
    pub(crate) fn bucket(&self) -> &BucketInfo {
        &self.target
    }
}

/// Decides on an operation of the account: every user of a tenant may do them.
///
/// # Errors
/// `AccessDenied`: the caller is anonymous.
pub(crate) fn on_account<Op: Operation<Target = ()>>(
    asked: Asked<'_>,
) -> Result<Authorised<Op>, ApiError> {
    let user = signed_in::<Op>(asked.caller)?;
    Ok(authorised(asked, user, (None, ())))
}

/// Decides on an operation on a bucket that was looked up in the caller's tenant.
///
/// # Errors
/// `AccessDenied`: the caller is anonymous, or neither the tenant's root user nor the owner.
pub(crate) fn on_bucket<Op: Operation<Target = BucketInfo>>(
    asked: Asked<'_>,
    bucket: BucketInfo,
) -> Result<Authorised<Op>, ApiError> {
    let user = signed_in::<Op>(asked.caller)?;
    if !may_use(user.is_root, user.user, bucket.owner) {
        return Err(denied::<Op>(&principal(user)));
    }
    Ok(authorised(asked, user, (Some(bucket.name.clone()), bucket)))
}

/// Whether a user's own listing of buckets shows one of `owner`.
pub(crate) fn sees_bucket(user: &User, owner: UserId) -> bool {
    may_use(user.is_root, user.user, owner)
}

/// A tenant's root user may use every bucket of the tenant; another user those it owns.
fn may_use(is_root: bool, user: UserId, owner: UserId) -> bool {
    is_root || user == owner
}

fn signed_in<Op: Operation>(caller: &Caller) -> Result<&Arc<User>, ApiError> {
    match caller {
        Caller::User(user) => Ok(user),
        Caller::Anonymous => Err(denied::<Op>(&Principal::from("anonymous"))),
    }
}

fn authorised<Op: Operation>(
    asked: Asked<'_>,
    user: &Arc<User>,
    (bucket, target): (Option<BucketName>, Op::Target),
) -> Authorised<Op> {
    let rights = S3KeyRights {
        policies: Arc::clone(asked.key_policies),
        user: Arc::clone(user),
        bucket,
        origin: asked.origin,
    };
    let purpose = Purpose {
        tenant: user.tenant,
        principal: principal(user),
        reason: Reason::CustomerInitiated,
        request_id: asked.request_id.clone(),
        action: Op::ACTION,
        rights: Rights::new(Arc::new(rights)),
    };
    Authorised { purpose, user: Arc::clone(user), target, operation: PhantomData }
}

/// The ARN that names the user in logs and in the audit trail.
fn principal(user: &User) -> Principal {
    Principal::new(user.arn())
}

fn denied<Op: Operation>(principal: &Principal) -> ApiError {
    let message = format!("User: {principal} is not authorized to perform: {}", Op::ACTION);
    ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", message)
}

#[cfg(test)]
mod tests;
