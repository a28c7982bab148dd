//! What the process asks of the kernel before it holds a secret.
//!
//! Owns: core dumps, ptrace, umask, file descriptors. Knows nothing of: what runs afterwards.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Keeps memory out of core dumps and from other processes of the same user, makes new files
/// private to the owner, and raises the limit of open files to the hard limit.
///
/// # Errors
/// Names the step that the kernel refused.
pub(crate) fn harden() -> std::io::Result<()> {
    let step = |name: &str| {
        let name = name.to_owned();
        move |error: rustix::io::Errno| {
            std::io::Error::new(error.kind(), format!("{name}: {error}"))
        }
    };
    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(step("turn core dumps off"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("make the process undumpable"))?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })
        .map_err(step("raise the limit of open files"))
}

/// Bytes of memory that are resident, from the kernel's own count; `None` where it does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
