//! Order, limits, wiping and disjointness of buffers.

use std::pin::pin;

use futures::future::{join_all, poll_immediate};
use proptest::prelude::*;

use super::*;

fn pool(slabs: usize) -> BufPool {
    BufPool::new(slabs * SLAB_BYTES, false).unwrap()
}

#[test]
fn a_pool_is_at_least_one_slab_and_at_most_its_limit() {
    assert_eq!(BufPool::new(0, false).unwrap().stats().bytes_max, SLAB_BYTES as u64);
    let error = BufPool::new(POOL_BYTES_MAX + 1, false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn classes_hold_what_they_say() {
    assert_eq!(BufClass::holding(0), Some(BufClass::Small));
    assert_eq!(BufClass::holding(PIECE_BYTES), Some(BufClass::Small));
    assert_eq!(BufClass::holding(PIECE_BYTES + 1), Some(BufClass::Large));
    assert_eq!(BufClass::holding(SLAB_BYTES), Some(BufClass::Large));
    assert_eq!(BufClass::holding(SLAB_BYTES + 1), None);
}

#[test]
fn a_slab_becomes_whole_again() {
    let pool = pool(1);
    let pieces: Vec<_> = (0..8).map(|_| pool.try_acquire(BufClass::Small).unwrap()).collect();
    assert!(pool.try_acquire(BufClass::Small).is_none());
    assert!(pool.try_acquire(BufClass::Large).is_none());
    drop(pieces);
    let whole = pool.try_acquire(BufClass::Large).unwrap();
    assert_eq!(whole.capacity(), SLAB_BYTES);
    assert_eq!(pool.stats().bytes_used, SLAB_BYTES as u64);
}

#[test]
fn buffers_are_aligned_to_blocks() {
    let pool = pool(2);
    for class in [BufClass::Small, BufClass::Large, BufClass::Small] {
        if let Some(buf) = pool.try_acquire(class) {
            assert_eq!(buf.start().as_ptr().addr() % 4096, 0);
        }
    }
}

#[test]
fn the_content_is_what_was_put_there() {
    let pool = pool(1);
    let mut buf = pool.try_acquire(BufClass::Small).unwrap();
    assert_eq!((buf.len(), buf.capacity()), (0, PIECE_BYTES));
    buf.extend_from_slice(b"abc");
    buf.extend_from_slice(b"def");
    assert_eq!(&*buf, b"abcdef");
    buf.set_len(2);
    buf[0] = b'x';
    assert_eq!(&*buf, b"xb");
    assert!(!format!("{buf:?}").contains("xb"));
}

#[test]
fn a_length_beyond_the_capacity_panics() {
    let pool = pool(1);
    let mut buf = pool.try_acquire(BufClass::Small).unwrap();
    let grown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        buf.set_len(PIECE_BYTES + 1);
    }));
    assert!(grown.is_err());
    assert_eq!(buf.len(), 0);
}

#[test]
fn secrets_are_wiped_even_behind_a_shrunken_length() {
    let pool = pool(1);
    let mut buf = pool.try_acquire(BufClass::Large).unwrap();
    buf.extend_from_slice(&[0x5A; 5000]);
    buf.mark_secret();
    buf.set_len(1);
    drop(buf);
    let mut next = pool.try_acquire(BufClass::Large).unwrap();
    next.set_len(5000);
    assert!(next.iter().all(|&byte| byte == 0));
}

#[test]
fn shared_bytes_keep_the_buffer_and_wipe_it_last() {
    let pool = pool(1);
    let mut buf = pool.try_acquire(BufClass::Large).unwrap();
    buf.extend_from_slice(b"0123456789");
    buf.mark_secret();
    let bytes = buf.into_bytes(2..6);
    let tail = bytes.slice(2..);
    assert_eq!((&*bytes, &*tail), (b"2345".as_slice(), b"45".as_slice()));
    drop(bytes);
    assert!(pool.try_acquire(BufClass::Large).is_none(), "a slice still holds the buffer");
    drop(tail);
    let mut next = pool.try_acquire(BufClass::Large).unwrap();
    next.set_len(10);
    assert_eq!(&*next, &[0; 10]);
}

#[tokio::test]
async fn whoever_waits_first_is_served_first() {
    let pool = pool(1);
    let held = pool.acquire(BufClass::Large).await;
    let mut first = pin!(pool.acquire(BufClass::Large));
    let mut second = pin!(pool.acquire(BufClass::Small));
    assert!(poll_immediate(&mut first).await.is_none());
    assert!(poll_immediate(&mut second).await.is_none());
    assert!(pool.try_acquire(BufClass::Small).is_none());
    drop(held);
    assert!(poll_immediate(&mut second).await.is_none(), "the first took the slab");
    assert!(pool.try_acquire(BufClass::Small).is_none(), "nobody overtakes the second");
    drop(first.await);
    assert_eq!(second.await.capacity(), PIECE_BYTES);
    assert_eq!((pool.stats().waits, pool.stats().waiting), (2, 0));
}

#[tokio::test]
async fn leaving_the_queue_lets_the_next_through() {
    let pool = pool(1);
    let piece = pool.acquire(BufClass::Small).await;
    let mut small = {
        let mut large = Box::pin(pool.acquire(BufClass::Large));
        assert!(poll_immediate(&mut large).await.is_none());
        let mut small = Box::pin(pool.acquire(BufClass::Small));
        assert!(poll_immediate(&mut small).await.is_none(), "the large one is first");
        small
    };
    assert!(poll_immediate(&mut small).await.is_some(), "the large one left");
    drop(piece);
    assert_eq!(pool.stats().waiting, 0);
}

#[tokio::test]
async fn a_buffer_handed_to_somebody_who_left_returns() {
    let pool = pool(1);
    let held = pool.acquire(BufClass::Large).await;
    let mut waiting = Box::pin(pool.acquire(BufClass::Large));
    assert!(poll_immediate(&mut waiting).await.is_none());
    drop(held);
    assert_eq!(pool.stats().bytes_used, SLAB_BYTES as u64, "it is on its way");
    drop(waiting);
    assert_eq!(pool.stats().bytes_used, 0);
    assert!(pool.try_acquire(BufClass::Large).is_some());
}

#[tokio::test]
async fn an_empty_buffer_takes_no_room() {
    let pool = pool(1);
    let held = pool.acquire(BufClass::Large).await;
    let nothing = pool.lend_nothing();
    assert_eq!((nothing.len(), nothing.capacity()), (0, 0));
    drop(nothing);
    drop(held);
    assert_eq!(pool.stats().bytes_used, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_buffers() {
    let pool = pool(2);
    let tasks = (0..64_u8).map(|number| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                let class = if round % 3 == 0 { BufClass::Large } else { BufClass::Small };
                let mut buf = pool.acquire(class).await;
                buf.set_len(4096);
                buf.fill(number);
                tokio::task::yield_now().await;
                assert!(buf.iter().all(|&byte| byte == number), "two tasks share a buffer");
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(pool.stats().bytes_used, 0);
}

proptest! {
    #[test]
    fn lent_ranges_never_overlap(
        steps in proptest::collection::vec((0..3_u8, any::<u16>()), 1..200),
    ) {
        let pool = pool(3);
        let mut lent: Vec<Buf> = Vec::new();
        for (step, choice) in steps {
            match step {
                0 => lent.extend(pool.try_acquire(BufClass::Small)),
                1 => lent.extend(pool.try_acquire(BufClass::Large)),
                _ if lent.is_empty() => {}
                _ => drop(lent.swap_remove(usize::from(choice) % lent.len())),
            }
            let mut spans: Vec<_> = lent.iter().map(|buf| buf.span).collect();
            spans.sort_by_key(|span| span.offset);
            for pair in spans.windows(2) {
                prop_assert!(pair[0].offset + pair[0].capacity <= pair[1].offset);
            }
            let used: usize = spans.iter().map(|span| span.capacity).sum();
            prop_assert_eq!(pool.stats().bytes_used, used as u64);
        }
        drop(lent);
        let whole: Vec<_> = (0..3).filter_map(|_| pool.try_acquire(BufClass::Large)).collect();
        prop_assert_eq!(whole.len(), 3);
    }
}
