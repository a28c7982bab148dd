//! Tags of a key.
//!
//! Owns: their bounds, their form in the key directory (a JSON object), and their operations.
//! Knows nothing of: policies that look at them.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::call::{Accept, Call, Target};
use super::error::{Answer, KmsError};
use super::fields::{Length, check_length, missing, wrong_type};
use super::names::key_entry;
use super::page::Page;
use super::reply::Reply;

/// Tags of one key (AWS).
const TAGS_MAX: usize = 50;
/// Entries of a request that are read before the number of tags is judged.
const LIST_MAX: usize = 200;
const NAME: Length = Length::up_to(128);
const VALUE: Length = Length { min: 0, max: 256 };

/// Tags by name.
pub(super) type Tags = BTreeMap<String, String>;

/// The field `Tags` of a call; absent is empty.
pub(super) fn read(call: &Call) -> Answer<Tags> {
    let mut tags = Tags::new();
    for tag in call.fields.objects("Tags", (0, LIST_MAX))?.unwrap_or_default() {
        let text = |name: &str| match tag.get(name) {
            None | Some(Value::Null) => Err(missing(name)),
            Some(value) => value.as_str().ok_or_else(|| wrong_type(name, "a string")),
        };
        let (name, value) = (text("TagKey")?, text("TagValue")?);
        check_length("tags.member.tagKey", name, NAME)?;
        check_length("tags.member.tagValue", value, VALUE)?;
        if tags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(KmsError::new("TagException", "Duplicate tag keys"));
        }
    }
    Ok(tags)
}

/// Checks tags that a key is to be given, and how many it has then.
pub(super) fn check_new(tags: &Tags, count: usize) -> Answer<()> {
    if tags.keys().any(|name| name.to_ascii_lowercase().starts_with("aws:")) {
        let message = "A tag key must not begin with 'aws:', which is reserved.";
        return Err(KmsError::new("TagException", message));
    }
    if count > TAGS_MAX {
        let message = format!("A key has at most {TAGS_MAX} tags.");
        return Err(KmsError::new("LimitExceededException", message));
    }
    Ok(())
}

/// The form of tags in the key directory.
pub(super) fn encode(tags: &Tags) -> Vec<u8> {
    json!(tags).to_string().into_bytes()
}

/// The tags of a key.
pub(super) fn of(call: &Call, target: &Target) -> Tags {
    let entry = key_entry(target.id(), "tags");
    let value = call.api.kms.entry_value(call.user.tenant, &entry);
    value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default()
}

/// `TagResource`.
pub(super) fn tag(call: &Call) -> Answer<Reply> {
    if !call.fields.has("Tags") {
        return Err(missing("Tags"));
    }
    let new = read(call)?;
    check_new(&new, new.len())?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    target.check_not_pending_deletion()?;
    let _edit = call.api.directory.lock(call.user.tenant);
    let mut tags = of(call, &target);
    tags.extend(new);
    check_new(&tags, tags.len())?;
    set(call, &target, &tags)
}

/// `UntagResource`.
pub(super) fn untag(call: &Call) -> Answer<Reply> {
    let names = call.fields.texts("TagKeys", (0, LIST_MAX), NAME)?;
    let names = names.ok_or_else(|| missing("TagKeys"))?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    target.check_not_pending_deletion()?;
    let _edit = call.api.directory.lock(call.user.tenant);
    let mut tags = of(call, &target);
    tags.retain(|name, _| !names.contains(&name.as_str()));
    set(call, &target, &tags)
}

fn set(call: &Call, target: &Target, tags: &Tags) -> Answer<Reply> {
    let value = (!tags.is_empty()).then(|| encode(tags));
    call.set_entries(Some(target), vec![(key_entry(target.id(), "tags"), value)])?;
    Ok(Reply::default())
}

/// `ListResourceTags`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let page = Page::of("ListResourceTags", &call.fields)?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    let items = of(call, &target).into_iter().map(|(name, value)| {
        let shown = json!({"TagKey": name, "TagValue": value});
        (name.into_bytes(), shown)
    });
    Ok(page.cut("Tags", items).into())
}
