//! The key directory's verbs: read a value, list values, change values.
//!
//! Owns: limits, and the order of event, journal and memory; which names go with a key. Knows
//! nothing of: what values say, but for aliases.
//!
//! Invariants
//! - What the node writes itself has names that no tenant can write or delete.
//! - A change of several values is one entry of the journal: all of it or none.
//! - A value is durable before it shows.

use std::collections::HashSet;
use std::sync::Arc;

use super::quota::{Held, is_of_node};
use super::{Kms, Writer, lock, read, write};
use crate::audit::AuditOperation;
use crate::directory::{DirectoryRecord, ENTRY_NAME_BYTES_MAX, ENTRY_VALUE_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Purpose;
use crate::keyring::{ENTRY_BYTES_MAX, JournalRecord, Room};
use crate::lifecycle::KeyState;
use crate::types::{TenantId, TenantKeyId};

/// A name and its new value; `None` deletes it.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

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
    /// [`ErrorKind::Full`]: the tenant would have more names or bytes than it may, or the change is
    /// longer than 16 MiB, or the keyring is full. [`ErrorKind::Misuse`]: a name is empty, twice in
    /// it, longer than [`ENTRY_NAME_BYTES_MAX`] or one of the node's own, or a value longer than
    /// [`ENTRY_VALUE_BYTES_MAX`].
    /// [`ErrorKind::KeyDestroyed`], [`ErrorKind::NotFound`]: the tenant has no such key.
    /// [`ErrorKind::Unavailable`]: the keyring or the audit trail could not be written.
    pub fn set_entries(
        &self,
        who: &Purpose,
        id: Option<TenantKeyId>,
        changes: Vec<Change>,
    ) -> Result<()> {
        let entry = id.map(|id| self.entry(who.tenant, id)).transpose()?;
        check_changes(&changes)?;
        self.audited(who, id, AuditOperation::Configure, || {
            let mut writer = lock(&self.writer);
            // Nothing is put beside a key whose entries were buried with it.
            if entry.is_some_and(|entry| read(&entry.record).state == KeyState::Destroyed) {
                let during = "write what is kept beside a destroyed key";
                return Err(Error::new(ErrorKind::KeyDestroyed, during));
            }
            self.write_under(&mut writer, who.tenant, (changes, Room::Adding))
        })
    }

    /// Keeps the erasure report of a key, which its tenant can neither write nor delete.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: it is longer than [`ENTRY_VALUE_BYTES_MAX`]. And as
    /// [`Self::set_entries`].
    pub fn keep_erasure_report(
        &self,
        who: &Purpose,
        id: TenantKeyId,
        report: Vec<u8>,
    ) -> Result<()> {
        self.entry(who.tenant, id)?;
        let changes = vec![(report_name(id), Some(report))];
        check_sizes(&changes)?;
        self.audited(who, Some(id), AuditOperation::Configure, || {
            self.write_entries(who.tenant, changes, Room::Ending)
        })
    }

    /// The erasure report of a key, as [`Self::keep_erasure_report`] left it.
    pub fn erasure_report(&self, tenant: TenantId, id: TenantKeyId) -> Option<Arc<[u8]>> {
        self.entry_value(tenant, &report_name(id))
    }

    /// Writes values. What only adds asks for [`Room::Adding`], and is held to its tenant's quota.
    pub(super) fn write_entries(
        &self,
        tenant: TenantId,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<()> {
        self.write_under(&mut lock(&self.writer), tenant, (changes, room))
    }

    fn write_under(
        &self,
        writer: &mut Writer,
        tenant: TenantId,
        (changes, room): (Vec<Change>, Room),
    ) -> Result<()> {
        writer.keyring.check_writable()?;
        let sealed = self.seal_entries(tenant, changes);
        if sealed.records.is_empty() {
            return Ok(());
        }
        if room == Room::Adding {
            writer.quotas.check(tenant, sealed.after(writer.quotas.of(tenant)))?;
        }
        sealed.check_length()?;
        // What only deletes finds room in any case.
        let room = if sealed.added == Held::default() { Room::Ending } else { room };
        self.append(writer, &sealed.records, (sealed.dead_bytes(), room))?;
        self.show_entries(writer, tenant, sealed);
        self.compact_if_wanted(writer);
        Ok(())
    }

    /// Seals changes for the journal. The writer is held, so that versions follow each other.
    pub(super) fn seal_entries(&self, tenant: TenantId, changes: Vec<Change>) -> Sealed {
        let directory = read(&self.directory);
        let mut sealed = Sealed::default();
        for (name, value) in changes {
            let before = directory.value(tenant, &name);
            if value.is_none() && before.is_none() {
                continue;
            }
            let held = |value: Option<usize>| Held::of_name(&name, value);
            sealed.removed = sealed.removed.and(held(before.map(|value| value.len())));
            sealed.added = sealed.added.and(held(value.as_ref().map(Vec::len)));
            let version = directory.next_version(tenant, &name);
            let place = (tenant, name.as_slice(), version);
            let rng = &*self.env.rng;
            let record = DirectoryRecord::seal(&self.node_secret, place, value.as_deref(), rng);
            sealed.records.push(JournalRecord::Directory(record));
            sealed.kept.push((name, version, value.map(Arc::from)));
        }
        sealed
    }

    /// Shows changes that are durable.
    pub(super) fn show_entries(&self, writer: &mut Writer, tenant: TenantId, sealed: Sealed) {
        writer.quotas.replace(tenant, sealed.removed, sealed.added);
        let mut directory = write(&self.directory);
        for (name, version, value) in sealed.kept {
            directory.set(tenant, &name, version, value);
        }
    }

    /// What is deleted with a key: its policy, tags, grants, counters and blobs, and the aliases
    /// that name it; all but its report.
    pub(super) fn entries_to_bury(&self, tenant: TenantId, id: TenantKeyId) -> Vec<Change> {
        let directory = read(&self.directory);
        let own = directory.values(tenant, format!("k/{id}/").as_bytes());
        let mut names: Vec<_> = own.into_iter().map(|(name, _)| name).collect();
        names.retain(|name| *name != report_name(id));
        for (alias, target) in directory.values(tenant, ALIASES) {
            if *target == *id.as_bytes() {
                let times = [ALIAS_TIMES, alias.get(ALIASES.len()..).unwrap_or_default()].concat();
                names.extend([alias, times]);
            }
        }
        names.into_iter().map(|name| (name, None)).collect()
    }
}

/// What the names of aliases begin with; the value is the id of the alias' key.
const ALIASES: &[u8] = b"a/";
/// What the names of the times of an alias begin with; its name follows.
const ALIAS_TIMES: &[u8] = b"at/alias/";

fn report_name(id: TenantKeyId) -> Vec<u8> {
    format!("k/{id}/erasure").into_bytes()
}

/// A name, its new version and its new value.
type Kept = (Vec<u8>, u64, Option<Arc<[u8]>>);

/// Changes of the directory, sealed, and what they do to their tenant's quota.
#[derive(Default)]
pub(super) struct Sealed {
    pub(super) records: Vec<JournalRecord>,
    kept: Vec<Kept>,
    added: Held,
    removed: Held,
}

impl Sealed {
    /// What a tenant that holds `before` holds then.
    pub(super) const fn after(&self, before: Held) -> Held {
        before.and(self.added).without(self.removed)
    }

    /// Bytes of records that are dead once these are written.
    pub(super) fn dead_bytes(&self) -> u64 {
        let deletions = self.records.iter().filter(
            |record| matches!(record, JournalRecord::Directory(record) if record.is_deletion()),
        );
        self.removed.bytes + deletions.map(JournalRecord::encoded_bytes).sum::<u64>()
    }

    /// Refuses what is longer than one entry.
    pub(super) fn check_length(&self) -> Result<()> {
        let bytes: u64 = self.records.iter().map(JournalRecord::encoded_bytes).sum();
        if bytes > ENTRY_BYTES_MAX as u64 {
            let during = format!("change {bytes} bytes of a key directory at once");
            return Err(Error::new(ErrorKind::Full, during));
        }
        Ok(())
    }
}

/// Checks what a tenant wants to change.
pub(super) fn check_changes(changes: &[Change]) -> Result<()> {
    if changes.iter().any(|(name, _)| is_of_node(name)) {
        return Err(Error::new(ErrorKind::Misuse, "write what the node keeps of a key"));
    }
    check_sizes(changes)
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
