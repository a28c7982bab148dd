//! The program `kluis`: arguments → configuration → parts → run → shutdown.
//!
//! Owns: the list of modules, and the first steps of the process. Knows nothing of: what they do.
//!
//! Invariants
//! - What Rust code frees is wiped: request bodies, headers and secrets stand in buffers of
//!   libraries
//!   that wipe nothing.
//! - Nothing starts a thread before [`passphrase::move_out_of_environment`] has run.
//!   See docs/ARCHITECTURE.md for the way a request takes.

#![forbid(unsafe_code)]

mod admin;
mod audit_event;
mod auth;
mod body;
mod cli;
mod config;
mod error;
mod front;
mod health;
mod http;
mod key_policy;
mod key_stores;
mod kms;
mod limits;
mod logging;
mod metrics;
mod node;
mod passphrase;
mod plaintext;
mod policy;
mod process;
mod s3;
mod tenant_locks;
mod tls;

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    if let Err(error) = passphrase::move_out_of_environment() {
        eprintln!("kluis: {error}");
        return ExitCode::from(cli::EXIT_COULD_NOT_RUN);
    }
    cli::run()
}
