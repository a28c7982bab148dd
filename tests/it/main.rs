//! The real program on a real socket, with nothing but the standard library as its client.
//!
//! What needs other people's clients is in tests/clients and runs by `scripts/test`; this is what
//! `cargo test` alone can tell.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node;
mod program;
