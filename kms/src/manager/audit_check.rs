//! The check of the audit log of a directory that no node has open.
//!
//! Owns: opening what the check needs of the keys, and nothing more: the root file. Knows nothing
//! of: how the log is checked.
//!
//! Invariants
//! - Nothing is changed: neither the keys' files nor the log.
//!   See docs/KEYS.md, "Audit".

use std::path::Path;

use super::vault::{root_context, unwrap_node_secret};
use super::{Kms, Paths, mac_key_of};
use crate::audit::{AuditVerdict, verify_closed};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::RootFile;
use crate::private_file;
use crate::store::KeyStore;

impl Kms {
    /// Checks every segment, hash and MAC of the audit log in `dir`, without opening the keyring.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: a node has the log open. [`ErrorKind::NotFound`]: there is no
    /// keyring or no log. [`ErrorKind::Refused`]: others may read a file.
    /// [`ErrorKind::WrongPassphrase`]: `store` does not open the root key.
    pub fn verify_audit(dir: &Path, store: &dyn KeyStore) -> Result<AuditVerdict> {
        let paths = Paths::under(dir);
        if !paths.root.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("open a keyring in {paths:?}")));
        }
        private_file::check_dir(&paths.keys)?;
        let root_file = RootFile::read(&paths.root)?;
        let identity = (root_file.keyring_id, root_file.epoch);
        let root_key = store.unseal_root(&root_file.sealed, &root_context(identity)?)?;
        let node_secret = unwrap_node_secret(&root_key, identity, &root_file.node_secret)?;
        verify_closed(dir, &mac_key_of(&node_secret)?)
    }
}
