"""The power goes at any operation of the disk, under load: what was acknowledged was flushed.

A seed is one outcome of one cut: the same cut is tried with all unsynced changes lost, with some of
them, and with torn ones. After each, the node starts and every object is read.
"""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import time
from collections.abc import Callable

from ..job import Job
from ..load import Load, begin_life, restart
from ..lossy_disk import LOSSES, LossyDisk
from ..node import Node, Tenant
from ..report import equal, expect
from ..tally import Tally

ROW = "power-loss"
CUTS_PUSH = 4
CUTS_FULL = 150
# Cuts of one disk; then a new one.
CUTS = 20
# Operations that change the disk, from the start of the load to the cut.
OPERATIONS_MAX = 600
# A load that has not come so far by then is slow, not stuck.
SECONDS_MAX = 5.0
# Of the restarts after a cut, those in which the power goes again, one in so many; and within how
# many operations: recovery itself has to be repeatable.
AGAIN = 3
RECOVERY_OPERATIONS_MAX = 80
SETTINGS = {"KLUIS_SEGMENT_BYTES": str(16 << 20), "KLUIS_ACCESS_LOG": "false"}
BACKENDS = ("ring", "threads")


def run(job: Job) -> None:
    with job.report.case("the disk itself: what is not flushed is lost, what is flushed is kept"):
        tell_apart(job)
    with job.report.case("the disk itself: O_DIRECT, mmap, and a process that dies"):
        take_everything(job)
    with job.report.case("a disk that lies about flushes is found out: the suite can fail"):
        find_liar(job)
    points = len(LOSSES) * (CUTS_FULL if job.full else CUTS_PUSH)
    tally = Tally(ROW, 0)
    row(job, tally, 2 * points)
    with job.report.case(f"{tally.sequences} points: nothing acknowledged is lost"):
        equal(tally.violations, [], "violations")
        equal(tally.sequences, 2 * points, "points")
    with job.report.case("cuts came in the middle of changes and of recovery, and took something"):
        lost = tally.faults["writes_lost"] + tally.faults["writes_torn"]
        expect(lost > 0 and tally.states["open before a restart"] > 0, tally.line())
        expect(tally.states["cut during recovery"] > 0, tally.line())
    job.report.note(f"  {tally.line()}")


def row(job: Job, tally: Tally, count: int) -> None:
    """`count` points from the first seed on, on one backend after the other; three to a cut."""
    run_points(job, tally, range(tally.seed, tally.seed + count), job.disk)


def run_points(
    job: Job, tally: Tally, points: range, new_disk: Callable[[], LossyDisk]
) -> None:
    """Points on one disk after the other, until something is violated."""
    count = len(points)
    most = min(CUTS * len(LOSSES), max(len(LOSSES), count // len(BACKENDS)))
    for first in range(points.start, points.stop, most):
        backend = BACKENDS[first // most % len(BACKENDS)]
        seeds = range(first, min(first + most, points.stop))
        Field(job, tally, backend, seeds[0], new_disk()).cut_often(seeds)
        if tally.violations:
            return


class Field:
    """A node on a lossy disk, and the load on it."""

    def __init__(
        self, job: Job, tally: Tally, backend: str, seed: int, disk: LossyDisk
    ) -> None:
        self.job = job
        self.tally = tally
        self.backend = backend
        self.disk = disk
        settings = SETTINGS | {"KLUIS_IO_BACKEND": backend}
        self.node: Node = job.node_on(self.disk, **settings)
        self.tenant: Tenant = begin_life(self.node)
        self.load = Load(f"{tally.row}/{seed}")

    def cut_often(self, seeds: range, keep: bool = True) -> None:
        for first in range(seeds.start, seeds.stop, len(LOSSES)):
            dice = random.Random(f"{self.tally.row}/{first}")
            self.cut(dice)
            if dice.randrange(AGAIN) == 0:
                self.cut_again(dice)
            for seed in range(first, min(first + len(LOSSES), seeds.stop)):
                last = seed == min(first + len(LOSSES), seeds.stop) - 1
                self.come_back(seed, LOSSES[(seed - seeds.start) % len(LOSSES)], last)
                if self.tally.violations:
                    if keep:
                        self.keep()
                    return
        self.tally.states.update(self.load.totals())
        self.node.kill()
        checked = self.node.check()
        if checked.returncode != 0:
            self.tally.wrong(seeds[-1], f"check: {checked.stdout[-300:]}{checked.stderr[-300:]}")
        self.job.drop(self.node, self.disk)

    def cut(self, dice: random.Random) -> None:
        """Load, and then no power; the node dies with it."""
        self.disk.tell(f"cut after {dice.randrange(OPERATIONS_MAX)}")
        self.load.begin(self.node, self.tenant)
        until = time.monotonic() + SECONDS_MAX
        while self.disk.has_power and time.monotonic() < until:
            time.sleep(0.005)
        self.disk.tell("cut")
        self.node.kill()
        self.load.end()
        self.tally.faults[f"cut, {self.backend}"] += 1

    def cut_again(self, dice: random.Random) -> None:
        """The power comes back, and goes while the node recovers."""
        self.tally.faults.update(self.disk.power_on(dice.choice(LOSSES), dice.randrange(1 << 32)))
        self.disk.tell(f"cut after {dice.randrange(RECOVERY_OPERATIONS_MAX)}")
        started = not restart(self.node)
        self.tally.states["cut after recovery" if started else "cut during recovery"] += 1
        self.disk.tell("cut")
        self.node.kill()
        self.tally.faults[f"cut, {self.backend}"] += 1

    def come_back(self, seed: int, loss: str, last: bool) -> None:
        """One outcome of the cut: the node starts and everything reads."""
        self.node.kill()
        self.tally.faults.update(self.disk.power_on(loss, seed))
        refusal = restart(self.node)
        if refusal:
            self.load.wrong.append(f"the node does not start: {refusal}")
        else:
            self.load.verify(self.node, self.tenant, settle=last)
        self.tally.sequences += 1
        self.tally.states[loss] += 1
        for why in self.load.take_wrong():
            self.tally.wrong(seed, f"{self.backend}, {loss}: {why}")

    def keep(self) -> None:
        """Copies the disk that shows a violation into the folder of the run."""
        self.node.kill()
        target = self.job.path(f"violation-{self.tally.row}")
        subprocess.run(["cp", "-a", "--sparse=always", self.disk.mount, target], check=False)


def find_liar(job: Job) -> None:
    """Acknowledged objects are gone, or the node refuses to start; both are violations."""
    tally = Tally(ROW, 0)
    field = Field(job, tally, BACKENDS[0], 0, job.disk())
    field.disk.tell("lie on")
    field.cut_often(range(CUTS), keep=False)
    expect(tally.violations != [], f"{tally.sequences} points and nothing was found")
    if field.node in job.nodes:
        job.drop(field.node, field.disk)


def tell_apart(job: Job) -> None:
    """A program that flushes and one that does not; the second loses its file."""
    disk = job.disk()
    for name, flushes in (("careful", True), ("careless", False)):
        with (disk.mount / name).open("wb", buffering=0) as file:
            file.write(b"x" * 10_000)
            if flushes:
                os.fsync(file.fileno())
        if flushes:
            folder = os.open(disk.mount, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    equal(sorted(it.name for it in disk.mount.iterdir()), ["careful", "careless"], "before")
    disk.tell("cut")
    try:
        (disk.mount / "careful").read_bytes()
        expect(False, "a disk without power was read")
    except OSError:
        pass
    disk.power_on("drop-all", 0)
    equal([it.name for it in disk.mount.iterdir()], ["careful"], "after")
    equal((disk.mount / "careful").read_bytes(), b"x" * 10_000, "what was flushed")


def take_everything(job: Job) -> None:
    disk = job.disk()
    path = disk.mount / "direct"
    page = mmap.mmap(-1, 8192)
    page.write(b"d" * 8192)
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    equal(os.pwrite(file, page, 4096), 8192, "bytes written past the cache")
    os.close(file)
    with path.open("rb") as mapped, mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ) as view:
        equal(view[4096:], b"d" * 8192, "what a mapping shows")
    # A process that dies loses nothing: the file system lies below it.
    done = subprocess.run(["sh", "-c", 'printf kept > "$0/killed"; kill -9 $$', disk.mount],
                          check=False)
    equal(done.returncode, -9, "its status")
    equal((disk.mount / "killed").read_bytes(), b"kept", "what it wrote")
