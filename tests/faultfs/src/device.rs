//! The disk with its faults and its power switch, shared by the mount and the control socket.
//!
//! Owns: whether the power is on, the state at the last cut, the order fault → effect.
//! Knows nothing of: FUSE, the control protocol.
//!
//! Invariants
//! - Without power every operation fails with EIO, and so does every operation of a mount from
//!   before the last cut.
//! - The state at a cut is kept until the next one, so that several outcomes of it can be tried.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::Errno;

use crate::faults::{Faults, Verb, Verdict};
use crate::loss::{Loss, Toll, outcome};
use crate::tree::{Outcome, Tree};

/// The device behind a lock.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Device>>);

/// A disk that can lose its power.
pub struct Device {
    /// What programs see.
    pub tree: Tree,
    /// What fails, and what was counted.
    pub faults: Faults,
    /// How long every operation takes at least.
    pub slow: Duration,
    /// The disk at the last cut.
    at_cut: Option<Tree>,
    has_power: bool,
    /// Counts mounts; an operation of an older one finds no device.
    mounts: u64,
}

impl Shared {
    /// A device with power and this disk.
    pub fn new(tree: Tree) -> Self {
        Self(Arc::new(Mutex::new(Device {
            tree,
            faults: Faults::default(),
            slow: Duration::ZERO,
            at_cut: None,
            has_power: true,
            mounts: 0,
        })))
    }

    /// The device itself.
    pub fn lock(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the disk is slow, then gives the device if this mount still has one.
    #[expect(clippy::disallowed_methods, reason = "a slow disk is what is asked for")]
    pub fn reach(&self, mount: u64) -> Outcome<MutexGuard<'_, Device>> {
        let slow = self.lock().slow;
        if !slow.is_zero() {
            thread::sleep(slow);
        }
        let device = self.lock();
        if device.has_power && device.mounts == mount { Ok(device) } else { Err(Errno::EIO) }
    }
}

impl Device {
    /// Begins a mount; the number tells its operations from those of earlier ones.
    pub fn begin_mount(&mut self) -> u64 {
        self.mounts += 1;
        self.mounts
    }

    /// Whether the power is on.
    pub fn has_power(&self) -> bool {
        self.has_power
    }

    /// The power goes.
    pub fn cut(&mut self) {
        if self.has_power {
            self.has_power = false;
            self.at_cut = Some(self.tree.clone());
        }
    }

    /// The power comes back: the disk is one of those that the last cut may have left. Nothing
    /// happens if there was no cut.
    pub fn power_on(&mut self, loss: Loss, seed: u64) -> Option<Toll> {
        let (tree, toll) = outcome(self.at_cut.as_ref()?, loss, seed);
        self.tree = tree;
        self.has_power = true;
        // Handles of a mount that is still there belong to the time before.
        self.mounts += 1;
        self.faults.clear();
        Some(toll)
    }

    /// Makes one operation on the inode `number`, unless a fault is due.
    pub fn run<T>(
        &mut self,
        verb: Verb,
        number: u64,
        effect: impl FnOnce(&mut Tree) -> Outcome<T>,
    ) -> Outcome<T> {
        let name = self.tree.inode(number).map(|inode| inode.name.clone()).unwrap_or_default();
        self.run_named(verb, number, &name, effect)
    }

    /// [`Device::run`] for an operation that is about a name in the directory `number`.
    pub fn run_named<T>(
        &mut self,
        verb: Verb,
        number: u64,
        name: &OsStr,
        effect: impl FnOnce(&mut Tree) -> Outcome<T>,
    ) -> Outcome<T> {
        match self.faults.judge(verb, name) {
            Verdict::Pass => {
                let result = effect(&mut self.tree);
                if let Err(errno) = &result {
                    self.faults.note(verb, *errno);
                }
                result
            }
            Verdict::Fail(errno) => {
                if verb == Verb::Sync {
                    self.tree.sync_failed(number);
                }
                Err(Errno::from_i32(errno))
            }
            Verdict::Cut => {
                // A write that is under way when the power goes may leave some of its sectors.
                if verb == Verb::Write {
                    drop(effect(&mut self.tree));
                }
                self.cut();
                Err(Errno::EIO)
            }
        }
    }
}
