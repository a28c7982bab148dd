//! Scrubbing on a simulated disk, with rows in memory: what is found, listed, forgotten, resumed.

mod finding;
mod listing;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::damage::{DAMAGE_MAX, DamageList, Ground, stored};
use super::pass::Pass;
use super::row::{Cursor, DamageKind, DamagePlace, DamageRow, Phase};
use super::walk::Seen;
use crate::blob::{SegmentState, file_name_of};
use crate::error::{Error, ErrorKind};
use crate::io::sim::{SimCrash, SimFault, SimOp};
use crate::reclaim::tests::{Bench, Ledger, run};

const SIZES: [u64; 4] = [5_000, 70_000, 300_000, 1_100_000];

/// Fills segments until three are closed; the objects and their sizes.
async fn fill(bench: &Bench) -> BTreeMap<u64, u64> {
    let mut objects = BTreeMap::new();
    for object in 0.. {
        let size = SIZES[usize::try_from(object % 4).unwrap()];
        bench.put(object, size).await.unwrap();
        objects.insert(object, size);
        // The last one's hold on its segment ends with its commit; the janitor closes it then.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        if bench.closed().len() >= 3 {
            break;
        }
    }
    objects
}

fn ground<'a>(bench: &'a Bench, list: &'a DamageList) -> Ground<'a> {
    Ground {
        volume: &bench.volume,
        reader: &bench.reader,
        committer: &bench.committer,
        tenants: &bench.tenants,
        env: &bench.env,
        list,
    }
}

/// A whole pass; what it saw, and where it ended.
async fn scrub(ground: Ground<'_>) -> (Seen, Cursor) {
    let mut pass = Pass::load(ground).await.unwrap();
    pass.begin(ground).await.unwrap();
    let seen = go_on(&mut pass, ground).await;
    (seen, pass.cursor)
}

async fn go_on(pass: &mut Pass, ground: Ground<'_>) -> Seen {
    let mut all = Seen::default();
    while pass.cursor.phase != Phase::Idle {
        let seen = pass.step(ground, None).await.unwrap();
        all.damaged += seen.damaged;
        all.dead += seen.dead;
        all.bytes += seen.bytes;
    }
    all
}

/// The objects on the list, with what is wrong with each.
async fn listed(bench: &Bench, list: &DamageList) -> BTreeMap<u64, DamageKind> {
    let (found, next) = list.list(ground(bench, list), None, DAMAGE_MAX).await.unwrap();
    assert!(next.is_none());
    let object = |stream: &[u8; 16]| u64::from_be_bytes(*stream.first_chunk().unwrap());
    found.iter().map(|it| (object(it.id.stream.as_bytes()), it.kind)).collect()
}

/// Objects that lie in closed segments.
async fn settled(bench: &Bench, objects: &BTreeMap<u64, u64>) -> Vec<u64> {
    let mut settled = Vec::new();
    for object in objects.keys() {
        let segment = bench.location(*object).await.segment();
        if bench.row(segment).state == SegmentState::Closed {
            settled.push(*object);
        }
    }
    settled
}
