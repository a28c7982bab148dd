//! Deletion of a key: scheduling it and calling it off.
//!
//! Owns: the waiting period. Knows nothing of: what is under a key, who may delete it.
//!
//! Invariants
//! - The gate is closed from the moment a deletion is scheduled.
//! - A deletion that has begun to destroy cannot be called off.

use super::tenant_keys::DAY_MS;
use super::{Kms, lock};
use crate::audit::AuditOperation;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Purpose;
use crate::lifecycle::{DELETION_DAYS, KeyEvent, KeyState};
use crate::record::KeyOrigin;
use crate::types::TenantKeyId;

impl Kms {
    /// Schedules deletion in `days` (7 to 30); gives when, in Unix milliseconds. The key is off
    /// when this returns, as after [`Self::disable`].
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: another number of days. And as [`Self::disable`].
    pub fn schedule_deletion(&self, who: &Purpose, id: TenantKeyId, days: u16) -> Result<u64> {
        if !DELETION_DAYS.contains(&days) {
            return Err(Error::new(ErrorKind::Misuse, format!("delete a key in {days} days")));
        }
        let deletion_ms = self.settled.latest_ms(&*self.env.clock) + u64::from(days) * DAY_MS;
        let step = (AuditOperation::ScheduleDeletion, KeyEvent::ScheduleDeletion);
        self.switch_off(who, id, step, |changed| changed.deletion_ms = Some(deletion_ms))?;
        Ok(deletion_ms)
    }

    /// Calls a deletion off. The key is `Disabled` then, or `PendingImport` if it lacks material.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: no deletion is scheduled, or it has begun to destroy.
    /// And as [`Self::disable`].
    pub fn cancel_deletion(&self, who: &Purpose, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(who.tenant, id)?;
        let _transition = lock(&entry.transition);
        let state = self.audited(who, Some(id), AuditOperation::CancelDeletion, || {
            let state = entry.record().state.after(KeyEvent::CancelDeletion)?;
            self.change(&entry, |changed, _| {
                if changed.destruction.is_some() {
                    let during = format!("cancel the deletion of {id}, which has begun");
                    return Err(Error::new(ErrorKind::Conflict, during));
                }
                let lacks_material =
                    changed.origin == KeyOrigin::Imported && !changed.has_material();
                changed.state = if lacks_material { KeyState::PendingImport } else { state };
                changed.deletion_ms = None;
                Ok(changed.state)
            })
        })?;
        // Still closed, but as what the key is now.
        entry.gate.shut(state.gate().expect("a key whose deletion was cancelled is off"));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
