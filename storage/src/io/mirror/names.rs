//! Names on both members: made on both or on none, and opened on both.
//!
//! Owns: what is done when the members answer differently about a name. Does not know: bytes.
//!
//! Invariants
//! - A file that was made is there, whole, on every current member.
//! - An error that says something about the request or the process leaves no member out.

use std::io;
use std::sync::Arc;

use futures::future::join_all;
use rustix::io::Errno;

use super::group::Seat;
use super::slip::is_reserved;
use super::table::{Entry, Handle};
use super::{Answer, Shared, no_member};
use crate::format::SeatState;
use crate::io::{FileId, OpenMode};

/// Whether an error is about what was asked for, or about this process: it tells nothing of a disk.
fn is_harmless(error: &io::Error) -> bool {
    let of_process = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    let of_process = of_process.map(Errno::raw_os_error);
    let of_request = matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    );
    let is_ours = error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none();
    let is_of_process = error.raw_os_error().is_some_and(|code| of_process.contains(&code));
    of_request || is_ours || is_of_process
}

/// A member that is in, and the disk there.
type In = (usize, Seat);

impl Shared {
    fn members(&self) -> Vec<In> {
        let seats = self.group.seats().into_iter().enumerate();
        seats.filter(|(_, place)| place.state != SeatState::Out).collect()
    }

    async fn open_on(
        &self,
        (seat, place): &In,
        name: &str,
        mode: OpenMode,
    ) -> (Answer, Option<Arc<Handle>>) {
        let opened = match &place.disk {
            Some(disk) => disk.open(name, mode).await.map(|file| (Arc::clone(disk), file)),
            None => Err(no_member()),
        };
        let (result, handle) = match opened {
            Ok((disk, file)) => {
                (Ok(()), Some(Arc::new(Handle { disk, file, serial: place.serial })))
            }
            Err(error) => (Err(error), None),
        };
        let is_current = place.state == SeatState::Current;
        (Answer { seat: *seat, serial: place.serial, is_current, result }, handle)
    }

    /// Opens `name` on all members that are in.
    async fn open_all(&self, name: &str, mode: OpenMode) -> (Vec<Answer>, Arc<Entry>) {
        let members = self.members();
        let opened = join_all(members.iter().map(|member| self.open_on(member, name, mode))).await;
        let entry = Entry::new(name);
        let mut answers = Vec::with_capacity(opened.len());
        for (answer, handle) in opened {
            entry.set(answer.seat, handle);
            answers.push(answer);
        }
        (answers, Arc::new(entry))
    }

    pub(super) async fn open_existing(&self, name: &str) -> io::Result<FileId> {
        if is_reserved(name) {
            return Err(reserved());
        }
        let entry = self.entry(name).await?;
        self.table.insert(entry)
    }

    /// Opens a file that exists, without a place in the table.
    pub(super) async fn entry(&self, name: &str) -> io::Result<Arc<Entry>> {
        let (mut answers, entry) = self.open_all(name, OpenMode::Existing).await;
        // A member that is being filled may lack it still; it is made there when it is written to.
        answers.retain(|answer| answer.is_current);
        self.conclude_names(&format!("open {name}"), answers).await?;
        Ok(entry)
    }

    pub(super) async fn create(&self, name: &str, len: u64) -> io::Result<FileId> {
        if is_reserved(name) {
            return Err(reserved());
        }
        let _turn = self.names.lock().await;
        let (mut answers, entry) = self.open_all(name, OpenMode::Create { len }).await;
        if answers.iter().any(|it| it.is_current && refuses(it)) {
            self.undo(name, &answers).await?;
        }
        for answer in &mut answers {
            let is_left_over = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
            if !answer.is_current && answer.result.as_ref().is_err_and(is_left_over) {
                answer.result = Ok(());
            }
        }
        self.conclude_names(&format!("make {name}"), answers).await?;
        self.table.insert(entry)
    }

    /// Takes a file away from those who made it, since somebody could not for a harmless reason.
    async fn undo(&self, name: &str, answers: &[Answer]) -> io::Result<()> {
        for (seat, place) in self.members() {
            let made = |answer: &&Answer| answer.seat == seat && answer.result.is_ok();
            if let (Some(_), Some(disk)) = (answers.iter().find(made), &place.disk)
                && let Err(error) = disk.remove(name).await
            {
                self.fail(seat, place.serial, &format!("remove {name}: {error}")).await?;
            }
        }
        Ok(())
    }

    /// As [`Shared::conclude`], but a harmless error is the answer and leaves nobody out.
    async fn conclude_names(&self, doing: &str, mut answers: Vec<Answer>) -> io::Result<()> {
        let harmless = answers.iter().position(|it| it.is_current && refuses(it));
        match harmless {
            Some(at) => answers.swap_remove(at).result,
            None => self.conclude(doing, answers).await,
        }
    }

    pub(super) async fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let mut result = Err(no_member());
        for (_, place) in self.members() {
            let Some(disk) = place.disk.filter(|_| place.state == SeatState::Current) else {
                continue;
            };
            result = disk.list(dir).await;
            if result.as_ref().map_or_else(is_harmless, |_| true) {
                break;
            }
        }
        let mut files = result?;
        files.retain(|(name, _)| !(dir.is_empty() && is_reserved(name)));
        Ok(files)
    }

    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        if is_reserved(name) {
            return Err(reserved());
        }
        let _turn = self.names.lock().await;
        self.refuse_while_filling()?;
        let mut answers = Vec::new();
        for (seat, place) in self.members() {
            let Some(disk) = &place.disk else { continue };
            let result = disk.remove(name).await;
            answers.push(Answer { seat, serial: place.serial, is_current: true, result });
        }
        self.conclude_names(&format!("remove {name}"), answers).await
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if is_reserved(from) || is_reserved(to) {
            return Err(reserved());
        }
        let _turn = self.names.lock().await;
        self.refuse_while_filling()?;
        let mut answers = Vec::new();
        for (seat, place) in self.members() {
            let Some(disk) = &place.disk else { continue };
            let result = disk.rename(from, to).await;
            answers.push(Answer { seat, serial: place.serial, is_current: true, result });
        }
        self.conclude_names(&format!("rename {from}"), answers).await
    }

    /// A copy goes by names: they stay while it runs. Nothing in a volume removes or renames one.
    fn refuse_while_filling(&self) -> io::Result<()> {
        let is_filling = |(_, place): &In| place.state == SeatState::Rebuilding;
        if self.members().iter().any(is_filling) {
            let text = "a member of the mirror is being rebuilt";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        Ok(())
    }

    /// The handle of a file on a member that is in; opened or made there if need be. A member that
    /// can give none is left out.
    pub(super) async fn handle_on(
        &self,
        entry: &Entry,
        seat: usize,
        place: &Seat,
    ) -> Option<Arc<Handle>> {
        if let Some(handle) = entry.handle(seat, place.serial) {
            return Some(handle);
        }
        let turn = self.attaching.lock().await;
        if let Some(handle) = entry.handle(seat, place.serial) {
            return Some(handle);
        }
        match self.open_or_make(&entry.name, place).await {
            Ok(handle) => {
                let handle = Arc::new(handle);
                entry.set(seat, Some(Arc::clone(&handle)));
                Some(handle)
            }
            Err(error) => {
                drop(turn);
                let why = format!("make {}: {error}", entry.name);
                // If this cannot be put down, the mirror is broken and says so to the next write.
                let _ = self.fail(seat, place.serial, &why).await;
                None
            }
        }
    }

    async fn open_or_make(&self, name: &str, place: &Seat) -> io::Result<Handle> {
        let disk = place.disk.clone().ok_or_else(no_member)?;
        let opened = match disk.open(name, OpenMode::Existing).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let len = self.len_of(name).await?;
                disk.open(name, OpenMode::Create { len }).await
            }
            opened => opened,
        };
        let file = opened?;
        Ok(Handle { disk, file, serial: place.serial })
    }

    async fn len_of(&self, name: &str) -> io::Result<u64> {
        let (dir, base) = name.rsplit_once('/').unwrap_or(("", name));
        let files = self.list(dir).await?;
        let found = files.into_iter().find(|(found, _)| found == base);
        found.map(|(_, len)| len).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// Whether a member refused for a harmless reason.
fn refuses(answer: &Answer) -> bool {
    answer.result.as_ref().is_err_and(is_harmless)
}

fn reserved() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the name belongs to the mirror")
}
