//! The storage engine of Kluis: ciphertext on volumes, and the rows that find it.
//!
//! Start at [`Engine`]; then `put.rs`, `stream.rs` and `crypt.rs` are the way of a PUT, and
//! `get.rs` that of a GET. What lies where, byte by byte, is in `docs/FORMAT.md`; what may call
//! what is in `docs/ARCHITECTURE.md`.
//!
//! It is not: an HTTP server, a key manager, a judge of who may do what.

pub mod blob;
mod body;
mod bucket_keys;
mod buckets;
mod check;
mod commit;
mod conditions;
mod copy;
mod crypt;
mod customer;
mod delete;
mod digest;
mod engine;
mod error;
pub mod format;
mod get;
mod index;
pub mod io;
mod jobs;
mod list;
mod meta;
mod multipart;
mod namespace;
mod put;
mod registry;
mod release;
mod requests;
mod rows;
mod segments;
mod space;
mod stream;
mod tags;
mod tenants;
mod types;

pub use blob::{VolumeConfig, VolumeUsage};
pub use body::{Body, BodyFuture, BytesBody};
pub use check::{CheckProgress, CheckReport, FINDINGS_MAX, Finding, check};
pub use digest::{Checksum, ChecksumAlgorithm, ChecksumType, Digester, join};
pub use engine::{Engine, EngineConfig, EngineStats};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use get::ObjectReader;
pub use io::{BufStats, DiskKind, DiskReport, DiskStats, IoConfig};
pub use jobs::{ErasureReport, JobInfo, JobKind, JobRequest, JobState, KeyImpact};
pub use registry::{Registry, RegistryChange, RegistryCondition};
pub use requests::*;
pub use types::*;
