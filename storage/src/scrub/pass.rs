//! One pass: every closed segment, then the metadata, then its checkpoints.
//!
//! Owns: the order, the cursor, what a pass counts. Does not know: when a pass is due, how fast.
//!
//! Invariants
//! - The cursor moves on, durably, when a segment was read, so that a restart costs one segment.
//!   The metadata is read from its beginning again.
//! - A segment that was closed when the pass began is read by it, unless it is emptied meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::Ground;
use super::row::{Cursor, Phase};
use super::walk::{Ended, Seen, Walk};
use crate::backup::{self, Progress};
use crate::blob::{SegmentRow, SegmentState};
use crate::commit::Draft;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::VerifyPlace;
use crate::namespace::blocking;

/// A pass, under way or over.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) cursor: Cursor,
    walk: Option<Walk>,
    place: VerifyPlace,
}

impl Pass {
    /// Takes up where the last run of the node stopped.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the row could not be read.
    pub(crate) async fn load(ground: Ground<'_>) -> Result<Self> {
        let held = ground.reader.get(Cursor::row()).await?;
        let cursor = match held.map(|held| Cursor::decode(&held)) {
            Some(Err(error)) => {
                tracing::warn!(%error, "how far scrubbing was is lost; it begins anew");
                Cursor::default()
            }
            found => found.transpose()?.unwrap_or_default(),
        };
        Ok(Self { cursor, ..Self::default() })
    }

    /// Begins a new pass.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: the row could not be written.
    pub(crate) async fn begin(&mut self, ground: Ground<'_>) -> Result<()> {
        ground.list.forget_unlisted();
        let cursor = Cursor {
            phase: Phase::Segments,
            pass: self.cursor.pass + 1,
            started_ms: ground.env.clock.now_ms(),
            ended_ms: self.cursor.ended_ms,
            ..Cursor::default()
        };
        save(ground, &cursor).await?;
        *self = Self { cursor, ..Self::default() };
        tracing::debug!(pass = cursor.pass, "scrubbing begins");
        Ok(())
    }

    /// Does one bounded step; what was seen, of which the cursor has taken note.
    ///
    /// # Errors
    /// As [`Walk::step`]. Go on later.
    pub(crate) async fn step(
        &mut self,
        ground: Ground<'_>,
        checkpoints: Option<(&Path, &Arc<Progress>)>,
    ) -> Result<Seen> {
        let mut seen = Seen::default();
        match self.cursor.phase {
            Phase::Idle => {}
            Phase::Segments => {
                let done = self.segments(ground, &mut seen).await;
                self.cursor.repaired += seen.repaired;
                self.cursor.left += seen.left;
                self.cursor.dead += seen.dead;
                done?;
            }
            Phase::Metadata => self.metadata(ground, &mut seen).await?,
            Phase::Checkpoints => {
                if let Some((dir, progress)) = checkpoints {
                    self.checkpoints(dir, progress, &mut seen).await?;
                }
                let ended_ms = ground.env.clock.now_ms();
                let cursor = Cursor { phase: Phase::Idle, ended_ms, ..self.cursor };
                save(ground, &cursor).await?;
                self.cursor = cursor;
                tracing::info!(
                    pass = cursor.pass,
                    segments = cursor.segments,
                    bytes = cursor.bytes,
                    repaired = cursor.repaired,
                    damaged = ground.list.len(),
                    "scrubbing ended: a whole pass"
                );
            }
        }
        Ok(seen)
    }

    async fn segments(&mut self, ground: Ground<'_>, seen: &mut Seen) -> Result<()> {
        let Some(walk) = &mut self.walk else {
            let rows = ground.volume.segments();
            let next = rows.iter().find(|row| is_ahead(row, self.cursor.next));
            let Some(next) = next else {
                return self.turn(ground, Phase::Metadata).await;
            };
            self.cursor.next = next.segment;
            self.walk = Walk::begin(ground, next.segment).await?;
            if self.walk.is_none() {
                self.cursor.next = next.segment.saturating_add(1);
            }
            return Ok(());
        };
        let ended = walk.step(ground, seen).await?;
        if ended == Ended::No {
            return Ok(());
        }
        let mut cursor = self.cursor;
        cursor.next = walk.segment().saturating_add(1);
        // What `seen` holds was not yet added; it is, by whoever called, once this is saved.
        if ended == Ended::Yes {
            cursor.segments += 1;
            cursor.bytes += walk.written_bytes();
        }
        let stored = Cursor {
            repaired: cursor.repaired + seen.repaired,
            left: cursor.left + seen.left,
            dead: cursor.dead + seen.dead,
            ..cursor
        };
        save(ground, &stored).await?;
        self.cursor = cursor;
        self.walk = None;
        Ok(())
    }

    async fn metadata(&mut self, ground: Ground<'_>, seen: &mut Seen) -> Result<()> {
        let (store, place) = (Arc::clone(ground.reader.store()), self.place.clone());
        let found = blocking(move || store.verify(&place)).await?;
        seen.bytes += found.bytes;
        if let Some(error) = found.fault {
            tracing::error!(%error, "the metadata is damaged: restore it (docs/OPERATIONS.md)");
            self.cursor.metadata_faults += 1;
        }
        match found.next {
            Some(next) => self.place = next,
            None => self.turn(ground, Phase::Checkpoints).await?,
        }
        Ok(())
    }

    async fn checkpoints(
        &mut self,
        dir: &Path,
        progress: &Arc<Progress>,
        seen: &mut Seen,
    ) -> Result<()> {
        let watched = progress;
        let (from, progress): (PathBuf, _) = (dir.to_owned(), Arc::clone(progress));
        let looked = blocking(move || {
            if backup::list(&from).is_err_and(|error| error.kind() == ErrorKind::Misuse) {
                return Ok(None);
            }
            backup::verify(&from, None, &progress).map(Some)
        })
        .await;
        let report = match looked {
            Ok(Some(report)) => report,
            // None was made yet.
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let during = "wait for the backup that is at work";
                return Err(Error::new(ErrorKind::Unavailable, during).with_source(error));
            }
            Err(error) if watched.is_stopped() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the checkpoints of the metadata cannot be read");
                self.cursor.checkpoint_faults = 1;
                return Ok(());
            }
        };
        seen.bytes += report.bytes;
        self.cursor.checkpoint_faults = report.damaged;
        for damage in &report.findings {
            tracing::error!(path = %damage.path.display(), what = damage.what,
                "a file of a metadata checkpoint is damaged");
        }
        Ok(())
    }

    async fn turn(&mut self, ground: Ground<'_>, phase: Phase) -> Result<()> {
        let cursor = Cursor { phase, ..self.cursor };
        save(ground, &cursor).await?;
        self.cursor = cursor;
        self.place = VerifyPlace::default();
        Ok(())
    }
}

/// Whether a segment is one of those that are still to be read.
pub(crate) fn is_ahead(row: &SegmentRow, next: u32) -> bool {
    row.segment >= next && row.state == SegmentState::Closed
}

async fn save(ground: Ground<'_>, cursor: &Cursor) -> Result<()> {
    let mut draft = Draft::default();
    draft.put(Cursor::row(), cursor.encode());
    ground.committer.commit(draft).await
}
