//! The storage engine of Kluis: ciphertext on volumes, and the rows that find it.
//!
//! Start at [`Engine`]; then `put.rs`, `stream.rs` and `crypt.rs` are the way of a PUT, and
//! `get.rs` that of a GET. What lies where, byte by byte, is in `docs/FORMAT.md`; what may call
//! what is in `docs/ARCHITECTURE.md`.
//!
//! It is not: an HTTP server, a key manager, a judge of who may do what.

pub mod backup;
pub mod blob;
mod body;
mod bucket_keys;
mod buckets;
mod bugs;
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
mod executor;
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
mod reached;
mod reclaim;
mod registry;
mod release;
mod requests;
mod rows;
mod scrub;
mod segments;
#[cfg(feature = "sim")]
pub mod sim;
mod space;
mod stream;
mod tags;
mod tenants;
mod types;
mod volumes;

pub use blob::{VolumeConfig, VolumeUsage};
pub use body::{Body, BodyFuture, BytesBody};
pub use check::{CheckProgress, CheckReport, FINDINGS_MAX, Finding, check};
pub use digest::{Checksum, ChecksumAlgorithm, ChecksumType, Digester, join};
pub use engine::{Engine, EngineConfig, EngineStats};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use get::ObjectReader;
pub use io::{
    BufStats, DiskKind, DiskReport, DiskStats, IoConfig, MemberState, MemberStatus, MirrorStatus,
    RebuildState, RebuildStatus,
};
pub use jobs::{ErasureReport, JobInfo, JobKind, JobRequest, JobState, KeyImpact};
pub use reclaim::{ReclaimConfig, ReclaimStats};
pub use registry::{Registry, RegistryChange, RegistryCondition};
pub use requests::*;
pub use scrub::{
    DAMAGE_MAX, DamageKind, DamagePlace, DamagedExtent, PERIOD_DAYS_MAX, ScrubConfig, ScrubStats,
};
pub use types::*;
