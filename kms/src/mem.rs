//! Locked memory for key bytes. The only unsafe code of this package.
//!
//! Keys live in 32-byte slots of a [`KeyArena`] and nowhere else for longer than one call. The
//! arena grows by blocks of locked pages: memfd_secret(2) where the kernel has it (the pages leave
//! the kernel's own mapping), else anonymous pages with mlock(2), left out of core dumps and empty
//! in a forked child.
//! Owns: allocation, wiping, the bound on slots. Knows nothing of: what a key is for.
//!
//! Invariants
//! - Slot memory is never swapped, dumped or inherited by a child, and is wiped when freed.
//! - A slot is written by [`KeyArena::alloc`] before anyone else can see it, read through
//!   [`KeyRef`], and written again only by its owner's drop. Blocks are never unmapped.
//! - A [`KeyRef`] cannot be sent to another thread and must not live across an `await`
//!   (`clippy.toml`): a future is moved, and would leave copies behind.
//!   See docs/KEYS.md, "Keys in memory".
#![expect(unsafe_code, reason = "mapping and locking pages, and handing out slots in them")]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};

/// Every secret key of `kluis.v1` is 32 bytes.
pub const SECRET_BYTES: usize = 32;
/// Pages are locked this many bytes at a time: one block alone fits the smallest limit on locked
/// memory that is in use (64 KiB, the default of old systems and containers).
pub const ARENA_BLOCK_BYTES: usize = 64 * 1024;
/// Most slots of the process: 4 MiB of locked memory, half of the usual limit of 8 MiB, because
/// the ring's registered buffers count against the same limit on some kernels. Enough for 10,000
/// tenant keys and 100,000 bucket and data keys at one time.
pub const ARENA_SLOTS_MAX: usize = 128 * 1024;

const SLOTS_PER_BLOCK: usize = ARENA_BLOCK_BYTES / SECRET_BYTES;

type Slot = [u8; SECRET_BYTES];

/// The arena of this process.
static ARENA: KeyArena = KeyArena::new(ARENA_SLOTS_MAX);

/// Where the arena's pages come from, for health and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// mmap with mlock, MADV_DONTDUMP and MADV_WIPEONFORK.
    Locked,
    /// memfd_secret(2) with MADV_DONTFORK.
    SecretMemory,
}

/// How much locked memory is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaUsage {
    /// Slots that hold a key.
    pub live: usize,
    /// Slots in locked pages, used or free.
    pub mapped: usize,
    /// Most slots there may be.
    pub max: usize,
    /// Where the latest pages came from; none yet before the first key.
    pub kind: Option<MemoryKind>,
}

/// The process's use of locked memory.
pub fn arena_usage() -> ArenaUsage {
    ARENA.usage()
}

/// A bounded set of 32-byte slots in locked memory.
pub(crate) struct KeyArena {
    state: Mutex<ArenaState>,
    slots_max: usize,
}

struct ArenaState {
    free: Vec<SlotPointer>,
    mapped: usize,
    kind: Option<MemoryKind>,
}

/// A slot's address. Whoever holds it from the free list owns the slot.
#[derive(Clone, Copy)]
struct SlotPointer(NonNull<Slot>);

// SAFETY: the address is of memory that is never unmapped, and slots are owned one at a time: by
// the free list, under its lock, or by one `Secret32`.
unsafe impl Send for SlotPointer {}
// SAFETY: through a shared reference a slot is only read (`Secret32::borrow`); its writers, `alloc`
// before the slot is shared and `drop` after the last borrow, have it alone.
unsafe impl Sync for SlotPointer {}

impl KeyArena {
    pub(crate) const fn new(slots_max: usize) -> Self {
        let state = ArenaState { free: Vec::new(), mapped: 0, kind: None };
        Self { state: Mutex::new(state), slots_max }
    }

    /// A slot whose bytes `fill` has written. They are zero before. Nothing is kept on an error.
    fn alloc(&'static self, fill: impl FnOnce(&mut Slot) -> Result<()>) -> Result<Secret32> {
        let slot = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.free.is_empty() {
                state.grow(self.slots_max)?;
            }
            state.free.pop().expect("growing adds slots or fails")
        };
        // From here on the secret's drop wipes and returns the slot, also if `fill` panics.
        let mut secret = Secret32 { slot, arena: self };
        fill(secret.bytes_mut())?;
        Ok(secret)
    }

    fn release(&self, slot: SlotPointer) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(slot);
    }

    fn usage(&self) -> ArenaUsage {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let live = state.mapped - state.free.len();
        ArenaUsage { live, mapped: state.mapped, max: self.slots_max, kind: state.kind }
    }
}

impl ArenaState {
    fn grow(&mut self, slots_max: usize) -> Result<()> {
        if self.mapped + SLOTS_PER_BLOCK > slots_max {
            let during = format!("lock memory for more than {} keys", self.mapped);
            return Err(Error::new(ErrorKind::Full, during)
                .with_advice("lower the key caches' sizes: too many keys are in use at once"));
        }
        let (base, kind) = map_block().map_err(|errno| {
            let during = format!("lock {ARENA_BLOCK_BYTES} bytes of memory for keys");
            Error::new(ErrorKind::Full, during)
                .with_advice("raise the limit on locked memory (LimitMEMLOCK=, ulimit -l)")
                .with_source(errno)
        })?;
        self.free.reserve(SLOTS_PER_BLOCK);
        let base = base.cast::<Slot>();
        for index in 0..SLOTS_PER_BLOCK {
            // SAFETY: the block holds SLOTS_PER_BLOCK slots, so the address stays inside it.
            self.free.push(SlotPointer(unsafe { base.add(index) }));
        }
        self.mapped += SLOTS_PER_BLOCK;
        self.kind = Some(kind);
        Ok(())
    }
}

/// One block of zeroed, locked pages. It is never unmapped.
fn map_block() -> io::Result<(NonNull<c_void>, MemoryKind)> {
    if let Ok(block) = map_secret_memory() {
        return Ok((block, MemoryKind::SecretMemory));
    }
    map_locked().map(|block| (block, MemoryKind::Locked))
}

fn map_secret_memory() -> io::Result<NonNull<c_void>> {
    // SAFETY: the call takes flags only and answers with a descriptor or an error number.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = RawFd::try_from(answer).ok().filter(|raw| *raw >= 0).ok_or(io::Errno::NOSYS)?;
    // SAFETY: the kernel just opened this descriptor for us, and nobody else knows it.
    let secret_memory = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::fs::ftruncate(&secret_memory, ARENA_BLOCK_BYTES as u64)?;
    // SAFETY: the kernel picks the address, so nothing that exists is mapped over.
    let base = unsafe {
        rustix::mm::mmap(
            ptr::null_mut(),
            ARENA_BLOCK_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &secret_memory,
            0,
        )
    }?;
    // The mapping is shared, so a child would see our keys, and wipe-on-fork does not apply.
    // SAFETY: the advice changes nothing for this process, and the block is ours.
    let advised = unsafe { rustix::mm::madvise(base, ARENA_BLOCK_BYTES, Advice::LinuxDontFork) };
    finish_block(base, advised)
}

fn map_locked() -> io::Result<NonNull<c_void>> {
    // SAFETY: the kernel picks the address, so nothing that exists is mapped over.
    let base = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            ARENA_BLOCK_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?;
    finish_block(base, protect(base))
}

fn protect(base: *mut c_void) -> io::Result<()> {
    // SAFETY: the block is ours, and locking changes no byte of it.
    unsafe { rustix::mm::mlock(base, ARENA_BLOCK_BYTES) }?;
    for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
        // SAFETY: the block is ours, and neither advice changes anything for this process.
        unsafe { rustix::mm::madvise(base, ARENA_BLOCK_BYTES, advice) }?;
    }
    Ok(())
}

/// Hands the block out, or unmaps it when it could not be protected.
fn finish_block(base: *mut c_void, protected: io::Result<()>) -> io::Result<NonNull<c_void>> {
    let block = NonNull::new(base).ok_or(io::Errno::NOMEM);
    if let Err(errno) = protected {
        // SAFETY: the block is ours and no address in it was handed out.
        unsafe { rustix::mm::munmap(base, ARENA_BLOCK_BYTES) }?;
        return Err(errno);
    }
    block
}

/// 32 secret bytes in locked memory: owned, not copyable, not printable, wiped on drop.
pub(crate) struct Secret32 {
    slot: SlotPointer,
    arena: &'static KeyArena,
}

impl Secret32 {
    /// A secret whose bytes `fill` writes in place.
    pub(crate) fn fill_with(fill: impl FnOnce(&mut Slot) -> Result<()>) -> Result<Self> {
        ARENA.alloc(fill)
    }

    /// A secret in an arena of the test's own.
    #[cfg(test)]
    fn alloc_in(arena: &'static KeyArena, bytes: &Slot) -> Result<Self> {
        arena.alloc(|slot| {
            slot.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// The bytes, for one call.
    pub(crate) fn borrow(&self) -> KeyRef<'_> {
        // SAFETY: the slot is mapped for good and initialised; it is only read while `self` is
        // borrowed (see `SlotPointer`).
        let bytes = unsafe { self.slot.0.as_ref() };
        KeyRef { bytes, not_send: PhantomData }
    }

    fn bytes_mut(&mut self) -> &mut Slot {
        // SAFETY: the slot is mapped for good and initialised, and `&mut self` is its only owner.
        unsafe { self.slot.0.as_mut() }
    }
}

impl Drop for Secret32 {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        self.arena.release(self.slot);
    }
}

/// Key bytes, borrowed for one call. Stays on its thread and out of every future.
pub struct KeyRef<'secret> {
    bytes: &'secret Slot,
    not_send: PhantomData<*const ()>,
}

impl Deref for KeyRef<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
