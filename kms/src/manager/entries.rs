//! The key directory's verbs: read a value, list values, change values.
//!
//! Owns: limits, and the order of event, journal and memory. Knows nothing of: what names and
//! values say.
//!
//! Invariants
//! - A change of several values is one entry of the journal: all of it or none.
//! - A value is durable before it shows.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Kms, lock, read, write};
use crate::audit::AuditOperation;
use crate::directory::{DirectoryRecord, ENTRIES_MAX, ENTRY_NAME_BYTES_MAX, ENTRY_VALUE_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Purpose;
use crate::keyring::{ENTRY_BYTES_MAX, JournalRecord};
use crate::types::{TenantId, TenantKeyId};

/// A name and its new value; `None` deletes it.
type Change = (Vec<u8>, Option<Vec<u8>>);

impl Kms {
    /// A value of the tenant's key directory: aliases, tags, policies, grants, reports, counters.
    pub fn entry_value(&self, tenant: TenantId, name: &[u8]) -> Option<Arc<[u8]>> {
        read(&self.directory).value(tenant, name)
    }

    /// The values whose names start with `prefix`, in byte order of the names.
    pub fn entry_values(&self, tenant: TenantId, prefix: &[u8]) -> Vec<(Vec<u8>, Arc<[u8]>)> {
        read(&self.directory).values(tenant, prefix)
    }

    /// Changes values (`None` deletes), durably and all or none. `id` is the key that the change
    /// is about, for the audit trail.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: the tenant would have more than [`ENTRIES_MAX`] names, or the change
    /// is longer than 16 MiB. [`ErrorKind::Misuse`]: a name is empty, twice in it or longer than
    /// [`ENTRY_NAME_BYTES_MAX`], or a value longer than [`ENTRY_VALUE_BYTES_MAX`].
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    /// [`ErrorKind::Unavailable`]: the keyring or the audit trail could not be written.
    pub fn set_entries(
        &self,
        who: &Purpose,
        id: Option<TenantKeyId>,
        changes: Vec<Change>,
    ) -> Result<()> {
        if let Some(id) = id {
            self.entry(who.tenant, id)?;
        }
        check_sizes(&changes)?;
        self.audited(who, id, AuditOperation::Configure, || {
            self.write_entries(who.tenant, changes, Some(ENTRIES_MAX))
        })
    }

    /// Writes values. Counters of the node itself come without a limit: there is one per material.
    pub(super) fn write_entries(
        &self,
        tenant: TenantId,
        changes: Vec<Change>,
        entries_max: Option<usize>,
    ) -> Result<()> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let mut records = Vec::new();
        let mut kept = Vec::new();
        {
            let directory = read(&self.directory);
            if let Some(entries_max) = entries_max {
                let is_counter = |name: &[u8]| name.windows(7).any(|part| part == b"/count/");
                let held = directory.values(tenant, b"").into_iter().map(|(name, _)| name);
                let mut names: HashSet<_> = held.filter(|name| !is_counter(name)).collect();
                for (name, value) in &changes {
                    if value.is_none() {
                        names.remove(name);
                    } else if !is_counter(name) {
                        names.insert(name.clone());
                    }
                }
                if names.len() > entries_max {
                    let during = format!("keep {} names in a key directory", names.len());
                    return Err(Error::new(ErrorKind::Full, during));
                }
            }
            for (name, value) in changes {
                if value.is_none() && directory.value(tenant, &name).is_none() {
                    continue;
                }
                let version = directory.next_version(tenant, &name);
                let place = (tenant, name.as_slice(), version);
                let rng = &*self.env.rng;
                let record = DirectoryRecord::seal(&self.node_secret, place, value.as_deref(), rng);
                records.push(JournalRecord::Directory(record));
                kept.push((name, version, value.map(Arc::from)));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let bytes: u64 = records.iter().map(JournalRecord::encoded_bytes).sum();
        if bytes > ENTRY_BYTES_MAX as u64 {
            let during = format!("change {bytes} bytes of a key directory at once");
            return Err(Error::new(ErrorKind::Full, during));
        }
        writer.keyring.append(&records, &self.mac_key)?;
        {
            let mut directory = write(&self.directory);
            for (name, version, value) in kept {
                directory.set(tenant, &name, version, value);
            }
        }
        self.compact_if_wanted(&mut writer);
        Ok(())
    }
}

fn check_sizes(changes: &[Change]) -> Result<()> {
    let mut names = HashSet::new();
    for (name, value) in changes {
        let value_bytes = value.as_ref().map_or(0, Vec::len);
        let fits = (1..=ENTRY_NAME_BYTES_MAX).contains(&name.len())
            && value_bytes <= ENTRY_VALUE_BYTES_MAX
            && names.insert(name.as_slice());
        if !fits {
            let name_bytes = name.len();
            let during =
                format!("keep {value_bytes} bytes under a name of {name_bytes} in a key directory");
            return Err(Error::new(ErrorKind::Misuse, during));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
