//! Filling an empty disk with what the current member has, while both are written to.
//!
//! Owns: what is copied when, how fast, where a rebuild goes on after a restart. Does not know:
//! what a file holds.
//!
//! Invariants
//! - From the moment a disk is taken in, every write goes to it as well; a range that is being
//!   copied is not written meanwhile. So what was copied once stays right.
//! - A file counts as copied when it is flushed; the disk becomes current when all files are.
//! - A disk that fails while it is filled is left out; nobody but the rebuild notices.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::flight::Hold;
use super::group::Seat;
use super::open::in_dir;
use super::slip::{self, Problem, is_reserved};
use super::table::{Entry, Handle};
use super::{DIRECTORIES, MirrorDisk, Shared, no_member};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Holder, SEATS, SeatState};
use crate::io::{Buf, BufClass, Disk};

/// How often the names are compared before a rebuild gives up: files come on both members, so that
/// the second look finds nothing.
const ROUNDS_MAX: u32 = 3;

/// How a rebuild stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RebuildState {
    /// It copies.
    Running,
    /// The member is current.
    Done,
    /// The member was left out.
    Failed,
}

impl RebuildState {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A rebuild, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RebuildStatus {
    /// The path of the member.
    pub path: String,
    /// How it stands.
    pub state: RebuildState,
    /// Files to copy.
    pub files: u64,
    /// Files copied and flushed.
    pub files_done: u64,
    /// Bytes to copy.
    pub bytes: u64,
    /// Bytes copied.
    pub bytes_done: u64,
    /// Why it failed.
    pub why: Option<String>,
}

/// One rebuild.
struct Job {
    seat: usize,
    serial: u64,
    /// The last file that an earlier start had copied.
    cursor: String,
}

/// Why a rebuild ends early.
enum Stop {
    /// The mirror is gone: the node stops, and goes on at its next start.
    Closed,
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl MirrorDisk {
    /// Takes `disk` in at `seat`, whose member is out, and begins to fill it. It must be empty, or
    /// what was left of this very member: that is removed.
    ///
    /// # Errors
    /// - [`ErrorKind::Misuse`]: the member is not out, or `disk` holds something else.
    /// - [`ErrorKind::Unavailable`]: a disk does not answer, or no more writes are taken.
    pub async fn replace(&self, seat: usize, disk: Arc<dyn Disk>) -> Result<()> {
        let shared = Arc::clone(&self.0);
        // A task of its own: records half written must be finished even if the caller leaves.
        let replacing = tokio::spawn(async move { shared.replace(seat, disk).await });
        let stopped = |_| Err(Error::new(ErrorKind::Unavailable, "replace a member"));
        replacing.await.unwrap_or_else(stopped)
    }

    /// Goes on with a rebuild that a restart interrupted.
    pub(super) fn resume(&self, cursor: &str) {
        let seats = self.0.group.seats().into_iter().enumerate();
        for (seat, place) in seats.filter(|(_, it)| it.state == SeatState::Rebuilding) {
            self.0.start(
                Job { seat, serial: place.serial, cursor: cursor.to_owned() },
                place.label.to_string(),
            );
        }
    }
}

impl Shared {
    async fn replace(self: &Arc<Self>, seat: usize, disk: Arc<dyn Disk>) -> Result<()> {
        let places = self.group.seats();
        let place = places.get(seat).filter(|place| place.state == SeatState::Out);
        let label = place.map(|place| place.label.to_string()).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, format!("replace member {seat} of the mirror"))
                .with_source("it is in use, or there is no such member")
        })?;
        let buf = self.own.acquire(BufClass::Small).await;
        let (buf, slip, keeper) = slip::read(&disk, buf).await;
        drop(buf);
        self.refuse_foreign(seat, &label, &slip).await?;
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, format!("take {label} in")).with_source(error)
        };
        let keeper = keeper.ok_or_else(|| failed(no_member()))?;
        wipe(disk.as_ref()).await.map_err(failed)?;
        let serial = {
            // No file is being made while the disk joins, so that every later one is made there.
            let _turn = self.names.lock().await;
            self.group.attach(seat, disk, keeper).await.map_err(failed)?
        };
        tracing::info!(member = %label, "rebuilding a member of the mirror");
        self.start(Job { seat, serial, cursor: String::new() }, label);
        Ok(())
    }

    /// Refuses a directory that holds something that is not this member's.
    async fn refuse_foreign(&self, seat: usize, label: &str, slip: &slip::Slip) -> Result<()> {
        let refuse = |why: String| {
            Err(Error::new(ErrorKind::Misuse, format!("take {label} in"))
                .with_source(why)
                .with_advice("give an empty directory; nothing was changed"))
        };
        match (&slip.problem, &slip.record) {
            (Some(Problem::Unreadable(why)), _) => {
                let during = format!("take {label} in");
                Err(Error::new(ErrorKind::Unavailable, during).with_source(why.clone()))
            }
            (Some(Problem::Newer(_)), _) => refuse("a later release wrote it".to_owned()),
            (_, None) if slip.has_files => refuse("it is not empty".to_owned()),
            (_, Some(record)) => {
                let mirror = self.group.mirror().await;
                if record.mirror != mirror {
                    return refuse(format!("it belongs to mirror {}", record.mirror));
                }
                if record.holder != Holder::Seat(seat) {
                    return refuse("it is the other member".to_owned());
                }
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    fn start(self: &Arc<Self>, job: Job, path: String) {
        let status = RebuildStatus {
            path,
            state: RebuildState::Running,
            files: 0,
            files_done: 0,
            bytes: 0,
            bytes_done: 0,
            why: None,
        };
        *self.rebuild.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        tokio::spawn(run(Arc::downgrade(self), job));
    }

    fn progress(&self, change: impl FnOnce(&mut RebuildStatus)) {
        let mut rebuild = self.rebuild.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = rebuild.as_mut() {
            change(status);
        }
    }

    /// The disk being filled, if it still is.
    fn place(&self, job: &Job) -> Result<Seat, Stop> {
        let mut seats = self.group.seats().into_iter();
        let place = seats.nth(job.seat);
        let is_it = |it: &Seat| it.state == SeatState::Rebuilding && it.serial == job.serial;
        place.filter(is_it).ok_or_else(|| Stop::Failed("the disk was left out".to_owned()))
    }

    /// Names and lengths of what is on the current member and of what is on the new disk.
    async fn names(&self, job: &Job) -> Result<(Names, Names), Stop> {
        let disk = self.place(job)?.disk.ok_or_else(no_member)?;
        let (mut here, mut there) = (Names::new(), Names::new());
        for dir in DIRECTORIES {
            let named = |(name, len): (String, u64)| (in_dir(dir, &name), len);
            here.extend(self.list(dir).await?.into_iter().map(named));
            let found = disk.list(dir).await?;
            let found = found.into_iter().filter(|(name, _)| !is_reserved(name));
            there.extend(found.map(named));
        }
        Ok((here, there))
    }

    /// Makes the disk current, if it has every file; whether it is.
    async fn finish(&self, job: &Job) -> Result<bool, Stop> {
        let _turn = self.names.lock().await;
        let (here, there) = self.names(job).await?;
        if here != there {
            return Ok(false);
        }
        let cursor = here.keys().next_back().cloned().unwrap_or_default();
        self.group.promote(job.seat, job.serial, &cursor).await?;
        Ok(true)
    }

    /// Copies one range; the buffer back.
    async fn copy_range(
        &self,
        job: &Job,
        entry: &Entry,
        offset: u64,
        mut buf: Buf,
    ) -> Result<Buf, Stop> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let _claim = self.flight.enter(&entry.name, range, Hold::Alone).await;
        let target = self.target(job, entry).await?;
        let mut sources = self.current(entry).await.into_iter();
        let source = sources.next().ok_or_else(no_member)?;
        let during = |what: &str, error: io::Error| {
            Stop::Failed(format!("{what} {} at {offset}: {error}", entry.name))
        };
        let (back, read) = source.handle.disk.read_at(source.handle.file, buf, offset).await;
        read.map_err(|error| during("read the current copy of", error))?;
        let (back, written) = target.disk.write_at(target.file, back, offset).await;
        written.map_err(|error| during("write", error))?;
        buf = back;
        Ok(buf)
    }

    async fn target(&self, job: &Job, entry: &Entry) -> Result<Arc<Handle>, Stop> {
        let place = self.place(job)?;
        let handle = self.handle_on(entry, job.seat, &place).await;
        handle.ok_or_else(|| Stop::Failed(format!("{} cannot be made there", entry.name)))
    }

    async fn sync_copied(&self, job: &Job, entry: &Entry) -> Result<(), Stop> {
        let target = self.target(job, entry).await?;
        target.disk.sync(target.file).await?;
        self.group.note(job.seat, job.serial, &entry.name).await?;
        Ok(())
    }
}

/// Lengths by name.
type Names = BTreeMap<String, u64>;

/// Removes what an earlier life of this member left.
async fn wipe(disk: &dyn Disk) -> io::Result<()> {
    for dir in DIRECTORIES {
        for (name, _) in disk.list(dir).await? {
            if !is_reserved(&name) {
                disk.remove(&in_dir(dir, &name)).await?;
            }
        }
    }
    Ok(())
}

async fn run(mirror: Weak<Shared>, job: Job) {
    let outcome = fill(&mirror, &job).await;
    let Some(shared) = mirror.upgrade() else { return };
    match outcome {
        Ok(()) => {
            tracing::info!("the member of the mirror is rebuilt: every byte has two copies again");
            shared.progress(|status| status.state = RebuildState::Done);
        }
        Err(Stop::Closed) => {}
        Err(Stop::Failed(why)) => {
            // If that cannot be put down, the mirror is broken and says so to the next write.
            let _ = shared.fail(job.seat, job.serial, &why).await;
            tracing::error!(%why, "the rebuild of a member failed");
            shared.progress(|status| {
                status.state = RebuildState::Failed;
                status.why = Some(why);
            });
        }
    }
}

async fn fill(mirror: &Weak<Shared>, job: &Job) -> Result<(), Stop> {
    let open = || mirror.upgrade().ok_or(Stop::Closed);
    let pool = open()?.own.clone();
    let mut buf = pool.acquire(BufClass::Large).await;
    for round in 0..ROUNDS_MAX {
        let (here, there) = open()?.names(job).await?;
        let is_copied = |name: &String, len: &u64| {
            (round > 0 || *name <= job.cursor) && there.get(name) == Some(len)
        };
        if round == 0 {
            open()?.progress(|status| {
                status.files = here.len() as u64;
                status.bytes = here.values().sum();
            });
        }
        for (name, len) in here {
            if !is_copied(&name, &len) {
                buf = copy_file(mirror, job, (&name, len), buf).await?;
            }
            open()?.progress(|status| {
                status.files_done = (status.files_done + 1).min(status.files);
                if is_copied(&name, &len) && round == 0 {
                    status.bytes_done += len;
                }
            });
        }
        if open()?.finish(job).await? {
            return Ok(());
        }
    }
    Err(Stop::Failed("the members do not come to the same names".to_owned()))
}

async fn copy_file(
    mirror: &Weak<Shared>,
    job: &Job,
    (name, len): (&str, u64),
    mut buf: Buf,
) -> Result<Buf, Stop> {
    let open = || mirror.upgrade().ok_or(Stop::Closed);
    let entry = open()?.entry(name).await?;
    let mut at = 0;
    while at < len {
        let shared = open()?;
        let step = usize::try_from(len - at).unwrap_or(usize::MAX).min(buf.capacity());
        buf.set_len(step);
        buf = shared.copy_range(job, &entry, at, buf).await?;
        at += step as u64;
        shared.progress(|status| status.bytes_done += step as u64);
        let rate = shared.rebuild_bytes_per_second.max(1);
        drop(shared);
        let pause = (step as u64).saturating_mul(1_000_000) / rate;
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
    }
    open()?.sync_copied(job, &entry).await?;
    Ok(buf)
}

const _: () = assert!(SEATS == 2, "a rebuild has one source");
