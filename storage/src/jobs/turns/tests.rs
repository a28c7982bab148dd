//! Who is next, and that no turn is lost.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

fn now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn tenants_take_turns_however_many_jobs_they_have() {
    let turns = Turns::new(1);
    let first = turns.take(tenant(1)).await;
    let mut busy: Vec<_> = (0..3).map(|_| Box::pin(turns.take(tenant(1)))).collect();
    assert!(busy.iter_mut().all(|waiter| now(waiter.as_mut()).is_none()));
    let mut late = pin!(turns.take(tenant(2)));
    assert!(now(late.as_mut()).is_none());
    assert!(turns.is_wanted());
    drop(first);
    // The busy one waited first; the other is next, before its second.
    let second = now(busy.remove(0).as_mut()).unwrap();
    assert!(now(late.as_mut()).is_none());
    drop(second);
    assert!(busy.iter_mut().all(|waiter| now(waiter.as_mut()).is_none()));
    drop(now(late.as_mut()).unwrap());
    drop(now(busy.remove(0).as_mut()).unwrap());
    drop(now(busy.remove(0).as_mut()).unwrap());
    assert!(!turns.is_wanted());
}

#[tokio::test]
async fn whoever_stops_waiting_loses_no_turn() {
    let turns = Turns::new(2);
    let (one, two) = (turns.take(tenant(1)).await, turns.take(tenant(1)).await);
    let mut gone = Box::pin(turns.take(tenant(1)));
    let mut given = Box::pin(turns.take(tenant(2)));
    assert!(now(gone.as_mut()).is_none() && now(given.as_mut()).is_none());
    drop(gone);
    // Given to one that is dropped before it looks.
    drop(one);
    drop(given);
    drop(two);
    assert!(!turns.is_wanted());
    let (_one, _two) = (turns.take(tenant(3)).await, turns.take(tenant(3)).await);
    assert!(now(pin!(turns.take(tenant(3))).as_mut()).is_none());
}
