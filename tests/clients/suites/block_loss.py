"""The power goes under ext4 and XFS: files come back as the kernel's own journals leave them.

The cuts and outcomes of `power-loss`, below a file system on a loop device instead of below the node.
After each, the file system is checked and mounted, the node starts, and every object is read. Needs
root.
"""

from __future__ import annotations

import itertools

from ..job import Job
from ..lossy_disk import LOSSES, LossyDevice
from ..report import equal, expect
from ..tally import Tally
from .power_loss import BACKENDS, run_points

ROW = "block-loss"
CUTS_PUSH = 2
CUTS_FULL = 50
KINDS = ("ext4", "xfs")


def run(job: Job) -> None:
    cuts = CUTS_FULL if job.full else CUTS_PUSH
    count = cuts * len(BACKENDS) * len(LOSSES)
    tally = Tally(ROW, 0)
    row(job, tally, count)
    with job.report.case(f"{tally.sequences} points below ext4 and XFS: nothing acknowledged is lost"):
        equal(tally.violations, [], "violations")
        equal(tally.sequences, count, "points")
    with job.report.case("cuts took something"):
        expect(tally.faults["writes_lost"] + tally.faults["writes_torn"] > 0, tally.line())
    job.report.note(f"  {tally.line()}")


def row(job: Job, tally: Tally, count: int) -> None:
    kinds = itertools.cycle(KINDS)

    def new_device() -> LossyDevice:
        kind = next(kinds)
        tally.states[f"devices with {kind}"] += 1
        return job.device(kind)

    run_points(job, tally, range(tally.seed, tally.seed + count), new_device)
