//! Rotation: on demand, by period, and what was rotated when.
//!
//! Owns: the fields of those operations. Knows nothing of: how a material is made.
//!
//! Invariants
//! - A material that its tenant retired stays in the history of rotations and leaves the list of
//!   key materials.

use kluis_kms::{KeyOrigin, KeyState, MaterialInfo, MaterialState};
use serde_json::{Map, Value};

use super::call::{Accept, Call, Target};
use super::error::{Answer, of_key, unsupported};
use super::keys::{check_origin, expiration_model};
use super::names::uuid;
use super::page::Page;
use super::reply::{Reply, seconds};

/// The period of automatic rotation, in days (AWS).
const PERIOD_DAYS: (i64, i64) = (90, 2_560);
/// The period if the caller names none (AWS).
const PERIOD_DAYS_DEFAULT: u16 = 365;

/// `EnableKeyRotation`.
pub(super) fn enable(call: &Call) -> Answer<Reply> {
    let days = call.fields.integer("RotationPeriodInDays", PERIOD_DAYS)?;
    let days = days.and_then(|days| u16::try_from(days).ok()).unwrap_or(PERIOD_DAYS_DEFAULT);
    set_period(call, Some(days))
}

/// `DisableKeyRotation`.
pub(super) fn disable(call: &Call) -> Answer<Reply> {
    set_period(call, None)
}

fn set_period(call: &Call, days: Option<u16>) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    let period = days.map(|days| ("kms:RotationPeriodInDays", vec![days.to_string()]));
    call.authorise_with(Some(&target), period.into_iter().collect())?;
    check_origin(&target.info, &target.arn, &KeyOrigin::Local)?;
    target.check_enabled()?;
    let set = call.api.kms.set_rotation(&call.purpose(), target.id(), days);
    set.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default())
}

/// `GetKeyRotationStatus`.
pub(super) fn status(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    check_not_in_store(&target)?;
    // A key that waits for its deletion is not rotated, whatever was set before.
    let rotation = target.info.rotation.filter(|_| target.info.state != KeyState::PendingDeletion);
    Ok(Reply::default()
        .with("KeyId", uuid(target.id()))
        .with("KeyRotationEnabled", rotation.is_some())
        .with_some("RotationPeriodInDays", rotation.map(|(days, _)| days))
        .with_some("NextRotationDate", rotation.map(|(_, next_ms)| seconds(next_ms))))
}

/// `RotateKeyOnDemand`.
pub(super) fn rotate(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    check_not_in_store(&target)?;
    target.check_enabled()?;
    let done = call.api.kms.rotate(&call.purpose(), target.id());
    done.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default().with("KeyId", uuid(target.id())))
}

/// `ListKeyRotations`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let page = Page::of("ListKeyRotations", &call.fields)?;
    let which = ["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"];
    let which = call.fields.one_of("IncludeKeyMaterial", &which)?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    check_not_in_store(&target)?;
    let all = which == Some("ALL_KEY_MATERIAL");
    let first = target.info.materials.first().map(|material| material.number);
    let is_shown = |material: &&MaterialInfo| {
        if all {
            return material.state != MaterialState::Retired;
        }
        Some(material.number) != first && material.state != MaterialState::PendingRotation
    };
    let items = target.info.materials.iter().filter(is_shown).map(|material| {
        let shown = entry(&target, material, Some(material.number) != first);
        (material.number.to_be_bytes().to_vec(), shown)
    });
    Ok(page.cut("Rotations", items).into())
}

fn entry(target: &Target, material: &MaterialInfo, is_rotation: bool) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("KeyId", uuid(target.id()).into());
    set("KeyMaterialId", hex::encode(material.id).into());
    let is_current = material.number == target.info.current_material;
    set(
        "KeyMaterialState",
        match material.state {
            MaterialState::PendingRotation => "PENDING_ROTATION".into(),
            MaterialState::Current => "CURRENT".into(),
            MaterialState::PendingImport if is_current => "CURRENT".into(),
            _ => "NON_CURRENT".into(),
        },
    );
    if target.info.origin == KeyOrigin::Imported {
        let is_held = material.state != MaterialState::PendingImport;
        set("ImportState", if is_held { "IMPORTED" } else { "PENDING_IMPORT" }.into());
        if is_held {
            set("ExpirationModel", expiration_model(material.expires_ms).into());
        }
        if let Some(expires_ms) = material.expires_ms.filter(|_| is_held) {
            set("ValidTo", seconds(expires_ms));
        }
        if let Some(description) = &material.description {
            set("KeyMaterialDescription", description.clone().into());
        }
    }
    if is_rotation && material.state != MaterialState::PendingRotation {
        set("RotationDate", seconds(material.created_ms));
        let how = if material.is_automatic { "AUTOMATIC" } else { "ON_DEMAND" };
        set("RotationType", how.into());
    }
    Value::Object(fields)
}

fn check_not_in_store(target: &Target) -> Answer<()> {
    if matches!(target.info.origin, KeyOrigin::Store { .. }) {
        let arn = &target.arn;
        return Err(unsupported(format!("{arn} lies in a key store of its tenant's own.")));
    }
    Ok(())
}
