"""Calls of the node to its disk that fail, one by one: EIO and ENOSPC at every kind of site.

A seed is one site: a kind of call, a kind of file, the number of the call, the errno, and whether
the power goes afterwards. The node may refuse, fence or end, with a clear error; once the disk works
again it starts, and nothing that it acknowledged is gone.
"""

from __future__ import annotations

import errno
import random
import time

from ..job import Job
from ..key_load import KeyCalls
from ..load import Load, begin_life, restart
from ..lossy_disk import LossyDisk
from ..node import Node, Tenant
from ..report import Failure, equal, expect
from ..tally import Tally

ROW = "io-errors"
SITES_PUSH = 13
# A kind of call by its verb in the control protocol, a part of the file's name, when the node makes
# such calls, and how many of them for sure: a fault beyond would never be met.
SITES = (
    ("write", ".seg", "load", 4), ("fsync", ".seg", "load", 4), ("read", ".seg", "load", 2),
    ("write", ".log", "load", 6), ("fsync", ".log", "load", 6), ("fallocate", "", "load", 1),
    ("create", ".new-", "load", 1), ("rename", "", "load", 1), ("fsyncdir", "", "load", 1),
    ("write", "", "load", 12), ("fsync", "", "load", 12), ("", "", "full", 1),
    ("write", "", "start", 12), ("fsync", "", "start", 8), ("fsyncdir", "", "start", 3),
    ("create", "", "start", 4), ("rename", "", "start", 2), ("unlink", "", "start", 3),
    ("write", "MANIFEST", "start", 2), ("fsync", "MANIFEST", "start", 1),
    ("write", ".sst", "start", 2), ("fsync", ".sst", "start", 1),
    ("write", "SUPER", "start", 1), ("fsync", "SUPER", "start", 1), ("read", "", "start", 6),
)
ERRNOS = (errno.EIO, errno.ENOSPC)
# Failures in a row: one, as a cable that was touched, or all from then on, as a disk that is gone.
TIMES = (1, 1_000_000)
LOAD_SECONDS = 0.3
SETTINGS = {
    "KLUIS_SEGMENT_BYTES": str(16 << 20), "KLUIS_ACCESS_LOG": "false",
    "KLUIS_METADATA_CACHE_BYTES": str(32 << 20),
}
BACKENDS = ("ring", "threads")
# Sites of one disk; then a new one.
LIVES = 40


def run(job: Job) -> None:
    with job.report.case("a flush of the keyring that failed, a restart, and then a power cut"):
        forget_entry(job)
    with job.report.case("a flush of the audit log that failed, a restart, and then a power cut"):
        forget_group(job)
    count = len(SITES) * 8 if job.full else 2 * SITES_PUSH
    tally = Tally(ROW, 0)
    row(job, tally, count)
    with job.report.case(f"{tally.sequences} sites: refused or fenced, and nothing is lost"):
        equal(tally.violations, [], "violations")
        equal(tally.sequences, count, "sites")
    with job.report.case("most faults were met"):
        states = tally.states
        expect(states["fault was met"] > states["fault was not met"], tally.line())
    job.report.note(f"  {tally.line()}")


def row(job: Job, tally: Tally, count: int) -> None:
    lives = min(LIVES, max(1, count // len(BACKENDS)))
    for first in range(tally.seed, tally.seed + count, lives):
        backend = BACKENDS[first // lives % len(BACKENDS)]
        field = Field(job, tally, backend, first)
        for number in range(first, min(first + lives, tally.seed + count)):
            field.fail_at(number)
            if tally.violations:
                return
        field.close(number)


def forget_entry(job: Job) -> None:
    """After a failed flush the page cache holds what the disk does not. A node that starts on it and
    goes on writing has to bring it there first."""
    disk = job.disk()
    node = job.node_on(disk, **SETTINGS)
    tenant = begin_life(node)
    disk.tell("fail fsync nth 1 errno 5 name keyring")
    failed = KeyCalls(node, tenant).ask("CreateKey")
    expect(failed.status >= 500, f"a key that could not be made durable: {failed.status}")
    node.kill()
    equal(restart(node), "", "why it does not start after the failure")
    calls = KeyCalls(node, tenant)
    equal(calls.ask("CreateKey").status, 200, "another key")
    listed = calls.ask("ListKeys").body
    disk.tell("cut")
    node.kill()
    disk.power_on("drop-all", 0)
    equal(restart(node), "", "why it does not start after the cut")
    equal(KeyCalls(node, tenant).ask("ListKeys").body, listed, "the keys")
    job.drop(node, disk)


def forget_group(job: Job) -> None:
    """The same for the audit log: its chain holds every event of what was answered."""
    disk = job.disk()
    node = job.node_on(disk, **SETTINGS)
    tenant = begin_life(node)
    disk.tell("fail fsync nth 1 errno 5 name 0000000001.log")
    failed = KeyCalls(node, tenant).ask("CreateKey")
    expect(failed.status >= 500, f"a key whose event could not be made durable: {failed.status}")
    node.kill()
    equal(restart(node), "", "why it does not start after the failure")
    for _ in range(4):
        equal(KeyCalls(node, tenant).ask("CreateKey").status, 200, "another key")
    disk.tell("cut")
    node.kill()
    disk.power_on("drop-all", 0)
    told = node.command("audit", "verify", str(node.data), "--dev")
    equal(told.returncode, 0, f"status of the verification: {told.stdout} {told.stderr}")
    equal(restart(node), "", "why it does not start after the cut")
    job.drop(node, disk)


class Field:
    """A node on a disk that fails, the load on it, and the record."""

    def __init__(self, job: Job, tally: Tally, backend: str, seed: int) -> None:
        self.job = job
        self.tally = tally
        self.backend = backend
        self.disk: LossyDisk = job.disk()
        settings = SETTINGS | {"KLUIS_IO_BACKEND": backend}
        self.node: Node = job.node_on(self.disk, **settings)
        self.tenant: Tenant = begin_life(self.node)
        self.load = Load(f"{ROW}/{seed}")

    def fail_at(self, seed: int) -> None:
        """One site: the fault, the load, perhaps a cut, a restart on a disk that works."""
        dice = random.Random(f"{ROW}/{seed}")
        verb, name, phase, most = SITES[seed % len(SITES)]
        code, times = dice.choice(ERRNOS), dice.choice(TIMES)
        what = f"{verb} {name or 'any file'}, {phase}, {errno.errorcode[code]}"
        if phase == "full":
            what = "a full disk"
        before = self.met()
        if phase == "start":
            # The fault is there before the node is.
            self.node.kill()
        if phase == "full":
            self.disk.tell(f"full after {dice.randrange(1 << 22)}")
        else:
            line = f"fail {verb} nth {dice.randint(1, most)} errno {code} times {times}"
            self.disk.tell(line + (f" name {name}" if name else ""))
        if phase == "start" and restart(self.node):
            self.tally.states["did not start"] += 1
        else:
            self.work()
        self.recover(seed, dice, what)
        met = self.met() - before
        self.tally.faults[what] += met
        self.tally.states["fault was met" if met else "fault was not met"] += 1
        self.tally.sequences += 1
        for why in self.load.take_wrong():
            self.tally.wrong(seed, f"{self.backend}, {what}: {why}")

    def met(self) -> int:
        refused = self.load.counts["status 507"]
        return sum(self.disk.tell("counters")["faults"].values()) + refused

    def work(self) -> None:
        """Clients for a while; the node may end by itself."""
        self.load.begin(self.node, self.tenant)
        time.sleep(LOAD_SECONDS)
        self.load.end()
        process = self.node.process
        if process is not None and process.poll() is not None:
            self.tally.states["ended by itself"] += 1
        else:
            self.judge_health()

    def judge_health(self) -> None:
        """What the node says about itself is not that it has died."""
        try:
            status, _ = self.node.plain_get("/health/ready")
            self.tally.states[f"ready answers {status}"] += 1
        except OSError:
            self.load.wrong.append("a node that runs does not answer /health/ready")

    def recover(self, seed: int, dice: random.Random, what: str) -> None:
        """The disk works again, the node starts and everything reads."""
        cut = dice.random() < 0.5
        if cut:
            self.disk.tell("cut")
        self.node.kill()
        if cut:
            self.tally.faults.update(self.disk.power_on(dice.choice(("drop-all", "torn")), seed))
            self.tally.states["cut after the fault"] += 1
        self.disk.tell("clear")
        self.disk.tell(f"full after {64 << 30}")
        refusal = restart(self.node)
        if refusal:
            self.load.wrong.append(f"after {what}, the node does not start: {refusal}")
        else:
            self.load.verify(self.node, self.tenant, settle=True)

    def close(self, seed: int) -> None:
        self.tally.states.update(self.load.totals())
        try:
            self.node.stop()
        except Failure as why:
            self.tally.wrong(seed, f"a clean stop: {why}")
        checked = self.node.check()
        if checked.returncode != 0:
            self.tally.wrong(seed, f"check: {checked.stdout[-300:]}{checked.stderr[-300:]}")
        self.job.drop(self.node, self.disk)
