//! A whole node in simulation: lives, each from a start to a stop, and what must hold in between.
//!
//! Owns: opening, planting faults, cutting the power, the checks after each start and at the end.
//! Knows nothing of: what clients do, what a seed draws.
//!
//! Invariants
//! - A power loss takes every task and every unsynced byte at one moment: the disk and the rows
//!   stop before the tasks are dropped.
//! - The last life has no faults: what was acknowledged has to be there, and all rows agree.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::client::Hand;
use super::env::SimEnv;
use super::judge::Judge;
use super::model::Model;
use super::plan::{Ending, Fault, Life, Plan};
use super::shared::{Shared, TENANTS};
use super::{Outcome, tally};
use crate::blob::VolumeConfig;
use crate::check::check_rows;
use crate::engine::{Engine, EngineConfig, Ground};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::inline::Inline;
use crate::io::sim::{SimConfig, SimCrash, SimDisk, SplitMix};
use crate::io::{DiskKind, DiskReport};
use crate::meta::MetaStore;
use crate::meta::memory::MemoryMeta;
use crate::reached::sometimes;
use crate::requests::CreateBucket;
use crate::space::Space;
use crate::types::{BucketInfo, BucketName, ETagRule, UserId};

/// Time enough for everything in the background: the superblock takes note each second, the release
/// queue is looked at each five.
const LONG: Duration = Duration::from_secs(8);
/// How a life came out.
#[derive(PartialEq, Eq)]
enum Came {
    /// There is another one.
    On,
    /// The node is not to be started again, and rightly so.
    Out,
}

/// What outlives the lives.
struct Node<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    disk: SimDisk,
    meta: Arc<MemoryMeta>,
    random: SplitMix,
    model: Arc<Mutex<Model>>,
    judge: Arc<Judge>,
    buckets: Vec<BucketInfo>,
    /// Rows that the volume knows of were lost: the next start has to refuse.
    must_refuse: bool,
    lives: u64,
}

/// Runs a plan.
pub(super) fn run(plan: &Plan, shared: &Shared) -> Outcome {
    shared.env.reset(plan.seed);
    let _inline = Inline::begin(plan.seed);
    drop(crate::reached::counts::take());
    let mut node = Node::new(plan, shared);
    let mut came = Came::On;
    for life in &plan.lives {
        came = node.with_runtime(|node| Box::pin(node.live(life)));
        if came == Came::Out || node.judge.has_violation() {
            break;
        }
    }
    if came == Came::On && !node.judge.has_violation() {
        node.with_runtime(|node| Box::pin(node.last()));
    }
    let (violation, trace) = node.judge.take();
    let trace = trace ^ node.disk.trace() ^ node.meta.fingerprint();
    let faults = plan.lives.iter().flat_map(|life| &life.faults);
    let used = shared.pool.stats().bytes_used;
    tally::outcome(plan.ops(), faults, node.lives, violation, (trace, used))
}

type Lived<'b> = std::pin::Pin<Box<dyn Future<Output = Came> + 'b>>;

impl<'a> Node<'a> {
    fn new(plan: &'a Plan, shared: &'a Shared) -> Self {
        let files = plan.segments_max.map_or(u64::MAX, |segments| {
            segments.saturating_mul(plan.segment_bytes).saturating_add(8_192)
        });
        let config = SimConfig { seed: plan.seed, capacity_bytes: files };
        Self {
            plan,
            shared,
            disk: SimDisk::with(config),
            meta: Arc::new(MemoryMeta::default()),
            random: SplitMix::new(!plan.seed),
            model: Arc::default(),
            judge: Arc::default(),
            buckets: Vec::new(),
            must_refuse: false,
            lives: 0,
        }
    }

    fn env(&self) -> &SimEnv {
        &self.shared.env
    }

    /// One life on a runtime of its own, whose end takes all tasks with it.
    fn with_runtime(&mut self, life: impl for<'b> FnOnce(&'b mut Self) -> Lived<'b>) -> Came {
        let runtime = super::runtime();
        self.lives += 1;
        self.judge.begin_life(self.plan.segments_max.is_some());
        let waits = self.shared.pool.stats().waits;
        let came = runtime.block_on(async {
            self.env().begin_life();
            let came = life(&mut *self).await;
            self.env().end_life();
            came
        });
        if self.shared.pool.stats().waits > waits {
            sometimes("sim: the buffer pool was exhausted");
        }
        came
    }

    fn config(&self) -> EngineConfig {
        let plan = self.plan;
        EngineConfig {
            volume: VolumeConfig {
                segment_bytes: plan.segment_bytes,
                prewrite: plan.prewrite,
                volume_bytes_max: None,
                writer_slabs_max: 4,
                ..VolumeConfig::default()
            },
            inline_bytes_max: plan.inline_bytes_max,
            dedicated_namespaces_max: 1,
            pooled_families: 2,
            reserve_bytes: 0,
            read_ahead_max: 2,
            ..EngineConfig::default()
        }
    }

    async fn open(&self) -> Result<Engine> {
        let env = self.env().env();
        let report = DiskReport {
            kind: DiskKind::Sim,
            no_ring: None,
            direct: true,
            no_direct: None,
            ring: None,
        };
        let ground = Ground {
            lock: None,
            store: Arc::clone(&self.meta) as Arc<dyn MetaStore>,
            pool: self.shared.pool.clone(),
            disk: Arc::new(self.disk.clone()),
            report,
            space: Arc::new(Space::new("/".into(), 0, 0, env.clone())),
            dir: "/".into(),
        };
        Engine::open_on(ground, self.config(), Arc::clone(&self.shared.kms), env).await
    }

    /// Opens, and judges a refusal: `None` ends the life.
    async fn start(&mut self, faulty: bool) -> Option<Engine> {
        match self.open().await {
            Ok(engine) => {
                if self.must_refuse {
                    self.judge.violation("synced metadata is gone, and the node serves");
                }
                Some(engine)
            }
            Err(error) => {
                self.judge.note(&[error.kind() as u64]);
                let is_corrupt = error.kind() == ErrorKind::Corrupt;
                if self.must_refuse && is_corrupt {
                    sometimes("sim: lost metadata was noticed");
                } else if self.judge.is_silent() && is_corrupt {
                    sometimes("sim: damage was found at start");
                } else if faulty || self.plan.segments_max.is_some() {
                    sometimes("sim: a start failed");
                } else {
                    self.judge.violation(format!("life {}: start: {error:?}", self.lives));
                }
                None
            }
        }
    }

    fn hand(&self, index: usize, engine: &Engine) -> Option<Hand> {
        let tenant = index % TENANTS;
        Some(Hand {
            index,
            tenant,
            engine: engine.clone(),
            bucket: self.buckets.get(tenant)?.clone(),
            purpose: self.shared.purpose(tenant),
            model: Arc::clone(&self.model),
            judge: Arc::clone(&self.judge),
            env: self.env().clone(),
            segment_bytes: self.plan.segment_bytes,
        })
    }

    /// Makes what every client needs. Nothing goes wrong yet.
    async fn settle_in(&mut self, engine: &Engine) -> Result<()> {
        engine.create_namespaces(&self.shared.tenants).await?;
        for tenant in 0..TENANTS {
            let request = CreateBucket {
                name: BucketName::new("bucket")?,
                owner: UserId::from_bytes([1; 16]),
                location: String::new(),
                etag_rule: ETagRule::Auto,
            };
            let purpose = self.shared.purpose(tenant);
            self.buckets.push(engine.create_bucket(&purpose, request).await?);
        }
        Ok(())
    }

    fn plant(&self, faults: &[Fault]) {
        for fault in faults {
            self.judge.expect(*fault);
            match *fault {
                Fault::Disk { op, after, fault } => self.disk.inject(op, after, fault),
                Fault::Meta { after } => self.meta.fail_after(after),
            }
        }
    }

    /// Compares everything with the model.
    async fn verify(&self, engine: &Engine, clients: usize) {
        for index in 0..clients {
            if let Some(hand) = self.hand(index, engine) {
                hand.settle().await;
                hand.verify().await;
            }
        }
    }

    async fn live(&mut self, life: &Life) -> Came {
        let is_first = self.buckets.is_empty();
        let faulty = life.faulty_start && !is_first && !self.must_refuse;
        if faulty {
            self.plant(&life.faults);
        }
        let Some(engine) = self.start(faulty).await else {
            return self.after_refusal(faulty);
        };
        if is_first && let Err(error) = self.settle_in(&engine).await {
            self.judge.violation(format!("settle in: {error:?}"));
        }
        if !faulty {
            self.verify(&engine, life.clients.len()).await;
            self.plant(&life.faults);
        }
        let tasks: Vec<_> = life
            .clients
            .iter()
            .enumerate()
            .filter_map(|(index, ops)| {
                Some(tokio::spawn(self.hand(index, &engine)?.run(ops.clone())))
            })
            .collect();
        self.end(engine, tasks, life.ending).await;
        Came::On
    }

    fn after_refusal(&mut self, faulty: bool) -> Came {
        if faulty && !self.must_refuse && !self.judge.is_silent() {
            self.cut(SimCrash::Mixed, 0);
            return Came::On;
        }
        Came::Out
    }

    async fn end(&mut self, engine: Engine, tasks: Vec<JoinHandle<()>>, ending: Ending) {
        let (crash, losing) = match ending {
            Ending::Crash { steps, crash } => {
                if !super::wait(steps, &tasks).await {
                    sometimes("sim: the power went under clients");
                }
                (crash, 0)
            }
            Ending::Idle(crash) => {
                super::finish(tasks, &self.judge).await;
                (crash, 0)
            }
            Ending::LogLies { batches } => {
                super::finish(tasks, &self.judge).await;
                tokio::time::sleep(LONG).await;
                let sound = !self.judge.is_silent() && !engine.stats().fenced;
                (SimCrash::KeepAll, if sound { batches } else { 0 })
            }
            Ending::Close => {
                super::finish(tasks, &self.judge).await;
                self.disk.calm();
                self.meta.calm();
                let fenced = engine.stats().fenced;
                match engine.close().await {
                    Ok(()) => {
                        sometimes("sim: a node was closed in order");
                        self.reopen_meta();
                        return;
                    }
                    Err(_) if fenced => sometimes("sim: a fenced node was closed"),
                    Err(error) => self.closing(&error),
                }
                (SimCrash::Mixed, 0)
            }
        };
        self.cut(crash, losing);
    }

    fn closing(&self, error: &Error) {
        self.judge.of_change("close", error);
    }

    /// A write that failed is in the log or not: the next start sees which, and no later one.
    fn reopen_meta(&mut self) {
        if self.meta.has_failed() {
            sometimes("sim: a metadata write failed");
            let keep_failed = self.random.coin();
            self.meta = Arc::new(self.meta.crash(keep_failed));
        }
    }

    /// Cuts the power.
    fn cut(&mut self, crash: SimCrash, losing: usize) {
        if self.meta.has_failed() {
            sometimes("sim: a metadata write failed");
        }
        let keep_failed = self.random.coin();
        self.disk = self.disk.crash_with(crash);
        let sequence = self.meta.sequence();
        self.meta = Arc::new(if losing > 0 {
            self.meta.crash_losing(losing, false)
        } else {
            self.meta.crash(keep_failed)
        });
        // The superblock took note of the last one long ago.
        self.must_refuse = losing > 0 && self.meta.sequence() < sequence;
    }

    /// Everything is as it was acknowledged, and nothing is left over.
    async fn last(&mut self) -> Came {
        let Some(engine) = self.start(false).await else { return Came::Out };
        self.verify(&engine, self.clients()).await;
        tokio::time::sleep(LONG).await;
        match check_rows(&engine).await {
            Ok(report) => {
                self.judge.note(&[report.rows, report.extents]);
                if let Some(finding) = report.findings.first()
                    && !self.judge.is_silent()
                {
                    self.judge.violation(format!("check: {finding:?}"));
                }
            }
            Err(error) => {
                self.judge.of_read("check", &error);
            }
        }
        if let Err(error) = engine.close().await {
            self.closing(&error);
        }
        Came::On
    }

    fn clients(&self) -> usize {
        self.plan.lives.iter().map(|life| life.clients.len()).max().unwrap_or(0)
    }
}
