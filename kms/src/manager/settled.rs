//! Time for what cannot be undone: a jump of the machine's clock does not carry it along.
//!
//! ```text
//! keys/clock   8  magic "KLUISCK1"   8  the highest settled time, Unix ms   32  MAC
//! ```
//! Settled time follows the wall clock while that agrees with how long the node has been up. When
//! the wall clock is further ahead, settled time goes on at the pace of uptime, until the wall
//! clock has been stable for as long as it jumped, at most a day.
//! Owns: that rule and the file. Knows nothing of: what is due, who asks.
//!
//! Invariants
//! - Settled time never goes back, over restarts as well.
//! - It is never more than [`JUMP_MS`] ahead of what uptime says for each day of uptime, but after
//!   the wall clock was stable.
//! - A clock that is moved by hand is followed at once.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use subtle::ConstantTimeEq;

use crate::derive::mac;
use crate::env::Clock;
use crate::error::Result;
use crate::private_file;
use crate::secret::MacSecret;

/// How far the wall clock may be ahead of uptime: leap seconds, a slow crystal, a short stop.
const JUMP_MS: u64 = 60 * 60 * 1000;
/// How long a jumped clock has to be stable at most, and how often uptime is anchored anew.
const DAY_MS: u64 = 24 * JUMP_MS;
/// How often settled time is written down.
const WRITE_EVERY_MS: u64 = 60 * 1000;

const CLOCK_FILE: &str = "clock";
const MAGIC: &[u8; 8] = b"KLUISCK1";
const FILE_BYTES: u64 = 48;

/// A wall time, and the monotonic time at which it was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    wall_ms: u64,
    monotonic_ms: u64,
}

impl Seen {
    fn by(clock: &dyn Clock) -> Self {
        Self { wall_ms: clock.now_ms(), monotonic_ms: clock.monotonic_ns() / 1_000_000 }
    }

    /// The wall time at `now`, if the wall clock only ran on.
    const fn at(&self, now: Self) -> u64 {
        self.wall_ms.saturating_add(now.monotonic_ms.saturating_sub(self.monotonic_ms))
    }
}

#[derive(Debug)]
struct State {
    /// What uptime is counted from.
    anchor: Seen,
    highest_ms: u64,
    /// Where the wall clock jumped to, and how far.
    jump: Option<(Seen, u64)>,
    written: Option<Seen>,
}

impl State {
    fn settle(&mut self, now: Seen) -> u64 {
        let expected_ms = self.anchor.at(now);
        if now.wall_ms <= expected_ms.saturating_add(JUMP_MS) {
            self.jump = None;
            self.highest_ms = self.highest_ms.max(now.wall_ms);
            if now.monotonic_ms.saturating_sub(self.anchor.monotonic_ms) >= DAY_MS {
                self.anchor = Seen { wall_ms: self.highest_ms, ..now };
            }
            return self.highest_ms;
        }
        match self.jump {
            Some((since, ahead_ms)) if since.at(now).abs_diff(now.wall_ms) <= JUMP_MS => {
                let stable_ms = now.monotonic_ms.saturating_sub(since.monotonic_ms);
                if stable_ms >= ahead_ms.min(DAY_MS) {
                    tracing::warn!("the clock is stable after its jump; what is due is done");
                    (self.jump, self.anchor) = (None, now);
                    self.highest_ms = self.highest_ms.max(now.wall_ms);
                    return self.highest_ms;
                }
            }
            _ => {
                let ahead_ms = now.wall_ms - expected_ms;
                tracing::warn!(
                    ahead_ms,
                    "the clock is ahead of the time that the node knows of: nothing is destroyed \
                     and no material expires for good until it has been stable for as long, at \
                     most a day"
                );
                self.jump = Some((now, ahead_ms));
            }
        }
        self.highest_ms = self.highest_ms.max(expected_ms);
        self.highest_ms
    }
}

/// The settled time of one keyring.
pub(super) struct Settled {
    path: PathBuf,
    keyring_id: [u8; 16],
    state: Mutex<State>,
}

impl Settled {
    /// Begins with the wall clock: the keyring is new.
    pub(super) fn begin(keys: &Path, keyring_id: [u8; 16], clock: &dyn Clock) -> Self {
        let now = Seen::by(clock);
        Self::at((keys, keyring_id), now.wall_ms, now)
    }

    /// Goes on from what was written down, or from the last change of a key if that is later.
    pub(super) fn open(
        (keys, keyring_id): (&Path, [u8; 16]),
        changed_ms: u64,
        clock: &dyn Clock,
        mac_key: &MacSecret,
    ) -> Self {
        let path = keys.join(CLOCK_FILE);
        let written = private_file::read(&path, FILE_BYTES).ok();
        let written = written.and_then(|bytes| decode(&bytes, keyring_id, mac_key));
        if written.is_none() && path.exists() {
            tracing::warn!("the file of the settled time is damaged; it is written anew");
        }
        let highest_ms = written.unwrap_or(0).max(changed_ms);
        Self::at((keys, keyring_id), highest_ms, Seen::by(clock))
    }

    fn at((keys, keyring_id): (&Path, [u8; 16]), highest_ms: u64, now: Seen) -> Self {
        let anchor = Seen { wall_ms: highest_ms, ..now };
        let state = State { anchor, highest_ms, jump: None, written: None };
        Self { path: keys.join(CLOCK_FILE), keyring_id, state: Mutex::new(state) }
    }

    /// Unix milliseconds by which what cannot be undone is due.
    pub(super) fn now_ms(&self, clock: &dyn Clock) -> u64 {
        let now = Seen::by(clock);
        if clock.is_by_hand() {
            return now.wall_ms;
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).settle(now)
    }

    /// The wall time, or settled time where that is later: a clock that was set back gives nothing
    /// back that expired.
    pub(super) fn latest_ms(&self, clock: &dyn Clock) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        clock.now_ms().max(if clock.is_by_hand() { 0 } else { state.highest_ms })
    }

    /// Writes settled time down, now and then.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): it could not be written.
    pub(super) fn keep(&self, clock: &dyn Clock, mac_key: &MacSecret) -> Result<()> {
        if clock.is_by_hand() {
            return Ok(());
        }
        let settled_ms = self.now_ms(clock);
        let now = Seen::by(clock);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent =
            |written: Seen| now.monotonic_ms.saturating_sub(written.monotonic_ms) < WRITE_EVERY_MS;
        if state.written.is_some_and(is_recent) {
            return Ok(());
        }
        private_file::replace(&self.path, &encode(settled_ms, self.keyring_id, mac_key))?;
        state.written = Some(now);
        Ok(())
    }
}

fn encode(settled_ms: u64, keyring_id: [u8; 16], mac_key: &MacSecret) -> Vec<u8> {
    let time = settled_ms.to_be_bytes();
    let file_mac = mac(&mac_key.borrow(), &[b"kms/clock\0", &keyring_id, &time]);
    [MAGIC.as_slice(), &time, &file_mac].concat()
}

fn decode(bytes: &[u8], keyring_id: [u8; 16], mac_key: &MacSecret) -> Option<u64> {
    let (_, rest) = bytes.split_first_chunk::<8>()?;
    let settled_ms = u64::from_be_bytes(*rest.first_chunk()?);
    let whole = encode(settled_ms, keyring_id, mac_key);
    bool::from(whole.ct_eq(bytes)).then_some(settled_ms)
}

#[cfg(test)]
mod tests;
