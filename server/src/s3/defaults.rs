//! Bucket and object settings that this release does not have: what AWS answers where they are not
//! configured.
//!
//! Owns: these answers. A tool that reads every setting of a bucket (Terraform, for one) must get
//! an answer that it knows for each; setting one is `NotImplemented`, which s3s answers by itself.
//!
//! Invariants
//! - Every answer is given after the bucket was found and the caller allowed: names of other
//!   tenants look like absent ones here as well.

use http::StatusCode;
use s3s::S3Response;
use s3s::dto;
use s3s::dto::{ObjectOwnership, OwnershipControls, OwnershipControlsRule, Payer};

use super::error::{Answer, Failure, invalid_request, not_implemented};
use super::{Call, S3Api};
use crate::error::ApiError;
use crate::policy;

/// Verbs that answer an empty configuration.
macro_rules! empty {
    ($($verb:ident($input:ident) -> $output:ident;)*) => {$(
        pub(super) async fn $verb(
            api: &S3Api,
            call: Call<dto::$input>,
        ) -> Answer<S3Response<dto::$output>> {
            api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
            Ok(S3Response::new(dto::$output::default()))
        }
    )*};
}

/// Verbs that answer 404 with a code of their own.
macro_rules! absent {
    ($($verb:ident($input:ident) -> $output:ident, $code:literal, $message:literal;)*) => {$(
        pub(super) async fn $verb(
            api: &S3Api,
            call: Call<dto::$input>,
        ) -> Answer<S3Response<dto::$output>> {
            api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
            Err(absent($code, $message))
        }
    )*};
}

/// Verbs that remove what is not there: 204.
macro_rules! removed {
    ($($verb:ident($input:ident) -> $output:ident;)*) => {$(
        pub(super) async fn $verb(
            api: &S3Api,
            call: Call<dto::$input>,
        ) -> Answer<S3Response<dto::$output>> {
            api.on_bucket::<policy::PutBucketConfiguration, _>(&call, &call.input.bucket).await?;
            Ok(S3Response::new(dto::$output::default()))
        }
    )*};
}

empty! {
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput)
        -> GetBucketAccelerateConfigurationOutput;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput)
        -> GetBucketNotificationConfigurationOutput;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    list_bucket_analytics_configurations(ListBucketAnalyticsConfigurationsInput)
        -> ListBucketAnalyticsConfigurationsOutput;
    list_bucket_intelligent_tiering_configurations(ListBucketIntelligentTieringConfigurationsInput)
        -> ListBucketIntelligentTieringConfigurationsOutput;
    list_bucket_inventory_configurations(ListBucketInventoryConfigurationsInput)
        -> ListBucketInventoryConfigurationsOutput;
    list_bucket_metrics_configurations(ListBucketMetricsConfigurationsInput)
        -> ListBucketMetricsConfigurationsOutput;
}

absent! {
    get_bucket_analytics_configuration(GetBucketAnalyticsConfigurationInput)
        -> GetBucketAnalyticsConfigurationOutput,
        "NoSuchConfiguration", "The specified configuration does not exist.";
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput,
        "NoSuchCORSConfiguration", "The CORS configuration does not exist";
    get_bucket_intelligent_tiering_configuration(GetBucketIntelligentTieringConfigurationInput)
        -> GetBucketIntelligentTieringConfigurationOutput,
        "NoSuchConfiguration", "The specified configuration does not exist.";
    get_bucket_inventory_configuration(GetBucketInventoryConfigurationInput)
        -> GetBucketInventoryConfigurationOutput,
        "NoSuchConfiguration", "The specified configuration does not exist.";
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput)
        -> GetBucketLifecycleConfigurationOutput,
        "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist";
    get_bucket_metrics_configuration(GetBucketMetricsConfigurationInput)
        -> GetBucketMetricsConfigurationOutput,
        "NoSuchConfiguration", "The specified configuration does not exist.";
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput,
        "NoSuchBucketPolicy", "The bucket policy does not exist";
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput,
        "NoSuchBucketPolicy", "The bucket policy does not exist";
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput,
        "ReplicationConfigurationNotFoundError", "The replication configuration was not found";
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput,
        "NoSuchTagSet", "The TagSet does not exist";
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput,
        "NoSuchWebsiteConfiguration",
        "The specified bucket does not have a website configuration";
    get_object_lock_configuration(GetObjectLockConfigurationInput)
        -> GetObjectLockConfigurationOutput,
        "ObjectLockConfigurationNotFoundError",
        "Object Lock configuration does not exist for this bucket";
    get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput,
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found";
}

removed! {
    delete_bucket_analytics_configuration(DeleteBucketAnalyticsConfigurationInput)
        -> DeleteBucketAnalyticsConfigurationOutput;
    delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput;
    delete_bucket_intelligent_tiering_configuration(
        DeleteBucketIntelligentTieringConfigurationInput
    ) -> DeleteBucketIntelligentTieringConfigurationOutput;
    delete_bucket_inventory_configuration(DeleteBucketInventoryConfigurationInput)
        -> DeleteBucketInventoryConfigurationOutput;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    delete_bucket_metrics_configuration(DeleteBucketMetricsConfigurationInput)
        -> DeleteBucketMetricsConfigurationOutput;
    delete_bucket_ownership_controls(DeleteBucketOwnershipControlsInput)
        -> DeleteBucketOwnershipControlsOutput;
    delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    delete_bucket_replication(DeleteBucketReplicationInput) -> DeleteBucketReplicationOutput;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;
    delete_bucket_website(DeleteBucketWebsiteInput) -> DeleteBucketWebsiteOutput;
    delete_public_access_block(DeletePublicAccessBlockInput) -> DeletePublicAccessBlockOutput;
}

fn absent(code: &'static str, message: &'static str) -> Failure {
    ApiError::new(StatusCode::NOT_FOUND, code, message).into()
}

/// Answers GetBucketOwnershipControls: as every bucket of AWS since April 2023.
pub(super) async fn get_bucket_ownership_controls(
    api: &S3Api,
    call: Call<dto::GetBucketOwnershipControlsInput>,
) -> Answer<S3Response<dto::GetBucketOwnershipControlsOutput>> {
    api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
    let object_ownership = ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED);
    let rules = vec![OwnershipControlsRule { object_ownership }];
    let ownership_controls = Some(OwnershipControls { rules });
    Ok(S3Response::new(dto::GetBucketOwnershipControlsOutput { ownership_controls }))
}

/// Answers PutBucketOwnershipControls: what holds anyway may be asked for.
pub(super) async fn put_bucket_ownership_controls(
    api: &S3Api,
    call: Call<dto::PutBucketOwnershipControlsInput>,
) -> Answer<S3Response<dto::PutBucketOwnershipControlsOutput>> {
    api.on_bucket::<policy::PutBucketConfiguration, _>(&call, &call.input.bucket).await?;
    let rules = &call.input.ownership_controls.rules;
    let holds = |rule: &OwnershipControlsRule| {
        rule.object_ownership.as_str() == ObjectOwnership::BUCKET_OWNER_ENFORCED
    };
    if !rules.iter().all(holds) {
        return Err(not_implemented("object ownership other than BucketOwnerEnforced").into());
    }
    Ok(S3Response::new(dto::PutBucketOwnershipControlsOutput::default()))
}

/// Answers GetBucketRequestPayment: the owner pays.
pub(super) async fn get_bucket_request_payment(
    api: &S3Api,
    call: Call<dto::GetBucketRequestPaymentInput>,
) -> Answer<S3Response<dto::GetBucketRequestPaymentOutput>> {
    api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
    let payer = Some(Payer::from_static(Payer::BUCKET_OWNER));
    Ok(S3Response::new(dto::GetBucketRequestPaymentOutput { payer }))
}

/// Answers GetObjectLegalHold of a bucket without object lock.
pub(super) async fn get_object_legal_hold(
    api: &S3Api,
    call: Call<dto::GetObjectLegalHoldInput>,
) -> Answer<S3Response<dto::GetObjectLegalHoldOutput>> {
    api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
    Err(invalid_request("Bucket is missing Object Lock Configuration").into())
}

/// Answers GetObjectRetention of a bucket without object lock.
pub(super) async fn get_object_retention(
    api: &S3Api,
    call: Call<dto::GetObjectRetentionInput>,
) -> Answer<S3Response<dto::GetObjectRetentionOutput>> {
    api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
    Err(invalid_request("Bucket is missing Object Lock Configuration").into())
}
