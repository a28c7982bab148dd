"""A disk that runs full: writes are refused with 507 and nothing else, all other calls go on.

Each round fills a small disk under concurrent reads, restarts the node on the full disk, deletes
everything and fills it again: later rounds have to store as much as the first. Later rounds need
reclaiming, so they belong to the full size.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter

from ..job import Job
from ..ledger import Ledger
from ..load import BUCKET, answer, begin_life, restart, state_of
from ..payload import KIB, MIB
from ..report import Failure, equal, expect
from ..wire import Reply

ROUNDS_PUSH = 1
ROUNDS_FULL = 10
DISK_BYTES = 400 * MIB
WRITERS = 4
READERS = 2
# Inline, packed, streamed, more than one extent; small ones keep on trying when large ones are refused.
SIZES = (900, 100 * KIB, 900 * KIB, 5 * MIB)
# The disk is full when nothing as large as this was stored for so long.
LARGE_BYTES = 100 * KIB
QUIET_SECONDS = 3.0
# What a later round may store less than the first.
LESS_MOST = 0.05
SETTINGS = {"KLUIS_SEGMENT_BYTES": str(16 << 20), "KLUIS_ACCESS_LOG": "false"}


def run(job: Job) -> None:
    field = Field(job)
    first = 0
    for number in range(1, (ROUNDS_FULL if job.full else ROUNDS_PUSH) + 1):
        with job.report.case(f"round {number}: filled, refused with 507 and nothing else"):
            field.fill()
            equal(sorted(field.statuses), [200, 507], "statuses of PUT")
            equal(field.wrong, [], "reads meanwhile")
        with job.report.case(f"round {number}: on the full disk everything else works"):
            field.judge()
        with job.report.case(f"round {number}: a node starts on the full disk"):
            field.node.kill()
            equal(restart(field.node), "", "why it does not start")
            field.judge()
        job.report.figure(f"round {number}: stored", field.stored_bytes / MIB, "MiB")
        first = first or field.stored_bytes
        with job.report.case(f"round {number}: as much as in the first"):
            expect(field.stored_bytes >= first * (1 - LESS_MOST), f"{field.stored_bytes} < {first}")
        with job.report.case(f"round {number}: all deleted on the full disk"):
            field.empty()
    with job.report.case("a clean stop, a clean check"):
        field.node.stop()
        checked = field.node.check()
        equal(checked.returncode, 0, f"{checked.stdout[-300:]}{checked.stderr[-300:]}")


class Field:
    """A node on a small disk, and what it stores."""

    def __init__(self, job: Job) -> None:
        self.disk = job.disk(DISK_BYTES)
        self.node = job.node_on(self.disk, **SETTINGS)
        self.tenant = begin_life(self.node)
        self.stored: dict[str, str] = {}
        self.stored_bytes = 0
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.names = itertools.count()
        self.last = 0.0

    def fill(self) -> None:
        self.statuses.clear()
        self.last = time.monotonic()
        threads = [threading.Thread(target=self.write, args=(number,)) for number in range(WRITERS)]
        threads += [threading.Thread(target=self.read, args=(number,)) for number in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def is_filling(self) -> bool:
        return time.monotonic() - self.last < QUIET_SECONDS

    def write(self, number: int) -> None:
        dice = random.Random(f"writer/{number}")
        ledger = Ledger(self.node, self.tenant)
        while self.is_filling():
            name = f"object-{next(self.names):06}"
            body = dice.randbytes(dice.choice(SIZES))
            reply = answer(ledger, "PUT", name, body=body)
            self.statuses[reply.status] += 1
            if reply.status == 200:
                self.stored[name] = state_of(body)
                self.stored_bytes += len(body)
                if len(body) >= LARGE_BYTES:
                    self.last = time.monotonic()

    def read(self, number: int) -> None:
        dice = random.Random(f"reader/{number}")
        ledger = Ledger(self.node, self.tenant)
        while self.is_filling():
            names = list(self.stored)
            if not names:
                time.sleep(0.01)
                continue
            name = dice.choice(names)
            self.expect_right(name, answer(ledger, "GET", name))

    def expect_right(self, name: str, reply: Reply) -> None:
        if reply.status != 200 or state_of(reply.body) != self.stored[name]:
            self.wrong.append(f"{name}: GET answers {reply.status} {reply.code}")

    def judge(self) -> None:
        """Every object reads and is listed; a change of little or none is refused or done."""
        ledger = Ledger(self.node, self.tenant)
        for name in self.stored:
            self.expect_right(name, answer(ledger, "GET", name))
        equal(self.wrong, [], "reads")
        equal([name for name, _, _ in ledger.list(BUCKET)], sorted(self.stored), "the list")
        refused = answer(ledger, "PUT", "too-much", body=bytes(8 * MIB))
        equal((refused.status, refused.code), (507, "InsufficientCapacity"), "a large PUT")
        equal(answer(ledger, "HEAD", "too-much").status, 404, "what was refused")

    def empty(self) -> None:
        ledger = Ledger(self.node, self.tenant)
        for name in list(self.stored):
            reply = answer(ledger, "DELETE", name)
            if reply.status != 204:
                raise Failure(f"DELETE {name}: {reply.status} {reply.code}")
            del self.stored[name]
        self.stored_bytes = 0
        equal(ledger.list(BUCKET), [], "the list")
