//! Key policies: get, put, list.
//!
//! Owns: the fields of those operations. Knows nothing of: what a policy says.

use serde_json::json;

use super::access::of_policy;
use super::call::{Accept, Call};
use super::error::{Answer, KmsError, not_found};
use super::fields::{Length, missing};
use super::page::Page;
use super::reply::Reply;

/// The longest policy (AWS: 32 KiB).
const POLICY_BYTES_MAX: usize = 32_768;
/// The longest that the field may be before it is judged (AWS).
const POLICY: Length = Length::up_to(131_072);
/// The name of the one policy that a key has.
const DEFAULT: &str = "default";

/// The field `Policy`.
pub(super) fn text(call: &Call) -> Answer<Option<&str>> {
    let text = call.fields.text("Policy", POLICY)?;
    if text.is_some_and(|text| text.len() > POLICY_BYTES_MAX) {
        let message = format!("A key policy is at most {POLICY_BYTES_MAX} bytes long.");
        return Err(KmsError::new("LimitExceededException", message));
    }
    Ok(text)
}

fn check_name(call: &Call) -> Answer<()> {
    let is_word = |it: char| it.is_alphanumeric() || it == '_';
    let pattern = (is_word as fn(char) -> bool, r"[\w]+");
    match call.fields.matching("PolicyName", Length::up_to(128), pattern)? {
        None | Some(DEFAULT) => Ok(()),
        Some(_) => Err(not_found("No such policy exists")),
    }
}

/// `GetKeyPolicy`.
pub(super) fn get(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    check_name(call)?;
    let policy = call.api.policies.policy_of(call.told(false).asker(), target.id());
    let policy = policy.map_err(|cause| of_policy(cause, &target.arn))?;
    Ok(Reply::default().with("Policy", policy).with("PolicyName", DEFAULT))
}

/// `PutKeyPolicy`.
pub(super) fn put(call: &Call) -> Answer<Reply> {
    let policy = text(call)?.ok_or_else(|| missing("Policy"))?;
    let bypass = call.fields.flag("BypassPolicyLockoutSafetyCheck")?;
    let target = call.target("KeyId", Accept::Ids)?;
    check_name(call)?;
    let put = call.api.policies.put_policy(call.told(false).asker(), target.id(), (policy, bypass));
    put.map_err(|cause| of_policy(cause, &target.arn))?;
    Ok(Reply::default())
}

/// `ListKeyPolicies`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let page = Page::of("ListKeyPolicies", &call.fields)?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    let items = [(DEFAULT.as_bytes().to_vec(), json!(DEFAULT))];
    Ok(page.cut("PolicyNames", items).into())
}
