//! The files that are open through a mirror, and their handles on each member.
//!
//! Owns: the mirror's own file ids. Does not know: which member is read or written.
//!
//! Invariants
//! - A file id is never used twice.
//! - A handle on a member is closed when the last operation that uses it has ended, never before.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::SEATS;
use crate::io::{Disk, FileId};

/// An open file of one member.
pub(super) struct Handle {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) file: FileId,
    /// Which disk that sat at this place it belongs to.
    pub(super) serial: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Closing is asynchronous. Without a runtime the process is ending, and the disk with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.disk.close(self.file));
        }
    }
}

/// An open file.
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    handles: Mutex<[Option<Arc<Handle>>; SEATS]>,
}

impl Entry {
    pub(super) fn new(name: &str) -> Self {
        Self { name: Arc::from(name), handles: Mutex::default() }
    }

    /// The handle on the disk that sits at `seat` as the `serial`th.
    pub(super) fn handle(&self, seat: usize, serial: u64) -> Option<Arc<Handle>> {
        let handles = lock(&self.handles);
        let handle = handles.get(seat)?.as_ref()?;
        (handle.serial == serial).then(|| Arc::clone(handle))
    }

    /// Takes over a handle.
    pub(super) fn set(&self, seat: usize, handle: Option<Arc<Handle>>) {
        let mut handles = lock(&self.handles);
        let before = handles.get_mut(seat).map(|place| std::mem::replace(place, handle));
        drop(handles);
        drop(before);
    }
}

/// All of them. As many as the members allow.
#[derive(Default)]
pub(super) struct Table(Mutex<Open>);

#[derive(Default)]
struct Open {
    next: u32,
    files: BTreeMap<FileId, Arc<Entry>>,
}

impl Table {
    pub(super) fn insert(&self, entry: Arc<Entry>) -> io::Result<FileId> {
        let mut open = lock(&self.0);
        let id = FileId(open.next);
        open.next = open.next.checked_add(1).ok_or_else(|| {
            io::Error::other("four billion files were opened since the start; restart the node")
        })?;
        open.files.insert(id, entry);
        Ok(id)
    }

    pub(super) fn get(&self, id: FileId) -> Option<Arc<Entry>> {
        lock(&self.0).files.get(&id).cloned()
    }

    pub(super) fn remove(&self, id: FileId) {
        let removed = lock(&self.0).files.remove(&id);
        drop(removed);
    }

    /// Lets go of every handle at `seat`: its disk is gone.
    pub(super) fn forget(&self, seat: usize) {
        let entries: Vec<_> = lock(&self.0).files.values().cloned().collect();
        for entry in entries {
            entry.set(seat, None);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
