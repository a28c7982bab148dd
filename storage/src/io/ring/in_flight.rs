//! The operations that the kernel works on, or is about to.
//!
//! Owns: each operation's buffer, file and reply, from before the kernel hears of it until its
//! completion. Does not know: the ring.
//!
//! Invariant: what is in flight is never freed; if the table must go, it leaks its content.

use std::io;
use std::mem;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::Buf;
use super::super::files::OpenFile;
use super::super::transfer::Transfer;
use super::OPS_MAX;

/// A read or write, and everything that must outlive it.
pub(super) struct Op {
    pub(super) transfer: Transfer,
    pub(super) file: Arc<OpenFile>,
    pub(super) buf: Buf,
    pub(super) reply: oneshot::Sender<(Buf, io::Result<()>)>,
}

/// What is in flight, or about to be.
pub(super) struct InFlight {
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    /// Where the standing read puts the eventfd's counter, and whether it is in flight.
    pub(super) doorbell: Box<[u8; 8]>,
    pub(super) armed: bool,
}

impl InFlight {
    pub(super) fn new() -> Self {
        let ops = (0..OPS_MAX).map(|_| None).collect();
        let free = (0..OPS_MAX).rev().collect();
        Self { ops, free, doorbell: Box::default(), armed: false }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == OPS_MAX && !self.armed
    }

    pub(super) fn insert(&mut self, op: Op) -> usize {
        let index = self.free.pop().expect("an operation is taken only if there is room");
        *self.ops.get_mut(index).expect("free places lie in the table") = Some(op);
        index
    }

    pub(super) fn op_mut(&mut self, index: usize) -> &mut Op {
        let op = self.ops.get_mut(index).and_then(Option::as_mut);
        op.expect("a place in flight holds its operation")
    }

    pub(super) fn take(&mut self, index: usize) -> Op {
        let op = self.ops.get_mut(index).and_then(Option::take);
        self.free.push(index);
        op.expect("a place in flight holds its operation")
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.is_empty() {
            // The kernel may still write to these buffers: they must never be used again.
            mem::forget(mem::take(&mut self.ops));
            mem::forget(mem::take(&mut self.doorbell));
        }
    }
}
