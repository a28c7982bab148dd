//! What survives a power cut, and what does not.

use std::ffi::OsStr;

use fuser::Errno;

use crate::body::Body;
use crate::device::Shared;
use crate::faults::{Plan, Verb};
use crate::image::SECTOR_BYTES;
use crate::loss::{Loss, outcome};
use crate::tree::{Content, Entries, EntryRule, Owner, ROOT, Tree};

const OWNER: Owner = Owner { uid: 0, gid: 0, perm: 0o600 };
const LOSSES: [Loss; 3] = [Loss::DropAll, Loss::RandomSubset, Loss::Torn];

fn disk(rule: EntryRule) -> Tree {
    Tree::new(1 << 24, rule, OWNER)
}

fn file(tree: &mut Tree, directory: u64, name: &str) -> u64 {
    tree.make(directory, OsStr::new(name), Content::File(Body::default()), OWNER).unwrap()
}

fn directory(tree: &mut Tree, name: &str) -> u64 {
    let content = Content::Directory { live: Entries::new(), durable: Entries::new() };
    tree.make(ROOT, OsStr::new(name), content, OWNER).unwrap()
}

fn text(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    let number = tree.find(path).ok()?;
    Some(tree.body(number).unwrap().live.read(0, 1 << 20))
}

fn rename(tree: &mut Tree, from: &str, to: &str) {
    tree.rename((ROOT, OsStr::new(from)), (ROOT, OsStr::new(to)), true).unwrap();
}

#[test]
fn what_was_flushed_survives_every_loss() {
    let mut tree = disk(EntryRule::Strict);
    let kept = file(&mut tree, ROOT, "kept");
    tree.write(kept, 0, b"durable").unwrap();
    tree.sync(kept).unwrap();
    tree.sync_directory(ROOT).unwrap();
    tree.write(kept, 5000, b"later").unwrap();
    for loss in LOSSES {
        for seed in 0..200 {
            let (after, _) = outcome(&tree, loss, seed);
            assert!(text(&after, "kept").unwrap().starts_with(b"durable"), "{loss:?} {seed}");
        }
    }
}

#[test]
fn a_disk_that_lies_answers_a_flush_and_does_nothing() {
    let mut tree = disk(EntryRule::Ext4);
    tree.lies = true;
    let lost = file(&mut tree, ROOT, "lost");
    tree.write(lost, 0, b"flushed").unwrap();
    tree.sync(lost).unwrap();
    tree.sync_directory(ROOT).unwrap();
    assert_eq!(text(&outcome(&tree, Loss::DropAll, 0).0, "lost"), None);
}

#[test]
fn what_was_not_flushed_is_lost_whole_if_all_is() {
    let mut tree = disk(EntryRule::Strict);
    let old = file(&mut tree, ROOT, "old");
    tree.write(old, 0, b"before").unwrap();
    tree.sync(old).unwrap();
    tree.sync_directory(ROOT).unwrap();
    tree.write(old, 0, b"after!").unwrap();
    tree.set_len(old, 3).unwrap();
    file(&mut tree, ROOT, "new");
    let (after, toll) = outcome(&tree, Loss::DropAll, 0);
    assert_eq!(text(&after, "old").unwrap(), b"before");
    assert_eq!(text(&after, "new"), None);
    assert_eq!((toll.writes_lost, toll.entries_lost), (2, 1));
}

#[test]
fn a_file_whose_directory_was_not_flushed_has_no_name() {
    for (rule, survives) in [(EntryRule::Strict, false), (EntryRule::Ext4, true)] {
        let mut tree = disk(rule);
        let new = file(&mut tree, ROOT, "new");
        tree.write(new, 0, b"x").unwrap();
        tree.sync(new).unwrap();
        let (after, _) = outcome(&tree, Loss::DropAll, 0);
        assert_eq!(text(&after, "new").is_some(), survives, "{rule:?}");
    }
}

#[test]
fn a_name_that_is_durable_may_lead_to_an_empty_file() {
    let mut tree = disk(EntryRule::Strict);
    let new = file(&mut tree, ROOT, "new");
    tree.write(new, 0, b"never flushed").unwrap();
    tree.sync_directory(ROOT).unwrap();
    let (after, _) = outcome(&tree, Loss::DropAll, 0);
    assert_eq!(text(&after, "new").unwrap(), b"");
}

#[test]
fn a_rename_is_kept_or_lost_whole() {
    let mut tree = disk(EntryRule::Strict);
    for (name, bytes) in [("a", b"1"), ("b", b"2")] {
        let number = file(&mut tree, ROOT, name);
        tree.write(number, 0, bytes).unwrap();
        tree.sync(number).unwrap();
    }
    tree.sync_directory(ROOT).unwrap();
    rename(&mut tree, "a", "b");
    let mut seen = [false; 2];
    for seed in 0..200 {
        let (after, _) = outcome(&tree, Loss::RandomSubset, seed);
        let both = (text(&after, "a"), text(&after, "b").unwrap());
        match both {
            (Some(a), b) => seen[usize::from(a == b"1" && b == b"2") - 1] = true,
            (None, b) => seen[usize::from(b == b"1")] = true,
        }
    }
    assert_eq!(seen, [true, true], "both outcomes are reached");
}

#[test]
fn names_of_one_directory_survive_in_order_and_of_two_apart() {
    let mut tree = disk(EntryRule::Strict);
    let other = directory(&mut tree, "d");
    tree.sync_directory(ROOT).unwrap();
    for number in 0..8 {
        file(&mut tree, ROOT, &format!("{number}"));
        file(&mut tree, other, &format!("{number}"));
    }
    let mut apart = false;
    for seed in 0..300 {
        let (after, _) = outcome(&tree, Loss::Torn, seed);
        let run = |folder: &str| {
            let there: Vec<bool> =
                (0..8).map(|n| after.find(&format!("{folder}/{n}")).is_ok()).collect();
            assert!(there.is_sorted_by(|a, b| a >= b), "{folder} after {seed}: {there:?}");
            there.iter().filter(|it| **it).count()
        };
        apart |= run("") != run("d");
    }
    assert!(apart);
}

#[test]
fn torn_writes_keep_whole_sectors() {
    let mut tree = disk(EntryRule::Strict);
    let torn = file(&mut tree, ROOT, "torn");
    tree.write(torn, 0, &[1; 8 * SECTOR_BYTES]).unwrap();
    tree.sync(torn).unwrap();
    tree.sync_directory(ROOT).unwrap();
    tree.write(torn, 0, &[2; 8 * SECTOR_BYTES]).unwrap();
    let mut mixed = 0;
    for seed in 0..200 {
        let (after, toll) = outcome(&tree, Loss::Torn, seed);
        let bytes = text(&after, "torn").unwrap();
        let sectors: Vec<u8> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(SECTOR_BYTES).all(|s| s.iter().all(|byte| *byte == s[0])));
        let is_mixed = sectors.contains(&1) && sectors.contains(&2);
        assert_eq!(toll.writes_torn, u64::from(is_mixed), "{sectors:?}");
        mixed += u64::from(is_mixed);
    }
    assert!(mixed > 20, "{mixed} of 200");
}

#[test]
fn one_seed_gives_one_outcome() {
    let mut tree = disk(EntryRule::Strict);
    let busy = file(&mut tree, ROOT, "busy");
    tree.sync_directory(ROOT).unwrap();
    for number in 0..50_u8 {
        tree.write(busy, u64::from(number) * 700, &[number; 900]).unwrap();
    }
    for loss in LOSSES {
        let texts: Vec<_> =
            [3, 3, 4].map(|seed| text(&outcome(&tree, loss, seed).0, "busy")).into();
        assert_eq!(texts[0], texts[1]);
        assert_eq!(texts[0] == texts[2], loss == Loss::DropAll, "{loss:?}");
    }
}

#[test]
fn after_a_failed_flush_nothing_of_before_becomes_durable() {
    let mut tree = disk(EntryRule::Strict);
    let file = file(&mut tree, ROOT, "f");
    tree.sync_directory(ROOT).unwrap();
    let shared = Shared::new(tree);
    let mut device = shared.lock();
    let plan = Plan { verb: Verb::Sync, passes: 0, times: 1, errno: 5, name: "f".to_owned() };
    assert!(device.faults.arm(plan));
    device.tree.write(file, 0, b"lost").unwrap();
    let failed = device.run(Verb::Sync, file, |tree| tree.sync(file));
    assert_eq!(failed.unwrap_err().code(), Errno::EIO.code());
    device.run(Verb::Sync, file, |tree| tree.sync(file)).unwrap();
    assert_eq!(text(&device.tree, "f").unwrap(), b"lost", "it still reads");
    device.cut();
    device.power_on(Loss::DropAll, 0).unwrap();
    assert_eq!(text(&device.tree, "f").unwrap(), b"", "and is not there any more");
}

#[test]
fn the_power_goes_at_the_operation_that_was_named() {
    let mut tree = disk(EntryRule::Strict);
    let number = file(&mut tree, ROOT, "f");
    tree.sync_directory(ROOT).unwrap();
    let shared = Shared::new(tree);
    let mount = shared.lock().begin_mount();
    shared.lock().faults.cut_after(2);
    let write = |byte: u8| {
        let mut device = shared.reach(mount)?;
        device.run(Verb::Write, number, |tree| tree.write(number, u64::from(byte), &[byte]))
    };
    let written: Vec<bool> = (0..4).map(|byte| write(byte).is_ok()).collect();
    assert_eq!(written, [true, true, false, false]);
    assert!(!shared.lock().has_power());
    let toll = shared.lock().power_on(Loss::DropAll, 0).unwrap();
    assert_eq!(toll.writes_lost, 3, "the write under way was on its way to the disk");
    assert!(shared.reach(mount).is_err(), "a mount of before the cut has no device");
}

#[test]
fn a_full_disk_takes_no_more_and_gives_back_what_is_deleted() {
    let mut tree = disk(EntryRule::Strict);
    let reserved = file(&mut tree, ROOT, "reserved");
    tree.allocate(reserved, 0, 5 * 4096, true).unwrap();
    tree.full_after(4096);
    let other = file(&mut tree, ROOT, "other");
    tree.write(other, 0, &[1; 4096]).unwrap();
    assert_eq!(tree.write(other, 4096, &[1]).unwrap_err().code(), Errno::ENOSPC.code());
    tree.write(reserved, 0, &vec![2; 5 * 4096]).unwrap();
    tree.unlink(ROOT, OsStr::new("reserved")).unwrap();
    assert_eq!(tree.space().1, 5);
    tree.write(other, 4096, &[1; 4096]).unwrap();
    assert_eq!(tree.space().1, 4);
}

#[test]
fn a_file_that_is_renamed_keeps_its_space() {
    let mut tree = disk(EntryRule::Strict);
    let moved = file(&mut tree, ROOT, "a");
    tree.allocate(moved, 0, 3 * 4096, true).unwrap();
    let replaced = file(&mut tree, ROOT, "b");
    tree.allocate(replaced, 0, 2 * 4096, true).unwrap();
    let (all, free) = tree.space();
    assert_eq!(all - free, 5);
    rename(&mut tree, "a", "c");
    assert_eq!(tree.space().1, free);
    rename(&mut tree, "c", "b");
    assert_eq!(tree.space().1, free + 2);
}

#[test]
fn an_unlinked_file_comes_back_unless_its_directory_was_flushed() {
    for flushed in [false, true] {
        let mut tree = disk(EntryRule::Strict);
        let doomed = file(&mut tree, ROOT, "doomed");
        tree.write(doomed, 0, b"still here").unwrap();
        tree.sync(doomed).unwrap();
        tree.sync_directory(ROOT).unwrap();
        tree.unlink(ROOT, OsStr::new("doomed")).unwrap();
        if flushed {
            tree.sync_directory(ROOT).unwrap();
        }
        let (after, _) = outcome(&tree, Loss::DropAll, 0);
        assert_eq!(text(&after, "doomed").is_none(), flushed);
    }
}

#[test]
fn a_file_that_shrinks_and_grows_reads_zeros() {
    let mut tree = disk(EntryRule::Strict);
    let file = file(&mut tree, ROOT, "f");
    tree.write(file, 0, &[7; 10_000]).unwrap();
    tree.set_len(file, 100).unwrap();
    tree.set_len(file, 9_000).unwrap();
    let bytes = text(&tree, "f").unwrap();
    assert_eq!(bytes.len(), 9_000);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == if at < 100 { 7 } else { 0 }));
    tree.zero(file, 50, 10).unwrap();
    assert_eq!(
        text(&tree, "f").unwrap()[45..65],
        [7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7]
    );
}
