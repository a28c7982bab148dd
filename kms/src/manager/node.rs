//! What the node itself keeps under its secret: access-key secrets, and seals on its own records.
//!
//! `0x01 ‖ nonce (12, random) ‖ AEAD(KDF(node secret, "credential", tenant, 32), nonce,
//! SHA-256(CTX(aad)), secret)`
//! Owns: that layout, and MACs for the packages above. Knows nothing of: what is sealed or
//! authenticated.
//!
//! Invariants
//! - A credential opens only for its tenant and its associated data.
//! - A MAC made here never equals one that the keyring or the slot file uses: the labels differ.

use zeroize::Zeroizing;

use super::Kms;
use crate::aead::{self, Nonce, TAG_BYTES, Tag};
use crate::derive::{kdf, mac};
use crate::env::random_array;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{EncryptionContext, TenantId};

/// Longest credential: an access key's secret has 40 bytes, a session's a few hundred.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

const FORMAT: u8 = 0x01;

impl Kms {
    /// Seals a credential of a tenant, such as an access key's secret.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: longer than [`CREDENTIAL_BYTES_MAX`].
    pub fn seal_credential(
        &self,
        tenant: TenantId,
        aad: &EncryptionContext,
        secret: &[u8],
    ) -> Result<Vec<u8>> {
        if secret.len() > CREDENTIAL_BYTES_MAX {
            let during = format!("seal a credential of {} bytes", secret.len());
            return Err(Error::new(ErrorKind::Misuse, during));
        }
        let nonce: Nonce = random_array(&*self.env.rng);
        let mut body = vec![0; secret.len()];
        let message: (&[u8], &mut [u8]) = (secret, &mut body);
        let tag = aead::encrypt_to(&self.credential_key(tenant), &nonce, &aad.digest(), message);
        let mut sealed = Vec::with_capacity(1 + nonce.len() + body.len() + tag.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens a sealed credential; it is wiped on drop.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not sealed for this tenant and associated data, or damaged.
    pub fn open_credential(
        &self,
        tenant: TenantId,
        aad: &EncryptionContext,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "open a sealed credential");
        let (nonce, body, tag) = split(sealed).ok_or_else(corrupt)?;
        let mut secret = Zeroizing::new(vec![0; body.len()]);
        let message: (&[u8], &Tag, &mut [u8]) = (body, tag, &mut secret);
        aead::decrypt_to(&self.credential_key(tenant), nonce, &aad.digest(), message)
            .map_err(|_| corrupt())?;
        Ok(secret)
    }

    /// HMAC-SHA-256 of `data` under a key of this node, apart for every `label`.
    ///
    /// # Panics
    /// The label holds a zero byte: it could then be taken for another label.
    pub fn root_mac(&self, label: &str, data: &[u8]) -> [u8; 32] {
        assert!(!label.bytes().any(|byte| byte == 0), "a label holds no zero byte");
        mac(&self.mac_key.borrow(), &[b"node/", label.as_bytes(), &[0], data])
    }

    fn credential_key(&self, tenant: TenantId) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        kdf(&self.node_secret.borrow(), b"credential", [tenant.as_bytes()], derived.as_mut_slice());
        derived
    }
}

fn split(sealed: &[u8]) -> Option<(&Nonce, &[u8], &Tag)> {
    let (&[format], rest) = sealed.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let fits = format == FORMAT && body.len() <= CREDENTIAL_BYTES_MAX;
    fits.then_some((nonce, body, tag))
}
