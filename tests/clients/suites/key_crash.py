"""SIGKILL in the middle of every verb that changes keys; a restart resumes it or rolls it back.

Each round starts one verb in a thread, kills the node after a random while, starts it again and
judges: every object that must read reads as it was written, the key is in a state that the verb can
leave it in, the verb can be finished, and a key that was destroyed stays so: its report shows that
every material was erased and refused, and what lay under it is given up.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, Refused, advance, settle
from ..payload import KIB, MIB, body
from ..report import equal, expect

ROUNDS_PUSH = 3
ROUNDS_FULL = 40
BUCKETS = 12
# Inline, small, two extents.
SIZES = (1 * KIB, 40 * KIB, 5 * MIB + 3)
GRACE_SECONDS = 60.0
# Slow enough that a kill within so many seconds comes in the middle of a job.
JOB_RATE = 24
JOB_SECONDS = 1.2
SEED = 20


def run(job: Job) -> None:
    rounds = ROUNDS_FULL if job.full else ROUNDS_PUSH
    field = Field(job)
    verbs: dict[str, Callable[[str], None]] = {
        "rotate": field.rotate, "rewrap": field.rewrap, "deep rewrap": field.deep_rewrap,
        "re-encrypt": field.re_encrypt, "import": field.import_material,
        "destruction": field.destruction,
    }
    for name, verb in verbs.items():
        if job.match and job.match not in name:
            continue
        for number in range(rounds):
            what = f"{name}, round {number + 1}"
            with job.report.case(what):
                verb(what)
    with job.report.case("after all rounds: every object, a clean stop, a clean check"):
        field.judge()
        field.node.stop()
        checked = field.node.check()
        equal(checked.returncode, 0, checked.stderr[-500:])
    job.report.note(f"  {field.kills} kills, {field.during} of them before the verb had returned")


class Field:
    """A tenant with objects under one key that is worked on, and some under one that is not."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.dice = random.Random(SEED)
        self.node: Node = job.node()
        self.node.start()
        self.tenant: Tenant = self.node.create_tenant("crash")
        self.kills = self.during = 0
        self.stored: dict[tuple[str, str], bytes] = {}
        self.destroyed: list[tuple[str, str]] = []
        self.connect()
        self.key = self.owner.create_key()
        for number in range(BUCKETS):
            self.bucket(f"bucket-{number}", self.key)

    def connect(self) -> None:
        self.owner = Owner(self.node, self.tenant, self.job.path("owner"))
        self.ledger = Ledger(self.node, self.tenant)

    def bucket(self, bucket: str, key: str, keep: bool = True) -> None:
        """A bucket with one object of every size under a key."""
        self.ledger.create_bucket(bucket)
        self.owner.use_by_default(bucket, key)
        for size in SIZES:
            data = body(size, bucket)
            self.ledger.put(bucket, f"size-{size}", data)
            if keep:
                self.stored[(bucket, f"size-{size}")] = data

    def crash(self, verb: Callable[[Owner], Any], most: float) -> Any:
        """Kills the node while `verb` runs; gives what it returned, if it did, and restarts."""
        owner, told = self.owner, []

        def work() -> None:
            try:
                told.append(verb(owner))
            except Exception:
                # The connection broke: that is what this is about. The judge sees what is left.
                return

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        time.sleep(self.dice.uniform(0.0, most))
        self.during += thread.is_alive()
        self.kills += 1
        self.node.kill()
        thread.join()
        self.node.start()
        self.connect()
        return told[0] if told else None

    def judge(self) -> None:
        for (bucket, name), data in self.stored.items():
            expect(self.ledger.get(bucket, name) == data, f"{bucket}/{name} differs")
        for key_id, bucket in self.destroyed:
            self.is_gone(key_id, bucket)

    def is_gone(self, key_id: str, bucket: str) -> None:
        """Destroyed, proved, and purged: nothing is left but the report."""
        for size in SIZES:
            reply = self.ledger.ask("GET", bucket, f"size-{size}")
            equal(reply.status, 404, f"{bucket}: GET of size {size}")
        report = self.report(key_id)
        evidence = report["evidence"]
        equal(report["state"], "Destroyed", f"state in the report of {key_id}")
        expect(evidence["materials"] > 0, f"no material was erased: {evidence}")
        equal(evidence["canaries_refused"], evidence["materials"], f"canaries: {evidence}")
        equal(report["impact"]["objects"], len(SIZES), f"objects before: {report['impact']}")
        equal(report["purge"]["state"], "completed", f"purge: {report['purge']}")
        try:
            self.owner.kms.enable_key(KeyId=key_id)
        except self.owner.kms.exceptions.ClientError:
            return
        expect(False, f"{key_id} was destroyed and is enabled")

    def rotate(self, what: str) -> None:
        before = self.owner.materials(self.key)
        if before > 20:
            self.key = self.owner.create_key()
            self.bucket(f"more-{len(self.stored)}", self.key)
            before = 1
        told = self.crash(lambda owner: owner.kms.rotate_key_on_demand(KeyId=self.key), 0.02)
        after = self.owner.materials(self.key)
        expect(after in (before, before + 1), f"{before} materials became {after}")
        expect(told is None or after == before + 1, "a rotation that was acknowledged is lost")
        sealed = self.owner.kms.encrypt(KeyId=self.key, Plaintext=b"x")["CiphertextBlob"]
        equal(self.owner.kms.decrypt(CiphertextBlob=sealed)["Plaintext"], b"x", "after the crash")
        self.judge()

    def rewrap(self, what: str) -> None:
        self.job_of("StartRewrap", {})

    def deep_rewrap(self, what: str) -> None:
        self.job_of("StartRewrap", {"Deep": True})

    def re_encrypt(self, what: str) -> None:
        self.job_of("StartReencrypt", {})

    def job_of(self, verb: str, fields: dict[str, Any]) -> None:
        """A job that a crash interrupts is resumed by the restart and completes."""
        self.owner.kms.rotate_key_on_demand(KeyId=self.key)

        def start(owner: Owner) -> dict[str, Any]:
            job = owner.kluis(verb, KeyId=self.key, RatePerSecond=JOB_RATE, **fields)["Job"]
            # The thread goes on until the kill, so that this counts as a kill during the verb.
            return owner.finish(job)

        self.crash(start, JOB_SECONDS)
        jobs = self.owner.kluis("ListJobs", KeyId=self.key)["Jobs"]
        for job in jobs:
            done = self.owner.finish(job)
            equal(done["State"], "Completed", f"after the restart: {done}")
            equal(done.get("Remaining"), 0, f"verified after the restart: {done}")
        self.judge()
        self.owner.run("StartRewrap", self.key)
        impact = self.owner.kluis("DescribeKeyImpact", KeyId=self.key)
        old = [it for it in impact["BucketKeys"] if it["Count"] > 0]
        equal(len(old), 1, f"materials in use after a rewrap: {old}")
        self.judge()

    def import_material(self, what: str) -> None:
        material = secrets.token_bytes(32)
        key = self.owner.create_key(Origin="EXTERNAL")
        told = self.crash(lambda owner: owner.import_material(key, material), 0.15)
        state = self.owner.state(key)
        expect(state in ("PendingImport", "Enabled"), state)
        expect(told is None or state == "Enabled", "an import that was acknowledged is lost")
        self.owner.import_material(key, material)
        equal(self.owner.state(key), "Enabled", "imported again")
        bucket = f"imported-{self.kills}"
        self.bucket(bucket, key)
        self.crash(lambda owner: owner.kms.delete_imported_key_material(KeyId=key), 0.02)
        if self.owner.state(key) == "PendingImport":
            reply = self.ledger.ask("GET", bucket, f"size-{SIZES[0]}")
            equal(reply.code, "KMS.KMSInvalidStateException", "GET without material")
        self.owner.import_material(key, material)
        self.judge()

    def destruction(self, what: str) -> None:
        key = self.owner.create_key()
        bucket = f"doomed-{self.kills}"
        self.bucket(bucket, key, keep=False)
        self.owner.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)

        def past(_: Owner) -> None:
            advance(self.node, 8)
            # The node finds by itself that it is time.
            time.sleep(GRACE_SECONDS)

        self.crash_while_destroying(past)
        settle("destroyed after the restart", lambda: self.is_destroyed(key), GRACE_SECONDS)
        settle("purged after the restart", lambda: self.is_purged(key), GRACE_SECONDS)
        self.is_gone(key, bucket)
        self.destroyed.append((key, bucket))
        # Once destroyed, no further crash brings it back.
        self.node.kill()
        self.kills += 1
        self.node.start()
        self.connect()
        self.judge()

    def crash_while_destroying(self, verb: Callable[[Owner], Any]) -> None:
        thread = threading.Thread(target=self.quietly, args=(verb,), daemon=True)
        thread.start()
        time.sleep(self.dice.uniform(0.02, 1.5))
        self.kills += 1
        self.during += 1
        self.node.kill()
        self.node.start()
        self.connect()
        # Should the clock not have moved before the kill, it does now.
        advance(self.node, 8)

    def quietly(self, verb: Callable[[Owner], Any]) -> None:
        try:
            verb(self.owner)
        except Exception:
            return

    def report(self, key: str) -> dict[str, Any]:
        return dict(self.owner.kluis("GetErasureReport", KeyId=key)["Report"])

    def is_destroyed(self, key: str) -> bool:
        try:
            report = self.report(key)
        except Refused:
            return False
        return "evidence" in report and report["state"] == "Destroyed"

    def is_purged(self, key: str) -> bool:
        state = str(self.report(key).get("purge", {}).get("state"))
        expect(state not in ("failed", "cancelled"), f"the purge of {key} is {state}")
        return state == "completed"
