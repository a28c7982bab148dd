//! Import of key material: the token that a tenant brings back, and what it unwraps.
//!
//! ```text
//! token:    1  format 0x01   12  nonce (random)   sealed   16  tag
//! sealed:   1  algorithm (1 OAEP, 2 OAEP with AES key wrap)   8  valid to, ms   PKCS #8 key
//! ```
//! The key is `KDF(node secret, "import-token", "", 32)`; the associated data is
//! `SHA-256(CTX{k: tenant key, t: tenant})`.
//! Owns: tokens, RSA and RFC 5649. Knows nothing of: states, records, what material is expected.
//!
//! Invariants
//! - The private key is in the token and nowhere else: nothing is kept between the two calls.
//! - A token is for one tenant key, and for 24 hours.
//! - The RSA key comes from aws-lc-rs and its generator, which the kernel seeds: it protects a
//!   transport of 24 hours, and no data.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::derive::kdf;
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::record::take;
use crate::secret::{NodeSecret, TenantKey, copy_of};
use crate::types::{TenantId, TenantKeyId, context_digest};

/// How long import parameters are good: AWS KMS's own limit.
pub const IMPORT_VALIDITY_MS: u64 = 24 * 60 * 60 * 1000;
/// Longest token: a PKCS #8 key of 4,096 bits has 2.4 KiB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest encrypted material: an RSA block and a wrapped key, with room for wrong ones.
const ENCRYPTED_BYTES_MAX: usize = 6 * 1024;
const FORMAT: u8 = 0x01;

/// How imported material is wrapped by the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportAlgorithm {
    /// `RSAES_OAEP_SHA_256`.
    RsaOaepSha256,
    /// `RSA_AES_KEY_WRAP_SHA_256`.
    RsaAesKeyWrapSha256,
}

/// What a tenant needs to import material.
pub struct ImportParameters {
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    /// Opaque; has to come back with the material.
    pub token: Vec<u8>,
    /// When both end, in Unix milliseconds: 24 hours.
    pub valid_to_ms: u64,
}

/// Which key a token is for.
#[derive(Clone, Copy)]
pub(crate) struct TokenScope {
    pub(crate) tenant: TenantId,
    pub(crate) tenant_key: TenantKeyId,
}

impl TokenScope {
    fn aad(self) -> [u8; 32] {
        context_digest(&[(b"k", self.tenant_key.as_bytes()), (b"t", self.tenant.as_bytes())])
    }
}

/// Makes a key pair and the token that holds its private half. Takes up to seconds.
///
/// # Errors
/// [`ErrorKind::Misuse`]: `modulus_bits` is not 2048, 3072 or 4096.
pub(crate) fn make_parameters(
    node_secret: &NodeSecret,
    scope: TokenScope,
    (algorithm, modulus_bits): (ImportAlgorithm, u16),
    (now_ms, rng): (u64, &Arc<dyn Rng>),
) -> Result<ImportParameters> {
    let size = match modulus_bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => {
            let during = format!("make an RSA key of {modulus_bits} bits");
            return Err(Error::new(ErrorKind::Misuse, during));
        }
    };
    let failed = |_| Error::new(ErrorKind::Unavailable, "make an RSA key");
    let private_key = PrivateDecryptingKey::generate(size).map_err(failed)?;
    let public_key = private_key.public_key();
    let public_key: PublicKeyX509Der<'_> = public_key.as_der().map_err(failed)?;
    let pkcs8: Pkcs8V1Der<'_> = private_key.as_der().map_err(failed)?;
    let valid_to_ms = now_ms.saturating_add(IMPORT_VALIDITY_MS);
    let mut payload = Zeroizing::new(Vec::with_capacity(9 + pkcs8.as_ref().len()));
    payload.push(algorithm_code(algorithm));
    payload.extend_from_slice(&valid_to_ms.to_be_bytes());
    payload.extend_from_slice(pkcs8.as_ref());
    let nonce: Nonce = random_array(&**rng);
    let mut token = vec![FORMAT];
    token.extend_from_slice(&nonce);
    token.resize(1 + NONCE_BYTES + payload.len(), 0);
    let (_, body) = token.split_at_mut(1 + NONCE_BYTES);
    let tag =
        aead::encrypt_to(&token_key(node_secret), &nonce, &scope.aad(), (payload.as_slice(), body));
    token.extend_from_slice(&tag);
    Ok(ImportParameters { public_key: public_key.as_ref().to_vec(), token, valid_to_ms })
}

/// Opens a token and unwraps the material that came with it.
///
/// # Errors
/// [`ErrorKind::ImportToken`]: no token of this key. [`ErrorKind::ImportExpired`]: its time is
/// over. [`ErrorKind::InvalidCiphertext`]: the material is not wrapped under its public key in its
/// algorithm. [`ErrorKind::IncorrectMaterial`]: it is not 32 bytes.
pub(crate) fn open_material(
    node_secret: &NodeSecret,
    scope: TokenScope,
    (token, encrypted): (&[u8], &[u8]),
    now_ms: u64,
) -> Result<TenantKey> {
    let payload = open_token(node_secret, scope, token)
        .ok_or_else(|| Error::new(ErrorKind::ImportToken, "open an import token"))?;
    let mut rest = payload.as_slice();
    let parts = (take::<1>(&mut rest), take::<8>(&mut rest).map(u64::from_be_bytes));
    let (Some([algorithm]), Some(valid_to_ms)) = parts else {
        return Err(Error::new(ErrorKind::ImportToken, "read an import token"));
    };
    if now_ms >= valid_to_ms {
        return Err(Error::new(ErrorKind::ImportExpired, "use an import token"));
    }
    let material = unwrap_material(algorithm, rest, encrypted)
        .ok_or_else(|| Error::new(ErrorKind::InvalidCiphertext, "unwrap imported material"))?;
    let bytes: &[u8; 32] = material.as_slice().try_into().map_err(|_| {
        let during = format!("import material of {} bytes", material.len());
        Error::new(ErrorKind::IncorrectMaterial, during)
    })?;
    TenantKey::fill_with(copy_of(bytes))
}

fn open_token(
    node_secret: &NodeSecret,
    scope: TokenScope,
    token: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (&[format], rest) = token.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    if format != FORMAT || token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut payload = Zeroizing::new(vec![0; body.len()]);
    let message: (&[u8], &Tag, &mut [u8]) = (body, tag, &mut payload);
    aead::decrypt_to(&token_key(node_secret), nonce, &scope.aad(), message).ok()?;
    Some(payload)
}

fn unwrap_material(algorithm: u8, pkcs8: &[u8], encrypted: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if encrypted.len() > ENCRYPTED_BYTES_MAX {
        return None;
    }
    let private_key = PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?;
    let block_bytes = private_key.key_size_bytes();
    let oaep = OaepPrivateDecryptingKey::new(private_key).ok()?;
    let (block, wrapped) = encrypted.split_at_checked(block_bytes)?;
    let mut opened = Zeroizing::new(vec![0; oaep.min_output_size()]);
    let length = oaep.decrypt(&OAEP_SHA256_MGF1SHA256, block, &mut opened, None).ok()?.len();
    let (opened, _) = opened.split_at_checked(length)?;
    if algorithm == algorithm_code(ImportAlgorithm::RsaOaepSha256) {
        return wrapped.is_empty().then(|| Zeroizing::new(opened.to_vec()));
    }
    let cipher = match opened.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return None,
    };
    let kek = AesKek::new(cipher, opened).ok()?;
    // RFC 5649: at least two blocks of eight bytes, the plaintext is shorter by one.
    let mut out = Zeroizing::new(vec![0; wrapped.len()]);
    let length = kek.unwrap_with_padding(wrapped, &mut out).ok()?.len();
    let (head, tail) = out.split_at_mut_checked(length)?;
    tail.zeroize();
    Some(Zeroizing::new(head.to_vec()))
}

const fn algorithm_code(algorithm: ImportAlgorithm) -> u8 {
    match algorithm {
        ImportAlgorithm::RsaOaepSha256 => 1,
        ImportAlgorithm::RsaAesKeyWrapSha256 => 2,
    }
}

fn token_key(node_secret: &NodeSecret) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    kdf(&node_secret.borrow(), b"import-token", [], derived.as_mut_slice());
    derived
}
