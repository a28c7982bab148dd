//! The control socket: a line asks, a line of JSON answers.
//!
//! Owns: the words of the protocol, the mount that is current. Knows nothing of: who asks.
//!
//! | line | effect |
//! |---|---|
//! | `mount`, `unmount` | the file system appears, or is taken away also from those who use it |
//! | `cut [after N]` | the power goes, now or with the operation after N more that change the disk |
//! | `power-on drop-all\|random-subset\|torn SEED` | a disk that the cut may have left; mount next |
//! | `fail VERB nth N errno E [times M] [name TEXT]` | the Nth from now fails, and M - 1 after it |
//! | `full after BYTES`, `slow MS` | no space is left after so much more; every operation waits |
//! | `lie on\|off` | flushes are answered and not done |
//! | `flip PATH OFFSET BIT` | a bit of a file turns over |
//! | `clear` | no fault is armed, the disk is fast |
//! | `state`, `counters` | what is the case |
//! | `quit` | unmounts and ends |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuser::{BackgroundSession, Errno};
use serde_json::{Value, json};

use crate::device::Shared;
use crate::faults::{Plan, Verb};
use crate::image::PAGE_BYTES;
use crate::loss::Loss;
use crate::mount::{mount, take_away};

/// The longest line; a longer one ends the connection.
const LINE_BYTES_MAX: u64 = 4096;

/// Answers of one server, one connection after the other.
pub struct Control {
    shared: Shared,
    target: PathBuf,
    session: Option<BackgroundSession>,
}

impl Control {
    /// Controls a device that is mounted at `target` when asked to.
    pub fn new(shared: Shared, target: &Path) -> Self {
        Self { shared, target: target.to_owned(), session: None }
    }

    /// Answers until told to quit.
    ///
    /// # Errors
    /// The socket cannot be listened on.
    pub fn serve(&mut self, socket: &Path) -> io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        for connection in listener.incoming() {
            if self.converse(&connection?).unwrap_or(false) {
                break;
            }
        }
        self.unmount()
    }

    /// One connection; whether it said `quit`.
    fn converse(&mut self, connection: &UnixStream) -> io::Result<bool> {
        let mut lines = BufReader::new(connection);
        let mut writer = connection;
        loop {
            let mut line = String::new();
            if Read::by_ref(&mut lines).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
                return Ok(false);
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let answer = self.answer(&words).unwrap_or_else(|error| json!({ "error": error }));
            writeln!(writer, "{answer}")?;
            if words == ["quit"] {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, words: &[&str]) -> Result<Value, String> {
        match words {
            ["mount"] => self.mount().map_err(|error| error.to_string())?,
            ["unmount"] => self.unmount().map_err(|error| error.to_string())?,
            ["cut"] => self.shared.lock().cut(),
            ["cut", "after", count] => self.shared.lock().faults.cut_after(number(count)?),
            ["power-on", kind, seed] => return self.power_on(kind, number(seed)?),
            ["fail", verb, rest @ ..] => self.fail(verb, rest)?,
            ["full", "after", bytes] => self.shared.lock().tree.full_after(number(bytes)?),
            ["lie", word @ ("on" | "off")] => self.shared.lock().tree.lies = *word == "on",
            ["slow", ms] => self.shared.lock().slow = Duration::from_millis(number(ms)?),
            ["flip", path, offset, bit] => return self.flip(path, number(offset)?, number(bit)?),
            ["clear"] => {
                let mut device = self.shared.lock();
                device.faults.clear();
                device.slow = Duration::ZERO;
            }
            ["state"] => return Ok(self.state()),
            ["counters"] => return Ok(self.counters()),
            ["quit"] => {}
            _ => return Err(format!("no such line: {}", words.join(" "))),
        }
        Ok(json!({ "ok": true }))
    }

    fn mount(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.session = Some(mount(&self.shared, &self.target)?);
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), |session| take_away(session, &self.target))
    }

    fn power_on(&mut self, kind: &str, seed: u64) -> Result<Value, String> {
        let loss = match kind {
            "drop-all" => Loss::DropAll,
            "random-subset" => Loss::RandomSubset,
            "torn" => Loss::Torn,
            _ => return Err(format!("no such loss: {kind}")),
        };
        let toll = self.shared.lock().power_on(loss, seed);
        let toll = toll.ok_or("the power was never cut")?;
        serde_json::to_value(toll).map_err(|error| error.to_string())
    }

    fn fail(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        let verb = Verb::named(verb).ok_or_else(|| format!("no such verb: {verb}"))?;
        let mut plan = Plan { verb, passes: 0, times: 1, errno: 5, name: String::new() };
        for pair in rest.chunks(2) {
            match pair {
                ["nth", count] => {
                    plan.passes = number::<u64>(count)?.checked_sub(1).ok_or("nth begins at 1")?;
                }
                ["errno", errno] => plan.errno = number(errno)?,
                ["times", count] => plan.times = number(count)?,
                ["name", text] => (*text).clone_into(&mut plan.name),
                _ => return Err(format!("not understood: {}", pair.join(" "))),
            }
        }
        let armed = self.shared.lock().faults.arm(plan);
        if armed { Ok(()) } else { Err("too many faults are armed; `clear` first".to_owned()) }
    }

    fn flip(&mut self, path: &str, offset: u64, bit: u8) -> Result<Value, String> {
        let mut device = self.shared.lock();
        let file = device.tree.find(path).map_err(text_of)?;
        let body = device.tree.body_mut(file).map_err(text_of)?;
        let flipped = body.live.flip(offset, bit) | body.durable.flip(offset, bit);
        Ok(json!({ "flipped": flipped }))
    }

    fn state(&self) -> Value {
        let device = self.shared.lock();
        let (pages, free) = device.tree.space();
        json!({
            "power": device.has_power(),
            "mounted": self.session.is_some(),
            "bytes": pages * PAGE_BYTES,
            "free_bytes": free * PAGE_BYTES,
        })
    }

    fn counters(&self) -> Value {
        let (operations, faults) = self.shared.lock().faults.counts();
        json!({ "operations": operations, "faults": faults })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn text_of(errno: Errno) -> String {
    io::Error::from_raw_os_error(errno.code()).to_string()
}
