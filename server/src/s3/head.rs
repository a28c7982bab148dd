//! HeadObject and HeadBucket.
//!
//! Owns: reading the requests; the answer about an object is [`super::object`]'s.

use s3s::S3Response;
use s3s::dto::{HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput};

use super::door::Finish;
use super::error::Answer;
use super::object::Wanted;
use super::{Call, S3Api, object, object_key};
use crate::plaintext::Plaintext;
use crate::policy;

/// Answers HeadObject.
pub(super) async fn head_object(
    api: &S3Api,
    call: Call<HeadObjectInput>,
) -> Answer<S3Response<HeadObjectOutput>> {
    let right = api.on_bucket::<policy::GetObject, _>(&call, &call.input.bucket).await?;
    let wanted = Wanted::read(&call, &object::asked!(call.input))?;
    let object_key = object_key(&call.input.key)?;
    let request = wanted.request(right.bucket(), &object_key);
    let (info, range) = match api.engine.head(right.purpose(), request).await {
        Ok(found) => found,
        Err(cause) => return Err(api.explain(&right, &object_key, &wanted, &cause).await),
    };
    let head = api.object_head(&wanted, &info, &range, right.user())?;
    let mut response = S3Response::with_headers(HeadObjectOutput::default(), head.headers);
    response.extensions.insert(Finish::status(head.status));
    response.extensions.insert(Plaintext { tenant_key: info.tenant_key });
    Ok(response)
}

/// Answers HeadBucket.
pub(super) async fn head_bucket(
    api: &S3Api,
    call: Call<HeadBucketInput>,
) -> Answer<S3Response<HeadBucketOutput>> {
    api.on_bucket::<policy::ListBucket, _>(&call, &call.input.bucket).await?;
    let output = HeadBucketOutput {
        bucket_region: Some(api.region.to_string()),
        access_point_alias: Some(false),
        ..HeadBucketOutput::default()
    };
    Ok(S3Response::new(output))
}
