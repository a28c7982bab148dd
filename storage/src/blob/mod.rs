//! The blob layer: sealed extents in segments of one volume.
//!
//! An extent goes in by [`Volume::put_packed`] (small, shares a write with others) or by
//! [`Volume::extent_writer`] (written while its body streams), is made durable by
//! [`Volume::flush`], and is read by its [`Location`], which is opaque to everything above.
//! Owns: segment files, superblocks, where an extent lies, when it is durable.
//! Does not know: keys, plaintext, names; a chunk is opaque bytes that end in a tag.
//!
//! Invariants
//! - Nothing is ever overwritten: a segment is appended to until it is full, and a segment that was
//!   open when the node stopped is never appended to again.
//! - A flush answers `Ok` only if the device did, for every segment asked for, after the extents'
//!   writes had been answered.
//! - After a write or flush error the volume takes no more writes; nothing is retried.
//! - Neither an incarnation nor a record number is ever used twice.
//! - Two writes never share a block.
//!   Bytes: docs/FORMAT.md, "Extent". Steps: docs/ARCHITECTURE.md, "Blob layer".

mod clean;
mod config;
mod copies;
mod core;
mod examine;
mod export;
mod fence;
mod flush;
mod hold;
mod janitor;
mod lane;
mod location;
mod packer;
mod read;
mod recovery;
mod relocate;
mod scan;
mod segment;
mod spare;
mod supers;
mod survey;
mod table;
mod volume;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::format::{ChunkLayout, ExtentHeader, ExtentId, RecordBody, VolumeId};
pub use config::{PACKED_BYTES_MAX, VolumeConfig};
pub use copies::Healed;
pub(crate) use examine::Flaw;
pub(crate) use export::segment_file;
pub use flush::Placed;
pub(crate) use hold::Ticket;
pub use lane::Lane;
pub use location::{LOCATION_BYTES, Location};
pub use read::{ChunkRead, ChunkSpan, Damage, ExtentReader};
pub use recovery::RecoveryReport;
pub(crate) use relocate::{Relocated, Survivor};
pub use scan::{Found, SegmentScan};
#[cfg(test)]
pub(crate) use segment::file_name as file_name_of;
pub(crate) use survey::Survey;
pub use table::{
    MemoryTable, SEGMENT_ROW_BYTES, SegmentRow, SegmentState, SegmentTable, TableFuture,
};
pub use volume::{Room, Volume, VolumeParts, VolumeUsage};
pub use writer::{ExtentPlan, ExtentWriter};
