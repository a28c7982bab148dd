//! How a change gets into the journal: room and quota first, then the entry, then memory.
//!
//! Owns: that order; when the journal is compacted. Knows nothing of: what a change means.
//!
//! Invariants
//! - A change is refused before it takes a slot, if there is no room for it or its tenant holds
//!   too much. What ends or takes away something is not.
//! - A record is changed as it stands under the writer's lock, so that no change loses another's.

use std::sync::{Arc, MutexGuard};

use super::entries::Change;
use super::quota::Held;
use super::{KeyEntry, Kms, Writer, lock, read, write};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{JournalRecord, Room};
use crate::record::{KeyRecord, MATERIAL_BYTES_MAX};

impl Kms {
    /// Edits the record as it stands, appends it, then shows it. The caller holds the entry's
    /// transition lock. An edit that fails, or changes nothing, leaves no trace.
    pub(super) fn change<T>(
        &self,
        entry: &KeyEntry,
        edit: impl FnOnce(&mut KeyRecord, &mut Writer) -> Result<T>,
    ) -> Result<T> {
        self.change_beside(entry, Vec::new, edit)
    }

    /// As [`Self::change`], for an edit that adds a material.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: there is no room, or the tenant holds too much.
    pub(super) fn add_material<T>(
        &self,
        entry: &KeyEntry,
        edit: impl FnOnce(&mut KeyRecord, &mut Writer) -> Result<T>,
    ) -> Result<T> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let record = entry.record();
        let more = Held { slots: 1, bytes: MATERIAL_BYTES_MAX as u64, ..Held::default() };
        writer.quotas.check(record.tenant, writer.quotas.of(record.tenant).and(more))?;
        let bytes = Held::of_key(&record).and(more).bytes;
        self.make_room(&mut writer, bytes, Room::Adding)?;
        self.change_under(&mut writer, entry, Vec::new, edit)
    }

    /// As [`Self::change`], with changes of the tenant's key directory in the same entry.
    pub(super) fn change_beside<T>(
        &self,
        entry: &KeyEntry,
        beside: impl FnOnce() -> Vec<Change>,
        edit: impl FnOnce(&mut KeyRecord, &mut Writer) -> Result<T>,
    ) -> Result<T> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        self.change_under(&mut writer, entry, beside, edit)
    }

    /// As [`Self::change_beside`], for a caller that holds the writer before and after it.
    pub(super) fn change_under<T>(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        entry: &KeyEntry,
        beside: impl FnOnce() -> Vec<Change>,
        edit: impl FnOnce(&mut KeyRecord, &mut Writer) -> Result<T>,
    ) -> Result<T> {
        let record = entry.record();
        let mut changed = KeyRecord::clone(&record);
        let value = edit(&mut changed, writer)?;
        if changed == *record {
            return Ok(value);
        }
        changed.version += 1;
        changed.changed_ms = self.env.clock.now_ms();
        let sealed = self.seal_entries(record.tenant, beside());
        let mut records = vec![JournalRecord::Key(changed.clone())];
        records.extend(sealed.records.iter().cloned());
        let (old, new) = (Held::of_key(&record), Held::of_key(&changed));
        self.append(writer, &records, (old.bytes + sealed.dead_bytes(), Room::Ending))?;
        writer.quotas.replace(record.tenant, old, new);
        *write(&entry.record) = Arc::new(changed);
        self.show_entries(writer, record.tenant, sealed);
        self.compact_if_wanted(writer);
        Ok(value)
    }

    /// Appends records as one entry, after which so many bytes of records are dead.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: there is no room of that kind.
    /// [`ErrorKind::Unavailable`]: the keyring could not be written.
    pub(super) fn append(
        &self,
        writer: &mut Writer,
        records: &[JournalRecord],
        (dead_bytes, room): (u64, Room),
    ) -> Result<()> {
        let bytes = records.iter().map(JournalRecord::encoded_bytes).sum();
        self.make_room(writer, bytes, room)?;
        writer.keyring.append(records, dead_bytes, &self.mac_key)
    }

    /// Compacts the journal if records of so many bytes do not fit otherwise.
    pub(super) fn make_room(&self, writer: &mut Writer, bytes: u64, room: Room) -> Result<()> {
        if !writer.keyring.fits(bytes, room) && writer.keyring.can_shrink() {
            self.compact(writer)?;
        }
        if writer.keyring.fits(bytes, room) {
            return Ok(());
        }
        let during = format!("find room for {bytes} bytes in the keyring");
        Err(Error::new(ErrorKind::Full, during)
            .with_advice("keys and what tenants keep beside them fill the keyring: delete some"))
    }

    /// A failure fences the keyring, and the next write reports it; what came before is durable.
    pub(super) fn compact_if_wanted(&self, writer: &mut Writer) {
        if writer.keyring.wants_compaction()
            && let Err(error) = self.compact(writer)
        {
            tracing::error!(%error, "could not compact the keyring");
        }
    }

    fn compact(&self, writer: &mut Writer) -> Result<()> {
        let records = self.journal_records(self.key_records());
        writer.keyring.compact(&records, &self.mac_key)?;
        write(&self.directory).forget_deleted();
        Ok(())
    }

    /// Every key, in the order of creation.
    pub(super) fn key_records(&self) -> Vec<KeyRecord> {
        let index = read(&self.index);
        let mut records: Vec<_> =
            index.keys.values().map(|entry| KeyRecord::clone(&read(&entry.record))).collect();
        records.sort_by_key(|record| (record.created_ms, record.id));
        records
    }

    /// What a new journal holds: these keys, and the directory. Changes nothing in memory, since
    /// the new journal may never be.
    pub(super) fn journal_records(&self, keys: Vec<KeyRecord>) -> Vec<JournalRecord> {
        let directory = read(&self.directory).living(&self.node_secret, &*self.env.rng);
        let keys = keys.into_iter().map(JournalRecord::Key);
        keys.chain(directory.into_iter().map(JournalRecord::Directory)).collect()
    }
}
