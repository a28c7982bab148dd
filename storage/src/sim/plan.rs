//! What a sequence will do: drawn from its seed before it runs, so that it can be cut down.
//!
//! Owns: the alphabet of operations, faults and endings, and how a seed draws a subset of each
//! ("swarm"). Knows nothing of: the engine, the model.
//!
//! Invariants
//! - A plan follows from its seed alone, and running it twice does the same twice.

use crate::io::sim::{SimCrash, SimFault, SimOp, SplitMix};

/// Names of each client's own.
pub(super) const KEYS: u8 = 4;
/// Operations of a client in one life, at most.
const OPS_MAX: u64 = 16;
/// Lives of a node, at most.
const LIVES_MAX: u64 = 3;

/// What must hold for a conditional put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// The name is free.
    Absent,
    /// The version is the one that the client knows.
    Current,
    /// The version is one that never was.
    Never,
}

/// One step of a client. Simple ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Get {
        key: u8,
    },
    Put {
        key: u8,
        size: usize,
    },
    Delete {
        key: u8,
    },
    List,
    Range {
        key: u8,
        from: u64,
        len: u64,
    },
    Copy {
        from: u8,
        to: u8,
    },
    PutIf {
        key: u8,
        size: usize,
        guard: Guard,
    },
    /// Adds one to a counter that all clients share, by compare and swap.
    Count,
    Begin {
        key: u8,
    },
    Part {
        number: u32,
        size: usize,
    },
    Complete,
    Abort,
    /// Sends a part that is a copy of an object.
    PartCopy {
        number: u32,
        from: u8,
    },
    /// Deletes every name of the client at once.
    DeleteAll,
    /// Replaces the tags, and reads them back.
    Tag {
        key: u8,
    },
    /// Has every segment cleaned that is worth it.
    Reclaim,
    /// Reads half, deletes the object under the reader, waits, reads the rest.
    Slow {
        key: u8,
    },
    /// Lets time pass, so that what runs in the background does.
    Rest {
        ms: u64,
    },
    /// Sets the wall clock.
    Jump {
        ms: i64,
    },
}

/// The kinds of [`Op`] that a swarm leaves out or not.
const KINDS: u64 = 16;

/// What goes wrong in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Of the disk: after so many operations of the kind.
    Disk { op: SimOp, after: u64, fault: SimFault },
    /// A metadata write fails after so many.
    Meta { after: u64 },
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    Close,
    /// When everybody is done, by a power loss.
    Idle(SimCrash),
    /// After so many steps, by a power loss.
    Crash { steps: u64, crash: SimCrash },
    /// By a power loss after which the metadata log lacks its last batches, although synced.
    LogLies { batches: usize },
}

/// From a start to a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life<O = Op> {
    /// What each client does.
    pub(super) clients: Vec<Vec<O>>,
    pub(super) faults: Vec<Fault>,
    /// Whether the faults are there from the start, recovery included.
    pub(super) faulty_start: bool,
    pub(super) ending: Ending,
}

/// A whole sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence<O> {
    pub(super) seed: u64,
    pub(super) segment_bytes: u64,
    pub(super) inline_bytes_max: u64,
    /// Segments that the disk has room for.
    pub(super) segments_max: Option<u64>,
    pub(super) prewrite: bool,
    pub(super) lives: Vec<Life<O>>,
}

/// A whole node's.
pub(super) type Plan = Sequence<Op>;

impl<O> Sequence<O> {
    /// How many operations there are.
    pub(super) fn ops(&self) -> usize {
        self.lives.iter().flat_map(|life| &life.clients).map(Vec::len).sum()
    }
}

/// Which faults a row plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Faults {
    /// Power losses only.
    Crashes,
    /// Errors and silent damage as well.
    All,
    /// Nothing goes wrong; stops are orderly.
    None,
}

impl Plan {
    /// The plan of `seed`.
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let mut random = SplitMix::new(seed);
        let segment_bytes = pick(&mut random, &[64 << 10, 64 << 10, 128 << 10, 384 << 10, 1 << 20]);
        let inline_bytes_max = pick(&mut random, &[0, 64, 64, 1_000]);
        let mut draw = Draw::new(random);
        draw.size_max = usize::try_from(segment_bytes / 3).unwrap_or(usize::MAX).min(330_000);
        draw.inline = usize::try_from(inline_bytes_max).unwrap_or(usize::MAX);
        let clients = 1 + draw.random.below(3);
        let lives = 1 + draw.random.below(LIVES_MAX);
        let lives = (0..lives).map(|_| draw.life((clients, OPS_MAX), faults, Draw::op)).collect();
        let tight = faults == Faults::All && draw.random.below(4) == 0;
        Self {
            seed,
            segment_bytes,
            inline_bytes_max,
            segments_max: tight.then(|| 2 + draw.random.below(4)),
            prewrite: draw.random.below(4) == 0,
            lives,
        }
    }
}

pub(super) fn pick<T: Copy>(random: &mut SplitMix, choices: &[T]) -> T {
    let index = random.index(choices.len());
    *choices.get(index).expect("an index below the length")
}

/// A seed's taste.
pub(super) struct Draw {
    pub(super) random: SplitMix,
    /// The kinds of operation that it uses, by bit.
    kinds: u64,
    /// The kinds of fault.
    fault_kinds: u64,
    size_max: usize,
    inline: usize,
}

impl Draw {
    pub(super) fn new(mut random: SplitMix) -> Self {
        let (kinds, fault_kinds) = (random.next() | random.next(), random.next());
        Self { random, kinds, fault_kinds, size_max: 0, inline: 0 }
    }

    /// A life of `clients`, each of which does so many operations at most.
    pub(super) fn life<O>(
        &mut self,
        (clients, ops_max): (u64, u64),
        faults: Faults,
        mut op: impl FnMut(&mut Self) -> O,
    ) -> Life<O> {
        let clients = (0..clients)
            .map(|_| {
                let ops = 1 + self.random.below(ops_max);
                (0..ops).map(|_| op(self)).collect()
            })
            .collect();
        let goes_wrong = faults == Faults::All && self.random.below(3) > 0;
        let count = if goes_wrong { 1 + self.random.below(2) } else { 0 };
        let planned = (0..count).map(|_| self.fault()).collect();
        Life {
            clients,
            faults: planned,
            faulty_start: self.random.below(4) == 0,
            ending: self.ending(faults),
        }
    }

    fn ending(&mut self, faults: Faults) -> Ending {
        let crash = pick(
            &mut self.random,
            &[SimCrash::Mixed, SimCrash::Mixed, SimCrash::LoseAll, SimCrash::KeepAll],
        );
        match (faults, self.random.below(16)) {
            (Faults::None, _) | (_, 0..3) => Ending::Close,
            (_, 3..5) => Ending::Idle(crash),
            (Faults::All, 5) => Ending::LogLies { batches: 1 + self.random.index(4) },
            _ => {
                // Most clients are done after a hundred steps; the power should go under them.
                let steps_max = pick(&mut self.random, &[40, 120, 600]);
                Ending::Crash { steps: self.random.below(steps_max), crash }
            }
        }
    }

    fn fault(&mut self) -> Fault {
        loop {
            let kind = self.random.below(12);
            // A few kinds at a time are likelier to meet than all of them.
            if self.fault_kinds & (1 << kind) == 0 && self.random.below(8) > 0 {
                continue;
            }
            let (op, fault, within) = match kind {
                0 => (SimOp::Sync, SimFault::Eio, 5),
                1 => (SimOp::Write, SimFault::Eio, 10),
                2 => (SimOp::Read, SimFault::Eio, 10),
                3 => (SimOp::Create, SimFault::Enospc, 3),
                4 => (SimOp::Write, SimFault::Enospc, 10),
                5 => (SimOp::Read, SimFault::BitFlip, 10),
                6 => (SimOp::Write, SimFault::BitFlip, 10),
                7 => (SimOp::Write, SimFault::Lost, 10),
                8 => (SimOp::Write, SimFault::Misdirected, 10),
                9 => (SimOp::Sync, SimFault::Lost, 5),
                10 => (SimOp::Write, SimFault::Short, 10),
                _ => return Fault::Meta { after: self.random.below(12) },
            };
            return Fault::Disk { op, after: self.random.below(within), fault };
        }
    }

    fn key(&mut self) -> u8 {
        u8::try_from(self.random.below(u64::from(KEYS))).unwrap_or_default()
    }

    /// Around every border that the layout has, mostly small.
    fn size(&mut self) -> usize {
        let borders = [0, 1, self.inline, 4_096, 65_536, 131_072, 262_144, 327_680];
        let near = match self.random.below(10) {
            0..2 => pick(&mut self.random, &borders) + self.random.index(3),
            2..9 => self.random.index(8_000),
            _ => self.random.index(90_000),
        };
        near.saturating_sub(1).min(self.size_max)
    }

    fn op(&mut self) -> Op {
        loop {
            let kind = self.random.below(KINDS);
            if self.kinds & (1 << kind) == 0 {
                // Puts and gets are always there.
                match self.random.below(6) {
                    0 => return Op::Get { key: self.key() },
                    1 => return Op::Put { key: self.key(), size: self.size() },
                    _ => continue,
                }
            }
            return match kind {
                1 => Op::List,
                2 => Op::Range {
                    key: self.key(),
                    from: self.random.next(),
                    len: 1 + self.random.below(100_000),
                },
                3 => Op::Copy { from: self.key(), to: self.key() },
                4 => {
                    let guard =
                        pick(&mut self.random, &[Guard::Absent, Guard::Current, Guard::Never]);
                    Op::PutIf { key: self.key(), size: self.size(), guard }
                }
                5 => Op::Count,
                6 => Op::Begin { key: self.key() },
                7 | 8 => Op::Part {
                    number: 1 + u32::try_from(self.random.below(3)).unwrap_or_default(),
                    size: self.size(),
                },
                9 if self.random.below(4) == 0 => Op::Abort,
                9 => Op::Complete,
                10 => Op::Slow { key: self.key() },
                11 => Op::Reclaim,
                12 => Op::Tag { key: self.key() },
                13 if self.random.below(4) == 0 => Op::DeleteAll,
                0 | 13 => Op::Delete { key: self.key() },
                14 => Op::PartCopy {
                    number: 1 + u32::try_from(self.random.below(3)).unwrap_or_default(),
                    from: self.key(),
                },
                _ if self.random.below(8) == 0 => {
                    Op::Jump { ms: pick(&mut self.random, &[-3_600_000, -1, 1_000, 86_400_000]) }
                }
                _ => Op::Rest { ms: pick(&mut self.random, &[1, 100, 1_500, 7_000]) },
            };
        }
    }
}
