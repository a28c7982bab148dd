"""Clients: every one round-trips every size, and what it sent is what is stored.

What is stored is read with the ledger's own signer, never with the client that wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .. import payload, restic
from ..drivers import Account, Driver
from ..drivers.arrow import Arrow
from ..drivers.awscli import AwsCli
from ..drivers.boto import Boto
from ..drivers.javascript import JavaScript
from ..drivers.rclone import Rclone
from ..drivers.rust import AwsSdkRust, ObjectStore
from ..drivers.s3cmd import S3cmd
from ..drivers.s5cmd import S5cmd
from ..job import Job
from ..ledger import Ledger
from ..report import equal, expect

DRIVERS: tuple[type[Driver], ...] = (
    Boto, AwsCli, S5cmd, Rclone, S3cmd, Arrow, JavaScript, AwsSdkRust, ObjectStore,
)
LISTING = "listing"
# 2,500 keys: more than two pages. `x/` holds what a client must not show under `a/`.
FOLDERS = {"a/": 1200, "a/b/": 800, "x/": 500}


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenant = node.create_tenant("matrix")
    ledger = Ledger(node, tenant)
    ledger.create_bucket(LISTING)
    names = [f"{folder}{n:04}" for folder, count in FOLDERS.items() for n in range(count)]
    ledger.put_many(LISTING, ((name, name.encode()) for name in names))
    for number, kind in enumerate(DRIVERS):
        if job.match in kind.name:
            folder = job.path(f"client-{number}/x").parent
            account = Account(node, tenant, folder, job.js, job.rust)
            Round(job, ledger, kind, account, f"client-{number}").run()
    if job.match in "restic":
        restic.run(job, Account(node, tenant, job.path("restic/x").parent))
    with job.report.case("the node stops after all clients"):
        node.stop()


class Round:
    """All cases of one client in a bucket of its own."""

    def __init__(
        self, job: Job, ledger: Ledger, kind: type[Driver], account: Account, bucket: str
    ) -> None:
        self.report = job.report
        self.ledger = ledger
        self.driver = kind(account)
        self.folder = account.folder
        self.bucket = bucket

    def run(self) -> None:
        self.ledger.create_bucket(self.bucket)
        for name, size in payload.SIZES.items():
            self.case(name, partial(self.round_trip, size))
        self.case("three parts", self.three_parts)
        self.case("a range", self.a_range)
        for prefix in ("a/", "a/b/", "x/"):
            self.case(f"list {prefix} of 2,500 keys", partial(self.list, prefix))
        self.case("a name with spaces and more", self.odd_name)
        self.case("a conditional put", self.conditional)
        self.case("a delete", self.delete)

    def case(self, name: str, check: Callable[[], None]) -> None:
        with self.report.case(f"{self.driver.name}: {name}"):
            check()

    def round_trip(self, size: int, object_key: str | None = None) -> None:
        name = object_key or f"sizes/{size}"
        source = payload.write(self.folder / "source", size, self.driver.name)
        self.driver.put(self.bucket, name, source)
        expect(self.ledger.get(self.bucket, name) == source.read_bytes(), "stored ≠ sent")
        target = self.folder / "target"
        target.unlink(missing_ok=True)
        self.driver.get(self.bucket, name, target)
        expect(target.read_bytes() == source.read_bytes(), "fetched ≠ stored")

    def three_parts(self) -> None:
        source = payload.write(self.folder / "parts", payload.THREE_PARTS, self.driver.name)
        self.driver.put_parts(self.bucket, "parts", source)
        first = self.ledger.ask("HEAD", self.bucket, "parts", "partNumber=1")
        equal(first.headers.get("x-amz-mp-parts-count"), "3", "x-amz-mp-parts-count")
        expect(self.ledger.get(self.bucket, "parts") == source.read_bytes(), "stored ≠ sent")
        target = self.folder / "target"
        target.unlink(missing_ok=True)
        self.driver.get(self.bucket, "parts", target)
        expect(target.read_bytes() == source.read_bytes(), "fetched ≠ stored")

    def a_range(self) -> None:
        # Across the border between two chunks of 64 KiB.
        first, length = 64 * payload.KIB - 100, 200
        body = payload.body(5 * payload.MIB + 1, "range")
        self.ledger.put(self.bucket, "range", body)
        got = self.driver.get_range(self.bucket, "range", first, length)
        expect(got == body[first : first + length], f"{len(got)} bytes, other than asked for")

    def list(self, prefix: str) -> None:
        want = [
            f"{folder}{n:04}"
            for folder, count in FOLDERS.items()
            for n in range(count)
            if folder.startswith(prefix)
        ]
        equal(sorted(self.driver.list(LISTING, prefix)), sorted(want), "keys")

    def odd_name(self) -> None:
        self.round_trip(3, "odd/ä ö+%20&=ключ (1)'.txt")

    def conditional(self) -> None:
        old = payload.write(self.folder / "old", 100, "old")
        new = payload.write(self.folder / "new", 101, "new")
        self.driver.put_if_absent(self.bucket, "once", old)
        expect(self.ledger.get(self.bucket, "once") == old.read_bytes(), "the first was not stored")
        self.driver.put_if_absent(self.bucket, "once", new)
        expect(self.ledger.get(self.bucket, "once") == old.read_bytes(), "the second replaced it")

    def delete(self) -> None:
        self.ledger.put(self.bucket, "gone", b"x")
        self.driver.delete(self.bucket, "gone")
        equal(self.ledger.head(self.bucket, "gone").status, 404, "HEAD after the delete")
