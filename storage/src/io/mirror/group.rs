//! Who is in: the members' states, in memory and on record.
//!
//! Owns: the two states, the generation, the order in which a change is written down. Does not
//! know: files of the volume, ranges, requests.
//!
//! Invariants
//! - A member that is left out of a write is out on record before the write is answered.
//! - The last current member is never dropped; what fails there fails.
//! - A change is written to the members that are current first, then to the witness, then to the
//!   other: whoever is behind is found behind.
//! - A mirror whose records cannot be written takes no more writes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::slip::Keeper;
use crate::format::{Holder, Member, MirrorId, SEATS, SeatState};
use crate::io::{Buf, Disk};

/// What sits at one place.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) label: Arc<str>,
    pub(super) state: SeatState,
    /// Which disk of this place it is; another number after every replacement.
    pub(super) serial: u64,
    /// None if it is out.
    pub(super) disk: Option<Arc<dyn Disk>>,
    /// Why it is out.
    pub(super) why: Option<String>,
}

struct View {
    seats: [Seat; SEATS],
    generation: u64,
    /// Why no more writes are taken.
    broken: Option<String>,
}

/// The records and what writing them takes.
pub(super) struct Changes {
    pub(super) mirror: MirrorId,
    /// A buffer of its own: whoever waits for a change may hold all others.
    pub(super) buf: Option<Buf>,
    pub(super) keepers: [Option<Keeper>; SEATS],
    pub(super) witness: Option<Keeper>,
}

/// The members.
pub(super) struct Group {
    view: Mutex<View>,
    changes: tokio::sync::Mutex<Changes>,
}

/// Whose record could not be written.
struct NotWritten {
    holder: Holder,
    error: io::Error,
}

impl Changes {
    /// Writes the states down, `last` after everybody else.
    async fn write(
        &mut self,
        generation: u64,
        states: [SeatState; SEATS],
        last: Option<usize>,
        cursor: &str,
    ) -> Result<(), NotWritten> {
        let early = (0..SEATS).filter(|seat| Some(*seat) != last).map(Holder::Seat);
        let order: Vec<_> = early.chain([Holder::Witness]).chain(last.map(Holder::Seat)).collect();
        for holder in order {
            self.write_one(holder, generation, states, cursor).await?;
        }
        Ok(())
    }

    async fn write_one(
        &mut self,
        holder: Holder,
        generation: u64,
        states: [SeatState; SEATS],
        cursor: &str,
    ) -> Result<(), NotWritten> {
        let keeper = match holder {
            Holder::Seat(seat) => self.keepers.get_mut(seat).and_then(Option::as_mut),
            Holder::Witness => self.witness.as_mut(),
        };
        let Some(keeper) = keeper else { return Ok(()) };
        let Some(buf) = self.buf.take().filter(|buf| buf.capacity() > 0) else {
            let error = io::Error::other("the buffer for membership records was lost with a disk");
            return Err(NotWritten { holder, error });
        };
        let cursor = cursor.to_owned();
        let mirror = self.mirror;
        let record = Member { seq: 0, mirror, generation, holder, states, cursor };
        let (buf, written) = keeper.write(&record, buf).await;
        self.buf = Some(buf);
        written.map_err(|error| NotWritten { holder, error })
    }
}

impl Group {
    pub(super) fn new(seats: [Seat; SEATS], generation: u64, changes: Changes) -> Self {
        let view = View { seats, generation, broken: None };
        Self { view: Mutex::new(view), changes: tokio::sync::Mutex::new(changes) }
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seats(&self) -> [Seat; SEATS] {
        self.lock().seats.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Why no more writes are taken, if so.
    pub(super) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Returns when no change is under way.
    ///
    /// # Errors
    /// The mirror takes no more writes.
    pub(super) async fn settled(&self) -> io::Result<()> {
        drop(self.changes.lock().await);
        self.lock().check()
    }

    /// Which mirror it is.
    pub(super) async fn mirror(&self) -> MirrorId {
        self.changes.lock().await.mirror
    }

    /// Writes the present states down.
    pub(super) async fn record(&self, cursor: &str) -> io::Result<()> {
        let mut changes = self.changes.lock().await;
        let (generation, states) = {
            let view = self.lock();
            (view.generation, view.states())
        };
        let last = states.iter().position(|state| *state == SeatState::Rebuilding);
        let written = changes.write(generation, states, last, cursor).await;
        written.map_err(|failed| failed.error)
    }

    /// Leaves the disk `serial` at `seat` out because of `why`, and answers when that is on
    /// record. Whether this call did it.
    ///
    /// # Errors
    /// It is the last one, or the change could not be written down: the mirror takes no more
    /// writes then.
    pub(super) async fn fail(&self, seat: usize, serial: u64, why: &str) -> io::Result<bool> {
        let mut changes = self.changes.lock().await;
        if !self.lock().drop_out(seat, serial, why)? {
            return Ok(false);
        }
        self.write_dropped(&mut changes, seat).await?;
        Ok(true)
    }

    async fn write_dropped(&self, changes: &mut Changes, seat: usize) -> io::Result<()> {
        if let Some(keeper) = changes.keepers.get_mut(seat) {
            *keeper = None;
        }
        let (generation, states, label, why) = {
            let mut view = self.lock();
            view.generation += 1;
            let (label, why) = view.seats.get(seat).map_or_else(Default::default, |seat| {
                (seat.label.to_string(), seat.why.clone().unwrap_or_default())
            });
            (view.generation, view.states(), label, why)
        };
        tracing::error!(member = %label, %why, generation,
            "a member of the mirror is left out: every byte has one copy now; replace the disk \
             and run `kluis volume replace`");
        let written = changes.write(generation, states, None, "").await;
        written.map_err(|failed| self.break_down(&failed))
    }

    /// Takes `disk` in at `seat`, to be filled; its serial number.
    ///
    /// # Errors
    /// The place is taken, or the change could not be written down.
    pub(super) async fn attach(
        &self,
        seat: usize,
        disk: Arc<dyn Disk>,
        keeper: Keeper,
    ) -> io::Result<u64> {
        let mut changes = self.changes.lock().await;
        let (generation, states) = {
            let mut view = self.lock();
            view.check()?;
            let place = view.seats.get_mut(seat).ok_or_else(no_seat)?;
            if place.state != SeatState::Out {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the place is taken"));
            }
            place.serial += 1;
            view.generation += 1;
            let mut states = view.states();
            if let Some(state) = states.get_mut(seat) {
                *state = SeatState::Rebuilding;
            }
            (view.generation, states)
        };
        if let Some(place) = changes.keepers.get_mut(seat) {
            *place = Some(keeper);
        }
        if let Err(failed) = changes.write(generation, states, Some(seat), "").await {
            return Err(self.give_up(&mut changes, seat, failed).await);
        }
        let mut view = self.lock();
        let place = view.seats.get_mut(seat).ok_or_else(no_seat)?;
        place.state = SeatState::Rebuilding;
        place.disk = Some(disk);
        place.why = None;
        Ok(place.serial)
    }

    /// Notes that the file `cursor` was copied to the disk that is being rebuilt.
    ///
    /// # Errors
    /// It could not be written down there.
    pub(super) async fn note(&self, seat: usize, serial: u64, cursor: &str) -> io::Result<()> {
        let mut changes = self.changes.lock().await;
        let (generation, states) = {
            let view = self.lock();
            view.check()?;
            view.check_rebuilding(seat, serial)?;
            (view.generation, view.states())
        };
        let noted = changes.write_one(Holder::Seat(seat), generation, states, cursor).await;
        noted.map_err(|failed| failed.error)
    }

    /// Makes the disk that was rebuilt current. Everything on it must be durable.
    ///
    /// # Errors
    /// It was left out meanwhile, or the change could not be written down.
    pub(super) async fn promote(&self, seat: usize, serial: u64, cursor: &str) -> io::Result<()> {
        let mut changes = self.changes.lock().await;
        let states = [SeatState::Current; SEATS];
        let generation = {
            let mut view = self.lock();
            view.check()?;
            view.check_rebuilding(seat, serial)?;
            view.generation += 1;
            view.generation
        };
        if let Err(failed) = changes.write(generation, states, Some(seat), cursor).await {
            return Err(self.give_up(&mut changes, seat, failed).await);
        }
        let mut view = self.lock();
        let place = view.seats.get_mut(seat).ok_or_else(no_seat)?;
        place.state = SeatState::Current;
        Ok(())
    }

    /// After a record of a change about `seat` was not written: leaves it out if the fault is its
    /// own, else the mirror takes no more writes.
    async fn give_up(&self, changes: &mut Changes, seat: usize, failed: NotWritten) -> io::Error {
        if failed.holder != Holder::Seat(seat) {
            return self.break_down(&failed);
        }
        {
            let mut view = self.lock();
            if let Some(place) = view.seats.get_mut(seat) {
                place.leave(&format!("write its membership record: {}", failed.error));
            }
        }
        match self.write_dropped(changes, seat).await {
            Ok(()) => failed.error,
            Err(error) => error,
        }
    }

    fn break_down(&self, failed: &NotWritten) -> io::Error {
        let NotWritten { holder, error } = failed;
        let why = format!("write the membership record of {holder:?}: {error}");
        let mut view = self.lock();
        let why = view.broken.get_or_insert(why).clone();
        drop(view);
        tracing::error!(%why, "the mirror takes no more writes");
        io::Error::other(why)
    }
}

impl Seat {
    fn leave(&mut self, why: &str) {
        self.state = SeatState::Out;
        self.disk = None;
        self.why = Some(why.to_owned());
    }
}

impl View {
    fn states(&self) -> [SeatState; SEATS] {
        self.seats.each_ref().map(|seat| seat.state)
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(()),
        }
    }

    fn check_rebuilding(&self, seat: usize, serial: u64) -> io::Result<()> {
        let is_it = |it: &Seat| it.state == SeatState::Rebuilding && it.serial == serial;
        if self.seats.get(seat).is_some_and(is_it) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "it was left out meanwhile"))
    }

    /// Marks the disk as out; false if it was already.
    fn drop_out(&mut self, seat: usize, serial: u64, why: &str) -> io::Result<bool> {
        self.check()?;
        let is_other_current =
            |(at, it): (usize, &Seat)| at != seat && it.state == SeatState::Current;
        let has_other = self.seats.iter().enumerate().any(is_other_current);
        let place = self.seats.get_mut(seat).ok_or_else(no_seat)?;
        if place.serial != serial || place.state == SeatState::Out {
            return Ok(false);
        }
        if !has_other {
            return Err(io::Error::other(format!("the last member of the mirror failed: {why}")));
        }
        place.leave(why);
        Ok(true)
    }
}

fn no_seat() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a mirror has two members")
}
