//! Object tags: reading them from headers and documents, and the three verbs on them.
//!
//! Owns: the limits of tags and the form of `x-amz-tagging`. Knows nothing of: how they are stored
//! (sealed).
//!
//! Source: AWS, "Categorizing your objects using tags".

use kluis_storage::Tags;
use s3s::S3Response;
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};

use super::error::{Answer, Failure, Subject, bad_request, invalid_argument};
use super::{Call, S3Api, check_version, encoding, object_key};
use crate::plaintext::Plaintext;
use crate::policy;

/// The most tags of one object.
const TAGS_MAX: usize = 10;
/// The longest name of a tag, in characters.
const NAME_CHARACTERS_MAX: usize = 128;
/// The longest value of a tag, in characters.
const VALUE_CHARACTERS_MAX: usize = 256;

const HEADER: &str = "x-amz-tagging";

/// Answers GetObjectTagging.
pub(super) async fn get(
    api: &S3Api,
    call: Call<GetObjectTaggingInput>,
) -> Answer<S3Response<GetObjectTaggingOutput>> {
    let right = api.on_bucket::<policy::GetObjectTagging, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    let object_key = object_key(&call.input.key)?;
    let (tags, tenant_key) = api
        .engine
        .object_tags(right.purpose(), right.bucket(), &object_key)
        .await
        .map_err(|cause| Subject::Object.failed(&cause))?;
    let tag = |(name, value)| Tag { key: Some(name), value: Some(value) };
    let tag_set = tags.0.into_iter().map(tag).collect();
    let mut response = S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None });
    response.extensions.insert(Plaintext { tenant_key });
    Ok(response)
}

/// Answers PutObjectTagging.
pub(super) async fn put(
    api: &S3Api,
    call: Call<PutObjectTaggingInput>,
) -> Answer<S3Response<PutObjectTaggingOutput>> {
    let right = api.on_bucket::<policy::PutObjectTagging, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    let object_key = object_key(&call.input.key)?;
    let tags = of_document(&call.input.tagging.tag_set)?;
    api.engine
        .set_object_tags(right.purpose(), right.bucket(), &object_key, tags)
        .await
        .map_err(|cause| Subject::Object.failed(&cause))?;
    Ok(S3Response::new(PutObjectTaggingOutput::default()))
}

/// Answers DeleteObjectTagging.
pub(super) async fn delete(
    api: &S3Api,
    call: Call<DeleteObjectTaggingInput>,
) -> Answer<S3Response<DeleteObjectTaggingOutput>> {
    let right = api.on_bucket::<policy::DeleteObjectTagging, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    let object_key = object_key(&call.input.key)?;
    api.engine
        .set_object_tags(right.purpose(), right.bucket(), &object_key, Tags::default())
        .await
        .map_err(|cause| Subject::Object.failed(&cause))?;
    Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
}

/// The tags that a write's `x-amz-tagging` header names.
pub(super) fn of_request<Input>(call: &Call<Input>) -> Answer<Tags> {
    call.header(HEADER).map_or_else(|| Ok(Tags::default()), of_header)
}

/// `name=value&name=value`, each part percent-encoded.
fn of_header(text: &str) -> Answer<Tags> {
    let malformed = || {
        let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL \
            query parameters without tag name duplicates.";
        Failure::from(invalid_argument(message, HEADER, ""))
    };
    let mut tags = Tags::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = encoding::form_decode(name).ok_or_else(malformed)?;
        let value = encoding::form_decode(value).ok_or_else(malformed)?;
        if tags.0.iter().any(|(known, _)| *known == name) {
            return Err(malformed());
        }
        tags.0.push((name, value));
    }
    check(&tags)?;
    Ok(tags)
}

fn of_document(tag_set: &[Tag]) -> Answer<Tags> {
    let mut tags = Tags::default();
    for tag in tag_set {
        let name = tag.key.clone().unwrap_or_default();
        if tags.0.iter().any(|(known, _)| *known == name) {
            return Err(invalid_tag("Cannot provide multiple Tags with the same key"));
        }
        tags.0.push((name, tag.value.clone().unwrap_or_default()));
    }
    check(&tags)?;
    Ok(tags)
}

fn check(tags: &Tags) -> Answer<()> {
    if tags.0.len() > TAGS_MAX {
        return Err(invalid_tag("Object tags cannot be greater than 10"));
    }
    for (name, value) in &tags.0 {
        let name_characters = name.chars().count();
        if !(1..=NAME_CHARACTERS_MAX).contains(&name_characters) || !name.chars().all(is_allowed) {
            return Err(invalid_tag("The TagKey you have provided is invalid"));
        }
        if name.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid_tag("System tags cannot be added/updated by requester"));
        }
        if value.chars().count() > VALUE_CHARACTERS_MAX || !value.chars().all(is_allowed) {
            return Err(invalid_tag("The TagValue you have provided is invalid"));
        }
    }
    Ok(())
}

/// Letters, numbers and spaces of every script, and `+ - = . _ : / @`.
fn is_allowed(character: char) -> bool {
    character.is_alphanumeric()
        || (character.is_whitespace() && !character.is_control())
        || "+-=._:/@".contains(character)
}

fn invalid_tag(message: &'static str) -> Failure {
    bad_request("InvalidTag", message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(header: &str, code: &str) {
        assert_eq!(of_header(header).unwrap_err().api().code, code, "{header}");
    }

    #[test]
    fn headers_are_read_in_order() {
        let tags = of_header("b=2&a=1&empty=&none&sp+ace=a%20b&%C3%A4=%2B").unwrap();
        let texts: Vec<_> =
            tags.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let want =
            [("b", "2"), ("a", "1"), ("empty", ""), ("none", ""), ("sp ace", "a b"), ("ä", "+")];
        assert_eq!(texts, want);
        assert!(of_header("").unwrap().0.is_empty());
    }

    #[test]
    fn limits_are_kept() {
        let ten = (0..10).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join("&");
        assert_eq!(of_header(&ten).unwrap().0.len(), 10);
        check_refused(&format!("{ten}&k10=v"), "InvalidTag");
        assert!(of_header(&format!("{}=v", "k".repeat(128))).is_ok());
        check_refused(&format!("{}=v", "k".repeat(129)), "InvalidTag");
        assert!(of_header(&format!("k={}", "v".repeat(256))).is_ok());
        check_refused(&format!("k={}", "v".repeat(257)), "InvalidTag");
        check_refused("=v", "InvalidTag");
        check_refused("aws:k=v", "InvalidTag");
        check_refused("k=%00", "InvalidTag");
        check_refused("k!=v", "InvalidTag");
    }

    #[test]
    fn malformed_headers_are_invalid_arguments() {
        for header in ["a=1&a=2", "a=%", "a=%ff", "%zz=1"] {
            check_refused(header, "InvalidArgument");
        }
    }

    #[test]
    fn documents_may_not_repeat_a_name() {
        let tag = |name: &str| Tag { key: Some(name.to_owned()), value: Some("v".to_owned()) };
        assert_eq!(of_document(&[tag("a"), tag("b")]).unwrap().0.len(), 2);
        assert_eq!(of_document(&[tag("a"), tag("a")]).unwrap_err().api().code, "InvalidTag");
        assert!(of_document(&[]).unwrap().0.is_empty());
    }
}
