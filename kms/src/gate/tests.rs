//! The gate: states, permits, and linearizability under threads and in seeded schedules.

mod schedules;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::fixtures::{permit, purpose, tenant, tenant_key_id};
use crate::gate::KeyUse;

fn issue(gate: &Arc<KeyGate>) -> Result<UnwrapPermit> {
    UnwrapPermit::issue(&purpose(tenant()), tenant_key_id(), Arc::clone(gate), KeyUse::Write)
}

fn refusal(permit: &UnwrapPermit) -> Option<ErrorKind> {
    permit.enter().err().map(|error| error.kind())
}

#[test]
fn a_permit_names_who_and_why() {
    let (permit, _) = permit();
    assert_eq!(permit.tenant(), tenant());
    assert_eq!(permit.tenant_key(), tenant_key_id());
    assert_eq!(permit.principal().as_str(), "arn:aws:iam::123456789012:user/ada");
    assert_eq!(permit.reason(), &Reason::CustomerInitiated);
    assert_eq!(permit.request_id().to_string(), "4442587FB7D0A2F9");
}

#[test]
fn only_the_tenants_own_reasons_are_issued() {
    let job = Reason::TenantJob { job: JobId::from("rewrap-7") };
    let cases = [
        (Reason::CustomerInitiated, "customer-initiated", true),
        (Reason::CustomerSupport, "customer-support", false),
        (Reason::ProductionAlert, "production-alert", false),
        (Reason::ProviderReview, "provider-review", false),
        (Reason::ProviderService, "provider-service", false),
        (job, "tenant-job", true),
        (Reason::ThirdPartyDataRequest, "third-party-data-request", false),
    ];
    for (reason, code, is_issued) in cases {
        assert_eq!(reason.to_string(), code);
        let purpose = Purpose { reason, ..purpose(tenant()) };
        let gate = Arc::new(KeyGate::new(None));
        let kind = UnwrapPermit::issue(&purpose, tenant_key_id(), gate, KeyUse::Write)
            .err()
            .map(|e| e.kind());
        assert_eq!(kind, (!is_issued).then_some(ErrorKind::Refused), "{code}");
    }
}

#[test]
fn a_closed_gate_answers_by_its_state() {
    let cases = [
        (GateClosed::Destroyed, ErrorKind::KeyDestroyed),
        (GateClosed::Disabled, ErrorKind::KeyDisabled),
        (GateClosed::Unavailable, ErrorKind::Unavailable),
    ];
    for (why, kind) in cases {
        let (permit, gate) = permit();
        gate.close(why);
        assert_eq!(refusal(&permit), Some(kind));
        assert_eq!(issue(&gate).err().map(|error| error.kind()), Some(kind));
        let born_closed = Arc::new(KeyGate::new(Some(why)));
        assert_eq!(issue(&born_closed).err().map(|error| error.kind()), Some(kind));
    }
}

#[test]
fn opening_again_does_not_revive_permits() {
    let (old, gate) = permit();
    gate.close(GateClosed::Disabled);
    gate.open().unwrap();
    assert_eq!(refusal(&old), Some(ErrorKind::KeyDisabled));
    let new = issue(&gate).unwrap();
    assert_eq!(refusal(&new), None);
    assert_eq!((old.generation(), new.generation()), (0, 1));
}

#[test]
fn a_destroyed_keys_gate_never_opens() {
    let (_, gate) = permit();
    gate.close(GateClosed::Destroyed);
    assert_eq!(gate.open().unwrap_err().kind(), ErrorKind::KeyDestroyed);
    assert!(!gate.is_open());
}

#[test]
fn a_worn_out_gate_stays_shut() {
    let gate = KeyGate::new(None);
    gate.word.store(pack(GENERATION_MAX, STATE_OPEN, 0), Ordering::SeqCst);
    gate.close(GateClosed::Disabled);
    assert_eq!(gate.generation(), GENERATION_MAX);
    assert_eq!(gate.open().unwrap_err().kind(), ErrorKind::Full);
}

#[test]
fn guards_are_counted() {
    let (permit, gate) = permit();
    let first = permit.enter().unwrap();
    let second = permit.enter().unwrap();
    assert_eq!(gate.in_flight(), 2);
    drop(first);
    drop(second);
    assert_eq!(gate.in_flight(), 0);
    gate.shut(GateClosed::Disabled);
    assert!(permit.enter().is_err());
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn close_waits_for_guards_in_flight() {
    let (permit, gate) = permit();
    let guard = permit.enter().unwrap();
    let (closed, is_closed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            gate.close(GateClosed::Disabled);
            closed.send(()).unwrap();
        });
        while gate.is_open() {
            thread::yield_now();
        }
        assert_eq!(refusal(&permit), Some(ErrorKind::KeyDisabled));
        assert!(is_closed.try_recv().is_err(), "close returned with a guard in flight");
        drop(guard);
        is_closed.recv().unwrap();
    });
    assert_eq!(gate.in_flight(), 0);
}

/// Many threads work under permits while one closes and opens the gate. A worker notes the round
/// it is in before it enters; the closer counts rounds up right after `close` returned. A guard
/// that is held while the closer believes the gate drained breaks the promise.
#[test]
fn no_work_overlaps_a_closed_gate() {
    const WORKERS: usize = 4;
    const ROUNDS: u64 = 300;
    let gate = Arc::new(KeyGate::new(None));
    let is_shut = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let entered = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let Ok(permit) = issue(&gate) else { continue };
                    while let Ok(guard) = permit.enter() {
                        assert!(!is_shut.load(Ordering::SeqCst), "entered a drained gate");
                        entered.fetch_add(1, Ordering::Relaxed);
                        assert!(!is_shut.load(Ordering::SeqCst), "close did not wait");
                        drop(guard);
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let before = entered.load(Ordering::Relaxed);
            // Let some work happen in most rounds, and none in some.
            while round % 8 != 0 && entered.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            gate.close(GateClosed::Disabled);
            is_shut.store(true, Ordering::SeqCst);
            let settled = entered.load(Ordering::SeqCst);
            thread::yield_now();
            assert_eq!(entered.load(Ordering::SeqCst), settled, "work went on after close");
            is_shut.store(false, Ordering::SeqCst);
            gate.open().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        gate.close(GateClosed::Disabled);
    });
    assert_eq!(gate.in_flight(), 0);
    assert_eq!(gate.generation(), ROUNDS + 1);
}

#[test]
fn two_closers_both_return() {
    let (permit, gate) = permit();
    let guard = permit.enter().unwrap();
    thread::scope(|scope| {
        let closers = [GateClosed::Disabled, GateClosed::Disabled].map(|why| {
            scope.spawn({
                let gate = &gate;
                move || gate.close(why)
            })
        });
        while gate.generation() < 2 {
            thread::yield_now();
        }
        drop(guard);
        for closer in closers {
            closer.join().unwrap();
        }
    });
}

#[test]
fn debug_shows_state_and_no_more() {
    let (_, gate) = permit();
    assert_eq!(format!("{gate:?}"), "KeyGate { open: true, generation: 0, in_flight: 0, .. }");
}
