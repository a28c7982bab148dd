"""The command line of the suites."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import traceback
from pathlib import Path

from .job import Job
from .report import Report

SUITES = (
    "apart",
    "at-rest",
    "backends",
    "bad-input",
    "big-object",
    "decryptor",
    "disable",
    "key-crash",
    "keys",
    "kms-model",
    "light",
    "matrix",
    "memory",
    "moved",
    "negative",
    "real-input",
    "rewrap",
    "serve",
    "tamper",
    "tenants",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clients", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--binary", type=Path, required=True, help="the program `kluis`")
    parser.add_argument("--js", type=Path, default=Path(), help="where node_modules lies")
    parser.add_argument("--rust", type=Path, default=Path(), help="the Rust clients' program")
    parser.add_argument("--rows", type=Path, default=Path(), help="the program of tests/rows")
    parser.add_argument("--full", action="store_true", help="the size of a release, not of a push")
    parser.add_argument("--tally", type=Path, help="where to write 'PASSED FAILED'")
    parser.add_argument("--match", default="", help="only cases whose name holds this text")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    # A run that is told to stop still ends the nodes that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(args.suite)
    suite = importlib.import_module(f".suites.{args.suite.replace('-', '_')}", __package__)
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
