//! Settled time: what a jump of the clock does not reach, and when it is believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::fixtures::{mac_key, purpose};
use crate::lifecycle::KeyState;
use crate::manager::Kms;
use crate::store::MemoryStore;
use crate::types::TenantId;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = JUMP_MS;
const ID: [u8; 16] = [3; 16];

/// A clock whose wall time can be set, as a machine's can.
#[derive(Default)]
struct Machine {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl Machine {
    fn new() -> Arc<Self> {
        let machine = Self::default();
        machine.wall_ms.store(START_MS, Ordering::SeqCst);
        Arc::new(machine)
    }

    fn run(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn set(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for Machine {
    fn now_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst) * 1_000_000
    }
}

fn begin(machine: &Machine) -> (tempfile::TempDir, Settled) {
    let dir = tempfile::tempdir().unwrap();
    let settled = Settled::begin(dir.path(), ID, machine);
    (dir, settled)
}

#[test]
fn it_follows_a_clock_that_runs() {
    let machine = Machine::new();
    let (_dir, settled) = begin(&machine);
    for _ in 0..2_000 {
        machine.run(HOUR_MS / 3);
        assert_eq!(settled.now_ms(&*machine), machine.now_ms());
    }
    machine.set(machine.now_ms() + HOUR_MS / 2);
    assert_eq!(settled.now_ms(&*machine), machine.now_ms(), "what a daemon corrects");
}

#[test]
fn a_jump_is_believed_once_it_was_stable_for_as_long_or_a_day() {
    for (jump_ms, stable_ms) in [(3 * HOUR_MS, 3 * HOUR_MS), (400 * DAY_MS, DAY_MS)] {
        let machine = Machine::new();
        let (_dir, settled) = begin(&machine);
        machine.run(1_000);
        machine.set(START_MS + 1_000 + jump_ms);
        assert_eq!(settled.now_ms(&*machine), START_MS + 1_000);
        machine.run(stable_ms - 1);
        assert_eq!(settled.now_ms(&*machine), START_MS + 1_000 + stable_ms - 1, "uptime's pace");
        machine.run(1);
        assert_eq!(settled.now_ms(&*machine), machine.now_ms());
    }
}

#[test]
fn a_clock_that_wanders_is_not_believed() {
    let machine = Machine::new();
    let (_dir, settled) = begin(&machine);
    // Each step is below what is tolerated, and all of them are not.
    for step in 1..=100 {
        machine.run(1_000);
        machine.set(machine.now_ms() + HOUR_MS - 1);
        assert!(settled.now_ms(&*machine) <= START_MS + step * 1_000 + HOUR_MS, "step {step}");
    }
    // Nor one that jumps again before it was stable.
    for _ in 0..10 {
        machine.run(DAY_MS / 2);
        machine.set(machine.now_ms() + 10 * DAY_MS);
        settled.now_ms(&*machine);
    }
    assert!(settled.now_ms(&*machine) < START_MS + 6 * DAY_MS);
}

#[test]
fn a_clock_that_is_set_right_again_leaves_no_trace_and_one_set_back_gives_nothing_back() {
    let machine = Machine::new();
    let (_dir, settled) = begin(&machine);
    machine.set(START_MS + 90 * DAY_MS);
    assert_eq!(settled.now_ms(&*machine), START_MS);
    machine.set(START_MS + 10);
    assert_eq!(settled.now_ms(&*machine), START_MS + 10);
    machine.set(START_MS - 50 * DAY_MS);
    assert_eq!(settled.now_ms(&*machine), START_MS + 10);
    assert_eq!(settled.latest_ms(&*machine), START_MS + 10);
}

#[test]
fn it_goes_on_after_a_restart_and_a_damaged_file_is_none() {
    let machine = Machine::new();
    let (dir, settled) = begin(&machine);
    machine.run(5 * HOUR_MS);
    settled.keep(&*machine, &mac_key()).unwrap();
    let known_ms = machine.now_ms();
    let open = |floor_ms| Settled::open((dir.path(), ID), floor_ms, &*machine, &mac_key());
    assert_eq!(open(0).now_ms(&*machine), known_ms);
    machine.set(known_ms + 30 * DAY_MS);
    assert_eq!(open(0).now_ms(&*machine), known_ms, "it was off, or its clock is wrong");
    machine.set(START_MS - DAY_MS);
    assert_eq!(open(0).now_ms(&*machine), known_ms);
    let path = dir.path().join(CLOCK_FILE);
    let good = std::fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        crate::fixtures::flip(&mut damaged, bit);
        assert_eq!(decode(&damaged, ID, &mac_key()), None, "bit {bit}");
    }
    assert_eq!(decode(&good, [4; 16], &mac_key()), None);
    std::fs::write(&path, &good[1..]).unwrap();
    assert_eq!(open(START_MS - DAY_MS).now_ms(&*machine), START_MS - DAY_MS);
}

#[test]
fn a_jump_destroys_no_key_and_a_wait_does() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new();
    let env = Env { clock: Arc::clone(&machine) as Arc<dyn Clock>, ..Env::seeded(1, 0) };
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
    let id = kms.create_tenant_key(ADA).unwrap().id;
    kms.schedule_deletion(&purpose(ADA), id, 7).unwrap();
    kms.run_due().unwrap();
    machine.set(START_MS + 365 * DAY_MS);
    let check_held = |kms: &Kms| {
        kms.run_due().unwrap();
        assert!(kms.due_destructions().is_empty());
        let refused = kms.begin_destruction(ADA, id).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(kms.describe(ADA, id).unwrap().state, KeyState::PendingDeletion);
    };
    check_held(&kms);
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    check_held(&kms);
    machine.run(DAY_MS);
    assert_eq!(kms.due_destructions(), [(ADA, id)]);
    kms.begin_destruction(ADA, id).unwrap();
}
