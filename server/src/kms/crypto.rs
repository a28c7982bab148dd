//! Uses of a key: encrypt, decrypt, data keys, random bytes.
//!
//! Owns: the fields of those operations. Knows nothing of: the form of a ciphertext but for the key
//! and material that it names.
//!
//! Invariants
//! - A ciphertext of another tenant answers as one that is damaged.
//! - Plaintext stands in buffers that are wiped.

use std::collections::BTreeMap;

use kluis_kms::{Access, ApiCiphertext, ErrorKind, KeyUse, TenantKeyId, UnwrapPermit};
use zeroize::Zeroizing;

use super::access::Conditions;
use super::call::{Accept, Call, Target, bound};
use super::error::{Answer, KmsError, internal, invalid, invalid_ciphertext, of_key, unsupported};
use super::fields::Length;
use super::keys::SYMMETRIC;
use super::reply::Reply;

/// The longest plaintext (AWS).
const PLAINTEXT_BYTES_MAX: usize = 4_096;
/// The longest ciphertext (AWS).
const CIPHERTEXT_BYTES_MAX: usize = 6_144;
/// Bytes of a data key, and of randomness (AWS).
const DRAWN_BYTES: (i64, i64) = (1, 1_024);
/// Every algorithm that AWS knows.
const ALGORITHMS: [&str; 4] = [SYMMETRIC, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"];

/// What a context is called and what it holds.
type Context = BTreeMap<String, String>;

fn check_algorithm(call: &Call, field: &str) -> Answer<()> {
    match call.fields.one_of(field, &ALGORITHMS)? {
        None | Some(SYMMETRIC) => Ok(()),
        Some(other) => Err(KmsError::new(
            "InvalidKeyUsageException",
            format!("Algorithm {other} is incompatible with key spec {SYMMETRIC}."),
        )),
    }
}

fn check_recipient(call: &Call) -> Answer<()> {
    if call.fields.has("Recipient") {
        return Err(unsupported("Recipients with an attestation document are not supported."));
    }
    Ok(())
}

/// Decides on a use of a key: right, then state. A refusal is noted in the audit trail.
fn check_use(
    call: &Call,
    action: &'static str,
    target: &Target,
    (context, key_use): (&Context, KeyUse),
) -> Answer<()> {
    check_use_with(call, action, target, (context, key_use, Vec::new()))
}

/// As [`check_use`], with values of condition keys.
fn check_use_with(
    call: &Call,
    action: &'static str,
    target: &Target,
    (context, key_use, conditions): (&Context, KeyUse, Conditions),
) -> Answer<()> {
    if let Err(refusal) = call.authorise_as(action, Some(target), (context, conditions)) {
        if refusal.code == "AccessDeniedException" {
            call.note_refused(action, target, key_use);
        }
        return Err(refusal);
    }
    target.check_enabled()
}

/// `Encrypt`.
pub(super) fn encrypt(call: &Call) -> Answer<Reply> {
    let plaintext = call.fields.required_blob("Plaintext", PLAINTEXT_BYTES_MAX)?;
    let context = call.fields.context("EncryptionContext")?;
    let bound = bound(&context)?;
    check_algorithm(call, "EncryptionAlgorithm")?;
    let target = call.target("KeyId", Accept::Aliases)?;
    check_use(call, call.operation.action, &target, (&context, KeyUse::Write))?;
    call.check_dry_run()?;
    let access = writing(&target);
    let permit = call.permit(call.operation.action, &target, access)?;
    let ciphertext = call.api.kms.encrypt(&permit, &plaintext, &bound);
    let ciphertext = ciphertext.map_err(|cause| of_key(&cause, &target.arn))?;
    Ok(Reply::default()
        .with_blob("CiphertextBlob", &ciphertext)
        .with("KeyId", target.arn)
        .with("EncryptionAlgorithm", SYMMETRIC))
}

fn writing(target: &Target) -> Access {
    Access { material: Some(target.info.current_material), ..Access::direct(KeyUse::Write) }
}

/// The ciphertext of a call, and the key that it is to be opened with.
struct Sealed {
    /// None in a dry run that leaves the ciphertext out.
    ciphertext: Option<ApiCiphertext>,
    target: Target,
}

impl Sealed {
    /// Finds the key of a ciphertext. `key_field` is where the caller may say which it expects.
    fn of(call: &Call, key_field: &str) -> Answer<Self> {
        let blob = call.fields.blob("CiphertextBlob", CIPHERTEXT_BYTES_MAX)?;
        let modifiers = call.fields.texts("DryRunModifiers", (0, 1), Length::up_to(64))?;
        for modifier in modifiers.iter().flatten() {
            super::fields::one_of("dryRunModifiers", modifier, &["IGNORE_CIPHERTEXT"])?;
        }
        let is_ignored = modifiers.is_some_and(|modifiers| !modifiers.is_empty());
        if is_ignored && !call.fields.flag("DryRun")? {
            return Err(invalid("DryRunModifiers are for a DryRun."));
        }
        let expected = call.optional_target(key_field, Accept::Aliases)?;
        if is_ignored {
            let target = expected.ok_or_else(|| super::fields::missing(key_field))?;
            return Ok(Self { ciphertext: None, target });
        }
        let blob = blob.ok_or_else(|| super::fields::missing("CiphertextBlob"))?;
        let ciphertext = ApiCiphertext::parse(&blob).map_err(|_| invalid_ciphertext())?;
        let info = call.api.kms.describe(call.user.tenant, ciphertext.tenant_key());
        let target = call.target_of(info.map_err(|_| invalid_ciphertext())?);
        let alias = expected.as_ref().and_then(|expected| expected.alias.clone());
        let target = Target { alias, ..target };
        if expected.is_some_and(|expected| expected.id() != target.id()) {
            let message = "The key ID in the request does not identify a CMK that can perform \
                           this operation.";
            return Err(KmsError::new("IncorrectKeyException", message));
        }
        Ok(Self { ciphertext: Some(ciphertext), target })
    }

    fn open(&self, call: &Call, action: &'static str, context: &Context) -> Answer<Opened> {
        let ciphertext = self.ciphertext.as_ref().ok_or_else(internal)?;
        let material = ciphertext.material();
        let access = Access { material: Some(material), ..Access::direct(KeyUse::Read) };
        let permit = call.permit(action, &self.target, access)?;
        let opened = call.api.kms.decrypt(&permit, ciphertext, &bound(context)?);
        let plaintext = opened.map_err(|cause| match cause.kind() {
            // Not this key, material or context, or damaged: AWS does not say which.
            ErrorKind::InvalidCiphertext | ErrorKind::NotFound => invalid_ciphertext(),
            ErrorKind::KeyDestroyed => KmsError::new(
                "KMSInvalidStateException",
                format!("Material {material} of {} was retired.", self.target.arn),
            ),
            _ => of_key(&cause, &self.target.arn),
        })?;
        let material = material_id(&self.target, material);
        Ok(Opened { plaintext, material, permit })
    }
}

/// What a ciphertext held.
struct Opened {
    plaintext: Zeroizing<Vec<u8>>,
    /// The id of its material.
    material: Option<String>,
    /// Void from the moment the key is switched off.
    permit: UnwrapPermit,
}

fn material_id(target: &Target, number: u32) -> Option<String> {
    let found = target.info.materials.iter().find(|material| material.number == number);
    found.map(|material| hex::encode(material.id))
}

/// `Decrypt`.
pub(super) fn decrypt(call: &Call) -> Answer<Reply> {
    let context = call.fields.context("EncryptionContext")?;
    check_algorithm(call, "EncryptionAlgorithm")?;
    check_recipient(call)?;
    let sealed = Sealed::of(call, "KeyId")?;
    check_use(call, call.operation.action, &sealed.target, (&context, KeyUse::Read))?;
    call.check_dry_run()?;
    let Opened { plaintext, material, .. } = sealed.open(call, call.operation.action, &context)?;
    Ok(Reply::default()
        .under(sealed.target.id())
        .with("KeyId", sealed.target.arn)
        .with("EncryptionAlgorithm", SYMMETRIC)
        .with_some("KeyMaterialId", material)
        .with_secret("Plaintext", plaintext))
}

/// `ReEncrypt`.
pub(super) fn re_encrypt(call: &Call) -> Answer<Reply> {
    const FROM: &str = "kms:ReEncryptFrom";
    const TO: &str = "kms:ReEncryptTo";
    let from_context = call.fields.context("SourceEncryptionContext")?;
    let to_context = call.fields.context("DestinationEncryptionContext")?;
    check_algorithm(call, "SourceEncryptionAlgorithm")?;
    check_algorithm(call, "DestinationEncryptionAlgorithm")?;
    let to = call.target("DestinationKeyId", Accept::Aliases)?;
    let from = Sealed::of(call, "SourceKeyId")?;
    let is_same = (from.target.id() == to.id()).to_string();
    let same = || vec![("kms:ReEncryptOnSameKey", vec![is_same.clone()])];
    check_use_with(call, FROM, &from.target, (&from_context, KeyUse::Read, same()))?;
    check_use_with(call, TO, &to, (&to_context, KeyUse::Write, same()))?;
    call.check_dry_run()?;
    let permit = call.permit(TO, &to, writing(&to))?;
    let opened = from.open(call, FROM, &from_context)?;
    let ciphertext = call.api.kms.encrypt(&permit, &opened.plaintext, &bound(&to_context)?);
    let ciphertext = ciphertext.map_err(|cause| of_key(&cause, &to.arn))?;
    // What was read under a key that was switched off meanwhile does not leave, under no key. The
    // guard is not held while sealing: a closing gate does not wait for a disk or a key store.
    drop(opened.permit.enter().map_err(|cause| of_key(&cause, &from.target.arn))?);
    Ok(Reply::default()
        .under(from.target.id())
        .with_blob("CiphertextBlob", &ciphertext)
        .with("SourceKeyId", from.target.arn)
        .with("KeyId", to.arn.clone())
        .with("SourceEncryptionAlgorithm", SYMMETRIC)
        .with("DestinationEncryptionAlgorithm", SYMMETRIC)
        .with_some("SourceKeyMaterialId", opened.material)
        .with_some("DestinationKeyMaterialId", sealed_under(&to, &ciphertext)))
}

/// The id of the material that a ciphertext of `target` names.
fn sealed_under(target: &Target, ciphertext: &[u8]) -> Option<String> {
    let material = ApiCiphertext::parse(ciphertext).ok()?.material();
    material_id(target, material)
}

/// `GenerateDataKey`.
pub(super) fn generate_data_key(call: &Call) -> Answer<Reply> {
    check_recipient(call)?;
    let (reply, plaintext, id) = data_key(call)?;
    Ok(reply.under(id).with_secret("Plaintext", plaintext))
}

/// `GenerateDataKeyWithoutPlaintext`.
pub(super) fn generate_data_key_without_plaintext(call: &Call) -> Answer<Reply> {
    data_key(call).map(|(reply, ..)| reply)
}

fn data_key(call: &Call) -> Answer<(Reply, Zeroizing<Vec<u8>>, TenantKeyId)> {
    let context = call.fields.context("EncryptionContext")?;
    let bound = bound(&context)?;
    let spec = call.fields.one_of("KeySpec", &["AES_256", "AES_128"])?;
    let count = drawn_bytes(call)?;
    let bytes = match (spec, count) {
        (Some("AES_256"), None) => 32,
        (Some(_), None) => 16,
        (None, Some(count)) => count,
        (None, None) | (Some(_), Some(_)) => {
            return Err(invalid("Please specify either number of bytes or key spec."));
        }
    };
    let target = call.target("KeyId", Accept::Aliases)?;
    check_use(call, call.operation.action, &target, (&context, KeyUse::Write))?;
    call.check_dry_run()?;
    let permit = call.permit(call.operation.action, &target, writing(&target))?;
    let made = call.api.kms.generate_data_key(&permit, bytes, &bound);
    let (plaintext, ciphertext) = made.map_err(|cause| of_key(&cause, &target.arn))?;
    let id = target.id();
    let reply = Reply::default()
        .with_blob("CiphertextBlob", &ciphertext)
        .with_some("KeyMaterialId", sealed_under(&target, &ciphertext))
        .with("KeyId", target.arn);
    Ok((reply, plaintext, id))
}

fn drawn_bytes(call: &Call) -> Answer<Option<usize>> {
    let count = call.fields.integer("NumberOfBytes", DRAWN_BYTES)?;
    Ok(count.and_then(|count| usize::try_from(count).ok()))
}

/// `GenerateRandom`.
pub(super) fn generate_random(call: &Call) -> Answer<Reply> {
    let bytes = drawn_bytes(call)?.ok_or_else(|| super::fields::missing("NumberOfBytes"))?;
    check_recipient(call)?;
    if call.fields.text("CustomKeyStoreId", Length::up_to(64))?.is_some() {
        let message = "Random bytes come from the node, not from a key store.";
        return Err(KmsError::new("CustomKeyStoreNotFoundException", message));
    }
    call.authorise(None)?;
    let mut drawn = Zeroizing::new(vec![0; bytes]);
    call.api.env.rng.fill(&mut drawn);
    Ok(Reply::default().with_secret("Plaintext", drawn))
}
