//! Keys themselves: create, describe, list, switch off and on, delete.
//!
//! Owns: the fields of those operations and `KeyMetadata`. Knows nothing of: how a key is kept.
//!
//! Invariants
//! - `DisableKey` answers when nothing is made or read under the key any more.
//! - A destroyed key answers as one that never was; its report outlives it.

use kluis_kms::{KeyOrigin, KeyState, MaterialState, TenantKeyId, TenantKeyInfo};
use serde_json::{Map, Value, json};

use super::access::of_policy;
use super::call::{Accept, Call, Target};
use super::error::{Answer, KmsError, invalid, of_key, unsupported};
use super::fields::Length;
use super::names::{key_entry, uuid};
use super::page::Page;
use super::policies;
use super::reply::{Reply, seconds};
use super::tags;

/// The longest description (AWS).
const DESCRIPTION_CHARS_MAX: usize = 8_192;
/// The waiting period before a deletion, in days (AWS).
const PENDING_DAYS: (i64, i64) = (7, 30);
/// The waiting period if the caller names none (AWS).
const PENDING_DAYS_DEFAULT: u16 = 30;
/// The only kind of key that there is.
pub(super) const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
/// The only use of it.
const ENCRYPT_DECRYPT: &str = "ENCRYPT_DECRYPT";
/// Every use that AWS knows.
const USAGES: [&str; 5] = [
    "SIGN_VERIFY",
    ENCRYPT_DECRYPT,
    "GENERATE_VERIFY_MAC",
    "KEY_AGREEMENT",
    "ENCAPSULATE_DECAPSULATE",
];
/// Every kind of key that AWS knows.
const SPECS: [&str; 20] = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    SYMMETRIC,
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
    "ML_KEM_512",
    "ML_KEM_768",
    "ML_KEM_1024",
];
/// Every place that AWS knows for a key's material to come from.
const ORIGINS: [&str; 4] = ["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];
/// Operations that AWS reports as the last use of a key.
const TRACKED: [&str; 6] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncrypt",
    "Verify",
];

/// `CreateKey`.
pub(super) fn create(call: &Call) -> Answer<Reply> {
    let fields = &call.fields;
    let description = fields.text("Description", DESCRIPTION)?.unwrap_or_default().to_owned();
    check_spec(call)?;
    let origin = origin(call)?;
    if fields.flag("MultiRegion")? {
        return Err(unsupported("Keys of several regions are not supported."));
    }
    let policy = policies::text(call)?.map(str::to_owned);
    let bypass = fields.flag("BypassPolicyLockoutSafetyCheck")?;
    let tags = tags::read(call)?;
    tags::check_new(&tags, tags.len())?;
    let conditions = || {
        vec![
            ("kms:BypassPolicyLockoutSafetyCheck", vec![bypass.to_string()]),
            ("kms:KeyOrigin", vec![origin_name(&origin).to_owned()]),
            ("kms:KeySpec", vec![SYMMETRIC.to_owned()]),
            ("kms:KeyUsage", vec![ENCRYPT_DECRYPT.to_owned()]),
        ]
    };
    call.authorise_with(None, conditions())?;
    let told = call.told(false);
    let policies = &call.api.policies;
    let policy = policies.check_new_policy(told.asker(), policy.as_deref(), bypass);
    let policy = policy.map_err(|cause| of_policy(cause, "The new key"))?;
    // The key, its policy, tags and description are there together or not at all.
    let beside = |id| {
        let mut changes: Vec<_> = policy.into_entry(id).into_iter().collect();
        if !description.is_empty() {
            changes.push((key_entry(id, "description"), Some(description.into_bytes())));
        }
        if !tags.is_empty() {
            changes.push((key_entry(id, "tags"), Some(tags::encode(&tags))));
        }
        changes
    };
    let made = call.api.kms.create_key_with(&call.purpose(), origin, beside);
    let target = call.target_of(made.map_err(|cause| of_key(&cause, "The new key"))?);
    Ok(Reply::default().with("KeyMetadata", metadata(call, &target)))
}

const DESCRIPTION: Length = Length { min: 0, max: DESCRIPTION_CHARS_MAX };

fn check_spec(call: &Call) -> Answer<()> {
    let usage = call.fields.one_of("KeyUsage", &USAGES)?.unwrap_or(ENCRYPT_DECRYPT);
    let spec = call.fields.one_of("KeySpec", &SPECS)?;
    let old_spec = call.fields.one_of("CustomerMasterKeySpec", &SPECS)?;
    if spec.is_some() && old_spec.is_some() {
        return Err(invalid(
            "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. \
             CustomerMasterKeySpec is deprecated.",
        ));
    }
    let spec = spec.or(old_spec).unwrap_or(SYMMETRIC);
    if spec != SYMMETRIC {
        return Err(unsupported(format!("Keys of KeySpec {spec} are not supported.")));
    }
    if usage != ENCRYPT_DECRYPT {
        return Err(invalid(format!("KeyUsage {usage} is not compatible with KeySpec {spec}")));
    }
    Ok(())
}

fn origin(call: &Call) -> Answer<KeyOrigin> {
    let origin = call.fields.one_of("Origin", &ORIGINS)?.unwrap_or("AWS_KMS");
    let store = call.fields.text("CustomKeyStoreId", Length::up_to(64))?;
    let is_key_char = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    let pattern = (is_key_char as fn(char) -> bool, "^[a-zA-Z0-9-_.]+$");
    let store_key = call.fields.matching("XksKeyId", Length::up_to(128), pattern)?;
    match (origin, store, store_key) {
        ("AWS_KMS", None, None) => Ok(KeyOrigin::Local),
        ("EXTERNAL", None, None) => Ok(KeyOrigin::Imported),
        ("EXTERNAL_KEY_STORE", Some(store), Some(name)) => {
            Ok(KeyOrigin::Store { store: store.to_owned(), key: name.to_owned() })
        }
        ("EXTERNAL_KEY_STORE", ..) => {
            Err(invalid("Origin EXTERNAL_KEY_STORE needs a CustomKeyStoreId and an XksKeyId."))
        }
        ("AWS_CLOUDHSM", ..) => Err(unsupported("Origin AWS_CLOUDHSM is not supported.")),
        _ => Err(invalid(format!(
            "Origin {origin} takes neither a CustomKeyStoreId nor an XksKeyId."
        ))),
    }
}

/// `DescribeKey`.
pub(super) fn describe(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Aliases)?;
    call.authorise(Some(&target))?;
    Ok(Reply::default().with("KeyMetadata", metadata(call, &target)))
}

/// `ListKeys`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let page = Page::of("ListKeys", &call.fields)?;
    let owners = call.fields.texts("ResourceOwners", (1, 2), Length::up_to(64))?;
    for owner in owners.iter().flatten() {
        super::fields::one_of("resourceOwners", owner, &["SELF", "OTHER_ACCOUNTS_VIA_RAM"])?;
    }
    call.authorise(None)?;
    // Nobody shares keys with another account here.
    let is_own = owners.is_none_or(|owners| owners.contains(&"SELF"));
    let mut infos = if is_own { call.api.kms.list(call.user.tenant) } else { Vec::new() };
    infos.retain(|info| info.state != KeyState::Destroyed);
    infos.sort_unstable_by_key(|info| info.id);
    let names = call.names();
    let items = infos.iter().map(|info| {
        let shown = json!({"KeyId": uuid(info.id), "KeyArn": names.key_arn(info.id)});
        (info.id.as_bytes().to_vec(), shown)
    });
    Ok(page.cut("Keys", items).into())
}

/// `UpdateKeyDescription`.
pub(super) fn update_description(call: &Call) -> Answer<Reply> {
    let description = call.fields.required_text("Description", DESCRIPTION)?;
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    target.check_not_pending_deletion()?;
    let value = (!description.is_empty()).then(|| description.as_bytes().to_vec());
    call.set_entries(Some(&target), vec![(key_entry(target.id(), "description"), value)])?;
    Ok(Reply::default())
}

/// `EnableKey`.
pub(super) fn enable(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    check_switchable(&target)?;
    let done = call.api.kms.enable(&call.purpose(), target.id());
    done.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default())
}

/// `DisableKey`.
pub(super) fn disable(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    // A key whose store does not answer can be switched off all the same.
    if target.info.state != KeyState::Unavailable {
        check_switchable(&target)?;
    }
    let done = call.api.kms.disable(&call.purpose(), target.id());
    done.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default())
}

fn check_switchable(target: &Target) -> Answer<()> {
    if target.info.state == KeyState::Disabled { Ok(()) } else { target.check_enabled() }
}

/// `ScheduleKeyDeletion`.
pub(super) fn schedule_deletion(call: &Call) -> Answer<Reply> {
    let days = call.fields.integer("PendingWindowInDays", PENDING_DAYS)?;
    let days = days.and_then(|days| u16::try_from(days).ok()).unwrap_or(PENDING_DAYS_DEFAULT);
    let target = call.target("KeyId", Accept::Ids)?;
    let window = ("kms:ScheduleKeyDeletionPendingWindowInDays", vec![days.to_string()]);
    call.authorise_with(Some(&target), vec![window])?;
    target.check_not_pending_deletion()?;
    let due = call.api.kms.schedule_deletion(&call.purpose(), target.id(), days);
    let due = due.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default()
        .with("KeyId", target.arn)
        .with("DeletionDate", seconds(due))
        .with("KeyState", "PendingDeletion")
        .with("PendingWindowInDays", days))
}

/// `CancelKeyDeletion`.
pub(super) fn cancel_deletion(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    if target.info.state != KeyState::PendingDeletion {
        let message = format!("{} is not pending deletion.", target.arn);
        return Err(KmsError::new("KMSInvalidStateException", message));
    }
    let done = call.api.kms.cancel_deletion(&call.purpose(), target.id());
    done.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default().with("KeyId", target.arn))
}

/// `GetKeyLastUsage`.
pub(super) fn last_usage(call: &Call) -> Answer<Reply> {
    let target = call.target("KeyId", Accept::Ids)?;
    call.authorise(Some(&target))?;
    let usage = call.api.kms.last_usage(call.user.tenant, target.id()).map(
        |(when_ms, action)| json!({"Operation": tracked(action), "Timestamp": seconds(when_ms)}),
    );
    Ok(Reply::default()
        .with("KeyId", uuid(target.id()))
        .with("TrackingStartDate", seconds(call.api.started_ms))
        .with("KeyCreationDate", seconds(target.info.created_ms))
        .with_some("KeyLastUsage", usage))
}

/// The operation of AWS KMS that a call stands for: S3 decrypts to read and makes data keys to
/// write, as AWS S3 does with AWS KMS.
fn tracked(action: &str) -> &'static str {
    let name = action.strip_prefix("kms:").unwrap_or(action);
    if let Some(known) = TRACKED.iter().find(|known| **known == name) {
        return known;
    }
    let is_write = ["s3:Put", "s3:Create", "s3:Copy", "s3:Upload", "s3:Complete"];
    if is_write.iter().any(|prefix| action.starts_with(prefix)) {
        return "GenerateDataKey";
    }
    if name.starts_with("ReEncrypt") { "ReEncrypt" } else { "Decrypt" }
}

/// `KeyMetadata` of a key.
fn metadata(call: &Call, target: &Target) -> Value {
    let info = &target.info;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("AWSAccountId", call.user.account_id.to_string().into());
    set("KeyId", uuid(info.id).into());
    set("Arn", target.arn.clone().into());
    set("CreationDate", seconds(info.created_ms));
    set("Enabled", (info.state == KeyState::Enabled).into());
    set("Description", description(call, info.id).into());
    set("KeyUsage", ENCRYPT_DECRYPT.into());
    set("KeyState", info.state.to_string().into());
    set("KeyManager", "CUSTOMER".into());
    set("CustomerMasterKeySpec", SYMMETRIC.into());
    set("KeySpec", SYMMETRIC.into());
    set("EncryptionAlgorithms", json!([SYMMETRIC]));
    set("MultiRegion", false.into());
    set("Origin", origin_name(&info.origin).into());
    if let (KeyState::PendingDeletion, Some(due)) = (info.state, info.deletion_ms) {
        set("DeletionDate", seconds(due));
    }
    if let KeyOrigin::Store { store, key } = &info.origin {
        set("CustomKeyStoreId", store.clone().into());
        set("XksKeyConfiguration", json!({"Id": key}));
    }
    let held =
        |state: MaterialState| matches!(state, MaterialState::Current | MaterialState::Previous);
    let current = info.materials.iter().find(|it| it.number == info.current_material);
    if let Some(current) = current.filter(|it| held(it.state)) {
        set("CurrentKeyMaterialId", hex::encode(current.id).into());
    }
    if info.origin == KeyOrigin::Imported && info.state != KeyState::PendingImport {
        let materials = info.materials.iter().filter(|it| held(it.state));
        let valid_to = materials.filter_map(|it| it.expires_ms).min();
        set("ExpirationModel", expiration_model(valid_to).into());
        if let Some(valid_to) = valid_to {
            set("ValidTo", seconds(valid_to));
        }
    }
    Value::Object(fields)
}

/// `ExpirationModel` of material that expires then, or never.
pub(super) fn expiration_model(expires_ms: Option<u64>) -> &'static str {
    match expires_ms {
        Some(_) => "KEY_MATERIAL_EXPIRES",
        None => "KEY_MATERIAL_DOES_NOT_EXPIRE",
    }
}

fn description(call: &Call, id: TenantKeyId) -> String {
    let value = call.api.kms.entry_value(call.user.tenant, &key_entry(id, "description"));
    value.map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default()
}

fn origin_name(origin: &KeyOrigin) -> &'static str {
    match origin {
        KeyOrigin::Local => "AWS_KMS",
        KeyOrigin::Imported => "EXTERNAL",
        KeyOrigin::Store { .. } => "EXTERNAL_KEY_STORE",
    }
}

/// Refuses a key whose material is not made here.
pub(super) fn check_origin(info: &TenantKeyInfo, arn: &str, wanted: &KeyOrigin) -> Answer<()> {
    if info.origin == *wanted {
        return Ok(());
    }
    let (is, needed) = (origin_name(&info.origin), origin_name(wanted));
    Err(unsupported(format!(
        "{arn} origin is {is} which is not valid for this operation; it needs {needed}."
    )))
}
