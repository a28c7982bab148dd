//! What is left of a disk when the power goes: the choice among all that the model permits.
//!
//! Owns: which pending changes survive. Knows nothing of: mounts, programs.
//!
//! Invariants
//! - What is durable survives, whatever the seed.
//! - One disk, one kind and one seed give one outcome.
//! - A rename is kept or lost whole; within a directory entries survive in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::dice::Dice;
use crate::image::{Change, Image, SECTOR_BYTES, pieces};
use crate::tree::{Content, EntryRule, Tree};

/// How much of what is pending is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    DropAll,
    /// Whole writes and entries, each or a run of them.
    RandomSubset,
    /// Single sectors of writes as well.
    Torn,
}

/// What became of the pending changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Toll {
    /// Changes of entries that survived.
    pub entries_kept: u64,
    /// Changes of entries that did not.
    pub entries_lost: u64,
    /// Changes of files that survived whole.
    pub writes_kept: u64,
    /// Changes of files that did not survive at all.
    pub writes_lost: u64,
    /// Writes of which some sectors survived and some did not.
    pub writes_torn: u64,
}

/// The disk after the power came back, and what that cost.
pub fn outcome(before: &Tree, loss: Loss, seed: u64) -> (Tree, Toll) {
    let mut dice = Dice::new(seed);
    let mut toll = Toll::default();
    let mut tree = before.clone();
    if loss == Loss::DropAll {
        toll.entries_lost = tree.pending.len() as u64;
    } else {
        keep_entries(&mut tree, &mut dice, &mut toll);
    }
    for inode in tree.inodes.values_mut() {
        let Content::File(body) = &mut inode.content else {
            continue;
        };
        // Of some files nothing was written back yet, of others nearly everything.
        let share = dice.below(5);
        for change in body.pending.drain(..) {
            match loss {
                Loss::RandomSubset if dice.chance(share, 4) => {
                    body.durable.apply(&change);
                    toll.writes_kept += 1;
                }
                Loss::DropAll | Loss::RandomSubset => toll.writes_lost += 1,
                Loss::Torn => tear(&mut body.durable, &change, share, &mut dice, &mut toll),
            }
        }
    }
    tree.settle();
    (tree, toll)
}

/// Keeps a run of the pending changes of every directory; under ext4's rule, one run of them all.
fn keep_entries(tree: &mut Tree, dice: &mut Dice, toll: &mut Toll) {
    let mut ended: BTreeSet<u64> = BTreeSet::new();
    let changes = std::mem::take(&mut tree.pending);
    // The chance that a run ends at a change: from never to one in four.
    let ends = dice.below(5);
    for change in changes {
        let cut = change.parts.iter().any(|part| ended.contains(&part.0));
        if cut || dice.chance(ends, 16) {
            ended.extend(change.parts.iter().map(|part| part.0));
            if tree.rule == EntryRule::Ext4 {
                ended.extend(tree.inodes.keys());
            }
            toll.entries_lost += 1;
        } else {
            tree.apply_durable(&change);
            toll.entries_kept += 1;
        }
    }
}

/// Applies single sectors of a write; of another change all or nothing.
fn tear(durable: &mut Image, change: &Change, share: u64, dice: &mut Dice, toll: &mut Toll) {
    let Change::Write(offset, data) = change else {
        if dice.chance(share, 4) {
            durable.apply(change);
            toll.writes_kept += 1;
        } else {
            toll.writes_lost += 1;
        }
        return;
    };
    let (mut kept, mut lost) = (0_u64, 0_u64);
    // A write that is under way usually stops somewhere; now and then its sectors are shuffled.
    let shuffled = dice.chance(1, 2);
    let sectors = (data.len() / SECTOR_BYTES) as u64 + 1;
    let stop = if dice.chance(share, 4) { sectors + 1 } else { dice.below(sectors + 1) };
    for (number, (at, piece)) in (0_u64..).zip(pieces(*offset, data, SECTOR_BYTES)) {
        let survives = if shuffled { dice.chance(share, 4) } else { number < stop };
        if survives {
            durable.apply(&Change::Write(at, Arc::from(piece)));
            kept += 1;
        } else {
            lost += 1;
        }
    }
    match (kept, lost) {
        (_, 0) => toll.writes_kept += 1,
        (0, _) => toll.writes_lost += 1,
        _ => toll.writes_torn += 1,
    }
}
