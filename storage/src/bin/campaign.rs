//! `campaign`: runs sequences of the simulation and prints one line of JSON for them.
//!
//! `campaign run --row NAME --seed N --count N` runs the seeds from N on, stops at the first that
//! goes wrong, cuts it down and prints what is left of it on standard error.
//! `campaign rows | states | bugs` lists what there is.
//! Owns: the command line. Knows nothing of: ledgers, time; that is `tests/campaign/drive.py`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kluis_storage::sim::{Row, bugs, explain, run, states};

const USAGE: &str = "usage: campaign run --row NAME --seed N --count N\n       \
                     campaign explain --row NAME --seed N\n       campaign rows | states | bugs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["rows"] => list(Row::ALL.into_iter().map(Row::name)),
        ["states"] => list(Row::ALL.into_iter().flat_map(|row| {
            states(row).into_iter().map(move |state| format!("{}\t{state}", row.name()))
        })),
        ["bugs"] => list(bugs()),
        ["run", rest @ ..] => match Asked::parse(rest) {
            Some(asked) => asked.run(),
            None => usage(),
        },
        ["explain", rest @ ..] => match Asked::parse(rest) {
            Some(asked) => list([explain(asked.row, asked.seed)]),
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn list<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> ExitCode {
    for line in lines {
        println!("{line}");
    }
    ExitCode::SUCCESS
}

/// What to run.
struct Asked {
    row: Row,
    seed: u64,
    count: u64,
}

impl Asked {
    fn parse(words: &[&str]) -> Option<Self> {
        let (mut row, mut seed, mut count) = (None, None, 1);
        for pair in words.chunks(2) {
            match *pair {
                ["--row", name] => row = Row::ALL.into_iter().find(|row| row.name() == name),
                ["--seed", number] => seed = number.parse().ok(),
                ["--count", number] => count = number.parse().ok()?,
                _ => return None,
            }
        }
        Some(Self { row: row?, seed: seed?, count })
    }

    fn run(&self) -> ExitCode {
        let (mut sequences, mut ops, mut crashes, mut trace) = (0_u64, 0, 0, 0);
        let (mut faults, mut reached) = (BTreeMap::new(), BTreeMap::new());
        let mut violation = None;
        for seed in self.seed..self.seed.saturating_add(self.count) {
            let outcome = run(self.row, seed);
            sequences += 1;
            ops += outcome.ops;
            crashes += outcome.crashes;
            trace ^= outcome.trace.rotate_left(u32::try_from(seed % 64).unwrap_or(0));
            for (name, count) in outcome.faults {
                *faults.entry(name).or_insert(0) += count;
            }
            for (name, count) in outcome.states {
                *reached.entry(name).or_insert(0) += count;
            }
            if let Some(what) = outcome.violation {
                violation = Some((seed, what));
                break;
            }
        }
        let line = serde_json::json!({
            "row": self.row.name(),
            "seed": self.seed,
            "seed_end": self.seed + sequences,
            "sequences": sequences,
            "ops": ops,
            "crashes": crashes,
            "faults": faults,
            "states": reached,
            "trace": format!("{trace:016x}"),
            "violations": u64::from(violation.is_some()),
            "violation": violation.as_ref().map(|(seed, what)| format!("seed {seed}: {what}")),
        });
        println!("{line}");
        match violation {
            None => ExitCode::SUCCESS,
            Some((seed, _)) => {
                // The line above stands, whatever becomes of this.
                if std::env::var_os("KLUIS_BUG").is_none() {
                    eprintln!("{}", explain(self.row, seed));
                }
                ExitCode::FAILURE
            }
        }
    }
}
