"""Real input: a tree that the machine has, synced by rclone for two tenants into one bucket name.

First a whole sync, checked byte by byte by rclone. Then the tree changes, both tenants sync again,
and the node is killed in the middle. After a restart every object that rclone was told is stored
must be stored, every object must be the old one or the new one, and `kluis check` must be clean.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..drivers import Account
from ..drivers.rclone import Rclone
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import MIB
from ..report import Failure, equal, expect

BUCKET = "tree"
# Documentation, sources and programs; what a machine lacks is left out.
ROOTS = (
    "/usr/share/doc", "/usr/include", "/usr/share", "/usr/lib", "/usr/bin", "/usr/local",
    str(Path.home() / ".cargo" / "registry" / "src"), str(Path.home() / ".rustup"),
)
FILE_BYTES_MAX = 64 * MIB
AFTER_KILL_SECONDS = 2.0
RCLONE = ("--transfers", "8", "--checkers", "8", "--s3-upload-cutoff", "16M",
          "--s3-chunk-size", "8M")


@dataclass(frozen=True)
class Size:
    files: int
    size_bytes: int


PUSH = Size(files=1_500, size_bytes=80 * MIB)
FULL = Size(files=20_000, size_bytes=1024 * MIB)


@dataclass
class Owner:
    """A tenant, its copy of the tree, and what the bucket may hold."""

    tenant: Tenant
    tree: Path
    old: dict[str, str]
    new: dict[str, str]
    log: Path


def run(job: Job) -> None:
    size = FULL if job.full else PUSH
    source = job.path("source/x").parent
    gather(source, size)
    node = job.node()
    node.start()
    owners = [owner(job, node, source, name) for name in ("one", "two")]
    first_sync(job, node, owners)
    for who in owners:
        change(who, job)
    cut_sync(job, node, owners)
    with job.report.case("check is clean after SIGKILL, before any restart"):
        clean(node)
    job.report.figure("restart after SIGKILL", node.start(), "s")
    for who in owners:
        judge(job, node, who)
    finish(job, node, owners)


def gather(target: Path, size: Size) -> None:
    """Copies real files until there are enough, both by number and by bytes."""
    count, total = 0, 0
    for path in real_files():
        length = path.stat().st_size
        # Once there are files enough, only large ones help.
        if count >= size.files and length < MIB:
            continue
        copy = target / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        count, total = count + 1, total + length
        if count >= size.files and total >= size.size_bytes:
            return
    raise Failure(f"this machine has only {count} files and {total} bytes under {ROOTS}")


def real_files() -> Iterator[Path]:
    seen: set[str] = set()
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if str(path) in seen or path.is_symlink() or not path.is_file():
                    continue
                seen.add(str(path))
                if os.access(path, os.R_OK) and path.stat().st_size <= FILE_BYTES_MAX:
                    yield path


def owner(job: Job, node: Node, source: Path, name: str) -> Owner:
    """Each tenant has a tree of its own: the same files, and one that says whose it is."""
    tree = job.path(f"{name}/x").parent / "tree"
    shutil.copytree(source, tree)
    (tree / "whose").write_text(name)
    tenant = node.create_tenant(name)
    Ledger(node, tenant).create_bucket(BUCKET)
    digests = digest_tree(tree)
    return Owner(tenant, tree, digests, digests, tree.parent / "rclone.log")


def digest_tree(tree: Path) -> dict[str, str]:
    files = [path for path in tree.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def rclone(node: Node, who: Owner, *words: str) -> subprocess.Popen[bytes]:
    driver = Rclone(Account(node, who.tenant, who.tree.parent))
    with who.log.open("wb") as log:
        return subprocess.Popen(
            ["rclone", *RCLONE, *words, str(who.tree), driver.remote(BUCKET)],
            env=driver.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )


def must_all(processes: list[subprocess.Popen[bytes]], owners: list[Owner], what: str) -> None:
    for process, who in zip(processes, owners, strict=True):
        status = process.wait()
        expect(status == 0, f"{what} of {who.tenant.name} ended with {status}: {tail(who.log)}")


def tail(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:]


def first_sync(job: Job, node: Node, owners: list[Owner]) -> None:
    files = sum(len(who.old) for who in owners)
    total = sum(path.stat().st_size for who in owners for path in who.tree.rglob("*")
                if path.is_file())
    job.report.figure("files of both tenants", files, "files")
    job.report.figure("bytes of both tenants", total / MIB, "MiB")
    begun = time.monotonic()
    with job.report.case("both trees are synced at once"):
        must_all([rclone(node, who, "sync", "--retries", "1") for who in owners], owners, "sync")
    seconds = time.monotonic() - begun
    job.report.figure("sync", files / seconds, "files/s")
    job.report.figure("sync", total / MIB / seconds, "MiB/s")
    for who in owners:
        with job.report.case(f"rclone check --download of {who.tenant.name}"):
            must_all([rclone(node, who, "check", "--download")], [who], "check")


def change(who: Owner, job: Job) -> None:
    """Every third file grows, every seventh is new, every eleventh goes."""
    for number, name in enumerate(sorted(who.old)):
        path = who.tree / name
        if number % 3 == 0:
            with path.open("ab") as file:
                file.write(f"changed for {who.tenant.name}, {number}\n".encode())
        if number % 7 == 0:
            path.with_name(path.name + ".new").write_text(f"new for {who.tenant.name}, {number}\n")
        if number % 11 == 0:
            path.unlink()
    who.new = digest_tree(who.tree)


def cut_sync(job: Job, node: Node, owners: list[Owner]) -> None:
    """Syncs the changed trees and kills the node when a third of the changes are stored."""
    goal = sum(1 for who in owners for name in who.new if who.new[name] != who.old.get(name)) // 3
    words = ("sync", "--retries", "1", "--low-level-retries", "1", "-v", "--use-json-log")
    processes = [rclone(node, who, *words) for who in owners]
    with job.report.case("the node is killed in the middle of the second sync"):
        while sum(len(acknowledged(who)) for who in owners) < goal:
            expect(all(process.poll() is None for process in processes),
                   f"a sync ended before: {tail(owners[0].log)} {tail(owners[1].log)}")
            time.sleep(0.05)
        node.kill()
        # What was answered before the kill is in rclone's log soon after; then it only retries.
        time.sleep(AFTER_KILL_SECONDS)
        expect(all(process.poll() is None for process in processes), "a sync was through already")
    for process in processes:
        process.terminate()
        process.wait()


def acknowledged(who: Owner) -> set[str]:
    """The files that rclone was told are stored."""
    done = set()
    for line in who.log.read_text(errors="replace").splitlines():
        if line.startswith("{") and line.endswith("}"):
            entry = json.loads(line)
            if str(entry.get("msg", "")).startswith(("Copied", "Multi-thread Copied")):
                done.add(str(entry["object"]))
    return done


def clean(node: Node) -> None:
    done = node.check()
    told = f"{done.stdout[-800:]}{done.stderr[-800:]}"
    expect(done.returncode == 0, f"check: {done.returncode}: {told}")


def judge(job: Job, node: Node, who: Owner) -> None:
    ledger = Ledger(node, who.tenant)
    stored: dict[str, str] = {}
    with job.report.case(f"{who.tenant.name}: everything stored can be read"):
        names = [name for name, _, _ in ledger.list(BUCKET)]
        with ThreadPoolExecutor(8) as pool:
            bodies = pool.map(lambda name: ledger.get(BUCKET, name), names)
            stored = {name: hashlib.sha256(data).hexdigest()
                      for name, data in zip(names, bodies, strict=True)}
    done = acknowledged(who)
    job.report.figure(f"{who.tenant.name}: acknowledged before the kill", len(done), "files")
    with job.report.case(f"{who.tenant.name}: every acknowledged object is there and right"):
        expect(len(done) > 0, "nothing was acknowledged")
        lost = [name for name in done if stored.get(name) != who.new[name]]
        expect(not lost, f"{len(lost)} of {len(done)}: {lost[:5]}")
    with job.report.case(f"{who.tenant.name}: no object is wrong"):
        wrong = [name for name, digest in stored.items()
                 if digest not in (who.old.get(name), who.new.get(name))]
        expect(not wrong, f"{len(wrong)} of {len(stored)}: {wrong[:5]}")
    with job.report.case(f"{who.tenant.name}: what was not touched is still there"):
        kept = [name for name in who.new if name in who.old]
        gone = [name for name in kept if name not in stored]
        expect(not gone, f"{len(gone)} of {len(kept)}: {gone[:5]}")


def finish(job: Job, node: Node, owners: list[Owner]) -> None:
    """The sync that was cut is run again, to its end."""
    with job.report.case("the sync that was cut succeeds after the restart"):
        must_all([rclone(node, who, "sync", "--retries", "1") for who in owners], owners, "sync")
        must_all([rclone(node, who, "check", "--download") for who in owners], owners, "check")
    with job.report.case("each tenant's tree is its own"):
        for who in owners:
            equal(Ledger(node, who.tenant).get(BUCKET, "whose").decode(), who.tenant.name, "whose")
    with job.report.case("check is clean at the end"):
        node.stop()
        clean(node)
