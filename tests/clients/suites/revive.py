"""Old copies against a key that was destroyed, and strangers against the audit log.

A node's directory is copied while it is stopped, then the key is destroyed. Single files of the
copy are put back, then the whole folder of keys, then the whole directory: where docs/KEYS.md says
that the key stays destroyed it must, and where it says that it comes back that is held to, too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, Refused, advance, refused, settle
from ..payload import KIB, MIB, body
from ..report import Failure, equal, expect

# Inline, small, two extents.
SIZES = (1 * KIB, 40 * KIB, 5 * MIB + 3)
DESTROYED_SECONDS_MAX = 120.0
STALE = shutil.ignore_patterns("admin.sock", "LOCK")


def run(job: Job) -> None:
    scene = Scene(job)
    scene.files_put_back()
    scene.keys_put_back()
    scene.everything_put_back()
    scene.audit()


class Scene:
    """A tenant with two keys of which one is destroyed, and a copy from before."""

    def __init__(self, job: Job) -> None:
        self.job, self.report = job, job.report
        node = job.node("first")
        node.start()
        self.tenant: Tenant = node.create_tenant("revive")
        owner, ledger = self.clients(node)
        self.doomed, self.kept = owner.create_key(), owner.create_key()
        self.data = {size: body(size, "revive") for size in SIZES}
        for bucket, key in (("doomed", self.doomed), ("kept", self.kept)):
            ledger.create_bucket(bucket)
            owner.use_by_default(bucket, key)
            for size, data in self.data.items():
                ledger.put(bucket, f"size-{size}", data)
        node.stop()
        self.old = job.path("old/data")
        shutil.copytree(node.data, self.old, ignore=STALE)
        node.start()
        owner, _ = self.clients(node)
        owner.kms.schedule_key_deletion(KeyId=self.doomed, PendingWindowInDays=7)
        advance(node, 8)

        def report_of() -> dict[str, Any]:
            try:
                return dict(owner.kluis("GetErasureReport", KeyId=self.doomed)["Report"])
            except Refused:
                return {}

        settle("the key is destroyed", lambda: bool(report_of()), DESTROYED_SECONDS_MAX)
        self.assurance = report_of()
        node.stop()
        self.now = node.data

    def clients(self, node: Node) -> tuple[Owner, Ledger]:
        folder = self.job.path(f"owner-{node.port}")
        return Owner(node, self.tenant, folder), Ledger(node, self.tenant)

    def node_of(self, name: str, source: Path) -> Node:
        node = self.job.node(name)
        shutil.copytree(source, node.data, ignore=STALE, dirs_exist_ok=True)
        return node

    def current(self, stem: str) -> str:
        found = [path.name for path in (self.now / "keys").glob(f"{stem}.[0-9]*")]
        equal(len(found), 1, f"files of {stem}: {found}")
        return found[0]

    def is_destroyed(self, node: Node) -> bool:
        """Starts the node; says whether it did, and fails if the key is there again."""
        try:
            node.start()
        except Failure as refusal:
            # It ended by itself: it saw that the file is not of this directory.
            expect("ended with" in str(refusal), str(refusal))
            return False
        owner, ledger = self.clients(node)
        for size in SIZES:
            reply = ledger.ask("GET", "doomed", f"size-{size}")
            expect(reply.status in (400, 404), f"GET answers {reply.status}")
        refused("NotFoundException", lambda: owner.kms.enable_key(KeyId=self.doomed))
        refused("NotFoundException",
                lambda: owner.kms.cancel_key_deletion(KeyId=self.doomed))
        node.kill()
        return True

    def files_put_back(self) -> None:
        old = sorted(path.name for path in (self.old / "keys").glob("*.[0-9]*"))
        equal(len(old), 2, f"files of the old epoch: {old}")
        rounds = {"slots": ("slots",), "keyring": ("keyring",), "both": ("keyring", "slots")}
        for what, stems in rounds.items():
            for under in ("its own name", "the present name"):
                with self.report.case(f"old {what} put back under {under}: stays destroyed"):
                    node = self.node_of(f"{what}-{under[:3]}", self.now)
                    for stem in stems:
                        before = next(name for name in old if name.startswith(stem))
                        name = before if under == "its own name" else self.current(stem)
                        shutil.copy2(self.old / "keys" / before, node.data / "keys" / name)
                    started = self.is_destroyed(node)
                    told = "the node starts without it" if started else "the node does not start"
                    self.report.note(f"  old {what} under {under}: {told}")
                    if under == "its own name":
                        expect(started, "files of an epoch that is over keep it from starting")
                        left = sorted(it.name for it in (node.data / "keys").glob("*.[0-9]*"))
                        now = sorted(it.name for it in (self.now / "keys").glob("*.[0-9]*"))
                        equal(left, now, "files of epochs after a start")

    def keys_put_back(self) -> None:
        """With the old root as well, the old key opens: but what it had wrapped is gone."""
        with self.report.case("the whole old folder of keys put back: no object is read"):
            node = self.node_of("keys", self.now)
            shutil.rmtree(node.data / "keys")
            shutil.copytree(self.old / "keys", node.data / "keys", ignore=STALE)
            node.start()
            owner, ledger = self.clients(node)
            equal(owner.state(self.doomed), "Enabled", "the record in the old folder")
            for size in SIZES:
                reply = ledger.ask("GET", "doomed", f"size-{size}")
                expect(reply.status >= 400, f"GET answers {reply.status}")
            node.kill()

    def everything_put_back(self) -> None:
        with self.report.case("the report says what an old copy of everything is worth"):
            told = json.dumps(self.assurance)
            expect("overwrite-best-effort" in told, told[:500])
        with self.report.case("a whole old copy, with its passphrase, reads: as the document says"):
            node = self.node_of("everything", self.old)
            node.start()
            owner, ledger = self.clients(node)
            equal(owner.state(self.doomed), "Enabled", "the key in the old copy")
            for size, data in self.data.items():
                expect(ledger.get("doomed", f"size-{size}") == data, f"size-{size} differs")
            node.stop()
        with self.report.case("a whole old copy without its passphrase is shut"):
            node = self.node_of("shut", self.old)
            (node.data / "keys" / "dev-passphrase").unlink()
            try:
                node.start()
            except Failure:
                return
            expect(False, "it started")

    def audit(self) -> None:
        """`kluis audit verify` on a copy: sound, with a bit flipped, cut, with a segment gone."""

        def verify(data: Path) -> tuple[int, dict[str, Any]]:
            done = self.job.nodes[0].command("audit", "verify", str(data), "--dev", "--json")
            expect(done.returncode in (0, 1), f"{done.returncode}: {done.stderr}")
            return done.returncode, json.loads(done.stdout)

        with self.report.case("kluis audit verify: the log of a stopped node is sound"):
            code, told = verify(self.now)
            equal((code, told["sound"], told["damage"]), (0, True, []), str(told))
            expect(told["entries"] > 20, str(told))
        for what in ("a flipped bit", "a cut tail", "a lost segment", "a lost head"):
            with self.report.case(f"kluis audit verify: {what} is found, and nothing is changed"):
                data = self.job.path(f"audit-{what.replace(' ', '-')}/data")
                shutil.copytree(self.now, data, ignore=STALE)
                segment = max((data / "audit").glob("*.log"))
                raw = bytearray(segment.read_bytes())
                if what == "a flipped bit":
                    raw[len(raw) // 2] ^= 1
                    segment.write_bytes(raw)
                elif what == "a cut tail":
                    segment.write_bytes(raw[: len(raw) * 2 // 3])
                elif what == "a lost segment":
                    segment.unlink()
                else:
                    (data / "audit" / "head").unlink()
                for _ in range(2):
                    code, told = verify(data)
                    equal((code, told["sound"]), (1, False), str(told))
                    expect(told["damage"], "no place is named")
        with self.report.case("kluis audit verify: no log, and a wrong passphrase, cannot run"):
            node = self.job.nodes[0]
            wrong = self.job.path("wrong")
            wrong.write_text("not the passphrase of this node\n")
            wrong.chmod(0o600)
            for words in ((str(self.job.folder), "--dev"),
                          (str(self.now), "--passphrase-file", str(wrong))):
                done = node.command("audit", "verify", *words)
                equal(done.returncode, 2, done.stderr)
