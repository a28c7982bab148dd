//! Opening a mirror: what its directories say, and making them alike again where a crash came
//! between the two.
//!
//! Owns: the order of the steps. What follows from the records is `verdict.rs`'. Does not know:
//! what a file holds.
//!
//! Invariants
//! - Nothing is written before the start was decided on; a start that is refused changes nothing.
//! - Two current members have the same names. A file that one lacks was being made or removed when
//!   the node stopped; it is copied under another name first, so that it is whole or not there.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::flight::Flight;
use super::group::{Changes, Group, Seat};
use super::slip::{self, Keeper, Problem, Slip, is_reserved};
use super::table::Table;
use super::verdict::{Evidence, Standing, Verdict};
use super::{DIRECTORIES, MirrorDisk, Shared, Tallies};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{MirrorId, SEATS, SeatState};
use crate::io::transfer::Counters;
use crate::io::{Buf, BufClass, BufPool, Disk, FileId, OpenMode, SLAB_BYTES};

/// Buffers of a mirror's own: for records, for a rebuild, for what a replacement's directory says.
const OWN_BYTES: usize = 3 * SLAB_BYTES;

/// What a file is called while it is copied.
const COPY: &str = "COPY";

/// One of the two directories.
pub struct MirrorMember {
    /// Its path, for people.
    pub path: String,
    /// The disk there, or why there is none.
    pub disk: Result<Arc<dyn Disk>, String>,
}

/// What a mirror is made of.
pub struct MirrorParts {
    /// In the order of the configuration.
    pub members: [MirrorMember; SEATS],
    /// A directory elsewhere that remembers which members are current, so that one of them alone
    /// can be told from a stale one. Its disk holds nothing else.
    pub witness: Option<Arc<dyn Disk>>,
    /// Where buffers for the second copy of a write come from, while there are some to spare.
    pub pool: BufPool,
    /// The id that a new mirror takes.
    pub mirror: MirrorId,
    /// How fast a rebuild copies, at most.
    pub rebuild_bytes_per_second: u64,
}

/// What was read of one directory.
struct Found {
    path: String,
    disk: Option<Arc<dyn Disk>>,
    slip: Slip,
    keeper: Option<Keeper>,
}

impl MirrorDisk {
    /// Opens a mirror, or makes one of two empty directories, or around a volume that had one
    /// directory only. A rebuild that was under way goes on. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: no current member is here, or the members contradict each other.
    /// - [`ErrorKind::Misuse`]: the directories do not belong together.
    /// - [`ErrorKind::Unavailable`]: a disk does not answer.
    pub async fn open(parts: MirrorParts) -> Result<Self> {
        let MirrorParts { members, witness, pool, mirror, rebuild_bytes_per_second } = parts;
        let own = BufPool::new(OWN_BYTES, false).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "map the mirror's buffers").with_source(error)
        })?;
        let mut buf = own.acquire(BufClass::Small).await;
        let mut found = Vec::with_capacity(SEATS);
        for member in members {
            let (back, read) = read_member(member, buf, &own).await;
            buf = back;
            found.push(read);
        }
        let found: [Found; SEATS] = found.try_into().map_err(|_| {
            Error::new(ErrorKind::Misuse, format!("make a mirror of other than {SEATS} members"))
        })?;
        let (back, witness, noted) = read_witness(witness, buf).await?;
        buf = back;
        let standing = judge(&found, noted.as_ref(), mirror)?;
        let cursor = resume_after(&found, &standing);
        let is_noted = noted.is_some_and(|it| it.generation == standing.generation);
        let must_record = standing.is_changed || (witness.is_some() && !is_noted);
        if standing.states == [SeatState::Current; SEATS] {
            buf = match_names(&found, buf).await?;
        }
        let group = group(found, &standing, witness, buf);
        if must_record {
            group.record(&cursor).await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "write the membership records")
                    .with_source(error)
            })?;
        }
        let disk = Self(Arc::new(Shared {
            pool,
            own,
            group,
            table: Table::default(),
            flight: Arc::<Flight>::default(),
            names: tokio::sync::Mutex::default(),
            attaching: tokio::sync::Mutex::default(),
            counters: Counters::default(),
            tallies: Tallies::default(),
            rebuild: Mutex::default(),
            rebuild_bytes_per_second,
        }));
        disk.resume(&cursor);
        Ok(disk)
    }
}

async fn read_member(member: MirrorMember, buf: Buf, pool: &BufPool) -> (Buf, Found) {
    let MirrorMember { path, disk } = member;
    let disk = match disk {
        Ok(disk) => disk,
        Err(why) => {
            let slip = Slip { problem: Some(Problem::Unreadable(why)), ..Slip::default() };
            return (buf, Found { path, disk: None, slip, keeper: None });
        }
    };
    let (buf, slip, keeper) = slip::read(&disk, buf).await;
    // A disk that has stopped takes the buffer along; the other one may be well.
    let buf = if buf.capacity() == 0 { pool.acquire(BufClass::Small).await } else { buf };
    (buf, Found { path, disk: Some(disk), slip, keeper })
}

type Witness = (Buf, Option<Keeper>, Option<crate::format::Member>);

async fn read_witness(witness: Option<Arc<dyn Disk>>, buf: Buf) -> Result<Witness> {
    let Some(disk) = witness else {
        return Ok((buf, None, None));
    };
    let (buf, slip, keeper) = slip::read(&disk, buf).await;
    match slip.problem {
        Some(Problem::Newer(version)) => {
            Err(Error::new(ErrorKind::Misuse, "read the mirror's witness")
                .with_source(format!("version {version}"))
                .with_advice("a later release wrote it: start that release instead"))
        }
        Some(Problem::Unreadable(why)) => {
            Err(Error::new(ErrorKind::Unavailable, "read the mirror's witness").with_source(why))
        }
        // It is made anew if the members agree without it.
        Some(Problem::Damaged(_)) | None => Ok((buf, keeper, slip.record)),
    }
}

fn judge(
    found: &[Found; SEATS],
    noted: Option<&crate::format::Member>,
    mirror: MirrorId,
) -> Result<Standing> {
    let [one, other] = found;
    let evidence = Evidence {
        slips: [&one.slip, &other.slip],
        labels: [&one.path, &other.path],
        witness: noted,
    };
    let first =
        |states, reasons| Standing { mirror, states, generation: 1, is_changed: true, reasons };
    Ok(match evidence.judge()? {
        Verdict::Create => first([SeatState::Current; SEATS], [const { None }; SEATS]),
        Verdict::Adopt(seat) => {
            let mut states = [SeatState::Out; SEATS];
            let mut reasons = [const { None }; SEATS];
            for (at, (state, why)) in states.iter_mut().zip(&mut reasons).enumerate() {
                if at == seat {
                    *state = SeatState::Current;
                } else {
                    *why = Some("empty".to_owned());
                }
            }
            first(states, reasons)
        }
        Verdict::Start(standing) => standing,
    })
}

/// After which file a rebuild goes on.
fn resume_after(found: &[Found; SEATS], standing: &Standing) -> String {
    let rebuilding = found.iter().zip(standing.states);
    let mut rebuilding = rebuilding.filter(|(_, state)| *state == SeatState::Rebuilding);
    let record = rebuilding.next().and_then(|(found, _)| found.slip.record.as_ref());
    record.map(|record| record.cursor.clone()).unwrap_or_default()
}

fn group(found: [Found; SEATS], standing: &Standing, witness: Option<Keeper>, buf: Buf) -> Group {
    let states = standing.states;
    let reasons = standing.reasons.clone();
    let mut keepers = [const { None }; SEATS];
    let of = |state: Option<&SeatState>| state.copied().unwrap_or(SeatState::Out);
    let mut seats = found.into_iter().enumerate().map(|(at, found)| {
        let state = of(states.get(at));
        let is_in = state != SeatState::Out;
        if let (true, Some(keeper)) = (is_in, keepers.get_mut(at)) {
            *keeper = found.keeper;
        }
        let why = reasons.get(at).cloned().flatten();
        if let Some(why) = &why {
            tracing::error!(member = %found.path, %why,
                "a member of the mirror is left out: every byte has one copy");
        }
        Seat { label: found.path.into(), state, serial: 0, disk: found.disk.filter(|_| is_in), why }
    });
    let seats = [(); SEATS].map(|()| seats.next().expect("there are as many as seats"));
    let changes = Changes { mirror: standing.mirror, buf: Some(buf), keepers, witness };
    Group::new(seats, standing.generation, changes)
}

/// Copies what one current member has and the other lacks.
async fn match_names(found: &[Found; SEATS], mut buf: Buf) -> Result<Buf> {
    let [one, other] = found;
    let (Some(a), Some(b)) = (&one.disk, &other.disk) else {
        return Ok(buf);
    };
    for dir in DIRECTORIES {
        let (in_a, in_b) = (names(a, dir, &one.path).await?, names(b, dir, &other.path).await?);
        for (name, len) in &in_a {
            match in_b.get(name) {
                None => buf = copy(a, b, (dir, name, *len), buf).await?,
                Some(there) if there != len => {
                    let during = format!("compare {name}: {len} bytes and {there}");
                    return Err(Error::new(ErrorKind::Corrupt, during).with_advice(
                        "empty the directory whose file is cut short, start the node and run \
                         `kluis volume replace`",
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, len) in in_b.iter().filter(|(name, _)| !in_a.contains_key(*name)) {
            buf = copy(b, a, (dir, name, *len), buf).await?;
        }
    }
    Ok(buf)
}

async fn names(disk: &Arc<dyn Disk>, dir: &str, path: &str) -> Result<BTreeMap<String, u64>> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("list {path}")).with_source(error)
    };
    match disk.remove(&in_dir(dir, COPY)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let files = disk.list(dir).await.map_err(failed)?;
    Ok(files.into_iter().filter(|(name, _)| !is_reserved(name)).collect())
}

async fn copy(
    from: &Arc<dyn Disk>,
    to: &Arc<dyn Disk>,
    (dir, name, len): (&str, &str, u64),
    mut buf: Buf,
) -> Result<Buf> {
    let name = in_dir(dir, name);
    tracing::warn!(%name, "one member of the mirror lacks this file: copied from the other");
    let copied = async {
        let source = from.open(&name, OpenMode::Existing).await?;
        let temporary = in_dir(dir, COPY);
        let target = to.open(&temporary, OpenMode::Create { len }).await?;
        buf = copy_bytes((from, source), (to, target), len, buf).await?;
        to.sync(target).await?;
        from.close(source).await;
        to.close(target).await;
        to.rename(&temporary, &name).await?;
        Ok(buf)
    };
    copied.await.map_err(|error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("copy {name}")).with_source(error)
    })
}

async fn copy_bytes(
    (from, source): (&Arc<dyn Disk>, FileId),
    (to, target): (&Arc<dyn Disk>, FileId),
    len: u64,
    mut buf: Buf,
) -> io::Result<Buf> {
    let mut at = 0;
    while at < len {
        let step = usize::try_from(len - at).unwrap_or(usize::MAX).min(buf.capacity());
        buf.set_len(step);
        let (back, read) = from.read_at(source, buf, at).await;
        read?;
        let (back, written) = to.write_at(target, back, at).await;
        written?;
        buf = back;
        at += step as u64;
    }
    Ok(buf)
}

/// A file's name on the disk.
pub(super) fn in_dir(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
