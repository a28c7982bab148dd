//! Asking the kernel for a ring, and giving up the rights it is not going to need.
//!
//! Owns: flags, the list of operations, restrictions. Does not know: what is submitted.
//!
//! Invariant: a ring leaves here disabled; nothing can be submitted before it is restricted.

use std::io;

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, Probe, opcode};

use super::ENTRIES;

/// linux/io_uring.h, which the crate keeps to itself.
const IORING_REGISTER_FILES_UPDATE: u8 = 6;
const IOSQE_FIXED_FILE: u8 = 1;

/// Makes a ring, still disabled, with the best flags that the kernel takes.
pub(super) fn build() -> io::Result<(IoUring, &'static str)> {
    type Flags = fn(&mut Builder) -> &mut Builder;
    let attempts: [(&'static str, Flags); 3] = [
        // Completions are handled when this thread asks for them (Linux 6.1).
        ("defer_taskrun", |b| b.setup_single_issuer().setup_defer_taskrun()),
        // At least no interrupts for them (Linux 5.19).
        ("coop_taskrun", |b| b.setup_coop_taskrun()),
        ("plain", |b| b),
    ];
    let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
    for (name, flags) in attempts {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled().setup_cqsize(2 * ENTRIES);
        match flags(&mut builder).build(ENTRIES) {
            Ok(ring) => return Ok((ring, name)),
            // EINVAL: this kernel does not know one of the flags.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

/// Refuses a kernel that cannot do what we are going to ask.
pub(super) fn check_opcodes(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if opcodes().iter().all(|&code| probe.is_supported(code)) {
        return Ok(());
    }
    let text = "this kernel's io_uring lacks one of READ, WRITE, READ_FIXED, WRITE_FIXED";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// All that the ring is ever asked to do.
fn opcodes() -> [u8; 4] {
    [opcode::Read::CODE, opcode::ReadFixed::CODE, opcode::Write::CODE, opcode::WriteFixed::CODE]
}

/// Takes from the ring what it does not need, so that a fault in this process can do less.
pub(super) fn restrict(ring: &IoUring, registered_files: bool) -> io::Result<()> {
    let mut rules: Vec<_> = opcodes().into_iter().map(Restriction::sqe_op).collect();
    if registered_files {
        rules.push(Restriction::register_op(IORING_REGISTER_FILES_UPDATE));
        rules.push(Restriction::sqe_flags_required(IOSQE_FIXED_FILE));
    }
    ring.submitter().register_restrictions(&mut rules)
}
