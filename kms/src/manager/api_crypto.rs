//! The KMS API's own cryptography: encrypt, decrypt, data keys; and how much was encrypted.
//!
//! Owns: the counters of API ciphertexts. Knows nothing of: who calls, what is encrypted.
//!
//! Invariants
//! - Every verb takes a permit and works inside its guard.
//! - A ciphertext is counted, durably, before it leaves: counts are reserved in steps of
//!   [`COUNT_STEP`], so that a crash counts too many and never too few.

use zeroize::Zeroizing;

use super::{KeyEntry, Kms, lock, read};
use crate::api_ciphertext::{API_PLAINTEXT_BYTES_MAX, ApiCiphertext, api_context};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::UnwrapPermit;
use crate::keyring::Room;
use crate::types::{EncryptionContext, TenantId, TenantKeyId};

/// Ciphertexts counted with one flush of the journal.
const COUNT_STEP: u64 = 1024;
/// Longest data key of the API: AWS KMS's own limit.
pub const API_DATA_KEY_BYTES_MAX: usize = 1024;

/// API ciphertexts under one material.
#[derive(Clone, Copy, Default)]
pub(super) struct ApiCount {
    used: u64,
    /// What the directory holds; at least `used`.
    reserved: u64,
}

impl Kms {
    /// Encrypts up to 4,096 bytes under the current material, bound to `context`.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyUnusable`]: the
    /// gate is closed. [`ErrorKind::Misuse`]: nothing to encrypt, or more than that.
    /// [`ErrorKind::Unavailable`]: the ciphertext could not be counted.
    pub fn encrypt(
        &self,
        permit: &UnwrapPermit,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>> {
        if !(1..=API_PLAINTEXT_BYTES_MAX).contains(&plaintext.len()) {
            let during = format!("encrypt {} bytes", plaintext.len());
            return Err(Error::new(ErrorKind::Misuse, during));
        }
        let entry = self.permitted_entry(permit)?;
        let digest = api_context(permit.tenant(), context);
        let rng = &*self.env.rng;
        loop {
            let current = entry.record().current().map_or(0, |current| current.number);
            // Outside the guard: a closing gate does not wait for the disk.
            self.count_ciphertext(&entry, permit.tenant(), permit.tenant_key(), current)?;
            let outer = self.outer_secret(&entry, Some(current))?;
            let _in_flight = permit.enter()?;
            let blob = self.with_material(&entry, (None, outer.as_ref()), |held, material| {
                let name = (permit.tenant_key(), held.number);
                let blob =
                    || ApiCiphertext::seal(&material.borrow(), name, &digest, (plaintext, rng));
                Ok((held.number == current).then(blob))
            })?;
            // A rotation came between: what was counted stays counted, under the older material.
            if let Some(blob) = blob {
                return Ok(blob.as_bytes().to_vec());
            }
        }
    }

    /// Decrypts what [`Self::encrypt`] made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidCiphertext`]: not under this key, in this context, or damaged.
    /// [`ErrorKind::KeyDestroyed`]: its material was retired. And as [`Self::encrypt`].
    pub fn decrypt(
        &self,
        permit: &UnwrapPermit,
        ciphertext: &ApiCiphertext,
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let entry = self.permitted_entry(permit)?;
        let number = ciphertext.material();
        let invalid = || {
            let during = format!("decrypt under material {number} of {}", permit.tenant_key());
            Error::new(ErrorKind::InvalidCiphertext, during)
        };
        let is_known = entry.record().materials.iter().any(|held| held.number == number);
        let is_ours = ciphertext.tenant_key() == permit.tenant_key() && is_known;
        let outer = if is_ours { self.outer_secret(&entry, Some(number))? } else { None };
        let _in_flight = permit.enter()?;
        if ciphertext.tenant_key() != permit.tenant_key() || !is_known {
            return Err(invalid());
        }
        let digest = api_context(permit.tenant(), context);
        self.with_material(&entry, (Some(number), outer.as_ref()), |_, material| {
            ciphertext.open(&material.borrow(), &digest).ok_or_else(invalid)
        })
    }

    /// `bytes` (1 to 1,024) of randomness, in clear and as [`Self::encrypt`] gives them.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: another number of bytes. And as [`Self::encrypt`].
    pub fn generate_data_key(
        &self,
        permit: &UnwrapPermit,
        bytes: usize,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>)> {
        if !(1..=API_DATA_KEY_BYTES_MAX).contains(&bytes) {
            return Err(Error::new(ErrorKind::Misuse, format!("make a data key of {bytes} bytes")));
        }
        let mut plain = Zeroizing::new(vec![0; bytes]);
        self.env.rng.fill(&mut plain);
        let blob = self.encrypt(permit, &plain, context)?;
        Ok((plain, blob))
    }

    /// For each material, how many API ciphertexts were made under it; after a restart up to 1,023
    /// too many, and never too few.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    pub fn api_ciphertexts(&self, tenant: TenantId, id: TenantKeyId) -> Result<Vec<(u32, u64)>> {
        let entry = self.entry(tenant, id)?;
        let numbers: Vec<u32> = entry.record().materials.iter().map(|held| held.number).collect();
        let counts = lock(&entry.api_counts);
        let count_of = |number| {
            let count = counts.get(&number).copied();
            count.map_or_else(|| self.durable_count(tenant, id, number), |count| count.used)
        };
        Ok(numbers.into_iter().map(|number| (number, count_of(number))).collect())
    }

    fn count_ciphertext(
        &self,
        entry: &KeyEntry,
        tenant: TenantId,
        id: TenantKeyId,
        number: u32,
    ) -> Result<()> {
        let mut counts = lock(&entry.api_counts);
        let count = counts.entry(number).or_insert_with(|| {
            let reserved = self.durable_count(tenant, id, number);
            ApiCount { used: reserved, reserved }
        });
        if count.used == count.reserved {
            let reserved = count.reserved + COUNT_STEP;
            let value = Some(reserved.to_be_bytes().to_vec());
            self.write_entries(tenant, vec![(count_name(id, number), value)], Room::Ending)?;
            count.reserved = reserved;
        }
        count.used += 1;
        Ok(())
    }

    fn durable_count(&self, tenant: TenantId, id: TenantKeyId, number: u32) -> u64 {
        let value = read(&self.directory).value(tenant, &count_name(id, number));
        let bytes = value.and_then(|value| value.first_chunk().copied());
        bytes.map_or(0, u64::from_be_bytes)
    }
}

fn count_name(id: TenantKeyId, number: u32) -> Vec<u8> {
    format!("k/{id}/count/{number}").into_bytes()
}

#[cfg(test)]
mod tests;
