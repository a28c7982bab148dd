"""Rotate and rewrap at size: wall time, bytes written to disk, and what readers notice.

Full size is 1,000,000 objects in 100 buckets. Readers GET small objects all along; the p99 of
their times while the job runs is compared with the p99 just before.
"""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner
from ..payload import MIB
from ..report import equal, expect
from ..wire import Wire

BUCKETS_PUSH, OBJECTS_PUSH = 10, 2_000
BUCKETS_FULL, OBJECTS_FULL = 100, 1_000_000
READERS = 4
BASELINE_SECONDS = 5.0
# The job is short; readers go on until they have at least this many times under it.
SAMPLES_MIN = 200
RATIO_MAX = 3.0
WRITERS = 16


def run(job: Job) -> None:
    buckets, objects = (
        (BUCKETS_FULL, OBJECTS_FULL) if job.full else (BUCKETS_PUSH, OBJECTS_PUSH)
    )
    node = job.node()
    node.start()
    tenant = node.create_tenant("rewrap")
    owner, ledger = Owner(node, tenant, job.path("owner")), Ledger(node, tenant)
    key = owner.create_key()
    begun = time.monotonic()
    for number in range(buckets):
        ledger.create_bucket(f"bucket-{number}")
        owner.use_by_default(f"bucket-{number}", key)
    fill(node, tenant, buckets, objects)
    job.report.figure(f"{objects:,} objects in {buckets} buckets stored",
                      time.monotonic() - begun, "s")
    with job.report.case("the index counts the bucket keys of the first material"):
        expect(under(owner, key).get(1, 0) >= buckets, f"counts: {under(owner, key)}")
    quiet = Readers(node, tenant, buckets, objects)
    before = quiet.watch(BASELINE_SECONDS)
    owner.kms.rotate_key_on_demand(KeyId=key)
    written = written_bytes(node)
    busy = Readers(node, tenant, buckets, objects)
    busy.start()
    begun = time.monotonic()
    rounds = 0
    while rounds == 0 or (len(busy.times) < SAMPLES_MIN and rounds < 10):
        # One rewrap can be over before a reader has read; a deep one has as much to do as objects.
        done = owner.run("StartRewrap", key, Deep=rounds > 0)
        rounds += 1
        if rounds == 1:
            took = time.monotonic() - begun
            job.report.note(f"  the job: {done}")
            job.report.figure("rewrap, wall time", took, "s")
            job.report.figure("rewrap, bytes written", (written_bytes(node) - written) / MIB, "MiB")
    during = busy.stop()
    with job.report.case("no bucket key is left under the first material"):
        equal(under(owner, key).get(1, 0), 0, f"counts: {under(owner, key)}")
    job.report.figure("GET p99 before", p99(before) * 1000, "ms")
    job.report.figure(f"GET p99 while jobs run ({len(during)} GETs)", p99(during) * 1000, "ms")
    job.report.figure("p99 ratio", p99(during) / p99(before), "x",
                      RATIO_MAX if job.full else None)
    with job.report.case("every GET was answered with its bytes"):
        equal(quiet.faults + busy.faults, [], "faults")
    with job.report.case("a sample reads after a restart"):
        node.stop()
        node.start()
        again = Ledger(node, tenant)
        for bucket, name, data in sample(buckets, objects, 500):
            expect(again.get(bucket, name) == data, f"{bucket}/{name} differs")
        node.stop()


def name_of(number: int, buckets: int) -> tuple[str, str, bytes]:
    return f"bucket-{number % buckets}", f"object-{number}", f"bytes of {number}".encode() * 8


def sample(buckets: int, objects: int, count: int) -> Iterator[tuple[str, str, bytes]]:
    dice = random.Random(3)
    return (name_of(dice.randrange(objects), buckets) for _ in range(count))


class Link:
    """One kept connection with the signer of the suites: a new one per object would cost ports."""

    def __init__(self, node: Node, tenant: Tenant) -> None:
        self.wire = Wire(node, tenant)
        self.link = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        given = {"Host": self.wire.host}
        headers = self.wire.signer.headers(method, path, "", given, sha256(body).hexdigest())
        self.link.request(method, path, body=body if method == "PUT" else None, headers=headers)
        reply = self.link.getresponse()
        return reply.status, reply.read()


def fill(node: Node, tenant: Tenant, buckets: int, objects: int) -> None:
    faults: list[str] = []

    def work(first: int) -> None:
        link = Link(node, tenant)
        for number in range(first, objects, WRITERS):
            bucket, name, data = name_of(number, buckets)
            status, told = link.ask("PUT", f"/{bucket}/{name}", data)
            if status != 200:
                faults.append(f"{name}: {status} {told[:200]!r}")
                return

    threads = [threading.Thread(target=work, args=(first,)) for first in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(faults, [], "faults while filling")


class Readers:
    """Threads that GET random objects and note how long each took."""

    def __init__(self, node: Node, tenant: Tenant, buckets: int, objects: int) -> None:
        self.times: list[float] = []
        self.faults: list[str] = []
        self.over = threading.Event()
        self.shape = (buckets, objects)
        self.threads = [
            threading.Thread(target=self.work, args=(Link(node, tenant), seed), daemon=True)
            for seed in range(READERS)
        ]

    def work(self, link: Link, seed: int) -> None:
        dice = random.Random(seed)
        buckets, objects = self.shape
        while not self.over.is_set():
            bucket, name, data = name_of(dice.randrange(objects), buckets)
            begun = time.monotonic()
            status, told = link.ask("GET", f"/{bucket}/{name}")
            self.times.append(time.monotonic() - begun)
            if (status, told) != (200, data):
                self.faults.append(f"{bucket}/{name}: {status}")
                return

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> list[float]:
        self.over.set()
        for thread in self.threads:
            thread.join()
        return self.times

    def watch(self, seconds: float) -> list[float]:
        self.start()
        time.sleep(seconds)
        return self.stop()


def p99(times: list[float]) -> float:
    expect(bool(times), "nothing was measured")
    return sorted(times)[int(len(times) * 0.99)]


def under(owner: Owner, key: str) -> dict[int, int]:
    told = owner.kluis("DescribeKeyImpact", KeyId=key)["BucketKeys"]
    return {it["Material"]: it["Count"] for it in told}


def written_bytes(node: Node) -> int:
    """What the process has had written to disk, as /proc says."""
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{node.pid}/io").read_text(), re.M)
    return int(found.group(1)) if found else 0
