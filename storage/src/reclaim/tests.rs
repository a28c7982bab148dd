//! What the tests of reclaiming share: a volume on a simulated disk with rows in memory, and
//! extents whose bytes follow from their stream.

mod cleaning;
mod crash;
mod model;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kluis_kms::{Env, TenantId};

use super::cleaner::{Cleaner, Ground, Step, Tally};
use super::*;
use crate::blob::{
    ExtentId, ExtentPlan, Lane, Location, PACKED_BYTES_MAX, Placed, SegmentRow, SegmentState,
    Volume, VolumeConfig, VolumeParts,
};
use crate::commit::{Committer, Draft};
use crate::io::sim::{SimCrash, SimDisk};
use crate::io::{BufClass, BufPool, Disk};
use crate::meta::memory::MemoryMeta;
use crate::meta::{MetaStore, ScanStep};
use crate::namespace::{MetaReader, Table, TenantNs};
use crate::segments::{GcTable, count_dead, count_live, live_bytes};
use crate::tenants::{FamilyPlan, Tenants};
use crate::types::{CHUNK_BYTES, StreamId, TAG_BYTES};

const MIB: u64 = 1 << 20;
/// Segments of the tests: a few extents each.
const SEGMENT: u64 = 2 * MIB;

/// Everything that outlives a restart.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) disk: SimDisk,
    pool: BufPool,
    meta: Arc<MemoryMeta>,
    synced: Arc<AtomicU64>,
    seed: u64,
    segments_max: Option<u64>,
}

impl Ledger {
    pub(crate) fn new(seed: u64, segments_max: Option<u64>) -> Self {
        Self {
            disk: SimDisk::new(seed),
            pool: BufPool::new(24 << 20, false).unwrap(),
            meta: Arc::default(),
            synced: Arc::default(),
            seed,
            segments_max,
        }
    }

    pub(crate) async fn open(&self) -> Bench {
        let store: Arc<dyn MetaStore> = Arc::clone(&self.meta) as _;
        let committer =
            Arc::new(Committer::start(Arc::clone(&store), Arc::clone(&self.synced)).unwrap());
        let env = Env::seeded(self.seed, 1_800_000_000_000);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let parts = VolumeParts {
            disk,
            pool: self.pool.clone(),
            table: Arc::new(GcTable::new(Arc::clone(&store), Arc::clone(&committer))),
            meta_seq: Arc::clone(&self.synced),
            env: env.clone(),
            room: Arc::new(|_| Ok(())),
        };
        let config = VolumeConfig {
            segment_bytes: SEGMENT,
            prewrite: false,
            writer_slabs_max: 8,
            volume_bytes_max: self.segments_max.map(|most| most * SEGMENT),
            ..VolumeConfig::default()
        };
        let (volume, _) = Volume::open(config, parts).await.unwrap();
        let reader = MetaReader::new(store);
        let plan = FamilyPlan { dedicated_max: 1, pooled: 2 };
        let tenants =
            Tenants::open(reader.clone(), Arc::clone(&committer), env.clone(), plan).await.unwrap();
        let ids = [TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16])];
        tenants.create(&ids).await.unwrap();
        let spaces = ids.map(|id| tenants.namespace(id).unwrap());
        Bench { pool: self.pool.clone(), env, volume, reader, committer, tenants, spaces }
    }

    /// The same node after a power loss.
    pub(crate) fn crash(&self, crash: SimCrash) -> Self {
        Self { disk: self.disk.crash_with(crash), ..self.clone() }
    }
}

/// One run of a node, as far as reclaiming needs one.
pub(crate) struct Bench {
    pool: BufPool,
    pub(crate) env: Env,
    pub(crate) volume: Volume,
    pub(crate) reader: MetaReader,
    pub(crate) committer: Arc<Committer>,
    pub(crate) tenants: Tenants,
    spaces: [TenantNs; 2],
}

fn stream_id(object: u64) -> StreamId {
    let mut bytes = [0x5A; 16];
    bytes[..8].copy_from_slice(&object.to_be_bytes());
    StreamId::from_bytes(bytes)
}

/// The sealed bytes of an object of one extent.
fn sealed(object: u64, plain_len: u64) -> Vec<u8> {
    let len = plain_len + plain_len.div_ceil(CHUNK_BYTES).max(1) * TAG_BYTES;
    let mut state = object << 24 | plain_len | 1;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

impl Bench {
    fn ground(&self) -> Ground<'_> {
        Ground {
            volume: &self.volume,
            reader: &self.reader,
            committer: &self.committer,
            tenants: &self.tenants,
        }
    }

    /// Objects belong to two tenants, in families of both kinds.
    fn space(&self, object: u64) -> &TenantNs {
        &self.spaces[usize::from(object % 2 == 1)]
    }

    pub(crate) fn extent(&self, object: u64) -> ExtentId {
        ExtentId { ns: self.space(object).ns(), stream: stream_id(object), number: 0 }
    }

    async fn write(&self, object: u64, plain_len: u64) -> Result<Placed> {
        let bytes = sealed(object, plain_len);
        let id = self.extent(object);
        let placed = if bytes.len() <= PACKED_BYTES_MAX {
            let mut buf = self.pool.acquire(BufClass::holding(bytes.len()).unwrap()).await;
            buf.extend_from_slice(&bytes);
            self.volume.put_packed(id, 0, buf).await?
        } else {
            let plan = ExtentPlan { lane: Lane::Hot, id, logical_off: 0, plain_len };
            let mut writer = self.volume.extent_writer(plan).await?;
            for chunk in bytes.chunks(usize::try_from(CHUNK_BYTES + TAG_BYTES).unwrap()) {
                writer.chunk().await?.copy_from_slice(chunk);
                writer.seal_chunk()?;
            }
            writer.finish().await?
        };
        Ok(placed)
    }

    /// Writes, flushes and publishes an object.
    pub(crate) async fn put(&self, object: u64, plain_len: u64) -> Result<()> {
        let placed = Arc::new(vec![self.write(object, plain_len).await?]);
        self.volume.flush(&placed).await?;
        let row = self.space(object).row(Table::Locations, &parts(&stream_id(object)));
        let mut draft = Draft::default();
        draft.expect(row.clone(), None);
        draft.put(row, placed[0].location().encode().to_vec());
        draft.changes.push(count_live(placed[0].location()));
        draft.placed = Some(placed);
        self.committer.commit(draft).await
    }

    async fn held(&self, object: u64) -> Option<bytes::Bytes> {
        let stream = stream_id(object);
        self.space(object).get(Table::Locations, &parts(&stream)).await.unwrap()
    }

    pub(crate) async fn location(&self, object: u64) -> Location {
        Location::decode(&self.held(object).await.unwrap()).unwrap()
    }

    /// Deletes an object, as often as a move is faster.
    pub(crate) async fn delete(&self, object: u64) {
        loop {
            let held = self.held(object).await.unwrap();
            let row = self.space(object).row(Table::Locations, &parts(&stream_id(object)));
            let mut draft = Draft::default();
            draft.changes.push(count_dead(&held).unwrap());
            draft.delete_held(row, held);
            match self.committer.commit(draft).await {
                Ok(()) => return,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
    }

    /// The sealed bytes of an object, wherever it lies by now.
    async fn read(&self, object: u64) -> Result<Vec<u8>> {
        for _ in 0..16 {
            let location = self.location(object).await;
            match self.read_at(object, &location).await {
                Err(error) if error.kind() == ErrorKind::Moved => {}
                read => return read,
            }
        }
        panic!("an extent moves faster than it is read");
    }

    async fn read_at(&self, object: u64, location: &Location) -> Result<Vec<u8>> {
        let chunks = 0..location.n_chunks();
        let mut reader = self.volume.reader(self.extent(object), location, chunks)?;
        let mut bytes = Vec::new();
        while let Some(mut read) = reader.next().await? {
            let spans: Vec<_> = read.spans().collect();
            for span in spans {
                bytes.extend_from_slice(&read.buf_mut()[span.range]);
            }
        }
        Ok(bytes)
    }

    /// Cleans a segment to the end: what was moved, and how it ended.
    pub(crate) async fn clean(&self, segment: u32) -> Result<(Tally, Step)> {
        let mut cleaner = Cleaner::begin(self.ground(), segment).await?;
        let mut total = Tally::default();
        loop {
            match cleaner.step(self.ground()).await? {
                Step::Moved(tally) => {
                    total.extents += tally.extents;
                    total.bytes += tally.bytes;
                    total.lost += tally.lost;
                    total.damaged += tally.damaged;
                }
                Step::Read => tokio::task::yield_now().await,
                end => return Ok((total, end)),
            }
        }
    }

    pub(crate) fn row(&self, segment: u32) -> SegmentRow {
        *self.volume.segments().iter().find(|row| row.segment == segment).unwrap()
    }

    pub(crate) fn closed(&self) -> Vec<u32> {
        let rows = self.volume.segments().into_iter();
        rows.filter(|row| row.state == SegmentState::Closed).map(|row| row.segment).collect()
    }

    /// Every object is there with its bytes, and the counts agree with the rows.
    pub(crate) async fn check(&self, objects: &BTreeMap<u64, u64>) {
        let mut live = BTreeMap::new();
        for (object, plain_len) in objects {
            assert_eq!(self.read(*object).await.unwrap(), sealed(*object, *plain_len), "{object}");
            let location = self.location(*object).await;
            *live.entry(location.segment()).or_insert(0) += i64::from(location.stored_len());
        }
        let mut counted = live_bytes(&self.reader).await.unwrap();
        counted.retain(|_, bytes| *bytes != 0);
        assert_eq!(counted, live);
        for space in &self.spaces {
            let count = |rows: &mut usize, _: &[u8], _: &[u8]| {
                *rows += 1;
                Ok(ScanStep::Next)
            };
            let rows = space.fold(Table::Locations, &[], &[], 0, count).await.unwrap();
            let own = objects.keys().filter(|object| self.space(**object).ns() == space.ns());
            assert_eq!(rows, own.count());
        }
    }
}

fn parts(stream: &StreamId) -> [&[u8]; 2] {
    [stream.as_bytes(), &[0; 4]]
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
