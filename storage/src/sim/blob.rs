//! The blob layer alone against its model: extents, flushes, recovery, segments used again.
//!
//! Owns: the plan, the model and the run of this row. Knows nothing of: rows, keys, names.
//!
//! Invariants
//! - What was flushed reads after any power loss; what was not reads right or not at all.
//! - A location of a use of a segment that is over reads as nothing.
//! - Neither a record number nor an incarnation is ever used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;

use super::judge::{Judge, Verdict};
use super::plan::{Draw, Ending, Fault, Faults, Life, pick};
use super::shared::Shared;
use super::tally::{self, Outcome};
use crate::blob::{
    ExtentPlan, Found, Lane, Location, MemoryTable, PACKED_BYTES_MAX, Placed, SegmentRow,
    SegmentState, SegmentTable, Volume, VolumeConfig, VolumeParts,
};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::inline::Inline;
use crate::format::{ChunkLayout, ExtentId};
use crate::io::BufClass;
use crate::io::sim::{SimConfig, SimCrash, SimDisk, SplitMix};
use crate::reached::sometimes;
use crate::types::{CHUNK_SHIFT, NsId, StreamId};

/// Operations of a client in one life, at most.
const OPS_MAX: u64 = 16;

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobOp {
    /// Writes an extent and flushes it.
    Put { size: u64, streamed: bool },
    /// Begins one and leaves.
    Leave { size: u64 },
    /// Reads one that is known, whole or some chunks of it.
    Read { which: u64, whole: bool },
    /// Gives one up: it is never read again but to see that it is gone.
    Drop { which: u64 },
}

/// A whole sequence.
pub(super) type BlobPlan = super::plan::Sequence<BlobOp>;

impl BlobPlan {
    pub(super) fn blob(seed: u64, faults: Faults) -> Self {
        let mut random = SplitMix::new(seed);
        let segment_bytes = pick(&mut random, &[64 << 10, 64 << 10, 128 << 10, 256 << 10]);
        let size_max = segment_bytes / 2;
        let mut draw = Draw::new(random);
        let clients = 1 + draw.random.below(4);
        let lives = 1 + draw.random.below(4);
        let lives = (0..lives)
            .map(|_| draw.life((clients, OPS_MAX), faults, |draw| op(draw, size_max)))
            .collect();
        Self {
            seed,
            segment_bytes,
            inline_bytes_max: 0,
            segments_max: None,
            prewrite: false,
            lives,
        }
    }
}

fn op(draw: &mut Draw, size_max: u64) -> BlobOp {
    let random = &mut draw.random;
    let size = match random.below(16) {
        0 => pick(random, &[0, 1, 4_000, 65_535, 65_536, 65_537]),
        1 => random.below(size_max),
        _ => random.below(3_000),
    };
    let size = size.min(size_max);
    match random.below(10) {
        0 => BlobOp::Leave { size },
        1..4 => BlobOp::Read { which: random.next(), whole: random.coin() },
        4 => BlobOp::Drop { which: random.next() },
        kind => BlobOp::Put { size, streamed: kind == 5 },
    }
}

/// What the outside knows of an extent.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that happened to it")]
struct Known {
    size: u64,
    location: Location,
    flushed: bool,
    dropped: bool,
    /// Its segment was given back.
    freed: bool,
    /// Found damaged, which only silent faults excuse.
    damaged: bool,
}

#[derive(Default)]
struct Model {
    extents: BTreeMap<u32, Known>,
    next: u32,
    /// Every use of a segment that was ever seen.
    uses: BTreeMap<u64, u32>,
}

/// A client, and whoever verifies.
#[derive(Clone)]
struct Hand {
    volume: Volume,
    pool: crate::io::BufPool,
    model: Arc<Mutex<Model>>,
    judge: Arc<Judge>,
    meta_seq: Arc<AtomicU64>,
}

fn id(number: u32) -> ExtentId {
    let ns = NsId::from_bytes([0xA0; 16]);
    ExtentId { ns, stream: StreamId::from_bytes([0xB0; 16]), number }
}

/// The bytes of an extent as if sealed.
fn sealed(number: u32, size: u64) -> Vec<u8> {
    let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, size).expect("a size within an extent");
    let len = usize::try_from(layout.data_len()).unwrap_or_default();
    super::model::Piece { number: u64::from(number) << 32 | size, size: len }.bytes()
}

impl Hand {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, ops: Vec<BlobOp>) {
        for op in ops {
            if self.judge.has_violation() {
                return;
            }
            let step = match op {
                BlobOp::Put { size, streamed } => self.put(size, streamed).await,
                BlobOp::Leave { size } => self.leave(size).await,
                BlobOp::Read { which, whole } => {
                    self.read_one(which, whole).await;
                    Ok(())
                }
                BlobOp::Drop { which } => {
                    self.drop_one(which);
                    Ok(())
                }
            };
            if let Err(error) = step
                && self.judge.of_change("change the volume", &error) == Verdict::Open
            {
                return;
            }
        }
    }

    fn number(&self) -> u32 {
        let mut model = self.model();
        model.next += 1;
        model.next
    }

    async fn put(&self, size: u64, streamed: bool) -> Result<()> {
        let number = self.number();
        let placed = self.write(number, size, streamed).await?;
        let location = *placed.location();
        let known =
            Known { size, location, flushed: false, dropped: false, freed: false, damaged: false };
        self.model().extents.insert(number, known);
        self.volume.flush(std::slice::from_ref(&placed)).await?;
        self.meta_seq.fetch_add(1, Ordering::SeqCst);
        self.model().extents.insert(number, Known { flushed: true, ..known });
        self.judge.note(&[u64::from(number), location.offset()]);
        Ok(())
    }

    async fn write(&self, number: u32, size: u64, streamed: bool) -> Result<Placed> {
        let bytes = sealed(number, size);
        if !streamed && bytes.len() <= PACKED_BYTES_MAX {
            let class = BufClass::holding(bytes.len()).expect("a packed extent fits a buffer");
            let mut buf = self.pool.acquire(class).await;
            buf.extend_from_slice(&bytes);
            return self.volume.put_packed(id(number), 0, buf).await;
        }
        let plan = ExtentPlan { lane: Lane::Hot, id: id(number), logical_off: 0, plain_len: size };
        let mut writer = self.volume.extent_writer(plan).await?;
        for chunk in bytes.chunks((1 << CHUNK_SHIFT) + 16) {
            writer.chunk().await?.copy_from_slice(chunk);
            writer.seal_chunk()?;
        }
        writer.finish().await
    }

    async fn leave(&self, size: u64) -> Result<()> {
        let number = self.number();
        let plan = ExtentPlan { lane: Lane::Hot, id: id(number), logical_off: 0, plain_len: size };
        let mut writer = self.volume.extent_writer(plan).await?;
        for _ in 0..writer.layout().n_chunks().div_ceil(2) {
            writer.chunk().await?.fill(7);
            writer.seal_chunk()?;
        }
        Ok(())
    }

    fn some(&self, which: u64) -> Option<u32> {
        let model = self.model();
        let index = which.checked_rem(model.extents.len() as u64)?;
        model.extents.keys().nth(usize::try_from(index).ok()?).copied()
    }

    fn drop_one(&self, which: u64) {
        if let Some(number) = self.some(which)
            && let Some(known) = self.model().extents.get_mut(&number)
        {
            known.dropped = true;
        }
    }

    async fn read_one(&self, which: u64, whole: bool) {
        if let Some(number) = self.some(which) {
            self.check_one(number, whole).await;
        }
    }

    /// Reads an extent and compares it with what is known.
    async fn check_one(&self, number: u32, whole: bool) {
        let Some(known) = self.model().extents.get(&number).copied() else { return };
        if !whole && !known.flushed {
            // Some chunks of it are checked by nobody but their tags.
            return;
        }
        let chunks = known.location.n_chunks();
        let wanted = if whole { 0..chunks } else { chunks - 1..chunks };
        let full = (1 << CHUNK_SHIFT) + 16;
        match self.read(number, &known.location, wanted.clone()).await {
            Ok(bytes) => {
                let from = usize::try_from(wanted.start).unwrap_or_default() * full;
                let right = sealed(number, known.size);
                let same = right.get(from..) == Some(bytes.as_slice());
                let unchecked = !whole && (self.judge.is_silent() || self.judge.is_deaf());
                // Until its segment is used again, what was given back may still be read.
                if !same && !unchecked {
                    self.judge.violation(format!("extent {number} reads as another: {known:?}"));
                }
            }
            Err(error) if known.freed && error.kind() == ErrorKind::Moved => {
                sometimes("sim: a location of an earlier use was refused");
            }
            Err(error) => {
                let lost = error.kind() == ErrorKind::Corrupt && !known.flushed;
                if !lost && !known.damaged && self.judge.of_read("read an extent", &error) {
                    let silent = self.judge.is_silent();
                    if let Some(known) = self.model().extents.get_mut(&number) {
                        known.damaged = silent;
                    }
                }
            }
        }
    }

    async fn read(
        &self,
        number: u32,
        location: &Location,
        chunks: std::ops::Range<u32>,
    ) -> Result<Vec<u8>> {
        let mut reader = self.volume.reader(id(number), location, chunks)?;
        let mut bytes = Vec::new();
        while let Some(mut read) = reader.next().await? {
            let spans: Vec<_> = read.spans().collect();
            for span in spans {
                bytes.extend_from_slice(read.buf_mut().get(span.range).unwrap_or_default());
            }
        }
        Ok(bytes)
    }

    /// Reads everything that is known.
    async fn verify(&self) {
        let numbers: Vec<u32> = self.model().extents.keys().copied().collect();
        for number in numbers {
            self.check_one(number, true).await;
        }
        for row in self.volume.segments() {
            let former = self.model().uses.insert(row.incarnation, row.segment);
            if row.incarnation > 0 && former.is_some_and(|segment| segment != row.segment) {
                self.judge.violation(format!("incarnation {} was used twice", row.incarnation));
            }
        }
    }

    /// Looks at every record.
    async fn verify_records(&self) {
        let mut records = BTreeSet::new();
        for row in self.volume.segments() {
            if row.state == SegmentState::Free {
                continue;
            }
            let Ok(mut scan) = self.volume.scan_segment(row.segment).await else { continue };
            while let Ok(Some(found)) = scan.next().await {
                if let Found::Extent { header, .. } | Found::Filler { header, .. } = found
                    && header.incarnation == row.incarnation
                    && !records.insert(header.rec_seq)
                    && !self.judge.is_silent()
                {
                    self.judge.violation(format!("record {} is there twice", header.rec_seq));
                }
            }
        }
    }
}

/// What outlives the lives.
struct Rig<'a> {
    plan: &'a BlobPlan,
    shared: &'a Shared,
    disk: SimDisk,
    table: MemoryTable,
    meta_seq: Arc<AtomicU64>,
    model: Arc<Mutex<Model>>,
    judge: Arc<Judge>,
    random: SplitMix,
}

/// Runs a plan.
pub(super) fn run(plan: &BlobPlan, shared: &Shared) -> Outcome {
    shared.env.reset(plan.seed);
    let _inline = Inline::begin(plan.seed);
    drop(crate::reached::counts::take());
    let config = SimConfig { seed: plan.seed, capacity_bytes: u64::MAX };
    let mut rig = Rig {
        plan,
        shared,
        disk: SimDisk::with(config),
        table: MemoryTable::default(),
        meta_seq: Arc::default(),
        model: Arc::default(),
        judge: Arc::default(),
        random: SplitMix::new(!plan.seed),
    };
    let last = Life {
        clients: Vec::new(),
        faults: Vec::new(),
        faulty_start: false,
        ending: Ending::Close,
    };
    let mut lives = 0;
    for life in plan.lives.iter().chain([&last]) {
        lives += 1;
        let runtime = super::runtime();
        let goes_on = runtime.block_on(async {
            shared.env.begin_life();
            let goes_on = rig.live(life).await;
            shared.env.end_life();
            goes_on
        });
        drop(runtime);
        if !goes_on || rig.judge.has_violation() {
            break;
        }
        rig.give_back();
    }
    let (violation, trace) = rig.judge.take();
    let faults = plan.lives.iter().flat_map(|life| &life.faults);
    let (ops, used) = (plan.ops(), shared.pool.stats().bytes_used);
    tally::outcome(ops, faults, lives, violation, (trace ^ rig.disk.trace(), used))
}

impl Rig<'_> {
    async fn open(&self) -> Result<Hand> {
        let parts = VolumeParts {
            disk: Arc::new(self.disk.clone()),
            pool: self.shared.pool.clone(),
            table: Arc::new(self.table.clone()),
            meta_seq: Arc::clone(&self.meta_seq),
            env: self.shared.env.env(),
            room: Arc::new(|_| Ok(())),
        };
        let config = VolumeConfig {
            segment_bytes: self.plan.segment_bytes,
            prewrite: false,
            writer_slabs_max: 4,
            ..VolumeConfig::default()
        };
        let (volume, _) = Volume::open(config, parts).await?;
        Ok(Hand {
            volume,
            pool: self.shared.pool.clone(),
            model: Arc::clone(&self.model),
            judge: Arc::clone(&self.judge),
            meta_seq: Arc::clone(&self.meta_seq),
        })
    }

    /// Whether there is another life.
    async fn live(&mut self, life: &Life<BlobOp>) -> bool {
        self.judge.begin_life(false);
        let hand = match self.open().await {
            Ok(hand) => hand,
            Err(error) => return self.refused(&error),
        };
        hand.verify().await;
        if life.clients.is_empty() {
            hand.verify_records().await;
        }
        for fault in &life.faults {
            if let Fault::Disk { op, after, fault: what } = *fault {
                self.judge.expect(*fault);
                self.disk.inject(op, after, what);
            }
        }
        let tasks: Vec<_> =
            life.clients.iter().map(|ops| tokio::spawn(hand.clone().run(ops.clone()))).collect();
        let crash = match life.ending {
            Ending::Crash { steps, crash } => {
                super::wait(steps, &tasks).await;
                crash
            }
            Ending::Idle(crash) => {
                super::finish(tasks, &self.judge).await;
                crash
            }
            Ending::Close | Ending::LogLies { .. } => {
                super::finish(tasks, &self.judge).await;
                self.disk.calm();
                let fenced = hand.volume.is_fenced();
                match hand.volume.close().await {
                    Ok(()) => return true,
                    Err(_) if fenced => {}
                    Err(error) => {
                        self.judge.of_change("close", &error);
                    }
                }
                SimCrash::Mixed
            }
        };
        self.disk = self.disk.crash_with(crash);
        true
    }

    fn refused(&self, error: &Error) -> bool {
        let damaged = self.judge.is_silent() && error.kind() == ErrorKind::Corrupt;
        if damaged {
            sometimes("sim: damage was found at start");
        } else {
            self.judge.violation(format!("open: {error:?}"));
        }
        false
    }

    /// Gives back a closed segment in which everything was dropped, as reclaiming does.
    fn give_back(&mut self) {
        let Ok(rows) = self.table.load() else { return };
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let here = |known: &Known| {
                known.location.segment() == row.segment
                    && known.location.incarnation() == row.incarnation
            };
            let all = model.extents.values().filter(|known| here(known));
            let dead = all.clone().all(|known| known.dropped || !known.flushed);
            // One extent that lives keeps its segment; now and then the model buries it.
            let bury = all.count() <= 2 && self.random.coin();
            if row.state != SegmentState::Closed || !(dead || bury) {
                continue;
            }
            for known in model.extents.values_mut().filter(|known| here(known)) {
                known.freed = true;
            }
            let free = SegmentRow { state: SegmentState::Free, written_bytes: 0, ..row };
            // In memory: it answers at once.
            drop(self.table.put(vec![free]).now_or_never());
            sometimes("sim: a segment was given back");
        }
    }
}
