//! Import of a tenant's own material: parameters, wrap under the node's public key, import.
//!
//! Owns: the client's side of the import. Knows nothing of: what the node does with the material.
//!
//! Invariants
//! - The material leaves this process only wrapped, and is wiped from it afterwards.

use std::path::{Path, PathBuf};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Found, text};
use crate::auth::amz_date::AmzDate;
use crate::cli::{Failure, Outcome};

/// A symmetric key of AWS's KMS has 256 bits.
const MATERIAL_BYTES: usize = 32;

/// What to import.
pub(super) struct Asked {
    pub(super) material: PathBuf,
    pub(super) expires: Option<String>,
    pub(super) is_new: bool,
}

pub(super) async fn run(mut found: Found, asked: &Asked, is_json: bool) -> Outcome {
    // Everything that can be wrong here is found before the node is asked for anything.
    let material = read(&asked.material)?;
    let expiry = asked.expires.as_deref().map(unix_seconds).transpose()?;
    let wanted = json!({
        "KeyId": found.id,
        "WrappingAlgorithm": "RSAES_OAEP_SHA_256",
        "WrappingKeySpec": "RSA_4096",
    });
    let parameters = found.api.call("TrentService.GetParametersForImport", &wanted).await?;
    let public = STANDARD.decode(text(&parameters, "PublicKey")).map_err(strange)?;
    let wrapped = STANDARD.encode(wrap(&public, &material)?);
    let mut input = json!({
        "KeyId": found.id,
        "ImportToken": text(&parameters, "ImportToken"),
        "EncryptedKeyMaterial": wrapped,
        "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
    });
    let mut set = |name: &str, value: Value| {
        if let Some(input) = input.as_object_mut() {
            input.insert(name.to_owned(), value);
        }
    };
    if let Some(seconds) = expiry {
        set("ExpirationModel", "KEY_MATERIAL_EXPIRES".into());
        set("ValidTo", seconds.into());
    }
    if asked.is_new {
        set("ImportType", "NEW_KEY_MATERIAL".into());
    }
    found.api.call("TrentService.ImportKeyMaterial", &input).await?;
    found.print(is_json).await
}

fn strange(error: impl std::fmt::Display) -> Failure {
    Failure::could_not_run(format!("the node's public key is not understood: {error}"))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let named = |what: &dyn std::fmt::Display| {
        Failure::could_not_run(format!("{}: {what}", path.display()))
    };
    let length = std::fs::metadata(path).map_err(|error| named(&error))?.len();
    if length != MATERIAL_BYTES as u64 {
        let what = format!("a material has {MATERIAL_BYTES} bytes, and this file {length}");
        return Err(named(&what));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|error| named(&error))
}

/// The material under the node's public key, which comes as SubjectPublicKeyInfo.
pub(super) fn wrap(public: &[u8], material: &[u8]) -> Result<Vec<u8>, Failure> {
    let public = PublicEncryptingKey::from_der(public).map_err(strange)?;
    let public = OaepPublicEncryptingKey::new(public).map_err(strange)?;
    let mut wrapped = vec![0; public.ciphertext_size()];
    let filled = public
        .encrypt(&OAEP_SHA256_MGF1SHA256, material, &mut wrapped, None)
        .map_err(strange)?
        .len();
    wrapped.truncate(filled);
    Ok(wrapped)
}

/// `2027-01-31T12:00:00Z` in epoch seconds.
pub(super) fn unix_seconds(time: &str) -> Result<u64, Failure> {
    let wrong =
        || Failure::could_not_run(format!("{time} is not a time like 2027-01-31T12:00:00Z"));
    let basic: String = time.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    let date = AmzDate::parse_basic(&basic).ok_or_else(wrong)?;
    // The form is checked by writing the time back.
    let written = date.extended();
    if written == time { Ok(date.unix_ms() / 1_000) } else { Err(wrong()) }
}
