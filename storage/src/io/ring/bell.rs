//! How the ring thread sleeps and is woken.
//!
//! Owns: the eventfd and the flag that spares writing to it. Does not know: the ring, the channel.
//!
//! Invariant: a message sent before [`Bell::wake`] is seen by the receiver's look at the channel
//! after [`Bell::lie_down`], or the eventfd is written.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// How the ring thread is woken and told to stop.
#[derive(Debug)]
pub(super) struct Bell {
    event: OwnedFd,
    sleeping: AtomicBool,
    stop: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        // Blocking, as io_uring answers EAGAIN for a file that is not, instead of waiting.
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { event, sleeping: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    /// After sending: wakes the thread if it sleeps or is about to.
    pub(super) fn wake(&self) {
        // Either this load sees the flag that `lie_down` stored, or the receiver's look at the
        // queue, which follows that store, sees what was sent before this fence.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.strike();
        }
    }

    fn strike(&self) {
        // Fails only if the counter is at its end, and then the thread is being woken already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Tells the thread to stop, whatever it does.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.strike();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// What the standing read reads.
    pub(super) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Before the last look at the queue.
    pub(super) fn lie_down(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn get_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}
