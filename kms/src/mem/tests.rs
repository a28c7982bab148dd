//! Locked memory: bounds, wiping, sharing.

use std::thread;

use super::*;

fn arena(slots_max: usize) -> &'static KeyArena {
    Box::leak(Box::new(KeyArena::new(slots_max)))
}

#[test]
fn a_block_comes_from_locked_memory_of_either_kind() {
    for map in [map_secret_memory as fn() -> _, map_locked] {
        match map() {
            Ok(base) => {
                let mut first = base.cast::<Slot>();
                // SAFETY: the block was just mapped for this test and is never unmapped.
                let slot = unsafe { first.as_mut() };
                assert_eq!(slot, &[0; SECRET_BYTES]);
                slot.fill(7);
                assert_eq!(slot, &[7; SECRET_BYTES]);
            }
            // An old kernel has no secret memory.
            Err(errno) => assert_eq!(errno, io::Errno::NOSYS),
        }
    }
}

#[test]
fn the_bound_is_an_error_that_passes() {
    let arena = arena(SLOTS_PER_BLOCK);
    let mut held: Vec<_> =
        (0..SLOTS_PER_BLOCK).map(|_| Secret32::alloc_in(arena, &[1; 32]).unwrap()).collect();
    let error = Secret32::alloc_in(arena, &[1; 32]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.advice().is_some());
    assert_eq!(arena.usage().live, SLOTS_PER_BLOCK);
    held.pop();
    Secret32::alloc_in(arena, &[1; 32]).unwrap();
}

#[test]
fn it_grows_block_by_block() {
    let arena = arena(3 * SLOTS_PER_BLOCK);
    let fills: Vec<u8> = (0..=255).cycle().take(2 * SLOTS_PER_BLOCK + 1).collect();
    let held: Vec<_> =
        fills.iter().map(|fill| Secret32::alloc_in(arena, &[*fill; 32]).unwrap()).collect();
    assert_eq!(arena.usage().mapped, 3 * SLOTS_PER_BLOCK);
    for (fill, secret) in fills.iter().zip(&held) {
        assert_eq!(*secret.borrow(), [*fill; 32]);
    }
    drop(held);
    assert_eq!(arena.usage().live, 0);
}

#[test]
fn a_slot_is_wiped_before_it_is_used_again() {
    let arena = arena(SLOTS_PER_BLOCK);
    let secret = Secret32::alloc_in(arena, &[0x5a; 32]).unwrap();
    let slot = secret.slot;
    drop(secret);
    let again = arena
        .alloc(|bytes| {
            assert_eq!(bytes, &[0; 32], "the previous secret was left behind");
            Ok(())
        })
        .unwrap();
    assert_eq!(again.slot.0, slot.0, "the latest free slot is the next to be used");
}

#[test]
fn a_failed_fill_is_wiped_and_returned() {
    let arena = arena(SLOTS_PER_BLOCK);
    let failed = arena.alloc(|bytes| {
        bytes.fill(9);
        Err(Error::new(ErrorKind::Corrupt, "fill a slot"))
    });
    assert!(failed.is_err());
    assert_eq!(arena.usage().live, 0);
    arena
        .alloc(|bytes| {
            assert_eq!(bytes, &[0; 32]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn threads_never_share_a_slot() {
    let arena = arena(4 * SLOTS_PER_BLOCK);
    thread::scope(|scope| {
        for thread_number in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..200_u8 {
                    let fill = [thread_number * 50 + round % 50; 32];
                    let held: Vec<_> =
                        (0..10).map(|_| Secret32::alloc_in(arena, &fill).unwrap()).collect();
                    assert!(held.iter().all(|secret| *secret.borrow() == fill));
                }
            });
        }
    });
    assert_eq!(arena.usage().live, 0);
}

#[test]
fn the_process_arena_stays_below_half_the_usual_limit() {
    const { assert!(ARENA_SLOTS_MAX * SECRET_BYTES <= 8 * 1024 * 1024 / 2) };
    let secret = Secret32::fill_with(crate::secret::copy_of(&[1; 32])).unwrap();
    let usage = arena_usage();
    assert!(usage.live >= 1 && usage.mapped <= usage.max);
    assert!(usage.kind.is_some());
    drop(secret);
}
