//! What a simulated disk remembers: names, durable sectors, and every version since.
//!
//! Owns: the state behind one lock, the seed, the count of operations, the faults to come.
//! Does not know: futures. Each method is one instant.
//!
//! Invariants
//! - A sector reads as its newest version; without one as its durable bytes, else as zeros.
//! - Versions of a sector are in the order of their writes; making one durable drops the earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::super::files::not_open;
use super::super::transfer::{Counters, Direction, Step, Transfer, stopped};
use super::super::{BLOCK_BYTES, DiskStats, FileId};
use super::random::SplitMix;
use super::{SECTOR_BYTES, SimConfig, SimCrash, SimFault, SimOp};

/// One torn sector in this many, where a crash decides sector by sector.
const TEAR_ONE_IN: u64 = 4;
/// The beginning of a sector, where a record's header is if it has one: every other tear is there.
const HEAD_BYTES: usize = 160;

type Sector = [u8; SECTOR_BYTES];
const ZEROS: Sector = [0; SECTOR_BYTES];

/// The state of a simulated disk.
#[derive(Debug)]
pub(super) struct World {
    random: SplitMix,
    capacity_bytes: u64,
    stopped: bool,
    names: BTreeMap<String, u64>,
    nodes: BTreeMap<u64, Node>,
    open: BTreeMap<FileId, u64>,
    next_node: u64,
    next_file: u32,
    next_serial: u64,
    faults: Vec<Injected>,
    counts: BTreeMap<SimOp, u64>,
    counters: Counters,
    trace: u64,
}

#[derive(Debug)]
struct Injected {
    op: SimOp,
    after: u64,
    fault: SimFault,
}

/// A file, under whatever name or none.
#[derive(Debug, Default)]
struct Node {
    len: u64,
    durable: BTreeMap<u64, Version>,
    /// What was written since, by sector, oldest first.
    versions: BTreeMap<u64, Vec<Version>>,
    /// Writes that a sync may make durable.
    answered: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Version {
    serial: u64,
    /// The whole write, shared by its sectors, and where in it this sector starts.
    write: Arc<Vec<u8>>,
    at: usize,
}

impl Version {
    /// A sector that is no part of a write.
    fn of(bytes: &Sector) -> Self {
        Self { serial: 0, write: Arc::new(bytes.to_vec()), at: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.write.get(self.at..self.at + SECTOR_BYTES).expect("a write holds whole sectors")
    }
}

/// What a sync was told to make durable when it started.
#[derive(Debug, Default)]
pub(super) struct Sync {
    node: Option<u64>,
    serials: BTreeSet<u64>,
    fault: Option<SimFault>,
}

impl World {
    pub(super) fn new(config: SimConfig) -> Self {
        Self {
            random: SplitMix::new(config.seed),
            capacity_bytes: config.capacity_bytes,
            stopped: false,
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
            open: BTreeMap::new(),
            next_node: 0,
            next_file: 0,
            next_serial: 0,
            faults: Vec::new(),
            counts: BTreeMap::new(),
            counters: Counters::default(),
            trace: config.seed,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn stats(&self) -> DiskStats {
        self.counters.snapshot()
    }

    pub(super) fn count(&self, op: SimOp) -> u64 {
        self.counts.get(&op).copied().unwrap_or(0)
    }

    pub(super) fn faults_left(&self) -> usize {
        self.faults.len()
    }

    pub(super) fn calm(&mut self) {
        self.faults.clear();
    }

    pub(super) fn inject(&mut self, op: SimOp, after: u64, fault: SimFault) {
        self.faults.push(Injected { op, after, fault });
    }

    pub(super) fn finished(&self, direction: Direction, bytes: u64, result: &io::Result<()>) {
        self.counters.finished(direction, bytes, result);
    }

    /// Whether an operation takes effect before its wait, and how long that is.
    pub(super) fn schedule(&mut self, pauses_max: u64) -> (bool, u64) {
        let choice = (self.random.below(2) == 0, self.random.below(pauses_max + 1));
        self.note(&[u64::from(choice.0), choice.1]);
        choice
    }

    /// Counts an operation that can only fail as a whole.
    pub(super) fn start(&mut self, op: SimOp) -> io::Result<()> {
        match self.begin(op)? {
            Some(fault) => Err(failure(fault)),
            None => Ok(()),
        }
    }

    /// Counts an operation and says what is to go wrong with it.
    fn begin(&mut self, op: SimOp) -> io::Result<Option<SimFault>> {
        if self.stopped {
            return Err(stopped());
        }
        *self.counts.entry(op).or_default() += 1;
        self.note(&[op as u64]);
        let due = self.faults.iter().position(|fault| fault.op == op && fault.after == 0);
        for fault in self.faults.iter_mut().filter(|fault| fault.op == op) {
            fault.after = fault.after.saturating_sub(1);
        }
        Ok(due.map(|index| self.faults.remove(index).fault))
    }

    fn note(&mut self, words: &[u64]) {
        for &word in words {
            self.trace = SplitMix::new(self.trace ^ word).next();
        }
    }

    pub(super) fn create(&mut self, name: &str, len: u64) -> io::Result<()> {
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let used: u64 = self.nodes.values().map(|node| node.len).sum();
        if used.checked_add(len).is_none_or(|sum| sum > self.capacity_bytes) {
            return Err(failure(SimFault::Enospc));
        }
        let node = self.next_node;
        self.next_node += 1;
        self.nodes.insert(node, Node { len, ..Node::default() });
        self.names.insert(name.to_owned(), node);
        self.note(&[node, len]);
        Ok(())
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<FileId> {
        let node = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let id = FileId(self.next_file);
        self.next_file += 1;
        self.open.insert(id, node);
        Ok(id)
    }

    pub(super) fn close(&mut self, id: FileId) {
        if let Some(node) = self.open.remove(&id) {
            self.forget_unreachable(node);
        }
    }

    pub(super) fn list(&self, dir: &str) -> Vec<(String, u64)> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let inside = self.names.iter().filter_map(|(name, node)| {
            let name = name.strip_prefix(&prefix).filter(|name| !name.contains('/'))?;
            Some((name.to_owned(), self.nodes.get(node)?.len))
        });
        inside.collect()
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let node = self.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.forget_unreachable(node);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let node = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(replaced) = self.names.insert(to.to_owned(), node) {
            self.forget_unreachable(replaced);
        }
        Ok(())
    }

    fn forget_unreachable(&mut self, node: u64) {
        let named = self.names.values().any(|&other| other == node);
        let open = self.open.values().any(|&other| other == node);
        if !named && !open {
            self.nodes.remove(&node);
        }
    }

    pub(super) fn read(&mut self, id: FileId, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let fault = self.begin(SimOp::Read)?;
        let node = self.node(id)?;
        Transfer::admit(Direction::Read, offset, buf.len(), node.len)?;
        node.read(buf, offset);
        match fault {
            Some(SimFault::BitFlip) => self.random.flip(buf),
            Some(fault) => return Err(failure(fault)),
            None => {}
        }
        Ok(())
    }

    /// Admits a transfer to or from an open file.
    pub(super) fn admit(
        &self,
        direction: Direction,
        id: FileId,
        offset: u64,
        len: usize,
    ) -> io::Result<Transfer> {
        if self.stopped {
            return Err(stopped());
        }
        Transfer::admit(direction, offset, len, self.node(id)?.len)
    }

    /// One step of a write: what follows, and the serial number of what was written.
    pub(super) fn write(
        &mut self,
        id: FileId,
        transfer: &mut Transfer,
        bytes: &[u8],
    ) -> (Step, Option<u64>) {
        let rest = bytes.get(transfer.position()..).unwrap_or_default();
        let answer = self.write_some(id, rest, transfer.file_offset());
        let serial = answer.as_ref().ok().map(|(serial, _)| *serial);
        (transfer.step(answer.map(|(_, moved)| moved), &self.counters), serial)
    }

    /// Answers with the serial number of the write and the bytes that it took.
    fn write_some(&mut self, id: FileId, bytes: &[u8], offset: u64) -> io::Result<(u64, usize)> {
        let fault = self.begin(SimOp::Write)?;
        let len = self.node(id)?.len;
        let serial = self.next_serial;
        self.next_serial += 1;
        self.note(&[offset, bytes.len() as u64]);
        let mut bytes = bytes.to_vec();
        let mut offset = offset;
        let mut moved = bytes.len();
        match fault {
            Some(SimFault::BitFlip) => self.random.flip(&mut bytes),
            Some(SimFault::Lost) => return Ok((serial, moved)),
            Some(SimFault::Misdirected) => {
                let blocks = (len - bytes.len() as u64) / BLOCK_BYTES + 1;
                offset = self.random.below(blocks) * BLOCK_BYTES;
            }
            Some(SimFault::Eio) => bytes.truncate(self.some_sectors(moved)),
            Some(SimFault::Enospc) => return Err(failure(SimFault::Enospc)),
            Some(SimFault::Short) => {
                moved = self.some_sectors(moved - SECTOR_BYTES) + SECTOR_BYTES;
                bytes.truncate(moved);
            }
            None => {}
        }
        self.node_mut(id)?.put(serial, bytes, offset);
        if fault == Some(SimFault::Eio) {
            return Err(failure(SimFault::Eio));
        }
        Ok((serial, moved))
    }

    /// The length of some beginning of `len` bytes, whole sectors.
    fn some_sectors(&mut self, len: usize) -> usize {
        let sectors = self.random.below((len / SECTOR_BYTES) as u64 + 1);
        usize::try_from(sectors).map_or(0, |sectors| sectors * SECTOR_BYTES)
    }

    /// From now on a sync covers this write.
    pub(super) fn answered(&mut self, id: FileId, serial: u64) {
        // The handle may have been closed, or the power gone, while the write was under way.
        if let Ok(node) = self.node_mut(id) {
            node.answered.insert(serial);
        }
    }

    pub(super) fn start_sync(&mut self, id: FileId) -> io::Result<Sync> {
        let fault = self.begin(SimOp::Sync)?;
        let serials = self.node(id)?.answered.clone();
        Ok(Sync { node: self.open.get(&id).copied(), serials, fault })
    }

    pub(super) fn sync(&mut self, sync: &Sync) -> io::Result<()> {
        let result = match sync.fault {
            Some(SimFault::Lost) | None => Ok(()),
            Some(fault) => Err(failure(fault)),
        };
        self.counters.synced(&result);
        // A file that was removed and closed meanwhile has nothing left to lose.
        let Some(node) = sync.node.and_then(|node| self.nodes.get_mut(&node)) else {
            return result;
        };
        match sync.fault {
            Some(SimFault::Lost) => {}
            Some(_) => {
                let random = &mut self.random;
                node.make_durable(|serial| sync.serials.contains(&serial) && random.coin());
                node.answered.retain(|serial| !sync.serials.contains(serial));
            }
            None => {
                node.make_durable(|serial| sync.serials.contains(&serial));
                node.answered.retain(|serial| !sync.serials.contains(serial));
            }
        }
        result
    }

    pub(super) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let node = self.nodes.get(self.names.get(name)?)?;
        let count = usize::try_from(node.len).ok()? / SECTOR_BYTES;
        Some(sectors(0).take(count).flat_map(|sector| node.newest(sector)).copied().collect())
    }

    pub(super) fn rot(&mut self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let node = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let node = self.nodes.get_mut(&node).ok_or(io::ErrorKind::NotFound)?;
        if offset >= node.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sector = offset / SECTOR_BYTES as u64;
        let within = usize::try_from(offset % SECTOR_BYTES as u64).map_err(io::Error::other)?;
        let newest = node.versions.get_mut(&sector).and_then(|versions| versions.last_mut());
        let version = match newest {
            Some(version) => version,
            None => node.durable.entry(sector).or_insert_with(|| Version::of(&ZEROS)),
        };
        let byte = Arc::make_mut(&mut version.write).get_mut(version.at + within);
        *byte.expect("an offset modulo the sector lies in the sector") ^= 1 << (bit % 8);
        Ok(())
    }

    /// Stops this world and makes the one that the next start finds.
    pub(super) fn crash(&mut self, crash: SimCrash) -> Self {
        self.stopped = true;
        let seed = self.random.next();
        let mut after = Self::new(SimConfig { seed, capacity_bytes: self.capacity_bytes });
        after.trace = self.trace ^ seed;
        after.next_node = self.next_node;
        after.next_serial = self.next_serial;
        // Handles from before do not work after; leaving a gap makes mixing them up an error.
        after.next_file = self.next_file;
        let loss = Loss::choose(crash, &mut self.random, self.next_serial);
        for (name, number) in &self.names {
            let node = self.nodes.get(number).expect("a name leads to a file");
            after.names.insert(name.clone(), *number);
            after.nodes.insert(*number, node.survivor(&loss, &mut self.random));
        }
        after
    }

    fn node(&self, id: FileId) -> io::Result<&Node> {
        let node = self.open.get(&id).and_then(|node| self.nodes.get(node));
        node.ok_or_else(|| not_open(id))
    }

    fn node_mut(&mut self, id: FileId) -> io::Result<&mut Node> {
        let node = self.open.get(&id).and_then(|node| self.nodes.get_mut(node));
        node.ok_or_else(|| not_open(id))
    }
}

impl Node {
    fn newest(&self, sector: u64) -> &[u8] {
        match self.versions.get(&sector).and_then(|versions| versions.last()) {
            Some(version) => version.bytes(),
            None => self.durable(sector),
        }
    }

    fn durable(&self, sector: u64) -> &[u8] {
        self.durable.get(&sector).map_or(ZEROS.as_slice(), Version::bytes)
    }

    /// The newest bytes from `offset` on.
    fn read(&self, buf: &mut [u8], offset: u64) {
        buf.fill(0);
        let first = offset / SECTOR_BYTES as u64;
        let wanted = first..first + (buf.len() / SECTOR_BYTES) as u64;
        let newest = self
            .versions
            .range(wanted.clone())
            .filter_map(|(sector, versions)| Some((sector, versions.last()?)));
        for (sector, version) in self.durable.range(wanted).chain(newest) {
            let start = usize::try_from(sector - first).unwrap_or(usize::MAX) * SECTOR_BYTES;
            if let Some(into) = buf.get_mut(start..start + SECTOR_BYTES) {
                into.copy_from_slice(version.bytes());
            }
        }
    }

    fn put(&mut self, serial: u64, bytes: Vec<u8>, offset: u64) {
        let count = bytes.len() / SECTOR_BYTES;
        let write = Arc::new(bytes);
        for (index, sector) in sectors(offset).take(count).enumerate() {
            let version = Version { serial, write: Arc::clone(&write), at: index * SECTOR_BYTES };
            self.versions.entry(sector).or_default().push(version);
        }
    }

    /// In each sector the newest version that is chosen becomes durable.
    fn make_durable(&mut self, mut chosen: impl FnMut(u64) -> bool) {
        // A write is chosen as a whole, however many sectors it has.
        let mut choices = BTreeMap::new();
        for (&sector, versions) in &mut self.versions {
            let is_chosen =
                |v: &Version| *choices.entry(v.serial).or_insert_with(|| chosen(v.serial));
            let Some(index) = versions.iter().rposition(is_chosen) else { continue };
            let made = versions.drain(..=index).next_back();
            let made = made.expect("the range drained ends with the chosen one");
            self.durable.insert(sector, made);
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }

    /// The file after a power loss: durable sectors only.
    fn survivor(&self, loss: &Loss, random: &mut SplitMix) -> Self {
        let mut durable = self.durable.clone();
        for (&sector, versions) in &self.versions {
            match loss {
                Loss::Sectors => {
                    let mut candidates = vec![self.durable(sector)];
                    candidates.extend(versions.iter().map(Version::bytes));
                    durable.insert(sector, Version::of(&mixed(random, &candidates)));
                }
                Loss::Writes { kept } => {
                    if let Some(newest) = versions.iter().rev().find(|it| kept(it.serial)) {
                        durable.insert(sector, newest.clone());
                    }
                }
            }
        }
        Self { len: self.len, durable, ..Self::default() }
    }
}

/// How a crash decides.
enum Loss {
    /// Each sector by itself, with tears.
    Sectors,
    /// Whole writes.
    Writes { kept: Box<dyn Fn(u64) -> bool> },
}

impl Loss {
    fn choose(crash: SimCrash, random: &mut SplitMix, next_serial: u64) -> Self {
        let kept: Box<dyn Fn(u64) -> bool> = match crash {
            SimCrash::KeepAll => Box::new(|_| true),
            SimCrash::LoseAll => Box::new(|_| false),
            SimCrash::Mixed => match random.below(4) {
                0 | 1 => return Self::Sectors,
                2 => {
                    let salt = random.next();
                    Box::new(move |serial| SplitMix::new(salt ^ serial).coin())
                }
                _ => {
                    let end = random.below(next_serial + 1);
                    Box::new(move |serial| serial < end)
                }
            },
        };
        Self::Writes { kept }
    }
}

/// The numbers of the sectors from `offset` on.
fn sectors(offset: u64) -> impl Iterator<Item = u64> {
    offset / SECTOR_BYTES as u64..
}

fn to_sector(bytes: &[u8]) -> Sector {
    *bytes.first_chunk().expect("a version is a whole sector")
}

fn failure(fault: SimFault) -> io::Error {
    match fault {
        SimFault::Enospc => io::Error::from(rustix::io::Errno::NOSPC),
        _ => io::Error::from(rustix::io::Errno::IO),
    }
}

/// One of the candidates, or now and then the beginning of one and the end of another.
fn mixed(random: &mut SplitMix, candidates: &[&[u8]]) -> Sector {
    let mut pick = || {
        let index = random.index(candidates.len());
        to_sector(candidates.get(index).expect("an index below the length"))
    };
    let (mut sector, other) = (pick(), pick());
    if random.below(TEAR_ONE_IN) == 0 {
        let within = if random.coin() { HEAD_BYTES } else { SECTOR_BYTES };
        let cut = random.index(within);
        let torn = sector.iter_mut().zip(other.iter()).skip(cut);
        torn.for_each(|(byte, other)| *byte = *other);
    }
    sector
}
