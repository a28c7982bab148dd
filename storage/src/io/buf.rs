//! The pool of aligned buffers that every byte on its way to or from a volume lies in.
//!
//! One anonymous mapping is carved in slabs of [`SLAB_BYTES`]; a slab is split on demand into
//! pieces of [`PIECE_BYTES`] and becomes whole again when the last of them returns. The callers
//! encrypt into and decrypt inside these buffers, so that no byte is copied for the device's sake.
//! Owns: the memory, its limit, the queue of those who wait for it, wiping.
//! Does not know: files, rings, keys.
//!
//! Invariants
//! - A range of the arena belongs to one [`Buf`] at a time, from its acquisition to its drop.
//! - Buffers are handed out in the order they were asked for; nobody overtakes a waiting task.
//! - A buffer marked as secret is overwritten before anybody else can acquire it.
//! - Memory use is bounded by the arena; nothing here allocates more when it runs short.
//!
//! Bytes and order of use: docs/ARCHITECTURE.md, "I/O".
#![expect(unsafe_code, reason = "an mmap arena lends disjoint ranges of itself as slices")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use tokio::sync::oneshot;
use zeroize::Zeroize;

#[cfg(test)]
mod tests;

/// What a slab holds: a streamed extent is written in slabs of just under 1 MiB, where the
/// reference disk reaches its sequential rate.
pub const SLAB_BYTES: usize = 1 << 20;

/// What a piece holds: one chunk of 64 KiB with its tag, widened to blocks on both sides, is
/// 72 KiB; the next power of two divides a slab evenly.
pub const PIECE_BYTES: usize = 128 << 10;

/// The most memory a pool may be given. More is a slip in a configuration file: at 1 MiB per
/// operation this is already 64 times the depth of a ring.
pub const POOL_BYTES_MAX: usize = 16 << 30;

/// Pieces per slab; the free ones are the set bits of one byte.
const PIECES: usize = SLAB_BYTES / PIECE_BYTES;
const _: () = assert!(PIECES == 8, "the free pieces of a slab are the bits of a u8");

/// All pieces of a slab are free.
const ALL_FREE: u8 = u8::MAX;

/// How large a buffer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufClass {
    /// [`SLAB_BYTES`]: a slab of a streamed extent, or a read of many chunks.
    Large,
    /// [`PIECE_BYTES`]: one chunk, or a batch of small extents.
    Small,
}

impl BufClass {
    /// The capacity of a buffer of this class, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Large => SLAB_BYTES,
            Self::Small => PIECE_BYTES,
        }
    }

    /// The smaller class that holds `bytes`, or none if no buffer does.
    pub const fn holding(bytes: usize) -> Option<Self> {
        if bytes <= PIECE_BYTES {
            Some(Self::Small)
        } else if bytes <= SLAB_BYTES {
            Some(Self::Large)
        } else {
            None
        }
    }
}

/// What a pool has to tell to `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufStats {
    /// Bytes of the arena.
    pub bytes_max: u64,
    /// Capacity of all buffers in somebody's hands, in bytes.
    pub bytes_used: u64,
    /// Tasks waiting at this moment.
    pub waiting: u64,
    /// Acquisitions that had to wait, since the pool was made.
    pub waits: u64,
}

/// A bounded pool of buffers. Clones share the same memory.
#[derive(Clone)]
pub struct BufPool(Arc<Pool>);

struct Pool {
    arena: Arena,
    /// Whether a ring should register the arena as fixed buffers.
    registered: bool,
    state: Mutex<State>,
}

/// The free list and the queue in front of it.
struct State {
    /// Free pieces of each slab, one bit each.
    free: Vec<u8>,
    /// Slabs of which some but not all pieces are free. The lowest is split further first, so
    /// that the others have a chance to become whole.
    partial: BTreeSet<usize>,
    /// Slabs that are free as a whole.
    whole: Vec<usize>,
    bytes_used: usize,
    next_ticket: u64,
    waiting: BTreeMap<u64, Waiter>,
    waits: u64,
}

/// One waiting task. There is one entry per task, so the tasks' own limit bounds the queue.
struct Waiter {
    class: BufClass,
    reply: oneshot::Sender<Buf>,
}

/// A range of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    offset: usize,
    capacity: usize,
}

impl BufPool {
    /// Maps an arena of `bytes_max` bytes, rounded up to whole slabs.
    ///
    /// `registered` asks the ring to register the arena with the kernel, which pins its pages; a
    /// ring that may not do so works without.
    ///
    /// # Errors
    /// `InvalidInput` if `bytes_max` is above [`POOL_BYTES_MAX`]; otherwise what mmap(2) said.
    pub fn new(bytes_max: usize, registered: bool) -> io::Result<Self> {
        if bytes_max > POOL_BYTES_MAX {
            let text = format!("a buffer pool of {bytes_max} bytes; {POOL_BYTES_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let slabs = bytes_max.div_ceil(SLAB_BYTES).max(1);
        let state = State {
            free: vec![ALL_FREE; slabs],
            partial: BTreeSet::new(),
            whole: (0..slabs).rev().collect(),
            bytes_used: 0,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            waits: 0,
        };
        let arena = Arena::map(slabs * SLAB_BYTES)?;
        Ok(Self(Arc::new(Pool { arena, registered, state: Mutex::new(state) })))
    }

    /// A buffer of `class` with a length of zero, as soon as there is one.
    ///
    /// The content is whatever its last user left there. Dropping the future gives up the place
    /// in the queue.
    pub async fn acquire(&self, class: BufClass) -> Buf {
        let (reply, answer) = oneshot::channel();
        let ticket = {
            let mut state = self.0.lock();
            if let Some(span) = state.take_if_first(class) {
                drop(state);
                return self.lend(span);
            }
            state.enqueue(Waiter { class, reply })
        };
        let _place = Place { pool: self, ticket };
        answer.await.expect("the pool keeps a waiter until it has a buffer for it")
    }

    /// A buffer of `class`, unless somebody would have to wait for it.
    pub fn try_acquire(&self, class: BufClass) -> Option<Buf> {
        let span = self.0.lock().take_if_first(class)?;
        Some(self.lend(span))
    }

    /// What the pool holds and lends.
    pub fn stats(&self) -> BufStats {
        let state = self.0.lock();
        BufStats {
            bytes_max: self.0.arena.len as u64,
            bytes_used: state.bytes_used as u64,
            waiting: state.waiting.len() as u64,
            waits: state.waits,
        }
    }

    /// A buffer that holds nothing and takes no room: what an operation returns whose own buffer
    /// is lost with the disk.
    pub(super) fn lend_nothing(&self) -> Buf {
        self.lend(Span { offset: 0, capacity: 0 })
    }

    /// Whether the arena should be registered with a ring.
    pub(super) fn wants_registration(&self) -> bool {
        self.0.registered
    }

    /// Start and length of the arena, for registration with a ring.
    pub(super) fn arena(&self) -> (NonNull<u8>, usize) {
        (self.0.arena.start, self.0.arena.len)
    }

    /// Where in this pool's arena `buf` starts, if it is one of its buffers.
    pub(super) fn offset_of(&self, buf: &Buf) -> Option<usize> {
        Arc::ptr_eq(&self.0, &buf.pool.0).then_some(buf.span.offset)
    }

    fn lend(&self, span: Span) -> Buf {
        Buf { pool: self.clone(), span, len: 0, high_water: 0, secret: false }
    }

    /// Hands free ranges to whoever waits first, until the first one asks for more than is free.
    fn serve(&self, mut state: MutexGuard<'_, State>) {
        let mut served = Vec::new();
        while let Some(first) = state.waiting.first_entry() {
            let gone = first.get().reply.is_closed();
            let (ticket, class) = (*first.key(), first.get().class);
            let span = if gone { None } else { state.take(class) };
            if span.is_none() && !gone {
                break;
            }
            let waiter = state.waiting.remove(&ticket);
            served.extend(span.zip(waiter));
        }
        drop(state);
        for (span, waiter) in served {
            // A task that left in this instant returns the buffer by dropping it.
            drop(waiter.reply.send(self.lend(span)));
        }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BufPool").field(&self.stats()).finish()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, waiter: Waiter) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waits += 1;
        self.waiting.insert(ticket, waiter);
        ticket
    }

    fn take_if_first(&mut self, class: BufClass) -> Option<Span> {
        if self.waiting.is_empty() { self.take(class) } else { None }
    }

    fn take(&mut self, class: BufClass) -> Option<Span> {
        let span = match class {
            BufClass::Large => {
                let slab = self.whole.pop()?;
                *self.free_mut(slab) = 0;
                Span { offset: slab * SLAB_BYTES, capacity: SLAB_BYTES }
            }
            BufClass::Small => self.take_piece()?,
        };
        self.bytes_used += span.capacity;
        Some(span)
    }

    fn take_piece(&mut self) -> Option<Span> {
        let slab = match self.partial.first() {
            Some(&slab) => slab,
            None => self.whole.pop()?,
        };
        let free = self.free_mut(slab);
        let piece = free.trailing_zeros();
        *free &= !(1 << piece);
        if *free == 0 {
            self.partial.remove(&slab);
        } else {
            self.partial.insert(slab);
        }
        let offset = slab * SLAB_BYTES + piece as usize * PIECE_BYTES;
        Some(Span { offset, capacity: PIECE_BYTES })
    }

    fn give(&mut self, span: Span) {
        let slab = span.offset / SLAB_BYTES;
        let bits = if span.capacity == SLAB_BYTES {
            ALL_FREE
        } else {
            1 << (span.offset % SLAB_BYTES / PIECE_BYTES)
        };
        let free = self.free_mut(slab);
        assert_eq!(*free & bits, 0, "a buffer returns to the pool once");
        *free |= bits;
        if *free == ALL_FREE {
            self.partial.remove(&slab);
            self.whole.push(slab);
        } else {
            self.partial.insert(slab);
        }
        self.bytes_used -= span.capacity;
    }

    fn free_mut(&mut self, slab: usize) -> &mut u8 {
        self.free.get_mut(slab).expect("a slab number comes from the free list")
    }
}

/// A waiting task's place in the queue, given up when its future is dropped.
struct Place<'a> {
    pool: &'a BufPool,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.0.lock();
        if state.waiting.remove(&self.ticket).is_some() {
            // It may have stood in the way of somebody who asked for less.
            self.pool.serve(state);
        }
    }
}

/// A buffer: 4 KiB aligned, owned, returned to its pool when dropped.
///
/// Reads as its first `len` bytes. It starts with a length of zero and a content left by its last
/// user. `Debug` shows no content.
pub struct Buf {
    pool: BufPool,
    span: Span,
    len: usize,
    /// The greatest length so far: nothing beyond it was written by this owner.
    high_water: usize,
    secret: bool,
}

impl Buf {
    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        self.span.capacity
    }

    /// Sets the length. Bytes that come into view hold whatever was there before.
    ///
    /// # Panics
    /// If `len` exceeds the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.span.capacity, "length {len} of {}", self.span.capacity);
        self.len = len;
        self.high_water = self.high_water.max(len);
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.set_len(start + bytes.len());
        let (_, tail) = self.split_at_mut(start);
        tail.copy_from_slice(bytes);
    }

    /// From now on the buffer counts as holding plaintext: it is overwritten when it returns.
    pub fn mark_secret(&mut self) {
        self.secret = true;
    }

    /// Turns the buffer into shared bytes, of which `range` is visible. It returns to the pool,
    /// wiped if secret, when the last of them is dropped.
    ///
    /// # Panics
    /// If `range` does not lie within the length.
    pub fn into_bytes(self, range: Range<usize>) -> Bytes {
        Bytes::from_owner(self).slice(range)
    }

    /// Where the content starts, for a ring: no reference is made, the kernel writes there.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.pool.0.arena.at(self.span.offset)
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the span lies in the arena, which the pool keeps mapped while `self` lives, and
        // belongs to this buffer alone; `len` is within it, and an anonymous mapping is
        // initialised. An operation of a ring owns its buffer, so nothing writes meanwhile.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference to the span.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if self.span.capacity == 0 {
            return;
        }
        if self.secret {
            self.len = self.high_water;
            self.zeroize();
        }
        let mut state = self.pool.0.lock();
        state.give(self.span);
        self.pool.serve(state);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf")
            .field("len", &self.len)
            .field("capacity", &self.span.capacity)
            .finish_non_exhaustive()
    }
}

/// One anonymous mapping, page aligned and zeroed.
struct Arena {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the arena is plain memory; who may touch which range is decided by the free list.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena gives out addresses only, never references.
unsafe impl Sync for Arena {}

impl Arena {
    fn map(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
        let mapped =
            unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        let start = NonNull::new(mapped.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped a buffer arena at address zero"))?;
        let arena = Self { start, len };
        // Plaintext passes through here: it belongs neither in a core dump nor in a child. Both
        // are precautions, and a kernel that refuses them still stores objects.
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is the mapping made above, and neither advice changes its content.
            let advised = unsafe { madvise(mapped, len, advice) };
            if let Err(error) = advised {
                tracing::warn!(?advice, %error, "madvise of the buffer arena refused");
            }
        }
        Ok(arena)
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "offset {offset} of an arena of {}", self.len);
        // SAFETY: the offset lies within the mapping, as just checked.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: every buffer holds the pool, so none is left, and a ring's operations own theirs.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "munmap of the buffer arena failed");
        }
    }
}
