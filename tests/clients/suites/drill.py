"""The restore drill: backups under load, the node destroyed, everything read from what comes back.

Writers go on throughout and note what was acknowledged. Objects that were acknowledged before a
backup began must read from its snapshot; what lay under a destroyed key must not, whichever snapshot
is put back. SIGKILL in the middle of a backup leaves a repository that works, and in the middle of a
restore a directory that is refused until the restore is run again.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, Refused, advance, settle
from ..payload import KIB, MIB, body
from ..report import equal, expect

# Inline, packed, streamed, several extents.
SIZES = (1 * KIB, 40 * KIB, 700 * KIB, 9 * MIB + 5)
WRITERS = 4
SECONDS_PUSH = 4.0
SECONDS_FULL = 60.0
KILLS_PUSH = 3
KILLS_FULL = 40
GRACE_SECONDS = 90.0
SEED = 14


def run(job: Job) -> None:
    drill = Drill(job)
    with job.report.case("a full backup under load"):
        drill.fill()
        drill.first = drill.back_up()
    with job.report.case("an incremental one copies what is new"):
        drill.incremental()
    with job.report.case("SIGKILL during backups: the repository stays sound, the next run ends"):
        drill.kill_backups()
    with job.report.case("a key is destroyed after the first snapshot, then one more run"):
        drill.destroy_second()
    with job.report.case("the node is destroyed; half a restore is refused and then finished"):
        drill.lose_and_restore()
    with job.report.case("the newest snapshot: every object that was acknowledged before it"):
        drill.judge(drill.last, "newest")
    with job.report.case("the first snapshot: its objects read, destroyed keys stay destroyed"):
        drill.restore_first()
    with job.report.case("a flipped bit is named by verify and by restore"):
        drill.flip()


@dataclass
class Told:
    """A snapshot: its id, what it copied, and how many objects were acknowledged before it."""

    snapshot: str
    copied: int
    reused: int
    acknowledged: int


@dataclass
class Load:
    """Writers that go on until they are told to stop. Refused or broken writes are not noted."""

    ledger: Ledger
    bucket: str
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    prefix: str = ""

    def start(self, prefix: str) -> None:
        self.prefix = prefix
        self.stopping.clear()
        self.threads = [
            threading.Thread(target=self.write, args=(number,), daemon=True)
            for number in range(WRITERS)
        ]
        for thread in self.threads:
            thread.start()

    def write(self, writer: int) -> None:
        count = 0
        while not self.stopping.is_set():
            size = SIZES[count % len(SIZES)]
            name = f"{self.prefix}-{writer}-{count}"
            try:
                self.ledger.put(self.bucket, name, body(size, name))
            except Exception:
                # The node was killed: what it did not acknowledge is nobody's.
                return
            with self.lock:
                self.acknowledged.append((name, size))
            count += 1

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def count(self) -> int:
        with self.lock:
            return len(self.acknowledged)


class Drill:
    """One node, its repository, and what its clients were told."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.dice = random.Random(SEED)
        self.seconds = SECONDS_FULL if job.full else SECONDS_PUSH
        self.node: Node = job.node()
        self.node.start()
        self.repository = job.path("repository")
        self.passphrase = (self.node.data / "keys" / "dev-passphrase").read_bytes()
        self.tenant: Tenant = self.node.create_tenant("drill")
        self.restores = 0
        self.first = self.last = Told("", 0, 0, 0)
        self.special: dict[tuple[str, str], bytes] = {}
        self.connect(self.node)
        self.load = Load(self.ledger, "load")

    def connect(self, node: Node) -> None:
        self.ledger = Ledger(node, self.tenant)
        self.owner = Owner(node, self.tenant, self.job.path("owner"))

    def fill(self) -> None:
        """What the load does not have: keys, parts, tags, another user; a key destroyed before."""
        ledger, owner = self.ledger, self.owner
        for bucket in ("load", "kept", "gone-before", "gone-after"):
            ledger.create_bucket(bucket)
        self.kept = owner.create_key()
        self.before, self.after = owner.create_key(), owner.create_key()
        for bucket, key in (
            ("kept", self.kept), ("gone-before", self.before), ("gone-after", self.after)
        ):
            owner.use_by_default(bucket, key)
            for size in SIZES:
                data = body(size, bucket)
                ledger.put(bucket, f"size-{size}", data)
                if bucket == "kept":
                    self.special[(bucket, f"size-{size}")] = data
        parts = [body(6 * MIB, "part-1"), body(3 * MIB, "part-2")]
        ledger.multipart("kept", "of-parts", parts)
        self.special[("kept", "of-parts")] = b"".join(parts)
        owner.s3.put_object_tagging(
            Bucket="kept", Key="of-parts", Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]}
        )
        self.user = self.node.ask("user", "create", "ada", "--tenant", "drill")
        self.destroy(self.before)
        self.load.start("a")
        time.sleep(self.seconds)

    def destroy(self, key: str) -> None:
        self.owner.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
        advance(self.node, 8)
        settle("the key is destroyed", lambda: self.is_destroyed(key), GRACE_SECONDS)

    def is_destroyed(self, key: str) -> bool:
        try:
            return bool(self.owner.kluis("GetErasureReport", KeyId=key)["Report"])
        except Refused:
            return False

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.node.command(*words, "--json")

    def back_up(self) -> Told:
        acknowledged = self.load.count()
        done = self.command(
            "backup", "--to", str(self.repository), "--data-dir", str(self.node.data)
        )
        equal(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout)
        return Told(
            told["snapshot"], told["copied_bytes"], told["reused_bytes"], acknowledged
        )

    def incremental(self) -> None:
        time.sleep(self.seconds / 4)
        second = self.back_up()
        time.sleep(0.2)
        third = self.back_up()
        expect(second.reused > 0 and third.reused >= self.first.copied // 2, f"{third}")
        expect(third.copied < third.reused, f"{third.copied} copied, {third.reused} reused")
        self.job.report.note(
            f"  copied {self.first.copied >> 20} MiB, then {second.copied >> 20} MiB, then "
            f"{third.copied >> 20} MiB of {(third.copied + third.reused) >> 20}; "
            f"{third.acknowledged} objects acknowledged"
        )

    def kill_backups(self) -> None:
        """The node does the work, so it is the node that dies."""
        kills = KILLS_FULL if self.job.full else KILLS_PUSH
        during = 0
        for _ in range(kills):
            command = [
                str(self.node.binary), "backup", "--to", str(self.repository),
                "--data-dir", str(self.node.data),
            ]
            told = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(self.dice.uniform(0.02, 0.6))
            during += told.poll() is None
            self.node.kill()
            told.communicate()
            self.load.stop()
            self.sound()
            self.node.start()
            self.connect(self.node)
            self.load.ledger = self.ledger
            self.load.start(f"k{self.load.count()}")
        self.job.report.note(f"  {kills} kills, {during} of them during a backup")
        self.back_up()
        self.sound()

    def sound(self) -> None:
        done = self.command("backup", "verify", "--from", str(self.repository))
        equal(done.returncode, 0, done.stdout + done.stderr)

    def destroy_second(self) -> None:
        self.destroy(self.after)
        self.last = self.back_up()

    def restore(self, to: Path, snapshot: str = "") -> subprocess.CompletedProcess[str]:
        chosen = ("--snapshot", snapshot) if snapshot else ()
        return self.command(
            "restore", "--from", str(self.repository), "--data-dir", str(to), *chosen
        )

    def lose_and_restore(self) -> None:
        self.node.kill()
        self.load.stop()
        shutil.rmtree(self.node.data)
        data = self.node.data
        halves = 0
        for number in range(KILLS_FULL if self.job.full else KILLS_PUSH):
            command = [
                str(self.node.binary), "restore", "--from", str(self.repository),
                "--data-dir", str(data),
            ]
            told = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while told.poll() is None and not (data / "RESTORING").exists():
                time.sleep(0.001)
            # The first one at once, so that there is a half for certain.
            time.sleep(self.dice.uniform(0.0, 0.4) if number else 0.0)
            told.kill()
            told.communicate()
            if (data / "RESTORING").exists():
                halves += 1
                served = self.node.command("serve", str(data), "--dev", "--listen", "127.0.0.1:0")
                expect(served.returncode != 0 and "cut short" in served.stderr, served.stderr)
            elif (data / "meta").exists():
                # It was faster than the kill.
                shutil.rmtree(data)
        expect(halves > 0, "no restore was cut short in its middle")
        self.job.report.note(f"  {halves} restores were cut short in their middle")
        done = self.restore(data)
        equal(done.returncode, 0, done.stderr)
        again = self.restore(data)
        expect(again.returncode == 1 and "it holds" in again.stderr, again.stderr)
        self.start(self.node)

    def start(self, node: Node) -> None:
        """Puts the passphrase back, which no repository holds, and starts the node."""
        secret = node.data / "keys" / "dev-passphrase"
        expect(not secret.exists(), "the passphrase was in the repository")
        secret.touch(mode=0o600)
        secret.write_bytes(self.passphrase)
        checked = node.check()
        equal(checked.returncode, 0, checked.stdout[-2000:] + checked.stderr[-2000:])
        node.start()
        self.connect(node)

    def judge(self, told: Told, what: str) -> None:
        for (bucket, name), data in self.special.items():
            expect(self.ledger.get(bucket, name) == data, f"{what}: {bucket}/{name} differs")
        for name, size in self.load.acknowledged[: told.acknowledged]:
            got = self.ledger.get("load", name)
            expect(got == body(size, name), f"{what}: {name} of {size} bytes differs")
        tags: Any = self.owner.s3.get_object_tagging(Bucket="kept", Key="of-parts")["TagSet"]
        equal(tags, [{"Key": "team", "Value": "blue"}], "tags")
        users = self.owner.node.ask("user", "list", "--tenant", "drill")["users"]
        expect(any(user["user_id"] == self.user["user_id"] for user in users), f"{users}")
        for bucket in ("gone-before", "gone-after"):
            for size in SIZES:
                reply = self.ledger.ask("GET", bucket, f"size-{size}")
                expect(reply.status in (400, 404), f"{what}: {bucket}: GET answers {reply.status}")
        self.job.report.note(f"  {what}: {told.acknowledged + len(self.special)} objects read")
        self.ledger.put("kept", f"after-{what}", b"new")
        equal(self.ledger.get("kept", f"after-{what}"), b"new", "a write after the restore")

    def restore_first(self) -> None:
        self.node.stop()
        node = self.job.node("first")
        done = self.restore(node.data, self.first.snapshot)
        equal(done.returncode, 0, done.stderr)
        self.start(node)
        self.judge(self.first, "first")
        reply = self.ledger.ask("GET", "gone-after", f"size-{SIZES[0]}")
        equal(reply.status, 400, "its row is there, its key is not")
        node.stop()

    def flip(self) -> None:
        listed = json.loads(self.command("backup", "list", "--from", str(self.repository)).stdout)
        expect(len(listed["snapshots"]) >= 3, f"{listed}")
        files = [path for path in (self.repository / "data").rglob("*") if path.is_file()]
        path = max(files, key=lambda it: it.stat().st_size)
        with path.open("r+b") as held:
            held.seek(path.stat().st_size // 3)
            byte = held.read(1)
            held.seek(-1, 1)
            held.write(bytes([byte[0] ^ 0x10]))
        verified = self.command("backup", "verify", "--from", str(self.repository))
        equal(verified.returncode, 1, verified.stderr)
        found = json.loads(verified.stdout)
        equal([it["path"] for it in found["findings"]], [str(path)], "what verify names")
        done = self.restore(self.job.path("damaged"), self.last.snapshot)
        equal(done.returncode, 1, done.stderr)
        expect(path.name in done.stderr, done.stderr)
