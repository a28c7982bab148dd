//! The table of verbs: which function serves which operation of s3s.
//!
//! Owns: nothing but this list. An operation that is not in it answers `NotImplemented`.

use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use super::error::{self, ErrorSlot};
use super::{
    Call, S3Api, acl, attributes, bucket, complete, copy, defaults, delete, encryption, get, head,
    list, multipart, put, tagging, uploads, versions,
};

macro_rules! verbs {
    ($($verb:ident($input:ident) -> $output:ident => $served:path;)*) => {
        #[async_trait::async_trait]
        impl s3s::S3 for S3Api {
            $(
                async fn $verb(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    let slot = ErrorSlot::of(&request.extensions);
                    error::reply(slot, $served(self, Call::new(request)).await)
                }
            )*
        }
    };
}

verbs! {
    abort_multipart_upload(AbortMultipartUploadInput)
        -> AbortMultipartUploadOutput => uploads::abort_multipart_upload;
    complete_multipart_upload(CompleteMultipartUploadInput)
        -> CompleteMultipartUploadOutput => complete::complete_multipart_upload;
    copy_object(CopyObjectInput) -> CopyObjectOutput => copy::copy_object;
    create_bucket(CreateBucketInput) -> CreateBucketOutput => bucket::create_bucket;
    create_multipart_upload(CreateMultipartUploadInput)
        -> CreateMultipartUploadOutput => multipart::create_multipart_upload;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput => bucket::delete_bucket;
    delete_bucket_analytics_configuration(DeleteBucketAnalyticsConfigurationInput)
        -> DeleteBucketAnalyticsConfigurationOutput
        => defaults::delete_bucket_analytics_configuration;
    delete_bucket_cors(DeleteBucketCorsInput)
        -> DeleteBucketCorsOutput => defaults::delete_bucket_cors;
    delete_bucket_encryption(DeleteBucketEncryptionInput)
        -> DeleteBucketEncryptionOutput => encryption::delete_bucket_encryption;
    delete_bucket_intelligent_tiering_configuration(DeleteBucketIntelligentTieringConfigurationInput)
        -> DeleteBucketIntelligentTieringConfigurationOutput
        => defaults::delete_bucket_intelligent_tiering_configuration;
    delete_bucket_inventory_configuration(DeleteBucketInventoryConfigurationInput)
        -> DeleteBucketInventoryConfigurationOutput
        => defaults::delete_bucket_inventory_configuration;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput)
        -> DeleteBucketLifecycleOutput => defaults::delete_bucket_lifecycle;
    delete_bucket_metrics_configuration(DeleteBucketMetricsConfigurationInput)
        -> DeleteBucketMetricsConfigurationOutput => defaults::delete_bucket_metrics_configuration;
    delete_bucket_ownership_controls(DeleteBucketOwnershipControlsInput)
        -> DeleteBucketOwnershipControlsOutput => defaults::delete_bucket_ownership_controls;
    delete_bucket_policy(DeleteBucketPolicyInput)
        -> DeleteBucketPolicyOutput => defaults::delete_bucket_policy;
    delete_bucket_replication(DeleteBucketReplicationInput)
        -> DeleteBucketReplicationOutput => defaults::delete_bucket_replication;
    delete_bucket_tagging(DeleteBucketTaggingInput)
        -> DeleteBucketTaggingOutput => defaults::delete_bucket_tagging;
    delete_bucket_website(DeleteBucketWebsiteInput)
        -> DeleteBucketWebsiteOutput => defaults::delete_bucket_website;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput => delete::delete_object;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput => tagging::delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput => delete::delete_objects;
    delete_public_access_block(DeletePublicAccessBlockInput)
        -> DeletePublicAccessBlockOutput => defaults::delete_public_access_block;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput)
        -> GetBucketAccelerateConfigurationOutput => defaults::get_bucket_accelerate_configuration;
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput => acl::get_bucket;
    get_bucket_analytics_configuration(GetBucketAnalyticsConfigurationInput)
        -> GetBucketAnalyticsConfigurationOutput => defaults::get_bucket_analytics_configuration;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput => defaults::get_bucket_cors;
    get_bucket_encryption(GetBucketEncryptionInput)
        -> GetBucketEncryptionOutput => encryption::get_bucket_encryption;
    get_bucket_intelligent_tiering_configuration(GetBucketIntelligentTieringConfigurationInput)
        -> GetBucketIntelligentTieringConfigurationOutput
        => defaults::get_bucket_intelligent_tiering_configuration;
    get_bucket_inventory_configuration(GetBucketInventoryConfigurationInput)
        -> GetBucketInventoryConfigurationOutput => defaults::get_bucket_inventory_configuration;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput)
        -> GetBucketLifecycleConfigurationOutput => defaults::get_bucket_lifecycle_configuration;
    get_bucket_location(GetBucketLocationInput)
        -> GetBucketLocationOutput => bucket::get_bucket_location;
    get_bucket_logging(GetBucketLoggingInput)
        -> GetBucketLoggingOutput => defaults::get_bucket_logging;
    get_bucket_metrics_configuration(GetBucketMetricsConfigurationInput)
        -> GetBucketMetricsConfigurationOutput => defaults::get_bucket_metrics_configuration;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput)
        -> GetBucketNotificationConfigurationOutput
        => defaults::get_bucket_notification_configuration;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput)
        -> GetBucketOwnershipControlsOutput => defaults::get_bucket_ownership_controls;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput => defaults::get_bucket_policy;
    get_bucket_policy_status(GetBucketPolicyStatusInput)
        -> GetBucketPolicyStatusOutput => defaults::get_bucket_policy_status;
    get_bucket_replication(GetBucketReplicationInput)
        -> GetBucketReplicationOutput => defaults::get_bucket_replication;
    get_bucket_request_payment(GetBucketRequestPaymentInput)
        -> GetBucketRequestPaymentOutput => defaults::get_bucket_request_payment;
    get_bucket_tagging(GetBucketTaggingInput)
        -> GetBucketTaggingOutput => defaults::get_bucket_tagging;
    get_bucket_versioning(GetBucketVersioningInput)
        -> GetBucketVersioningOutput => defaults::get_bucket_versioning;
    get_bucket_website(GetBucketWebsiteInput)
        -> GetBucketWebsiteOutput => defaults::get_bucket_website;
    get_object(GetObjectInput) -> GetObjectOutput => get::get_object;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput => acl::get_object;
    get_object_attributes(GetObjectAttributesInput)
        -> GetObjectAttributesOutput => attributes::get_object_attributes;
    get_object_legal_hold(GetObjectLegalHoldInput)
        -> GetObjectLegalHoldOutput => defaults::get_object_legal_hold;
    get_object_lock_configuration(GetObjectLockConfigurationInput)
        -> GetObjectLockConfigurationOutput => defaults::get_object_lock_configuration;
    get_object_retention(GetObjectRetentionInput)
        -> GetObjectRetentionOutput => defaults::get_object_retention;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput => tagging::get;
    get_public_access_block(GetPublicAccessBlockInput)
        -> GetPublicAccessBlockOutput => defaults::get_public_access_block;
    head_bucket(HeadBucketInput) -> HeadBucketOutput => head::head_bucket;
    head_object(HeadObjectInput) -> HeadObjectOutput => head::head_object;
    list_bucket_analytics_configurations(ListBucketAnalyticsConfigurationsInput)
        -> ListBucketAnalyticsConfigurationsOutput
        => defaults::list_bucket_analytics_configurations;
    list_bucket_intelligent_tiering_configurations(ListBucketIntelligentTieringConfigurationsInput)
        -> ListBucketIntelligentTieringConfigurationsOutput
        => defaults::list_bucket_intelligent_tiering_configurations;
    list_bucket_inventory_configurations(ListBucketInventoryConfigurationsInput)
        -> ListBucketInventoryConfigurationsOutput
        => defaults::list_bucket_inventory_configurations;
    list_bucket_metrics_configurations(ListBucketMetricsConfigurationsInput)
        -> ListBucketMetricsConfigurationsOutput => defaults::list_bucket_metrics_configurations;
    list_buckets(ListBucketsInput) -> ListBucketsOutput => bucket::list_buckets;
    list_multipart_uploads(ListMultipartUploadsInput)
        -> ListMultipartUploadsOutput => uploads::list_multipart_uploads;
    list_object_versions(ListObjectVersionsInput)
        -> ListObjectVersionsOutput => versions::list_object_versions;
    list_objects(ListObjectsInput) -> ListObjectsOutput => list::list_objects;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output => list::list_objects_v2;
    list_parts(ListPartsInput) -> ListPartsOutput => uploads::list_parts;
    put_bucket_acl(PutBucketAclInput) -> PutBucketAclOutput => acl::put_bucket;
    put_bucket_encryption(PutBucketEncryptionInput)
        -> PutBucketEncryptionOutput => encryption::put_bucket_encryption;
    put_bucket_ownership_controls(PutBucketOwnershipControlsInput)
        -> PutBucketOwnershipControlsOutput => defaults::put_bucket_ownership_controls;
    put_object(PutObjectInput) -> PutObjectOutput => put::put_object;
    put_object_acl(PutObjectAclInput) -> PutObjectAclOutput => acl::put_object;
    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput => tagging::put;
    upload_part(UploadPartInput) -> UploadPartOutput => multipart::upload_part;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput => multipart::upload_part_copy;
}
