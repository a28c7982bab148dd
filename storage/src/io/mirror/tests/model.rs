//! The model: a map of what was acknowledged. Members fail, power goes, disks are pulled and
//! replaced, all from one seed; whatever was acknowledged reads, and nothing else does.

use std::collections::BTreeMap;
use std::sync::Arc;

use kluis_kms::env::{Rng, SeededRng};

use super::super::*;
use super::rig::{Rig, rebuilt, run, states};
use crate::error::ErrorKind;
use crate::io::BLOCK_BYTES;
use crate::io::sim::{SimDisk, SimFault, SimOp};

use MemberState::{Current, Out, Rebuilding};

/// Seeds of a run; each is one life of a mirror.
const SEEDS: u64 = 400;
/// Steps of a life.
const STEPS: u32 = 60;
/// Files, and blocks in each: few, so that writes meet copies.
const FILES: u64 = 3;
const BLOCKS: u64 = 40;

/// How often something rare happened, over all seeds: each must.
#[derive(Default, Debug)]
struct Seen {
    dropped: u32,
    crashed_while_filling: u32,
    rebuilt: u32,
    refused: u32,
    started_alone: u32,
    resumed: u32,
}

struct Life {
    random: SeededRng,
    rig: Rig,
    disk: MirrorDisk,
    files: Vec<FileId>,
    /// What each block holds; absent where nobody can know.
    model: BTreeMap<(u64, u64), u8>,
    disks_made: u64,
    seed: u64,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let rig = Rig::new(seed);
        let disk = rig.open().await.unwrap();
        let mut life = Self {
            random: SeededRng::new(seed),
            rig,
            disk,
            files: Vec::new(),
            model: BTreeMap::new(),
            disks_made: 0,
            seed,
        };
        for file in 0..FILES {
            let len = BLOCKS * BLOCK_BYTES;
            life.disk.open(&format!("seg/{file}"), OpenMode::Create { len }).await.unwrap();
            life.model.extend((0..BLOCKS).map(|block| ((file, block), 0)));
        }
        life.open_files().await;
        life
    }

    async fn open_files(&mut self) {
        self.files.clear();
        for file in 0..FILES {
            let opened = self.disk.open(&format!("seg/{file}"), OpenMode::Existing).await;
            self.files.push(opened.unwrap());
        }
    }

    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    fn place(&self) -> (u64, u64) {
        (self.below(FILES), self.below(BLOCKS))
    }

    fn file(&self, file: u64) -> FileId {
        self.files[usize::try_from(file).unwrap()]
    }

    async fn put(&mut self) {
        let (file, block) = self.place();
        let byte = u8::try_from(self.below(256)).unwrap();
        self.model.remove(&(file, block));
        let put = self.rig.put(&self.disk, self.file(file), block, byte).await;
        // One member at a time fails here: the other answers.
        put.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.model.insert((file, block), byte);
    }

    async fn check(&self) {
        for (&(file, block), &byte) in &self.model {
            let found = self.rig.get(&self.disk, self.file(file), block).await;
            assert_eq!(found.unwrap(), byte, "seed {} file {file} block {block}", self.seed);
        }
    }

    /// A member fails, if the other is well.
    async fn fail_one(&mut self, seen: &mut Seen) {
        let victim = usize::try_from(self.below(2)).unwrap();
        let standing = states(&self.disk);
        if standing[1 - victim] != Current || standing[victim] == Out {
            return;
        }
        let op = if self.below(2) == 0 { SimOp::Write } else { SimOp::Sync };
        self.rig.disks[victim].inject(op, self.below(4), SimFault::Eio);
        while states(&self.disk)[victim] != Out {
            self.put().await;
        }
        seen.dropped += 1;
    }

    async fn replace(&mut self) {
        let standing = states(&self.disk);
        let Some(seat) = standing.iter().position(|state| *state == Out) else {
            return;
        };
        if self.below(2) == 0 {
            self.disks_made += 1;
            self.rig.disks[seat] = SimDisk::new(self.seed * 1_000 + self.disks_made);
        }
        let new = Arc::new(self.rig.disks[seat].clone());
        self.disk.replace(seat, new).await.unwrap();
    }

    /// Power goes in the middle of writes.
    async fn crash(&mut self, seen: &mut Seen) {
        let places: Vec<_> = (0..3).map(|_| self.place()).collect();
        let bytes: Vec<_> = places.iter().map(|_| u8::try_from(self.below(256)).unwrap()).collect();
        let mut puts = Vec::new();
        for (&(file, block), &byte) in places.iter().zip(&bytes) {
            self.model.remove(&(file, block));
            let (rig, disk, id) = (self.rig.clone(), self.disk.clone(), self.file(file));
            puts.push(tokio::spawn(async move { rig.put(&disk, id, block, byte).await }));
        }
        for _ in 0..self.below(40) {
            tokio::task::yield_now().await;
        }
        let standing = states(&self.disk);
        seen.crashed_while_filling += u32::from(standing.contains(&Rebuilding));
        let after = self.rig.crash();
        for put in puts {
            put.abort();
        }
        self.rig = after;
        self.start(standing, seen).await;
        // What was under way when the power went is anything now: written anew.
        for (file, block) in places {
            self.rig.put(&self.disk, self.file(file), block, 1).await.unwrap();
            self.model.insert((file, block), 1);
        }
    }

    async fn start(&mut self, standing: [MemberState; 2], seen: &mut Seen) {
        let witness = || Some(self.rig.witness.clone());
        let [a, b] = self.rig.disks.clone();
        let alone = usize::try_from(self.below(4)).unwrap();
        let chosen = match alone {
            0 => [Some(a), None],
            1 => [None, Some(b)],
            _ => [Some(a), Some(b)],
        };
        let opened = self.rig.open_with(chosen, witness()).await;
        let is_settled = !standing.contains(&Rebuilding);
        self.disk = match opened {
            Ok(disk) => {
                if alone < 2 {
                    assert_ne!(standing[alone], Out, "seed {}: a stale copy started", self.seed);
                    seen.started_alone += 1;
                }
                disk
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {}: {error:?}", self.seed);
                assert!(alone < 2 && (standing[alone] != Current || !is_settled));
                seen.refused += 1;
                self.rig.open().await.unwrap()
            }
        };
        seen.resumed += u32::from(states(&self.disk).contains(&Rebuilding));
        self.open_files().await;
    }

    async fn step(&mut self, seen: &mut Seen) {
        match self.below(16) {
            0 => self.fail_one(seen).await,
            1 | 2 => self.replace().await,
            3 => self.crash(seen).await,
            4 => self.check().await,
            5 if self.disk.status().rebuild.is_some() => {
                let status = rebuilt(&self.disk).await;
                seen.rebuilt += u32::from(status.state == RebuildState::Done);
            }
            _ => self.put().await,
        }
    }
}

#[test]
fn whatever_was_acknowledged_reads() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        run(async {
            let mut life = Life::begin(seed).await;
            for _ in 0..STEPS {
                life.step(&mut seen).await;
            }
            life.check().await;
        });
    }
    let Seen { dropped, crashed_while_filling, rebuilt, refused, started_alone, resumed } = seen;
    let all = [dropped, crashed_while_filling, rebuilt, refused, started_alone, resumed];
    assert!(all.iter().all(|count| *count > 0), "a rare state was never reached: {seen:?}");
}
