//! What follows from the records that a start finds.
//!
//! Owns: which members are read, which are out, which starts are refused and with what advice.
//! Pure; does not know: disks.
//!
//! Invariants
//! - A member that may miss an acknowledged byte is never called current.
//! - Whatever is refused changes nothing.
//!   Rules: docs/FORMAT.md, "Member".

use super::slip::{Problem, Slip};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Holder, Member, MirrorId, SEATS, SeatState};

/// What a start does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Makes a new mirror of empty directories.
    Create,
    /// Makes a mirror around the volume at this seat, which was none before.
    Adopt(usize),
    /// Goes on with a mirror.
    Start(Standing),
}

/// How the members of a known mirror stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) mirror: MirrorId,
    pub(super) states: [SeatState; SEATS],
    /// The generation to write, if the states are not those on record.
    pub(super) generation: u64,
    pub(super) is_changed: bool,
    /// Why a member is out.
    pub(super) reasons: [Option<String>; SEATS],
}

/// What a start found.
pub(super) struct Evidence<'a> {
    /// What lies at each seat.
    pub(super) slips: [&'a Slip; SEATS],
    /// The paths, for messages.
    pub(super) labels: [&'a str; SEATS],
    /// The witness' record.
    pub(super) witness: Option<&'a Member>,
}

impl Evidence<'_> {
    /// Decides.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: no member that is here is current, or they contradict each other.
    /// - [`ErrorKind::Misuse`]: the directories do not belong together, stand in the wrong order,
    ///   or a later build wrote them.
    pub(super) fn judge(&self) -> Result<Verdict> {
        self.refuse_newer()?;
        if self.is_unborn() {
            return Ok(Verdict::Create);
        }
        let Some(authority) = self.authority() else {
            return self.judge_unknown();
        };
        self.refuse_strangers(authority)?;
        self.refuse_contradiction(authority)?;
        self.judge_known(authority).map(Verdict::Start)
    }

    fn seats(&self) -> impl Iterator<Item = (usize, &Slip, &str)> {
        self.slips
            .iter()
            .zip(self.labels)
            .enumerate()
            .map(|(seat, (slip, label))| (seat, *slip, label))
    }

    fn records(&self) -> impl Iterator<Item = &Member> {
        self.slips.iter().filter_map(|slip| slip.record.as_ref()).chain(self.witness)
    }

    /// The newest record.
    fn authority(&self) -> Option<&Member> {
        self.records().max_by_key(|record| record.generation)
    }

    /// Nothing was ever stored: the directories are empty, or a first start was cut short.
    fn is_unborn(&self) -> bool {
        let is_blank = |slip: &&Slip| {
            let is_first = slip.record.as_ref().is_none_or(|record| record.generation == 1);
            is_first && !slip.has_files && slip.problem.is_none()
        };
        self.witness.is_none() && self.slips.iter().all(is_blank)
    }

    fn refuse_newer(&self) -> Result<()> {
        for (_, slip, label) in self.seats() {
            if let Some(Problem::Newer(version)) = slip.problem {
                return Err(misuse(format!("open the mirror's member {label}"))
                    .with_source(format!("its record has version {version}"))
                    .with_advice("a later release wrote it: start that release instead"));
            }
        }
        Ok(())
    }

    /// No record anywhere.
    fn judge_unknown(&self) -> Result<Verdict> {
        let mut with_files = self.seats().filter(|(_, slip, _)| slip.has_files);
        let (first, second) = (with_files.next(), with_files.next());
        if let Some((_, slip, label)) = self.seats().find(|(_, slip, _)| slip.problem.is_some()) {
            return Err(Error::new(ErrorKind::Unavailable, format!("open {label}"))
                .with_source(reason(slip))
                .with_advice(
                    "no member says what belongs to this mirror; mount both directories",
                ));
        }
        match (first, second) {
            (Some((seat, _, _)), None) => Ok(Verdict::Adopt(seat)),
            (Some((_, _, one)), Some((_, _, other))) => {
                Err(misuse(format!("make a mirror of {one} and {other}")).with_advice(
                    "both hold files and neither a membership record: empty the one whose \
                     content is not wanted",
                ))
            }
            (None, _) => Ok(Verdict::Create),
        }
    }

    fn refuse_strangers(&self, authority: &Member) -> Result<()> {
        for (seat, slip, label) in self.seats() {
            let Some(record) = &slip.record else { continue };
            if record.mirror != authority.mirror {
                return Err(misuse(format!("open {label} as a member"))
                    .with_source(format!(
                        "it belongs to mirror {}, and {} to another",
                        record.mirror, authority.mirror
                    ))
                    .with_advice(
                        "mount the right disk; or empty the directory, start the node and run \
                         `kluis volume replace`",
                    ));
            }
            if record.holder != Holder::Seat(seat) {
                return Err(misuse(format!("open {label} as member {seat}")).with_advice(
                    "the members stand in the other order in the configuration, or their disks \
                     were exchanged: exchange the two paths",
                ));
            }
        }
        let is_stranger = |witness: &&Member| {
            witness.mirror != authority.mirror || witness.holder != Holder::Witness
        };
        if self.witness.is_some_and(|witness| is_stranger(&witness)) {
            return Err(misuse("open the mirror").with_advice(
                "the data directory belongs to another mirror than these directories: mount the \
                 right disks",
            ));
        }
        Ok(())
    }

    fn refuse_contradiction(&self, authority: &Member) -> Result<()> {
        let same = |record: &&Member| record.generation == authority.generation;
        if self.records().filter(same).any(|record| record.states != authority.states) {
            let during = format!("open the mirror at generation {}", authority.generation);
            return Err(Error::new(ErrorKind::Corrupt, during).with_advice(
                "two records of one generation differ, so the members were used apart; keep the \
                 one whose data you trust, and empty the other",
            ));
        }
        Ok(())
    }

    fn judge_known(&self, authority: &Member) -> Result<Standing> {
        let was = |seat: usize| authority.states.get(seat).copied().unwrap_or(SeatState::Out);
        let mut states = [SeatState::Out; SEATS];
        let mut reasons = [const { None }; SEATS];
        for ((seat, slip, _), (state, why)) in self.seats().zip(states.iter_mut().zip(&mut reasons))
        {
            let record = slip.record.as_ref();
            let is_newest = record.is_some_and(|it| it.generation == authority.generation);
            if is_newest && was(seat) == SeatState::Current {
                *state = SeatState::Current;
            } else if record.is_some_and(|record| goes_on(record, seat, authority)) {
                *state = SeatState::Rebuilding;
            } else {
                *why = Some(reason(slip));
            }
        }
        if !states.contains(&SeatState::Current) {
            return Err(self.no_current(authority));
        }
        let is_alone = self.records().count() == 1;
        let may_be_newer = authority.states.iter().all(|state| *state == SeatState::Current);
        if is_alone && may_be_newer {
            return Err(unproven(authority));
        }
        let is_changed = states != authority.states;
        let generation = authority.generation + u64::from(is_changed);
        Ok(Standing { mirror: authority.mirror, states, generation, is_changed, reasons })
    }

    fn no_current(&self, authority: &Member) -> Error {
        let current = authority.states.iter().zip(self.labels);
        let current = current.filter(|(state, _)| **state == SeatState::Current);
        let wanted: Vec<_> = current.map(|(_, label)| label).collect();
        let stale: Vec<_> = self
            .seats()
            .filter_map(|(_, slip, label)| slip.record.as_ref().map(|it| (label, it.generation)))
            .map(|(label, generation)| format!("{label} is of generation {generation}"))
            .collect();
        let newest = authority.generation;
        Error::new(ErrorKind::Corrupt, format!("open the mirror at generation {newest}"))
            .with_source(format!(
                "the current copy is missing: it was at {}{}{}",
                wanted.join(" and "),
                if stale.is_empty() { "" } else { "; " },
                stale.join(", ")
            ))
            .with_advice(
                "mount the directory with the current copy; what is here misses writes that were \
                 acknowledged. If it is lost for good, restore from a backup",
            )
    }
}

/// One member alone, of which nobody knows whether the other went on without it.
fn unproven(authority: &Member) -> Error {
    let during = format!("open the mirror at generation {}", authority.generation);
    Error::new(ErrorKind::Corrupt, during)
        .with_source("the other member may be newer, and the data directory has no witness")
        .with_advice("mount both members, or restore mirror/ of the data directory")
}

/// Whether a rebuild of `seat` that `record` tells of may be gone on with.
fn goes_on(record: &Member, seat: usize, authority: &Member) -> bool {
    let of = |member: &Member| member.states.get(seat).copied();
    if of(record) != Some(SeatState::Rebuilding) {
        return false;
    }
    match of(authority) {
        Some(SeatState::Rebuilding) => record.generation == authority.generation,
        // It was finished, and the crash came before its own record said so.
        Some(SeatState::Current) => record.generation + 1 == authority.generation,
        _ => false,
    }
}

/// Why a member is out.
fn reason(slip: &Slip) -> String {
    match (&slip.problem, &slip.record) {
        (Some(Problem::Unreadable(why)), _) => format!("cannot be read: {why}"),
        (Some(Problem::Damaged(error)), _) => error.to_string(),
        (Some(Problem::Newer(version)), _) => format!("written by version {version}"),
        (None, Some(record)) => format!("stale: it stopped at generation {}", record.generation),
        (None, None) if slip.has_files => "has files and no membership record".to_owned(),
        (None, None) => "empty".to_owned(),
    }
}

fn misuse(during: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misuse, during)
}
