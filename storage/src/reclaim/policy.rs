//! Which segment is worth cleaning next, if any.
//!
//! Owns: the choice, as a function of figures. Does not know: files, rows, time.
//!
//! Invariants
//! - What cleaning could not win back is not counted as waste: the tail of a segment that was
//!   closed because the next extent did not fit would be a tail again. So cleaning ends.

use super::{ReclaimConfig, URGENT_SEGMENTS};
use crate::format::{BLOCK_BYTES, ChunkLayout, align_up};
use crate::types::{CHUNK_SHIFT, EXTENT_BYTES};

/// The least that cleaning a segment has to win, as a part of it: below, nineteen bytes would be
/// written for each that becomes free.
const GAIN_DIVISOR: u64 = 20;
/// The same while there is no hurry: at most three bytes are written for each. A volume that is so
/// full that it can never have the segments it should have is left alone until it must not be.
const CALM_GAIN_DIVISOR: u64 = 4;
/// Of the segments that there are, the part that should be available: one in ten.
const AVAILABLE_DIVISOR: u64 = 10;
/// The segments that should be available, where the tenth part is less.
const AVAILABLE_MIN: u64 = 8;
/// The most that this asks of a small volume: a quarter of it.
const SMALL_DIVISOR: u64 = 4;
/// Segments' worth of waste below which a volume is left alone, however small it is.
const WASTE_SEGMENTS_MIN: u64 = 2;

/// A closed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) segment: u32,
    pub(super) incarnation: u64,
    /// Bytes that records may lie in.
    pub(super) written: u64,
    /// Bytes that rows name.
    pub(super) live: u64,
}

/// The figures of a volume.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) segment_bytes: u64,
    /// Segment files that there are.
    pub(super) files: u64,
    /// Segments that clients could open now.
    pub(super) available: u64,
    /// The newest incarnation in use: age is counted in segments opened since.
    pub(super) newest: u64,
    pub(super) candidates: Vec<Candidate>,
}

/// Why a segment is cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Nothing in it is alive.
    Dead,
    /// Few segments are available.
    Short,
    /// Too many bytes lie idle.
    Waste,
    /// Somebody asked for it.
    Asked,
}

/// The next victim. `asked` names the newest incarnation that was in use when somebody asked for
/// everything to be cleaned, `cleaning` says that a reason was met before and is only given up with
/// some distance.
pub(super) fn choose(
    field: &Field,
    config: &ReclaimConfig,
    asked: Option<u64>,
    cleaning: bool,
) -> Option<(u32, Why)> {
    let dead = field.candidates.iter().find(|candidate| candidate.live == 0);
    if let Some(dead) = dead {
        return Some((dead.segment, Why::Dead));
    }
    let is_short = field.available < wanted(field) + u64::from(cleaning);
    let why = if asked.is_some() {
        Why::Asked
    } else if is_short {
        Why::Short
    } else if has_waste(field, config) {
        Why::Waste
    } else {
        return None;
    };
    let is_urgent = why == Why::Asked || field.available <= URGENT_SEGMENTS;
    let divisor = if is_urgent { GAIN_DIVISOR } else { CALM_GAIN_DIVISOR };
    let may = |candidate: &&Candidate| {
        let in_time = asked.is_none_or(|newest| candidate.incarnation <= newest);
        field.gain(candidate) >= field.segment_bytes / divisor && in_time
    };
    let best = field.candidates.iter().filter(may).max_by_key(|candidate| field.score(candidate));
    best.map(|candidate| (candidate.segment, why))
}

/// How many segments should be available.
pub(super) fn wanted(field: &Field) -> u64 {
    let least = AVAILABLE_MIN.min(field.files / SMALL_DIVISOR);
    (field.files / AVAILABLE_DIVISOR).max(least)
}

fn has_waste(field: &Field, config: &ReclaimConfig) -> bool {
    let waste: u64 = field.candidates.iter().map(|candidate| field.gain(candidate)).sum();
    let all = field.candidates.len() as u64 * field.segment_bytes;
    let bound = all / 100 * u64::from(config.waste_percent_max);
    waste > bound && waste >= WASTE_SEGMENTS_MIN * field.segment_bytes
}

impl Field {
    /// What cleaning a segment wins.
    fn gain(&self, candidate: &Candidate) -> u64 {
        let tail = self.segment_bytes.saturating_sub(candidate.written);
        let used = if tail < longest_record() { candidate.written } else { self.segment_bytes };
        used.saturating_sub(candidate.live)
    }

    /// Cost and benefit, (1 − u) · age / (1 + u) with u the part that has to be copied: an old
    /// segment with some waste before a young one with more, which loses the rest by itself.
    fn score(&self, candidate: &Candidate) -> u128 {
        let gain = u128::from(self.gain(candidate));
        let kept = u128::from(self.segment_bytes) - gain.min(u128::from(self.segment_bytes));
        let age = u128::from(self.newest.saturating_sub(candidate.incarnation)) + 1;
        gain * age * SCALE / (u128::from(self.segment_bytes) + kept)
    }
}

/// Keeps the quotient of a score from being cut to nothing.
const SCALE: u128 = 1 << 32;

/// Bytes of the longest record, padding included.
fn longest_record() -> u64 {
    let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, EXTENT_BYTES);
    layout.map_or(EXTENT_BYTES, |layout| align_up(u64::from(layout.stored_len()), BLOCK_BYTES))
}
