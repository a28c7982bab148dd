//! What a pass finds, wherever the damage is, and that a restart at any step changes nothing.

use super::*;

#[test]
fn a_clean_volume_is_clean() {
    run(async {
        let bench = Ledger::new(1, None).open().await;
        fill(&bench).await;
        let list = DamageList::default();
        let (seen, cursor) = scrub(ground(&bench, &list)).await;
        assert_eq!((seen.damaged, seen.dead, list.len()), (0, 0, 0));
        let closed = bench.closed();
        assert_eq!(cursor.segments, closed.len() as u64);
        let written: u64 = closed.iter().map(|segment| bench.row(*segment).written_bytes).sum();
        assert_eq!(cursor.bytes, written);
        assert!(cursor.ended_ms >= cursor.started_ms && cursor.started_ms > 0);
        // All but padding.
        assert!(seen.bytes > written / 10 * 9 && seen.bytes <= written, "{} bytes", seen.bytes);
    });
}

/// A bit anywhere in a record that somebody needs, in turn: the object is listed, and no other.
#[test]
fn a_flip_in_anything_alive_is_found() {
    // Magic, identity, header checksum, table, a chunk, the last tag.
    let places: [fn(u64) -> u64; 6] =
        [|_| 1, |_| 50, |_| 111, |_| 130, |len| len / 2, |len| len - 1];
    for (nth, place) in places.iter().enumerate() {
        for bit in [0, 7] {
            run(async {
                let ledger = Ledger::new(10 + nth as u64, None);
                let bench = ledger.open().await;
                let objects = fill(&bench).await;
                let victims = settled(&bench, &objects).await;
                for victim in victims.iter().take(SIZES.len()) {
                    let list = DamageList::default();
                    let location = bench.location(*victim).await;
                    let at = location.offset() + place(u64::from(location.stored_len()));
                    let file = file_name_of(location.segment());
                    ledger.disk.rot(&file, at, bit).unwrap();
                    let (seen, _) = scrub(ground(&bench, &list)).await;
                    let told = listed(&bench, &list).await;
                    assert_eq!(told, [(*victim, DamageKind::Rot)].into(), "place {nth} bit {bit}");
                    assert_eq!((seen.damaged, seen.dead), (1, 0));
                    // Put right by other means, it leaves the list at the next pass.
                    ledger.disk.rot(&file, at, bit).unwrap();
                    scrub(ground(&bench, &list)).await;
                    assert_eq!(list.len(), 0, "place {nth} bit {bit}");
                    assert!(stored(&bench.reader).await.unwrap().is_empty());
                }
            });
        }
    }
}

#[test]
fn a_flip_in_the_dead_is_counted_and_not_listed() {
    run(async {
        let ledger = Ledger::new(2, None);
        let bench = ledger.open().await;
        let objects = fill(&bench).await;
        let victim = settled(&bench, &objects).await[1];
        let location = bench.location(victim).await;
        bench.delete(victim).await;
        let at = location.offset() + 30_000;
        ledger.disk.rot(&file_name_of(location.segment()), at, 3).unwrap();
        let list = DamageList::default();
        let (seen, cursor) = scrub(ground(&bench, &list)).await;
        assert_eq!((seen.damaged, seen.dead, list.len()), (0, 1, 0));
        assert_eq!(cursor.dead, 1);
    });
}

/// Every read fails once, in turn. None of them makes a pass miss what is really damaged.
#[test]
fn a_device_error_is_found_or_gone() {
    let mut unreadable = 0;
    for after in 0..40 {
        run(async {
            let ledger = Ledger::new(3, None);
            let bench = ledger.open().await;
            let objects = fill(&bench).await;
            let rotten = settled(&bench, &objects).await[2];
            let location = bench.location(rotten).await;
            let at = location.offset() + 3_000;
            ledger.disk.rot(&file_name_of(location.segment()), at, 3).unwrap();
            let list = DamageList::default();
            ledger.disk.inject(SimOp::Read, after, SimFault::Eio);
            while ledger.disk.faults_left() > 0 {
                scrub(ground(&bench, &list)).await;
            }
            let told = listed(&bench, &list).await;
            assert!(told.contains_key(&rotten), "read {after}: {told:?}");
            unreadable += told.values().filter(|kind| **kind == DamageKind::Unreadable).count();
            // It was a passing error: the next pass knows better.
            scrub(ground(&bench, &list)).await;
            let told = listed(&bench, &list).await;
            assert_eq!(told, [(rotten, DamageKind::Rot)].into(), "read {after}");
        });
    }
    assert!(unreadable > 0, "no error ever met an extent");
}

#[test]
fn a_pass_is_taken_up_after_a_crash_at_every_step() {
    let mut steps = 1;
    for crash_after in 0.. {
        if crash_after > steps {
            break;
        }
        run(async {
            let ledger = Ledger::new(4, None);
            let bench = ledger.open().await;
            let objects = fill(&bench).await;
            let settled = settled(&bench, &objects).await;
            let victims = [settled[0], settled[settled.len() - 1]];
            for victim in victims {
                let location = bench.location(victim).await;
                let at = location.offset() + 2_000;
                ledger.disk.rot(&file_name_of(location.segment()), at, 1).unwrap();
            }
            let list = DamageList::default();
            let mut pass = Pass::load(ground(&bench, &list)).await.unwrap();
            pass.begin(ground(&bench, &list)).await.unwrap();
            let mut done = 0;
            while pass.cursor.phase != Phase::Idle && done < crash_after {
                pass.step(ground(&bench, &list), None).await.unwrap();
                done += 1;
            }
            if pass.cursor.phase != Phase::Idle {
                steps = done + 1;
            }
            let (read, number) = (pass.cursor.segments, pass.cursor.pass);
            drop((bench, list, pass));

            let bench = ledger.crash(SimCrash::LoseAll).open().await;
            let list = DamageList::default();
            list.load(&bench.reader).await.unwrap();
            let mut pass = Pass::load(ground(&bench, &list)).await.unwrap();
            assert_eq!((pass.cursor.segments, pass.cursor.pass), (read, number), "{crash_after}");
            go_on(&mut pass, ground(&bench, &list)).await;
            let told = listed(&bench, &list).await;
            assert_eq!(told.into_keys().collect::<Vec<_>>(), victims, "crash after {crash_after}");
        });
    }
    assert!(steps > 6, "{steps} steps");
}

/// Segments that are emptied while a pass is under way are left alone, and nothing is listed.
#[test]
fn a_segment_that_is_emptied_meanwhile_is_passed_over() {
    for steps in 0..8 {
        run(async {
            let bench = Ledger::new(5, None).open().await;
            let objects = fill(&bench).await;
            let victim = bench.closed()[0];
            let list = DamageList::default();
            let mut pass = Pass::load(ground(&bench, &list)).await.unwrap();
            pass.begin(ground(&bench, &list)).await.unwrap();
            for _ in 0..steps {
                pass.step(ground(&bench, &list), None).await.unwrap();
            }
            let (seen, cleaned) =
                tokio::join!(go_on(&mut pass, ground(&bench, &list)), bench.clean(victim));
            cleaned.unwrap();
            assert_eq!((seen.damaged, list.len()), (0, 0));
            bench.check(&objects).await;
        });
    }
}
