//! Making, removing and listing buckets.
//!
//! Owns: location constraints, the answer for a name that is taken, paging of the list. Knows
//! nothing of: naming rules; those are the engine's.

use http::StatusCode;
use kluis_storage::{BucketInfo, BucketName, CreateBucket, ETagRule, ErrorKind, ListBuckets};
use s3s::S3Response;
use s3s::dto::{
    Bucket, BucketLocationConstraint, CreateBucketConfiguration, CreateBucketInput,
    CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput, GetBucketLocationInput,
    GetBucketLocationOutput, ListBucketsInput, ListBucketsOutput,
};

use super::error::{Answer, Subject, bad_request, invalid_argument, not_implemented};
use super::{Call, S3Api, acl, time, token};
use crate::error::ApiError;
use crate::policy::{self, Authorised};

/// The region that has no location constraint, and the older answers.
const CLASSIC_REGION: &str = "us-east-1";
/// The name of `eu-west-1` in old constraints.
const OLD_EUROPE: &str = "EU";
/// The most buckets in one page (AWS, ListBuckets).
const PAGE_BUCKETS_MAX: usize = 10_000;
/// Chooses when a new bucket's ETags are MD5s; see docs/ARCHITECTURE.md, "ETag".
const ETAG_RULE: &str = "x-kluis-etag";

/// Answers CreateBucket.
pub(super) async fn create_bucket(
    api: &S3Api,
    call: Call<CreateBucketInput>,
) -> Answer<S3Response<CreateBucketOutput>> {
    let right = policy::on_account::<policy::CreateBucket>(api.asked(&call))?;
    if call.input.object_lock_enabled_for_bucket == Some(true) {
        return Err(not_implemented("x-amz-bucket-object-lock-enabled").into());
    }
    acl::check_new_bucket(&call)?;
    if call.header("x-amz-object-ownership").is_some_and(|it| it != "BucketOwnerEnforced") {
        return Err(not_implemented("x-amz-object-ownership").into());
    }
    let name = BucketName::new(&call.input.bucket)
        .map_err(|_| bad_request("InvalidBucketName", "The specified bucket is not valid."))?;
    let configuration = call.input.create_bucket_configuration.as_ref();
    let request = CreateBucket {
        name: name.clone(),
        owner: right.user().user,
        location: location(configuration, &api.region)?,
        etag_rule: etag_rule(call.header(ETAG_RULE), api.etag_rule)?,
    };
    match api.engine.create_bucket(right.purpose(), request).await {
        Ok(_) => {}
        Err(cause) if cause.kind() == ErrorKind::Exists => taken(api, &right, &name).await?,
        Err(cause) => return Err(Subject::Bucket.failed(&cause)),
    }
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{name}")) }))
}

/// A taken name: in the classic region its owner may make it again, as with AWS.
async fn taken(
    api: &S3Api,
    right: &Authorised<policy::CreateBucket>,
    name: &BucketName,
) -> Answer<()> {
    let found = api.engine.head_bucket(right.purpose(), name).await;
    let bucket = found.map_err(|cause| Subject::Bucket.failed(&cause))?;
    let is_mine = bucket.owner == right.user().user;
    if is_mine && &*api.region == CLASSIC_REGION {
        return Ok(());
    }
    let (code, message) = if is_mine {
        let message = "Your previous request to create the named bucket succeeded and you already \
            own it.";
        ("BucketAlreadyOwnedByYou", message)
    } else {
        let message = "The requested bucket name is not available. Please select a different name \
            and try again.";
        ("BucketAlreadyExists", message)
    };
    Err(ApiError::new(StatusCode::CONFLICT, code, message)
        .with("BucketName", name.to_string())
        .into())
}

/// The location constraint to remember: empty where none is needed.
fn location(configuration: Option<&CreateBucketConfiguration>, region: &str) -> Answer<String> {
    let Some(configuration) = configuration else {
        return Ok(String::new());
    };
    if configuration.bucket.is_some() || configuration.location.is_some() {
        return Err(not_implemented("directory buckets").into());
    }
    let asked = configuration.location_constraint.as_ref().map(BucketLocationConstraint::as_str);
    match asked {
        None | Some("") => Ok(String::new()),
        Some(text) if text == region => Ok(text.to_owned()),
        Some(OLD_EUROPE) if region == "eu-west-1" => Ok(OLD_EUROPE.to_owned()),
        Some(text) => {
            let message = "The specified location-constraint is not valid";
            Err(bad_request("InvalidLocationConstraint", message)
                .with("LocationConstraint", text)
                .into())
        }
    }
}

fn etag_rule(asked: Option<&str>, default: ETagRule) -> Answer<ETagRule> {
    match asked {
        None => Ok(default),
        Some("auto") => Ok(ETagRule::Auto),
        Some("md5") => Ok(ETagRule::Md5),
        Some("opaque") => Ok(ETagRule::Opaque),
        Some(other) => {
            let message = "The ETag rule of a bucket is one of auto, md5 and opaque";
            Err(invalid_argument(message, ETAG_RULE, other).into())
        }
    }
}

/// Answers DeleteBucket.
pub(super) async fn delete_bucket(
    api: &S3Api,
    call: Call<DeleteBucketInput>,
) -> Answer<S3Response<DeleteBucketOutput>> {
    let right = api.on_bucket::<policy::DeleteBucket, _>(&call, &call.input.bucket).await?;
    let done = api.engine.delete_bucket(right.purpose(), right.bucket()).await;
    done.map_err(|cause| Subject::Bucket.failed(&cause))?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

/// Answers GetBucketLocation. The classic region is written as nothing.
pub(super) async fn get_bucket_location(
    api: &S3Api,
    call: Call<GetBucketLocationInput>,
) -> Answer<S3Response<GetBucketLocationOutput>> {
    let right = api.on_bucket::<policy::GetBucketLocation, _>(&call, &call.input.bucket).await?;
    let stored = right.bucket().location.as_str();
    let text = if stored == OLD_EUROPE { stored } else { &api.region };
    let location_constraint =
        (text != CLASSIC_REGION).then(|| BucketLocationConstraint::from(text.to_owned()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}

/// Answers ListBuckets: the root user sees the tenant's, another user its own.
pub(super) async fn list_buckets(
    api: &S3Api,
    call: Call<ListBucketsInput>,
) -> Answer<S3Response<ListBucketsOutput>> {
    let right = policy::on_account::<policy::ListAllMyBuckets>(api.asked(&call))?;
    let input = &call.input;
    let limit = page_buckets(input.max_buckets)?;
    let after = input.continuation_token.as_deref().filter(|text| !text.is_empty());
    let after = after.map(token::bucket).transpose()?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let elsewhere = input.bucket_region.as_deref().is_some_and(|region| region != &*api.region);
    let (found, next) = if elsewhere {
        (Vec::new(), None)
    } else {
        visible(api, &right, &prefix, after, limit).await?
    };
    let buckets = found.iter().map(|bucket| line(bucket, &api.region)).collect();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token: next.as_deref().map(token::of_bucket),
        owner: Some(acl::caller(right.user())),
        prefix: input.prefix.clone(),
    }))
}

fn page_buckets(asked: Option<i32>) -> Answer<usize> {
    let Some(asked) = asked else {
        return Ok(PAGE_BUCKETS_MAX);
    };
    match usize::try_from(asked) {
        Ok(limit) if (1..=PAGE_BUCKETS_MAX).contains(&limit) => Ok(limit),
        _ => {
            let message = "Argument max-buckets must be an integer between 1 and 10000";
            Err(invalid_argument(message, "max-buckets", &asked.to_string()).into())
        }
    }
}

/// Collects up to `limit` buckets that the user sees. The next page begins after the second value.
async fn visible(
    api: &S3Api,
    right: &Authorised<policy::ListAllMyBuckets>,
    prefix: &str,
    mut after: Option<String>,
    limit: usize,
) -> Answer<(Vec<BucketInfo>, Option<String>)> {
    let mut found = Vec::new();
    loop {
        let request = ListBuckets { prefix: prefix.to_owned(), after, limit };
        let page = api
            .engine
            .list_buckets(right.purpose(), request)
            .await
            .map_err(|cause| Subject::Bucket.failed(&cause))?;
        for bucket in page.buckets {
            if !policy::sees_bucket(right.user(), bucket.owner) {
                continue;
            }
            if found.len() == limit {
                let last = found.last().map(|last: &BucketInfo| last.name.to_string());
                return Ok((found, last));
            }
            found.push(bucket);
        }
        match page.next {
            None => return Ok((found, None)),
            next => after = next,
        }
    }
}

fn line(bucket: &BucketInfo, region: &str) -> Bucket {
    Bucket {
        bucket_region: Some(region.to_owned()),
        creation_date: Some(time::timestamp(bucket.created_ms)),
        name: Some(bucket.name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(text: &str) -> CreateBucketConfiguration {
        CreateBucketConfiguration {
            location_constraint: Some(BucketLocationConstraint::from(text.to_owned())),
            ..CreateBucketConfiguration::default()
        }
    }

    #[test]
    fn a_location_is_the_nodes_region_or_nothing() {
        assert_eq!(location(None, "eu-west-1").unwrap(), "");
        for (text, region, want) in [
            ("", "eu-west-1", Some("")),
            ("eu-west-1", "eu-west-1", Some("eu-west-1")),
            ("EU", "eu-west-1", Some("EU")),
            ("us-east-1", "us-east-1", Some("us-east-1")),
            ("EU", "us-east-1", None),
            ("us-west-2", "eu-west-1", None),
        ] {
            let got = location(Some(&constraint(text)), region);
            assert_eq!(got.as_deref().ok(), want, "{text} in {region}");
            if let Err(failure) = got {
                assert_eq!(failure.api().code, "InvalidLocationConstraint");
            }
        }
    }

    #[test]
    fn a_page_of_buckets_has_bounds() {
        assert_eq!(page_buckets(None).unwrap(), 10_000);
        assert_eq!(page_buckets(Some(1)).unwrap(), 1);
        for asked in [0, -1, 10_001, i32::MIN] {
            assert_eq!(page_buckets(Some(asked)).unwrap_err().api().code, "InvalidArgument");
        }
    }

    #[test]
    fn etag_rules_have_names() {
        assert_eq!(etag_rule(None, ETagRule::Md5).unwrap(), ETagRule::Md5);
        assert_eq!(etag_rule(Some("opaque"), ETagRule::Auto).unwrap(), ETagRule::Opaque);
        assert!(etag_rule(Some("sha256"), ETagRule::Auto).is_err());
    }
}
