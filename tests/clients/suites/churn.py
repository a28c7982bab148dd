"""Overwrites on a volume that is 80 % full: what reclaiming costs, and whom.

Prints write amplification, the p99 of GETs with and without reclaiming, and the drift of memory and
descriptors. `KLUIS_CHURN_MINUTES` sets how long the churn goes on.
"""

from __future__ import annotations

import os
import random
import threading
import time

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, MIB, body
from ..report import equal, expect

SEGMENT = 32 * MIB
SEGMENTS_PUSH, SEGMENTS_FULL = 16, 128
FILL = 0.8
SIZES = (20 * KIB, 200 * KIB, MIB)
MINUTES_PUSH, MINUTES_FULL = 0.5, 30.0
BASELINE_SECONDS_PUSH, BASELINE_SECONDS_FULL = 5.0, 60.0
WRITERS, READERS = 2, 2
BUCKET = "churn"
RSS_DRIFT_MAX = 5.0
DESCRIPTORS_DRIFT_MAX = 16


def run(job: Job) -> None:
    segments = SEGMENTS_FULL if job.full else SEGMENTS_PUSH
    usual = MINUTES_FULL if job.full else MINUTES_PUSH
    minutes = float(os.environ.get("KLUIS_CHURN_MINUTES", usual))
    node = job.node(
        KLUIS_SEGMENT_BYTES=str(SEGMENT),
        KLUIS_VOLUME_BYTES_MAX=str(segments * SEGMENT),
        KLUIS_RESERVE_BYTES=str(64 * MIB),
    )
    node.start()
    tenant = node.create_tenant("churn")
    Ledger(node, tenant).create_bucket(BUCKET)
    sizes = fill(node, tenant, int(segments * SEGMENT * FILL))
    baseline = BASELINE_SECONDS_FULL if job.full else BASELINE_SECONDS_PUSH
    before = Load(node, tenant, sizes, seed=1)
    before.read_only(baseline)
    # Overwriting without reclaiming to compare with is not to be had at this fill: the volume would
    # be full. So the base is reads alone, and the ratio says what writes and moves cost together.
    begun = node.ask("reclaim", "--status")
    churn = Load(node, tenant, sizes, seed=2)
    churn.start()
    warm = min(60.0, minutes * 60 / 4)
    time.sleep(warm)
    memory, descriptors = node.memory_bytes(), node.descriptors()
    time.sleep(max(0.0, minutes * 60 - warm))
    drift = (node.memory_bytes() / memory - 1) * 100
    opened = node.descriptors() - descriptors
    churn.stop()
    told = node.ask("reclaim", "--status")
    moved = told["moved_bytes"] - begun["moved_bytes"]
    freed = told["reclaimed_segments"] - begun["reclaimed_segments"]
    job.report.figure("churn", minutes, "min")
    job.report.figure("bytes overwritten", churn.written / MIB, "MiB")
    job.report.figure("segments reclaimed", freed, "segments")
    with job.report.case("the volume was written more often than it is long, or reclaimed"):
        expect(freed > 0, f"nothing was reclaimed: {told}")
    job.report.figure("write amplification", (churn.written + moved) / max(1, churn.written), "x")
    job.report.figure(f"GET p99 quiet ({len(before.times)} GETs)", p99(before.times) * 1000, "ms")
    job.report.figure(f"GET p99 under churn and reclaiming ({len(churn.times)} GETs)",
                      p99(churn.times) * 1000, "ms")
    with_moves, without = churn.apart()
    if with_moves and without:
        job.report.figure("GET p99 while a segment is emptied / while none is",
                          p99(with_moves) / p99(without), "x")
    job.report.figure("resident memory, drift", drift, "%", RSS_DRIFT_MAX if job.full else None)
    job.report.figure("descriptors, drift", opened, "", DESCRIPTORS_DRIFT_MAX)
    job.report.figure("writes refused (507)", churn.refused, "")
    with job.report.case("every answer was right"):
        equal(before.faults + churn.faults, [], "faults")
    with job.report.case("check is clean, counts of live bytes included"):
        node.stop()
        done = node.check()
        equal(done.returncode, 0, f"status: {done.stdout[-300:]}{done.stderr[-300:]}")


def fill(node: Node, tenant: Tenant, total: int) -> dict[str, int]:
    draw = random.Random(0)
    sizes: dict[str, int] = {}
    held = 0
    while held < total:
        size = draw.choice(SIZES)
        sizes[f"o{len(sizes):06}"] = size
        held += size
    Ledger(node, tenant).put_many(
        BUCKET, ((key, body(size, key)) for key, size in sizes.items()), workers=4
    )
    return sizes


def p99(times: list[tuple[float, float]]) -> float:
    seconds = sorted(taken for _, taken in times)
    return seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)] if seconds else 0.0


class Load:
    """Writers that overwrite the same keys with the same bytes, readers that time their GETs, and a
    watcher that notes when a segment was being emptied."""

    def __init__(self, node: Node, tenant: Tenant, sizes: dict[str, int], seed: int) -> None:
        self.node, self.tenant, self.seed = node, tenant, seed
        self.sizes = sizes
        self.keys = sorted(sizes)
        self.times: list[tuple[float, float]] = []
        self.busy: list[tuple[float, bool]] = []
        self.faults: list[object] = []
        self.written = self.refused = 0
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    def read_only(self, seconds: float) -> None:
        self.begin([self.read] * READERS)
        time.sleep(seconds)
        self.stop()

    def start(self) -> None:
        self.begin([self.read] * READERS + [self.write] * WRITERS + [self.watch])

    def begin(self, works: list[object]) -> None:
        for number, work in enumerate(works):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            self.threads.append(thread)

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def read(self, number: int) -> None:
        ledger, draw = Ledger(self.node, self.tenant), random.Random(f"r{self.seed}/{number}")
        while not self.over.is_set():
            key = draw.choice(self.keys)
            begun = time.monotonic()
            reply = ledger.ask("GET", BUCKET, key)
            taken = time.monotonic() - begun
            with self.lock:
                self.times.append((begun, taken))
                if reply.status != 200 or len(reply.body) != self.sizes[key]:
                    self.faults.append((key, reply.status, reply.code))
                elif reply.body[:64] != body(self.sizes[key], key)[:64]:
                    self.faults.append((key, "other bytes"))

    def write(self, number: int) -> None:
        ledger, draw = Ledger(self.node, self.tenant), random.Random(f"w{self.seed}/{number}")
        while not self.over.is_set():
            key = draw.choice(self.keys)
            size = self.sizes[key]
            reply = ledger.ask("PUT", BUCKET, key, body=body(size, key))
            with self.lock:
                if reply.status == 200:
                    self.written += size
                elif reply.status == 507:
                    self.refused += 1
                else:
                    self.faults.append((key, reply.status, reply.code))

    def watch(self, _: int) -> None:
        while not self.over.is_set():
            samples = self.node.metrics()
            self.busy.append((time.monotonic(), samples.get("kluis_reclaim_running", 0.0) > 0))
            time.sleep(0.1)

    def apart(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The GETs that began while a segment was emptied, and the others."""
        moving, quiet = [], []
        at = 0
        for begun, taken in sorted(self.times):
            while at + 1 < len(self.busy) and self.busy[at + 1][0] <= begun:
                at += 1
            is_busy = bool(self.busy) and self.busy[at][1]
            (moving if is_busy else quiet).append((begun, taken))
        return moving, quiet
