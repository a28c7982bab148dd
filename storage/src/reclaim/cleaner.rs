//! Cleaning one segment: its survivors are moved, then it is given back.
//!
//! Step by step, each bounded: walk on through the segment, look up which extents are alive, copy
//! those, flush, and set each location row from the old place to the new one if it still names the
//! old one.
//! Owns: the order of these steps, the proof that nothing alive is left. Does not know: keys,
//! which segment is worth it, how fast.
//!
//! Invariants
//! - An extent is alive if its location row names exactly this address; nothing else is asked.
//! - A row names the copy only after the copy is durable.
//! - A segment is given back only if every extent found in it is dead or moved, and the count of
//!   live bytes says the same; else it is kept, and stays kept until the node restarts.
//! - Whatever stops it leaves every extent readable, and nothing to undo.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::blob::{
    ExtentId, Found, Location, Placed, RecordBody, Relocated, SegmentRow, SegmentScan, Survivor,
    Ticket, Volume,
};
use crate::commit::{Committer, Draft};
use crate::error::{ErrorKind, Result};
use crate::meta::RowKey;
use crate::namespace::{MetaReader, Table};
use crate::segments::{count_dead, count_live, live_bytes_of};
use crate::tenants::Tenants;

/// Extents looked up and moved in one step: as many as one synced batch of commits takes.
const STEP_EXTENTS: usize = 512;
/// Bytes of extents in one step: a quarter of a second at the default rate.
const STEP_BYTES: u64 = 16 << 20;

/// What cleaning works on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) reader: &'a MetaReader,
    pub(crate) committer: &'a Committer,
    pub(crate) tenants: &'a Tenants,
}

/// What one step did.
#[derive(Debug)]
pub(crate) enum Step {
    /// Moved some extents; go on.
    Moved(Tally),
    /// Somebody still reads the segment; ask again.
    Read,
    /// The segment is free.
    Freed,
    /// The segment stays as it is: why.
    Kept(String),
}

/// What was moved.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) extents: u64,
    pub(crate) bytes: u64,
    /// Copies that were dead before they were published: the object was deleted meanwhile.
    pub(crate) lost: u64,
    /// Extents that stay where they are because their bytes are damaged.
    pub(crate) damaged: u64,
    /// Bytes of all extents that were looked at.
    pub(crate) walked: u64,
}

/// A segment being cleaned.
pub(crate) struct Cleaner {
    row: SegmentRow,
    scan: SegmentScan,
    walked: bool,
    damaged: u64,
    /// Extents that could not be copied, until somebody asks.
    suspects: Vec<(ExtentId, Location)>,
    /// Set when nothing alive is left, durably.
    emptied: Option<Ticket>,
}

/// An extent that is alive, its row and the row's value.
struct Alive {
    survivor: Survivor,
    row: RowKey,
    held: Bytes,
}

impl Cleaner {
    /// Begins to clean a closed segment.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: its file is missing.
    /// - [`ErrorKind::Fenced`]: a write failed, now or before.
    pub(crate) async fn begin(ground: Ground<'_>, segment: u32) -> Result<Self> {
        let row = ground.volume.begin_cleaning(segment).await?;
        let scan = match ground.volume.scan_segment(segment).await {
            Ok(scan) => scan,
            Err(error) => {
                ground.volume.keep_segment(segment).await?;
                return Err(error);
            }
        };
        Ok(Self { row, scan, walked: false, damaged: 0, suspects: Vec::new(), emptied: None })
    }

    /// The segment.
    pub(crate) fn segment(&self) -> u32 {
        self.row.segment
    }

    /// Its use that is cleaned.
    pub(crate) fn incarnation(&self) -> u64 {
        self.row.incarnation
    }

    /// Does one bounded step.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write failed, now or before.
    /// - [`ErrorKind::Full`]: there is no place for the survivors.
    /// - [`ErrorKind::Unavailable`]: the volume is closing, or the disk did not answer.
    ///
    /// The cleaner is of no use afterwards but for [`Self::give_up`].
    pub(crate) async fn step(&mut self, ground: Ground<'_>) -> Result<Step> {
        if self.walked {
            return self.finish(ground).await;
        }
        let found = self.walk().await?;
        let walked = found.iter().map(|it| u64::from(it.location.stored_len())).sum();
        let mut tally = Tally { walked, ..Tally::default() };
        let alive = alive(ground, found).await?;
        let survivors: Vec<_> = alive.iter().map(|alive| alive.survivor).collect();
        let mut copies = Vec::with_capacity(alive.len());
        for (alive, copy) in alive.into_iter().zip(ground.volume.relocate(&survivors).await?) {
            match copy {
                Relocated::Placed(placed) => copies.push((alive, placed)),
                Relocated::Damaged(error) => {
                    tracing::error!(segment = self.row.segment, %error,
                        "a live extent is damaged; its segment is kept");
                    tally.damaged += 1;
                    let Survivor { id, location, .. } = alive.survivor;
                    self.suspects.push((id, location));
                }
            }
        }
        publish(ground, copies, &mut tally).await?;
        self.damaged += tally.damaged;
        Ok(Step::Moved(tally))
    }

    /// The extents that the last step found damaged.
    pub(crate) fn take_suspects(&mut self) -> Vec<(ExtentId, Location)> {
        std::mem::take(&mut self.suspects)
    }

    /// Leaves the segment with what is still in it.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: a write failed; the next start does it.
    pub(crate) async fn give_up(self, ground: Ground<'_>) -> Result<()> {
        // One that is empty lets no reader in any more, and needs none: its row stays.
        if self.emptied.is_some() {
            Ok(())
        } else {
            ground.volume.keep_segment(self.row.segment).await
        }
    }

    /// The next extents of the segment, alive or not.
    async fn walk(&mut self) -> Result<Vec<Survivor>> {
        let mut found = Vec::new();
        let mut bytes = 0;
        while found.len() < STEP_EXTENTS && bytes < STEP_BYTES {
            match self.scan.next().await? {
                Some(Found::Extent { header, location }) => {
                    if let RecordBody::Extent { id, logical_off, .. } = header.body {
                        bytes += u64::from(location.stored_len());
                        found.push(Survivor { id, logical_off, location });
                    }
                }
                // Whether something alive lies there, the count of live bytes tells at the end.
                Some(Found::Filler { .. } | Found::Damaged { .. } | Found::Unreadable { .. }) => {}
                None => {
                    self.walked = true;
                    break;
                }
            }
        }
        self.scan.pause();
        Ok(found)
    }

    async fn finish(&mut self, ground: Ground<'_>) -> Result<Step> {
        let segment = self.row.segment;
        let ticket = if let Some(ticket) = self.emptied {
            ticket
        } else {
            let live = live_bytes_of(ground.reader, segment).await?;
            if self.damaged > 0 || live > 0 {
                ground.volume.keep_segment(segment).await?;
                let damaged = self.damaged;
                return Ok(Step::Kept(format!(
                    "{damaged} damaged extents, {live} bytes that rows name are left"
                )));
            }
            *self.emptied.insert(ground.volume.emptied())
        };
        let is_free = ground.volume.free_segment(segment, ticket).await?;
        Ok(if is_free { Step::Freed } else { Step::Read })
    }
}

/// Those of `found` that a row names.
async fn alive(ground: Ground<'_>, found: Vec<Survivor>) -> Result<Vec<Alive>> {
    let named: Vec<_> = found
        .into_iter()
        .filter_map(|survivor| Some((row_of(ground, survivor.id)?, survivor)))
        .collect();
    let rows = named.iter().map(|(row, _)| row.clone()).collect();
    let held = ground.reader.get_many(rows).await?;
    let pairs = named.into_iter().zip(held);
    Ok(pairs
        .filter_map(|((row, survivor), held)| {
            let held = held.filter(|held| *held == survivor.location.encode().as_slice())?;
            Some(Alive { survivor, row, held })
        })
        .collect())
}

/// The location row of an extent; `None` in a namespace that is not there.
fn row_of(ground: Ground<'_>, id: ExtentId) -> Option<RowKey> {
    let ns = ground.tenants.namespace_of(id.ns)?;
    Some(ns.row(Table::Locations, &[id.stream.as_bytes(), &id.number.to_be_bytes()]))
}

/// Makes the copies durable and sets the rows that still name the old places.
async fn publish(
    ground: Ground<'_>,
    copies: Vec<(Alive, Placed)>,
    tally: &mut Tally,
) -> Result<()> {
    let (alive, placed): (Vec<_>, Vec<_>) = copies.into_iter().unzip();
    ground.volume.flush(&placed).await?;
    let mut commits = Vec::with_capacity(alive.len());
    let mut lengths = Vec::with_capacity(alive.len());
    // A commit for each: one that an object's deletion was faster than must not hold up the others.
    // They share synced batches all the same.
    for (alive, placed) in alive.into_iter().zip(placed) {
        lengths.push(u64::from(placed.location().stored_len()));
        let mut draft = Draft::default();
        draft.expect(alive.row.clone(), Some(alive.held.clone()));
        draft.put(alive.row, placed.location().encode().to_vec());
        draft.changes.push(count_dead(&alive.held)?);
        draft.changes.push(count_live(placed.location()));
        draft.placed = Some(Arc::new(vec![placed]));
        commits.push(ground.committer.commit(draft));
    }
    for (outcome, bytes) in join_all(commits).await.into_iter().zip(lengths) {
        match outcome {
            Ok(()) => {
                tally.extents += 1;
                tally.bytes += bytes;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => tally.lost += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
