//! No chunk operation starts after a gate's `close` has returned, in any order of steps.
//!
//! Threads are virtual: each is a list of steps, one access to the gate's word per step, made by
//! the gate's own functions. A seed decides which thread moves next, so a schedule that fails can
//! be repeated. The clock is the number of steps made. A second run with real threads adds what
//! steps leave out: the memory model, and the wake-up of a closer that waits.
//! Owns: the explorer. Knows nothing of: what a chunk is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::issue;
use crate::error::ErrorKind;
use crate::fixtures::{permit, purpose, tenant};
use crate::gate::{Access, GateClosed, InFlight, KeyGate, KeyUse, UnwrapPermit, check_word};

const SCHEDULES: u64 = 20_000;
/// Steps after which a schedule must have come to its end.
const STEPS_MAX: usize = 20_000;
const REASONS: [GateClosed; 3] =
    [GateClosed::Disabled, GateClosed::Unavailable, GateClosed::Unusable];

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }
}

/// What is broken on purpose, to see that the explorer would notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A guard is taken for good whatever word it met.
    NoSecondLook,
    /// A closer does not wait for guards.
    NoDrain,
}

/// Where a thread that works under the key stands.
enum Place<'gate> {
    /// About to ask for a permit.
    Out,
    Permitted(UnwrapPermit),
    Looked(UnwrapPermit),
    Counted(UnwrapPermit, InFlight<'gate>, u64),
    /// Inside a chunk operation, with so many steps of it to go.
    Working(UnwrapPermit, InFlight<'gate>, usize),
    /// Refused after it was counted.
    Late(InFlight<'gate>),
}

struct Worker<'gate> {
    place: Place<'gate>,
    /// Chunk operations it still wants to begin, and attempts that it may still waste.
    wanted: usize,
    patience: usize,
}

/// The tenant's verbs, one after the other, as the keyring lets them through.
enum Verb {
    Idle,
    Shut(GateClosed),
    Drain,
    Closed,
}

#[derive(Default)]
struct Outcome {
    steps: u64,
    closes: u64,
    operations: u64,
    refusals: u64,
    /// Closers that met a guard in flight and had to wait.
    waits: u64,
    violation: Option<String>,
}

/// When chunk operations began and ended and closes returned, in steps.
#[derive(Default)]
struct Journal {
    clock: u64,
    running: usize,
    /// When the last close returned, while the gate has not been opened since.
    returned: Option<u64>,
    outcome: Outcome,
}

impl Journal {
    fn begins(&mut self) {
        self.running += 1;
        self.outcome.operations += 1;
        if let Some(returned) = self.returned {
            let text =
                format!("an operation began at {} and close returned at {returned}", self.clock);
            self.outcome.violation.get_or_insert(text);
        }
    }

    fn returns(&mut self) {
        self.returned = Some(self.clock);
        self.outcome.closes += 1;
        if self.running > 0 {
            let text = format!("close returned at {} with {} running", self.clock, self.running);
            self.outcome.violation.get_or_insert(text);
        }
    }
}

impl<'gate> Worker<'gate> {
    fn is_done(&self) -> bool {
        matches!(self.place, Place::Out) && (self.wanted == 0 || self.patience == 0)
    }

    fn step(
        &mut self,
        gate: &'gate Arc<KeyGate>,
        fault: Fault,
        (dice, journal): (&mut Dice, &mut Journal),
    ) {
        let refused = |worker: &mut Self, journal: &mut Journal| {
            worker.patience -= 1;
            journal.outcome.refusals += 1;
            Place::Out
        };
        let place = std::mem::replace(&mut self.place, Place::Out);
        self.place = match place {
            Place::Out => match issue(gate) {
                Ok(permit) => Place::Permitted(permit),
                Err(_) => refused(self, journal),
            },
            Place::Permitted(permit) => match gate.look(permit.generation) {
                Ok(()) => Place::Looked(permit),
                Err(_) => refused(self, journal),
            },
            Place::Looked(permit) => {
                let (guard, word) = gate.count();
                Place::Counted(permit, guard, word)
            }
            Place::Counted(permit, guard, word) => {
                let is_good = check_word(word, permit.generation).is_ok();
                if is_good || fault == Fault::NoSecondLook {
                    journal.begins();
                    Place::Working(permit, guard, dice.roll(4))
                } else {
                    Place::Late(guard)
                }
            }
            Place::Working(permit, guard, 0) => {
                journal.running -= 1;
                drop(guard);
                self.wanted -= 1;
                // A reader keeps its permit for the next chunk.
                if self.wanted > 0 { Place::Permitted(permit) } else { Place::Out }
            }
            Place::Working(permit, guard, left) => Place::Working(permit, guard, left - 1),
            Place::Late(guard) => {
                drop(guard);
                refused(self, journal)
            }
        };
    }
}

impl Verb {
    /// Makes a step. A closer that must wait makes none, as the condition variable would have it.
    fn step(&mut self, gate: &KeyGate, fault: Fault, (dice, journal): (&mut Dice, &mut Journal)) {
        *self = match self {
            Self::Idle => Self::Shut(REASONS[dice.roll(REASONS.len())]),
            Self::Shut(why) => {
                gate.shut(*why);
                Self::Drain
            }
            Self::Drain if gate.in_flight() == 0 || fault == Fault::NoDrain => {
                journal.returns();
                Self::Closed
            }
            Self::Drain => {
                journal.outcome.waits += 1;
                Self::Drain
            }
            Self::Closed => {
                gate.open().unwrap();
                journal.returned = None;
                Self::Idle
            }
        };
    }
}

/// Runs the schedule of one seed to its end.
fn explore(seed: u64, fault: Fault) -> Outcome {
    let mut dice = Dice(seed);
    let gate = Arc::new(KeyGate::new(None));
    let mut workers: Vec<_> = (0..=dice.roll(6))
        .map(|_| Worker { place: Place::Out, wanted: 1 + dice.roll(6), patience: 4 })
        .collect();
    let mut verb = Verb::Idle;
    // How eager the closer is differs from schedule to schedule.
    let weight = 1 + dice.roll(4);
    let mut journal = Journal::default();
    while journal.outcome.closes < 3 || workers.iter().any(|it| !it.is_done()) {
        journal.clock += 1;
        assert!(journal.clock < STEPS_MAX as u64, "seed {seed}: no end in sight");
        let awake: Vec<_> = workers.iter_mut().filter(|it| !it.is_done()).collect();
        let chosen = dice.roll(awake.len() * weight + 1);
        match awake.into_iter().nth(chosen / weight) {
            Some(worker) => worker.step(&gate, fault, (&mut dice, &mut journal)),
            None => verb.step(&gate, fault, (&mut dice, &mut journal)),
        }
    }
    drop(workers);
    assert_eq!(gate.in_flight(), 0, "seed {seed}: a guard was lost");
    journal.outcome.steps = journal.clock;
    journal.outcome
}

#[test]
fn no_operation_starts_after_close_has_returned_in_20_000_schedules() {
    let mut total = Outcome::default();
    for seed in 0..SCHEDULES {
        let outcome = explore(seed, Fault::None);
        assert_eq!(outcome.violation, None, "seed {seed}");
        total.steps += outcome.steps;
        total.closes += outcome.closes;
        total.operations += outcome.operations;
        total.refusals += outcome.refusals;
        total.waits += outcome.waits;
    }
    println!(
        "{SCHEDULES} schedules, {} steps: {} operations began, {} were refused; {} closes returned, \
         {} looks at guards still in flight",
        total.steps, total.operations, total.refusals, total.closes, total.waits
    );
    // Else the schedules would not have been about anything.
    assert!(total.operations > SCHEDULES && total.refusals > SCHEDULES && total.waits > SCHEDULES);
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    for seed in 0..100 {
        let (one, two) = (explore(seed, Fault::None), explore(seed, Fault::None));
        assert_eq!((one.steps, one.operations, one.waits), (two.steps, two.operations, two.waits));
    }
}

#[test]
fn a_gate_that_is_broken_is_found_out() {
    for fault in [Fault::NoSecondLook, Fault::NoDrain] {
        let found = (0..SCHEDULES).find_map(|seed| explore(seed, fault).violation);
        assert!(found.is_some(), "a fault went unnoticed in {SCHEDULES} schedules");
    }
}

#[test]
fn a_violation_is_told_with_its_times() {
    let (_, gate) = permit();
    let mut journal = Journal::default();
    gate.close(GateClosed::Disabled);
    journal.clock = 7;
    journal.returns();
    journal.clock = 9;
    journal.begins();
    assert_eq!(
        journal.outcome.violation.as_deref(),
        Some("an operation began at 9 and close returned at 7")
    );
}

/// Tells threads to end when it drops.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Real threads, `Kms::disable` itself, and one clock for all: an operation takes its start time
/// inside its guard, the closer takes the time after `disable` returned.
#[test]
fn no_operation_of_a_real_thread_starts_after_disable_has_returned() {
    const WORKERS: usize = 4;
    const ROUNDS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let (kms, _store, _env) = crate::fixtures::kms(folder.path(), 1);
    let who = purpose(tenant());
    let id = kms.create_tenant_key(tenant()).unwrap().id;
    let clock = AtomicU64::new(0);
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let done = AtomicBool::new(false);
    let began = AtomicU64::new(0);
    // Whether the key is off, as of a time at which nobody changes it.
    let off_since: Mutex<Option<u64>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let Ok(permit) = kms.permit(&who, id, Access::direct(KeyUse::Read)) else {
                        continue;
                    };
                    while !done.load(Ordering::SeqCst) {
                        let Ok(guard) = permit.enter() else { break };
                        let start = tick();
                        let off = *off_since.lock().unwrap();
                        assert_eq!(off, None, "began at {start}");
                        began.fetch_add(1, Ordering::SeqCst);
                        drop(guard);
                    }
                }
            });
        }
        // Workers end also when this thread fails.
        let _end = Ends(&done);
        for round in 0..ROUNDS {
            let before = began.load(Ordering::SeqCst);
            while round % 8 != 0 && began.load(Ordering::SeqCst) == before {
                thread::yield_now();
            }
            kms.disable(&who, id).unwrap();
            *off_since.lock().unwrap() = Some(tick());
            let settled = began.load(Ordering::SeqCst);
            thread::yield_now();
            assert_eq!(
                began.load(Ordering::SeqCst),
                settled,
                "an operation began after the return"
            );
            assert_eq!(refusal(&kms, &who, id), ErrorKind::KeyDisabled);
            *off_since.lock().unwrap() = None;
            kms.enable(&who, id).unwrap();
        }
    });
    assert!(began.load(Ordering::SeqCst) > 0);
}

/// Why a permit is refused. The workers ask faster than the audit log takes notes: what it has no
/// room for is refused as well, and says nothing of the key.
fn refusal(kms: &crate::Kms, who: &crate::Purpose, id: crate::TenantKeyId) -> ErrorKind {
    loop {
        let kind = kms.permit(who, id, Access::direct(KeyUse::Read)).unwrap_err().kind();
        if kind != ErrorKind::Unavailable {
            return kind;
        }
        thread::yield_now();
    }
}
