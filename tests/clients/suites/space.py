"""Space comes back: a small volume filled to the last segment, emptied and filled again.

Ten rounds of fill, delete, reclaim, while others read what survives. The only answer that is not a
success is 507, and after each round the segments in use are those that the live bytes need.
"""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, MIB, body
from ..report import Failure, equal, expect

ROUNDS = 10
SEGMENT = 16 * MIB
SEGMENTS_PUSH, SEGMENTS_FULL = 16, 256
# One in so many objects outlives its round.
SURVIVORS = 10
WRITERS, READERS = 4, 2
BUCKET = "space"
SIZES = (20 * KIB, 200 * KIB, 700 * KIB, 5 * MIB)
SECONDS_MAX = 120.0
# Live bytes and a twentieth, as the issue asks; beyond that whole segments: one being filled for
# each lane, and the reserve.
SLACK = 1.05


def run(job: Job) -> None:
    segments = SEGMENTS_FULL if job.full else SEGMENTS_PUSH
    node = job.node(
        KLUIS_SEGMENT_BYTES=str(SEGMENT),
        KLUIS_VOLUME_BYTES_MAX=str(segments * SEGMENT),
        KLUIS_RESERVE_BYTES=str(64 * MIB),
    )
    node.start()
    tenant = node.create_tenant("space")
    ledger = Ledger(node, tenant)
    ledger.create_bucket(BUCKET)
    held: dict[str, int] = {}
    readers = Readers(node, tenant)
    readers.start()
    written = []
    for number in range(ROUNDS):
        written.append(round_of(job, node, tenant, number, held, readers))
    faults = readers.stop()
    with job.report.case("every GET under way was answered with its bytes"):
        equal(faults, [], "faults")
    with job.report.case("readers read all along"):
        expect(readers.count > 10 * ROUNDS, f"{readers.count} GETs")
    with job.report.case("the last fill took as many bytes as the first, less what survives"):
        rest = written[0] - sum(held.values())
        expect(written[-1] >= 0.8 * rest, f"bytes of each round: {written}, {rest} left")
    told = node.ask("reclaim", "--status")
    job.report.figure("bytes moved for a byte written", told["moved_bytes"] / sum(written), "x")
    with job.report.case("no segment is kept"):
        equal(told["kept_segments"], 0, "segments that cannot be emptied")
    read_all(job, ledger, held, "every survivor reads")
    node.kill()
    node.start()
    read_all(job, Ledger(node, tenant), held, "every survivor reads after SIGKILL")
    with job.report.case("check is clean, counts of live bytes included"):
        node.stop()
        done = node.check()
        equal(done.returncode, 0, f"status: {done.stdout[-300:]}{done.stderr[-300:]}")


def round_of(
    job: Job, node: Node, tenant: Tenant, number: int, held: dict[str, int], readers: Readers
) -> int:
    """One round; the bytes that fitted."""
    fresh = fill(node, tenant, number)
    held.update(fresh)
    with job.report.case(f"round {number}: a full node goes on listing"):
        found = {key for key, _, _ in Ledger(node, tenant).list(BUCKET)}
        equal(found, set(held), "objects listed")
    doomed = [key for nth, key in enumerate(sorted(held)) if nth % SURVIVORS]
    kept = {key: size for key, size in held.items() if key not in set(doomed)}
    readers.show(kept)
    with job.report.case(f"round {number}: {len(doomed)} deletes on a full node"):
        ledger = Ledger(node, tenant)
        for key in doomed:
            ledger.delete(BUCKET, key)
    for key in doomed:
        del held[key]
    with job.report.case(f"round {number}: writes are taken again by themselves"):
        wait_for_space(Ledger(node, tenant))
    with job.report.case(f"round {number}: what is in use is what lives"):
        told = node.ask("reclaim")
        live = sum(held.values())
        expect(live <= told["live_bytes"] <= live * 1.01 + MIB, f"{live} live, told {told}")
        taken = told["allocated_bytes"] // SEGMENT - told["segments_free"]
        most = math.ceil(live * SLACK / SEGMENT) + told["segments_open"] + 1
        expect(taken <= most, f"{taken} segments for {live} live bytes: {told}")
    return sum(fresh.values())


def fill(node: Node, tenant: Tenant, number: int) -> dict[str, int]:
    """Puts until the node says 507; what it took."""
    fresh: dict[str, int] = {}
    lock = threading.Lock()
    full = threading.Event()

    def write(lane: int) -> None:
        ledger = Ledger(node, tenant)
        draw = random.Random(f"{number}/{lane}")
        for nth in range(1_000_000):
            if full.is_set():
                return
            size = draw.choice(SIZES) + draw.randrange(KIB)
            key = f"{number}/{lane}/{nth:06}"
            reply = ledger.ask("PUT", BUCKET, key, body=body(size, key))
            if reply.status == 507:
                full.set()
            elif reply.status == 200:
                with lock:
                    fresh[key] = size
            else:
                raise Failure(f"PUT of {size} bytes: {reply.status} {reply.code}")

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(write, lane) for lane in range(WRITERS)]:
            done.result()
    return fresh


def wait_for_space(ledger: Ledger) -> None:
    """A PUT of 5 MiB is taken, and given up again."""
    begun = time.monotonic()
    while True:
        reply = ledger.ask("PUT", BUCKET, "probe", body=body(5 * MIB, "probe"))
        if reply.status == 200:
            ledger.delete(BUCKET, "probe")
            return
        equal(reply.status, 507, f"status of a PUT, {reply.code}")
        expect(time.monotonic() - begun < SECONDS_MAX, f"no space after {SECONDS_MAX} s")
        time.sleep(0.2)


def read_all(job: Job, ledger: Ledger, held: dict[str, int], name: str) -> None:
    with job.report.case(name):
        for key, size in held.items():
            expect(ledger.get(BUCKET, key) == body(size, key), key)


class Readers:
    """Threads that GET what is known to survive, all along."""

    def __init__(self, node: Node, tenant: Tenant) -> None:
        self.node, self.tenant = node, tenant
        self.shown: list[tuple[str, int]] = []
        self.faults: list[Any] = []
        self.count = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.read, args=(n,)) for n in range(READERS)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def show(self, kept: dict[str, int]) -> None:
        self.shown = sorted(kept.items())

    def stop(self) -> list[Any]:
        self.over.set()
        for thread in self.threads:
            thread.join()
        return self.faults

    def read(self, number: int) -> None:
        ledger, draw = Ledger(self.node, self.tenant), random.Random(number)
        while not self.over.is_set():
            shown = self.shown
            if not shown:
                time.sleep(0.05)
                continue
            key, size = draw.choice(shown)
            try:
                # What the next round dooms is shown no more before it is deleted.
                reply = ledger.ask("GET", BUCKET, key)
                if reply.status == 404 and (key, size) not in self.shown:
                    continue
                if reply.status != 200 or reply.body != body(size, key):
                    self.faults.append((key, reply.status, reply.code, len(reply.body)))
            except OSError as error:
                self.faults.append((key, repr(error)))
            self.count += 1
