"""The command line of the suites."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import traceback
from pathlib import Path
from types import ModuleType

from .job import Job
from .report import Report
from .tally import Tally

SUITES = (
    "apart",
    "at-rest",
    "backends",
    "bad-input",
    "big-object",
    "block-loss",
    "churn",
    "decryptor",
    "disable",
    "disk-full",
    "histories",
    "io-errors",
    "drill",
    "key-crash",
    "key-stores",
    "keys",
    "kms-model",
    "light",
    "matrix",
    "memory",
    "mirror",
    "moved",
    "negative",
    "power-loss",
    "real-input",
    "restart",
    "revive",
    "rewrap",
    "scrub",
    "serve",
    "sigkill",
    "space",
    "tamper",
    "tenants",
)


# Suites that are also rows of the campaign: `row(job, tally, count)` runs so many sequences.
ROWS = ("block-loss", "histories", "io-errors", "power-loss", "sigkill")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clients", description=__doc__)
    parser.add_argument("suite", choices=(*SUITES, "row"))
    parser.add_argument("row", nargs="?", choices=ROWS, help="with `row`: which one")
    parser.add_argument("--seed", type=int, default=0, help="with `row`: the first seed")
    parser.add_argument("--count", type=int, default=1, help="with `row`: how many sequences")
    parser.add_argument("--binary", type=Path, required=True, help="the program `kluis`")
    parser.add_argument("--js", type=Path, default=Path(), help="where node_modules lies")
    parser.add_argument("--rust", type=Path, default=Path(), help="the Rust clients' program")
    parser.add_argument("--rows", type=Path, default=Path(), help="the program of tests/rows")
    parser.add_argument("--faultfs", type=Path, default=Path(), help="the program of tests/faultfs")
    parser.add_argument("--full", action="store_true", help="the size of a release, not of a push")
    parser.add_argument("--tally", type=Path, help="where to write 'PASSED FAILED'")
    parser.add_argument("--match", default="", help="only cases whose name holds this text")
    return parser.parse_args()


def suite_of(name: str) -> ModuleType:
    return importlib.import_module(f".suites.{name.replace('-', '_')}", __package__)


def run_row(args: argparse.Namespace) -> int:
    """A row of the campaign over a range of seeds: its last line is JSON; 1 if anything was violated.
    Told to stop, it prints what it has so far."""
    if args.row is None:
        print(f"which row? {', '.join(ROWS)}", file=sys.stderr)
        return 2
    report = Report(args.row)
    job = Job(args, report)
    tally = Tally(args.row, args.seed)
    try:
        suite_of(args.row).row(job, tally, args.count)
    except SystemExit:
        tally.states["stopped early"] += 1
    except Exception:
        tally.wrong(args.seed + tally.sequences, traceback.format_exc())
    finally:
        report.failures += len(tally.violations)
        job.close()
    print(tally.line(), flush=True)
    return 1 if tally.violations else 0


def main() -> int:
    args = arguments()
    # A run that is told to stop still ends the nodes that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.suite == "row":
        return run_row(args)
    report = Report(args.suite)
    suite = suite_of(args.suite)
    job = Job(args, report)
    try:
        suite.run(job)
    except Exception:
        report.failed(f"{args.suite} ran to its end", traceback.format_exc())
    finally:
        job.close()
    report.close()
    if args.tally:
        args.tally.write_text(f"{report.passes} {report.failures}\n")
    return 0 if report.failures == 0 and report.passes > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
