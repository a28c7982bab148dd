//! Import of key material: parameters, import, deletion.
//!
//! Owns: the fields of those operations. Knows nothing of: how material is unwrapped.

use std::sync::PoisonError;

use kluis_kms::{ImportAlgorithm, ImportRequest, KeyOrigin};

use super::Turn;
use super::access::Conditions;
use super::call::{Accept, Call, Target};
use super::error::{Answer, invalid, of_key, throttled, unsupported};
use super::fields::{Fields, Length, missing};
use super::keys::{check_origin, expiration_model};
use super::reply::{Reply, seconds};
use crate::auth::amz_date::AmzDate;

/// The longest import token, and the longest wrapped material (AWS).
const WRAPPED_BYTES_MAX: usize = 6_144;
/// How far off an expiry may be (AWS: 365 days).
const EXPIRY_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;
/// Every wrapping algorithm that AWS knows.
const ALGORITHMS: [&str; 6] = [
    "RSAES_PKCS1_V1_5",
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "RSA_AES_KEY_WRAP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256",
    "SM2PKE",
];

fn target(call: &Call, conditions: Conditions) -> Answer<Target> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise_with(Some(&target), conditions)?;
    check_origin(&target.info, &target.arn, &KeyOrigin::Imported)?;
    Ok(target)
}

/// `GetParametersForImport`.
pub(super) fn parameters(call: &Call) -> Answer<Reply> {
    let algorithm = call.fields.one_of("WrappingAlgorithm", &ALGORITHMS)?;
    let algorithm = algorithm.ok_or_else(|| missing("WrappingAlgorithm"))?;
    let specs = ["RSA_2048", "RSA_3072", "RSA_4096", "SM2"];
    let spec = call.fields.one_of("WrappingKeySpec", &specs)?;
    let spec = spec.ok_or_else(|| missing("WrappingKeySpec"))?;
    let target = target(call, vec![("kms:WrappingAlgorithm", vec![algorithm.to_owned()])])?;
    let algorithm = match algorithm {
        "RSAES_OAEP_SHA_256" => ImportAlgorithm::RsaOaepSha256,
        "RSA_AES_KEY_WRAP_SHA_256" => ImportAlgorithm::RsaAesKeyWrapSha256,
        other => return Err(unsupported(format!("WrappingAlgorithm {other} is not supported."))),
    };
    let modulus_bits = match spec {
        "RSA_2048" => 2_048,
        "RSA_3072" => 3_072,
        "RSA_4096" => 4_096,
        other => return Err(unsupported(format!("WrappingKeySpec {other} is not supported."))),
    };
    target.check_not_pending_deletion()?;
    // An RSA key takes a core for up to seconds: one at a time on the node, and one of each tenant
    // that waits for it.
    let turn = Turn::take((&call.api.imports, 1), call.user.tenant).ok_or_else(throttled)?;
    let alone = call.api.import_keys.lock().unwrap_or_else(PoisonError::into_inner);
    let made =
        call.api.kms.import_parameters(&call.purpose(), target.id(), algorithm, modulus_bits);
    drop((alone, turn));
    let made = made.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default()
        .with("KeyId", target.arn)
        .with_blob("PublicKey", &made.public_key)
        .with_blob("ImportToken", &made.token)
        .with("ParametersValidTo", seconds(made.valid_to_ms)))
}

/// `ImportKeyMaterial`.
pub(super) fn import_material(call: &Call) -> Answer<Reply> {
    let token = call.fields.required_blob("ImportToken", WRAPPED_BYTES_MAX)?;
    let encrypted = call.fields.required_blob("EncryptedKeyMaterial", WRAPPED_BYTES_MAX)?;
    let expires_ms = expiry(call)?;
    let material_id = material_id(&call.fields)?;
    let types = ["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"];
    let kind = call.fields.one_of("ImportType", &types)?;
    let is_described = |it: char| {
        it.is_ascii_alphanumeric()
            || it.is_whitespace()
            || matches!(it, ':' | '/' | '_' | '.' | '-')
    };
    let pattern = (is_described as fn(char) -> bool, r"^[a-zA-Z0-9:/_\s.-]+$");
    let length = Length { min: 0, max: 256 };
    let description = call.fields.matching("KeyMaterialDescription", length, pattern)?;
    let mut conditions =
        vec![("kms:ExpirationModel", vec![expiration_model(expires_ms).to_owned()])];
    let valid_to = expires_ms.map(|expires_ms| AmzDate::from_unix_ms(expires_ms).extended());
    conditions.extend(valid_to.map(|valid_to| ("kms:ValidTo", vec![valid_to])));
    let target = target(call, conditions)?;
    target.check_not_pending_deletion()?;
    // A key that never had material takes its first either way.
    let has_none = target.info.materials.is_empty();
    let request = ImportRequest {
        expires_ms,
        is_new: kind == Some("NEW_KEY_MATERIAL") && !has_none,
        material_id,
        description: description.map(str::to_owned),
    };
    let imported =
        call.api.kms.import_material(&call.purpose(), target.id(), &token, &encrypted, request);
    let material = imported.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default().with("KeyId", target.arn).with("KeyMaterialId", hex::encode(material.id)))
}

/// When material expires. AWS has it expire unless the caller says that it does not.
fn expiry(call: &Call) -> Answer<Option<u64>> {
    let models = ["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"];
    let model = call.fields.one_of("ExpirationModel", &models)?;
    let valid_to = call.fields.time_ms("ValidTo")?;
    match (model, valid_to) {
        (Some("KEY_MATERIAL_DOES_NOT_EXPIRE"), None) => Ok(None),
        (Some("KEY_MATERIAL_DOES_NOT_EXPIRE"), Some(_)) => {
            Err(invalid("ValidTo is for ExpirationModel KEY_MATERIAL_EXPIRES."))
        }
        (_, None) => Err(invalid(
            "A validTo date must be set if the ExpirationModel is \
                                  KEY_MATERIAL_EXPIRES.",
        )),
        (_, Some(valid_to)) => {
            let now_ms = call.api.env.clock.now_ms();
            if valid_to <= now_ms {
                return Err(invalid("ValidTo must be in the future."));
            }
            if valid_to > now_ms.saturating_add(EXPIRY_MS_MAX) {
                return Err(invalid("ValidTo must be at most 365 days from now."));
            }
            Ok(Some(valid_to))
        }
    }
}

fn material_id(fields: &Fields) -> Answer<Option<[u8; 32]>> {
    let is_digit = |it: char| it.is_ascii_digit() || ('a'..='f').contains(&it);
    let pattern = (is_digit as fn(char) -> bool, "^[a-f0-9]+$");
    let text = fields.matching("KeyMaterialId", Length { min: 64, max: 64 }, pattern)?;
    let mut id = [0; 32];
    match text.map(|text| hex::decode_to_slice(text, &mut id)) {
        None => Ok(None),
        Some(Ok(())) => Ok(Some(id)),
        Some(Err(_)) => Err(invalid("KeyMaterialId is not 64 hexadecimal digits.")),
    }
}

/// `DeleteImportedKeyMaterial`.
pub(super) fn delete_material(call: &Call) -> Answer<Reply> {
    let material_id = material_id(&call.fields)?;
    let target = target(call, Vec::new())?;
    let current = target.info.materials.iter().find(|material| {
        material_id.map_or(material.number == target.info.current_material, |id| material.id == id)
    });
    let shown = current.map(|material| hex::encode(material.id));
    if material_id.is_some() && shown.is_none() {
        return Err(super::error::not_found("The key has no such key material."));
    }
    // AWS answers a deletion where nothing is left as one that succeeded. It is asked for all the
    // same: what a failing disk kept from being erased is erased now.
    let done = call.api.kms.delete_imported_material(&call.purpose(), target.id(), material_id);
    done.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default().with("KeyId", target.arn).with_some("KeyMaterialId", shown))
}
