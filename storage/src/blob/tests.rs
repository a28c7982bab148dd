//! What the tests of the blob layer share: a volume that can be opened again, extents whose bytes
//! follow from their number, and the ways to write and read them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::Env;

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::io::sim::{SimConfig, SimCrash, SimDisk, SimFault, SimOp};
use crate::io::{Backend, BufClass, BufPool, Disk, IoConfig, open_disk};
use crate::types::{CHUNK_BYTES, CHUNK_SHIFT, NsId, StreamId};

mod abort;
mod copies;
mod crash;
mod damage;
mod export;
mod faults;
mod location;
mod recovery;
mod roundtrip;
mod spare;

const MIB: u64 = 1 << 20;
/// Sealed bytes of a full chunk.
const FULL: usize = (1 << CHUNK_SHIFT) + 16;

/// Everything that outlives a restart.
#[derive(Clone)]
struct Rig {
    disk: Arc<dyn Disk>,
    pool: BufPool,
    table: MemoryTable,
    meta_seq: Arc<AtomicU64>,
    seed: u64,
}

impl Rig {
    fn new(disk: impl Disk, seed: u64) -> Self {
        Self::over(Arc::new(disk), BufPool::new(24 << 20, false).unwrap(), seed)
    }

    fn over(disk: Arc<dyn Disk>, pool: BufPool, seed: u64) -> Self {
        let meta_seq = Arc::new(AtomicU64::new(0));
        Self { disk, pool, table: MemoryTable::default(), meta_seq, seed }
    }

    /// A volume in a real directory, through threads.
    fn threads(dir: &Path) -> Self {
        let pool = BufPool::new(24 << 20, false).unwrap();
        let config = IoConfig { backend: Backend::Threads, ..IoConfig::default() };
        let (disk, _) = open_disk(dir, &config, &pool).unwrap();
        Self::over(disk, pool, 0)
    }

    /// The same volume after a power loss.
    fn after(&self, disk: SimDisk) -> Self {
        Self { disk: Arc::new(disk), ..self.clone() }
    }

    async fn open_with(&self, config: VolumeConfig) -> Result<(Volume, RecoveryReport)> {
        let parts = VolumeParts {
            disk: Arc::clone(&self.disk),
            pool: self.pool.clone(),
            table: Arc::new(self.table.clone()),
            meta_seq: Arc::clone(&self.meta_seq),
            env: Env::seeded(self.seed, 1_800_000_000_000),
            room: Arc::new(|_| Ok(())),
        };
        Volume::open(config, parts).await
    }

    async fn open(&self) -> (Volume, RecoveryReport) {
        self.open_with(config(8 * MIB)).await.unwrap()
    }
}

fn config(segment_bytes: u64) -> VolumeConfig {
    VolumeConfig { segment_bytes, prewrite: false, writer_slabs_max: 12, ..VolumeConfig::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn extent_id(number: u32) -> ExtentId {
    let ns = NsId::from_bytes([0xA0; 16]);
    ExtentId { ns, stream: StreamId::from_bytes([0xB0; 16]), number }
}

/// The bytes of extent `number` as if sealed: they follow from number and length.
fn sealed(number: u32, plain_len: u64) -> Vec<u8> {
    let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, plain_len).unwrap();
    let mut state = u64::from(number) << 32 | plain_len | 1;
    let mut bytes = Vec::with_capacity(layout.data_len() as usize + 8);
    while bytes.len() < layout.data_len() as usize {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(layout.data_len() as usize);
    bytes
}

async fn put_packed(
    volume: &Volume,
    pool: &BufPool,
    number: u32,
    plain_len: u64,
) -> Result<Placed> {
    let bytes = sealed(number, plain_len);
    let mut buf = pool.acquire(BufClass::holding(bytes.len()).unwrap()).await;
    buf.extend_from_slice(&bytes);
    volume.put_packed(extent_id(number), 0, buf).await
}

fn plan(number: u32, plain_len: u64) -> ExtentPlan {
    ExtentPlan { lane: Lane::Hot, id: extent_id(number), logical_off: 0, plain_len }
}

async fn put_streamed(volume: &Volume, number: u32, plain_len: u64) -> Result<Placed> {
    stream(volume, plan(number, plain_len)).await
}

async fn stream(volume: &Volume, plan: ExtentPlan) -> Result<Placed> {
    let bytes = sealed(plan.id.number, plan.plain_len);
    let mut writer = volume.extent_writer(plan).await?;
    for chunk in bytes.chunks(FULL) {
        writer.chunk().await?.copy_from_slice(chunk);
        writer.seal_chunk()?;
    }
    writer.finish().await
}

/// Whichever way an extent of that length would be put.
async fn put(volume: &Volume, pool: &BufPool, number: u32, plain_len: u64) -> Result<Placed> {
    if sealed(number, plain_len).len() <= PACKED_BYTES_MAX {
        put_packed(volume, pool, number, plain_len).await
    } else {
        put_streamed(volume, number, plain_len).await
    }
}

async fn read(
    volume: &Volume,
    number: u32,
    location: &Location,
    chunks: Range<u32>,
) -> Result<Vec<u8>> {
    let mut reader = volume.reader(extent_id(number), location, chunks.clone())?;
    let mut bytes = Vec::new();
    let mut next = chunks.start;
    while let Some(mut read) = reader.next().await? {
        let spans: Vec<_> = read.spans().collect();
        assert_eq!(spans.len(), read.len());
        for span in spans {
            assert_eq!(span.index, next);
            bytes.extend_from_slice(&read.buf_mut()[span.range]);
            next += 1;
        }
    }
    assert_eq!(next, chunks.end);
    Ok(bytes)
}

async fn read_all(volume: &Volume, number: u32, location: &Location) -> Result<Vec<u8>> {
    read(volume, number, location, 0..location.n_chunks()).await
}

#[track_caller]
fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.kind(),
    }
}

/// Everything in every segment that was used.
async fn scan_all(volume: &Volume) -> Vec<Found> {
    let mut found = Vec::new();
    for row in volume.segments() {
        if row.state == SegmentState::Free {
            continue;
        }
        let mut scan = volume.scan_segment(row.segment).await.unwrap();
        while let Some(item) = scan.next().await.unwrap() {
            found.push(item);
        }
    }
    found
}

/// The extents among `found`, by number.
fn extents(found: &[Found]) -> Vec<(u32, Location)> {
    let mut extents: Vec<_> = found
        .iter()
        .filter_map(|found| match found {
            Found::Extent { header, location } => match header.body {
                RecordBody::Extent { id, .. } => Some((id.number, *location)),
                RecordBody::Filler(_) => None,
            },
            _ => None,
        })
        .collect();
    extents.sort_by_key(|(number, _)| *number);
    extents
}

/// Lets the tasks of a volume run until they wait.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
