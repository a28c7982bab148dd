//! GetObject.
//!
//! Owns: reading the request; the head of the answer is [`super::object`]'s. Knows nothing of:
//! chunks, keys.

use http::header::CONTENT_RANGE;
use s3s::S3Response;
use s3s::dto::{GetObjectInput, GetObjectOutput};

use super::error::Answer;
use super::object::Wanted;
use super::{Call, S3Api, body, object, object_key};
use crate::plaintext::Plaintext;
use crate::policy;

/// Answers GetObject.
pub(super) async fn get_object(
    api: &S3Api,
    call: Call<GetObjectInput>,
) -> Answer<S3Response<GetObjectOutput>> {
    let right = api.on_bucket::<policy::GetObject, _>(&call, &call.input.bucket).await?;
    let wanted = Wanted::read(&call, &object::asked!(call.input))?;
    let object_key = object_key(&call.input.key)?;
    let request = wanted.request(right.bucket(), &object_key);
    let reply = match api.engine.get(right.purpose(), request).await {
        Ok(reply) => reply,
        Err(cause) => return Err(api.explain(&right, &object_key, &wanted, &cause).await),
    };
    let head = api.object_head(&wanted, &reply.info, &reply.range, right.user())?;
    // s3s makes the status from this field; the header itself is among `head.headers`.
    let content_range =
        head.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
    let tenant_key = reply.info.tenant_key;
    let output = GetObjectOutput {
        body: Some(body::download(reply.body, head.length)),
        content_range,
        ..GetObjectOutput::default()
    };
    let mut response = S3Response::with_headers(output, head.headers);
    response.extensions.insert(Plaintext { tenant_key });
    Ok(response)
}
