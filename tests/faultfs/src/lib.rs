//! A file system in memory that loses what was not flushed and fails when told to, and a checker of
//! histories. The real program runs on the one and is judged by the other.
//!
//! Owns: nothing itself. Knows nothing of: Kluis; it shares no code with it.

pub mod body;
pub mod control;
pub mod device;
pub mod dice;
pub mod faults;
pub mod history;
pub mod image;
pub mod loss;
pub mod mount;
pub mod tree;

#[cfg(test)]
mod tests;
