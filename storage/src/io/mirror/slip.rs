//! The membership records of one directory: two files, written in turn.
//!
//! Owns: `MEMBER.a` and `MEMBER.b`, which of them is the newer. Does not know: what follows from
//! what they say.
//!
//! Invariants
//! - The newer record is never overwritten: a torn write costs at most the older one.

use std::io;
use std::sync::Arc;

use super::DIRECTORIES;
use crate::format::{MEMBER_BYTES, Member, MemberError};
use crate::io::{Buf, Disk, FileId, OpenMode};

/// Their names.
const NAMES: [&str; 2] = ["MEMBER.a", "MEMBER.b"];

/// A file that other parts of the program keep in a member's directory.
const LOCK: &str = "LOCK";

/// Whether `name` belongs to the mirror itself, so that nobody above sees it.
pub(super) fn is_reserved(name: &str) -> bool {
    NAMES.contains(&name) || name == LOCK
}

/// What lies in a directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Slip {
    /// The newer intact record.
    pub(super) record: Option<Member>,
    /// Whether there are files beside the records.
    pub(super) has_files: bool,
    /// Why the directory cannot be told about, if so.
    pub(super) problem: Option<Problem>,
}

/// Why a directory says nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// It cannot be read at all.
    Unreadable(String),
    /// There are records and none is intact.
    Damaged(MemberError),
    /// A later build wrote it.
    Newer(u32),
}

/// Writes the records of one directory.
pub(super) struct Keeper {
    disk: Arc<dyn Disk>,
    /// The newer one first; none if it has to be made yet.
    files: [Option<FileId>; 2],
    names: [&'static str; 2],
    seq: u64,
}

/// Reads the directory behind `disk`.
pub(super) async fn read(disk: &Arc<dyn Disk>, mut buf: Buf) -> (Buf, Slip, Option<Keeper>) {
    let mut slip = Slip::default();
    match has_files(disk.as_ref()).await {
        Ok(has_files) => slip.has_files = has_files,
        Err(error) => {
            slip.problem = Some(Problem::Unreadable(error.to_string()));
            return (buf, slip, None);
        }
    }
    let mut found = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        let (returned, file, record) = read_one(disk.as_ref(), name, buf).await;
        buf = returned;
        if let Some(Err(problem)) = &record {
            let is_worse = matches!(problem, Problem::Newer(_)) || slip.problem.is_none();
            slip.problem = if is_worse { Some(problem.clone()) } else { slip.problem };
        }
        found.push((name, file, record.and_then(Result::ok)));
    }
    // The newer first; one without a record is the older.
    found.sort_by_key(|(_, _, record)| std::cmp::Reverse(record.as_ref().map(|it| it.seq)));
    let mut found = found.into_iter();
    let (Some(first), Some(second)) = (found.next(), found.next()) else {
        return (buf, slip, None);
    };
    slip.record = first.2;
    if slip.record.is_some() && !matches!(slip.problem, Some(Problem::Newer(_))) {
        slip.problem = None;
    }
    let keeper = Keeper {
        disk: Arc::clone(disk),
        files: [first.1, second.1],
        names: [first.0, second.0],
        seq: slip.record.as_ref().map_or(0, |record| record.seq),
    };
    (buf, slip, Some(keeper))
}

async fn has_files(disk: &dyn Disk) -> io::Result<bool> {
    for dir in DIRECTORIES {
        let files = disk.list(dir).await?;
        if files.iter().any(|(name, _)| !is_reserved(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

type One = (Buf, Option<FileId>, Option<Result<Member, Problem>>);

async fn read_one(disk: &dyn Disk, name: &str, mut buf: Buf) -> One {
    let file = match disk.open(name, OpenMode::Existing).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (buf, None, None),
        Err(error) => {
            return (buf, None, Some(Err(Problem::Unreadable(error.to_string()))));
        }
    };
    buf.set_len(MEMBER_BYTES);
    let (buf, read) = disk.read_at(file, buf, 0).await;
    let record = match read {
        Err(error) => Err(Problem::Unreadable(error.to_string())),
        Ok(()) => Member::decode(&buf).map_err(|error| match error {
            MemberError::Newer(version) => Problem::Newer(version),
            // Made and not yet written: a first start was cut short.
            error => Problem::Damaged(error),
        }),
    };
    let is_blank = matches!(record, Err(Problem::Damaged(MemberError::NoMagic)))
        && buf.iter().all(|&byte| byte == 0);
    (buf, Some(file), (!is_blank).then_some(record))
}

impl Keeper {
    /// Writes `record` over the older one, durably. Its sequence is set here. Must not be
    /// cancelled. The buffer comes back unless the disk lost it.
    pub(super) async fn write(&mut self, record: &Member, mut buf: Buf) -> (Buf, io::Result<()>) {
        let [_, older] = self.files;
        let [newer_name, name] = self.names;
        let file = match older {
            Some(file) => file,
            None => match self.make(name).await {
                Ok(file) => file,
                Err(error) => return (buf, Err(error)),
            },
        };
        self.seq += 1;
        buf.set_len(0);
        buf.extend_from_slice(&Member { seq: self.seq, ..record.clone() }.encode());
        let (buf, written) = self.disk.write_at(file, buf, 0).await;
        if let Err(error) = written {
            return (buf, Err(error));
        }
        let synced = self.disk.sync(file).await;
        if synced.is_ok() {
            let [newer, _] = self.files;
            self.files = [Some(file), newer];
            self.names = [name, newer_name];
        }
        (buf, synced)
    }

    async fn make(&self, name: &str) -> io::Result<FileId> {
        let len = MEMBER_BYTES as u64;
        match self.disk.open(name, OpenMode::Create { len }).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.open(name, OpenMode::Existing).await
            }
            made => made,
        }
    }
}
