"""restic: init, backup, check, restore; a second snapshot, and forgetting the first."""

from __future__ import annotations

import filecmp
import subprocess
from pathlib import Path

from . import payload
from .drivers import Account
from .job import Job
from .report import Failure, expect


def run(job: Job, account: Account) -> None:
    tree = account.folder / "tree"
    make_tree(tree)
    steps: list[tuple[str, list[str]]] = [
        ("init", ["init"]),
        ("backup", ["backup", str(tree)]),
        ("check with all data", ["check", "--read-data"]),
        ("backup again", ["backup", str(tree)]),
        ("forget and prune", ["forget", "--keep-last", "1", "--prune"]),
        ("restore", ["restore", "latest", "--target", str(account.folder / "back")]),
    ]
    for name, words in steps:
        with job.report.case(f"restic: {name}"):
            if name == "backup again":
                payload.write(tree / "second", 3 * payload.MIB, "second")
            restic(account, words)
    with job.report.case("restic: what comes back is what was there"):
        compare(tree, account.folder / "back" / tree.relative_to("/"))


def make_tree(tree: Path) -> None:
    for folder in range(5):
        (tree / f"folder-{folder}").mkdir(parents=True)
        for number in range(40):
            size = number * number * 100
            payload.write(tree / f"folder-{folder}" / f"file {number}", size, f"restic-{folder}")
    payload.write(tree / "large", 20 * payload.MIB, "restic")


def restic(account: Account, words: list[str]) -> None:
    environment = account.environment() | {
        "RESTIC_REPOSITORY": f"s3:{account.node.endpoint}/restic",
        "RESTIC_PASSWORD": "only for this test",
        "RESTIC_CACHE_DIR": str(account.folder / "cache"),
    }
    done = subprocess.run(
        ["restic", *words], capture_output=True, text=True, env=environment, timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(f"restic {words[0]} ended with {done.returncode}:\n{done.stderr[-1500:]}")


def compare(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    back = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    expect(names == back, f"{len(names)} files went in, {len(back)} came out")
    _, wrong, unread = filecmp.cmpfiles(one, other, [str(name) for name in names], shallow=False)
    expect(not wrong and not unread, f"different: {wrong}, unreadable: {unread}")
