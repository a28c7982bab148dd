//! Erasable slots: one random secret per material of a tenant key, in a file of their own.
//!
//! ```text
//! block 0:    8  magic "KLUISSL1"   16  keyring id   32  MAC
//! block 1+i:  4  magic "SLOT"    4  index    16  tenant key id    4  material    4  zero
//!            32  secret         32  MAC      the rest is zero
//! ```
//! A material's wrapping key is `Extract(slot secret, root key)`. Overwriting the slot makes the
//! material, and all beneath it, unreadable, whatever copies of the keyring or the database exist.
//! Owns: that file. Knows nothing of: what a tenant key is for.
//!
//! Invariants
//! - A slot is one 4 KiB block, so that overwriting it touches nothing else.
//! - It is durable before the keyring names it, and never part of a backup of the database.
//! - A damaged slot is told from an erased one.
//!   See docs/KEYS.md, "Erasable slots".

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::derive::mac;
use crate::error::{Error, ErrorKind, Result};
use crate::private_file::{self, io_error};
use crate::record::take;
use crate::secret::{MacSecret, SlotSecret, copy_of};
use crate::types::TenantKeyId;

/// Bytes of a slot: the block size of the file systems and disks in use.
pub(crate) const SLOT_BYTES: usize = 4096;
/// Most slots: 4 GiB of file, and a bound on what a damaged record can ask for.
pub(crate) const SLOTS_MAX: u32 = 1 << 20;

const FILE_MAGIC: &[u8; 8] = b"KLUISSL1";
const SLOT_MAGIC: &[u8; 4] = b"SLOT";
const HEAD_BYTES: usize = 32;
const USED_BYTES: usize = HEAD_BYTES + 32 + 32;

type Block = Zeroizing<[u8; SLOT_BYTES]>;

/// Which slot, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotName {
    pub(crate) index: u32,
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) material: u32,
}

impl SlotName {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let parts = SLOT_MAGIC.iter().copied().chain(self.index.to_be_bytes());
        let parts = parts.chain(*self.tenant_key.as_bytes()).chain(self.material.to_be_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }
}

/// The slot file.
pub(crate) struct SlotFile {
    file: File,
    path: PathBuf,
    keyring_id: [u8; 16],
}

impl SlotFile {
    /// Makes a file without slots.
    pub(crate) fn create(path: &Path, keyring_id: [u8; 16], mac_key: &MacSecret) -> Result<Self> {
        let file = private_file::create(path)?;
        let mut block: Block = Zeroizing::new([0; SLOT_BYTES]);
        let header = header_bytes(keyring_id, mac_key);
        for (to, from) in block.iter_mut().zip(header) {
            *to = from;
        }
        file.write_all_at(block.as_slice(), 0).map_err(|error| io_error("write", path, error))?;
        file.sync_all().map_err(|error| io_error("flush", path, error))?;
        private_file::sync_parent(path)?;
        Ok(Self { file, path: path.to_owned(), keyring_id })
    }

    /// Opens the file and checks that it belongs to this keyring.
    pub(crate) fn open(path: &Path, keyring_id: [u8; 16], mac_key: &MacSecret) -> Result<Self> {
        let file = private_file::open(path, true)?;
        let mut header = [0; 56];
        file.read_exact_at(&mut header, 0).map_err(|error| io_error("read", path, error))?;
        if !bool::from(header.ct_eq(&header_bytes(keyring_id, mac_key))) {
            let during = format!("open {}", path.display());
            return Err(Error::new(ErrorKind::Corrupt, during).with_advice(
                "the slot file is damaged or of another keyring: put the right one back",
            ));
        }
        Ok(Self { file, path: path.to_owned(), keyring_id })
    }

    /// Writes a slot. It is not durable before [`Self::sync`].
    pub(crate) fn write(
        &self,
        name: &SlotName,
        secret: &SlotSecret,
        mac_key: &MacSecret,
    ) -> Result<()> {
        let head = name.encode();
        let secret_bytes = secret.borrow();
        let slot_mac = self.slot_mac(&head, &secret_bytes, mac_key);
        let mut block: Block = Zeroizing::new([0; SLOT_BYTES]);
        let parts = head.iter().chain(secret_bytes.iter()).chain(&slot_mac);
        for (to, from) in block.iter_mut().zip(parts) {
            *to = *from;
        }
        self.write_block(name.index, &block)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| io_error("flush", &self.path, error))
    }

    /// Reads a slot's secret.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`]: the slot is erased. [`ErrorKind::Corrupt`]: it is damaged, or
    /// holds another material.
    pub(crate) fn read(&self, name: &SlotName, mac_key: &MacSecret) -> Result<SlotSecret> {
        let during = || format!("read slot {}", name.index);
        let mut used = Zeroizing::new([0; USED_BYTES]);
        self.file.read_exact_at(used.as_mut_slice(), slot_offset(name.index)?).map_err(
            |error| {
                // A disk that fails is not a slot that is damaged.
                let is_missing = error.kind() == io::ErrorKind::UnexpectedEof;
                let kind = if is_missing { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
                Error::new(kind, during()).with_source(error)
            },
        )?;
        if used.iter().all(|byte| *byte == 0) {
            return Err(Error::new(ErrorKind::KeyDestroyed, during()));
        }
        let (head, rest) = used.split_first_chunk::<HEAD_BYTES>().expect("a slot has a head");
        let (secret, found_mac) = rest.split_first_chunk::<32>().expect("a slot has a secret");
        let slot_mac = self.slot_mac(head, secret, mac_key);
        let is_ours = *head == name.encode() && bool::from(slot_mac.ct_eq(found_mac));
        if !is_ours {
            return Err(Error::new(ErrorKind::Corrupt, during()));
        }
        SlotSecret::fill_with(copy_of(secret))
    }

    /// Which key and material a slot says that it is of; none if it is erased or was never written.
    pub(crate) fn holder(&self, index: u32) -> Result<Option<(TenantKeyId, u32)>> {
        let mut head = [0; HEAD_BYTES];
        match self.file.read_exact_at(&mut head, slot_offset(index)?) {
            Ok(()) if head.iter().all(|byte| *byte == 0) => Ok(None),
            Ok(()) => {
                let mut rest = head.get(8..).unwrap_or_default();
                let id = take(&mut rest).map(TenantKeyId::from_bytes);
                Ok(id.zip(take(&mut rest).map(u32::from_be_bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(io_error("read a slot of", &self.path, error)),
        }
    }

    /// Overwrites a slot and makes that durable. What is read of it then comes from the disk, as
    /// far as the kernel heeds advice, and not from its cache.
    pub(crate) fn erase(&self, index: u32) -> Result<()> {
        self.write_block(index, &Zeroizing::new([0; SLOT_BYTES]))?;
        self.sync()?;
        let length = NonZeroU64::new(SLOT_BYTES as u64);
        rustix::fs::fadvise(&self.file, slot_offset(index)?, length, rustix::fs::Advice::DontNeed)
            .map_err(|error| io_error("drop from the cache a slot of", &self.path, error.into()))
    }

    /// Works on another file handle, such as one that cannot be written.
    #[cfg(test)]
    pub(crate) fn swap_file(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    fn write_block(&self, index: u32, block: &Block) -> Result<()> {
        self.file
            .write_all_at(block.as_slice(), slot_offset(index)?)
            .map_err(|error| io_error("write a slot to", &self.path, error))
    }

    fn slot_mac(&self, head: &[u8], secret: &[u8; 32], mac_key: &MacSecret) -> [u8; 32] {
        mac(&mac_key.borrow(), &[b"kms/slot\0", &self.keyring_id, head, secret])
    }
}

fn slot_offset(index: u32) -> Result<u64> {
    if index >= SLOTS_MAX {
        return Err(Error::new(ErrorKind::Full, format!("use slot {index}")));
    }
    Ok((u64::from(index) + 1) * SLOT_BYTES as u64)
}

fn header_bytes(keyring_id: [u8; 16], mac_key: &MacSecret) -> [u8; 56] {
    let header_mac = mac(&mac_key.borrow(), &[b"kms/slots\0", &keyring_id]);
    let mut bytes = [0; 56];
    let parts = FILE_MAGIC.iter().chain(&keyring_id).chain(&header_mac);
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests;
