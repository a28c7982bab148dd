"""Restart after SIGKILL with many objects: time to ready, what was read, every sample there.

Full size is 10,000,000 objects. They are stored by the program `fill` straight through the engine,
which then ends as if it was killed; the node is killed once more under writes of its own. Time is
reported and not judged; what is judged is that start-up reads no more with many objects than with
few (FEW), so that nothing in it is proportional to their number.
"""

from __future__ import annotations

import http.client
import random
import re
import subprocess
import threading
from pathlib import Path

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import MIB
from ..report import Failure, equal, expect
from ..wire import elements

FEW = 2_000
MANY_PUSH, MANY_FULL = 20_000, 10_000_000
WRITERS = 512
SAMPLES = 2_000
# What a start may read more with many objects: metadata that RocksDB has not yet flushed (its log
# is replayed, bounded by its memtables) and the open segments. Far below the metadata itself.
EXTRA_MIB_MAX = 1_500


def run(job: Job) -> None:
    many = MANY_FULL if job.full else MANY_PUSH
    node = job.node()
    node.start()
    tenant = node.create_tenant("restart")
    Ledger(node, tenant).create_bucket("many")
    node.stop()
    fill(job, node, tenant, FEW)
    few_mib = started(job, node, f"{FEW:,} objects")
    node.stop()
    fill(job, node, tenant, many)
    many_mib = started(job, node, f"{many:,} objects, after the fill was killed")
    with job.report.case("a start reads what is open, not what is stored"):
        expect(many_mib - few_mib < EXTRA_MIB_MAX, f"{few_mib:.1f} MiB, then {many_mib:.1f} MiB")
    kept = killed_under_writes(node, tenant)
    started(job, node, f"{many:,} objects, after SIGKILL under writes")
    with job.report.case(f"{SAMPLES} objects of {many:,} read, and every acknowledged one"):
        again = Ledger(node, tenant)
        dice = random.Random(4)
        for number in (dice.randrange(many) for _ in range(SAMPLES)):
            name = f"o/{number:010}"
            expect(again.get("many", name) == str(number).encode(), f"{name} differs")
        for name, data in kept.items():
            expect(again.get("many", name) == data, f"{name} differs")
    with job.report.case("a page of the listing is in order"):
        body = again.must("GET", "many", "", "list-type=2&max-keys=1000&prefix=o%2F").body
        equal(elements(body, "Key"), [f"o/{n:010}" for n in range(1000)], "page")
    metadata = sum(it.stat().st_size for it in (node.data / "meta").rglob("*") if it.is_file())
    job.report.figure("metadata on disk", metadata / MIB, "MiB")
    node.stop()


def fill(job: Job, node: Node, tenant: Tenant, objects: int) -> None:
    done = subprocess.run(
        [str(job.fill), str(node.data), tenant.tenant_id, "many", str(objects), str(WRITERS)],
        stdout=subprocess.PIPE, text=True, check=False,
    )
    equal(done.returncode, 0, "status of fill")
    job.report.note(f"  {done.stdout.strip().splitlines()[-1]}")


def started(job: Job, node: Node, what: str) -> float:
    """Starts the node; MiB that it had read from files, through the cache or not, when ready."""
    seconds = node.start()
    io = Path(f"/proc/{node.pid}/io").read_text()
    found = re.search(r"^rchar: (\d+)", io, re.MULTILINE)
    read_mib = int(found.group(1)) / MIB if found else 0.0
    job.report.figure(f"time to ready, {what}", seconds, "s")
    job.report.figure(f"read until ready, {what}", read_mib, "MiB")
    found = re.findall(r'"volume opened",("created".*),"target"', node.log.read_text())
    job.report.note(f"  {found[-1]}")
    return read_mib


def killed_under_writes(node: Node, tenant: Tenant) -> dict[str, bytes]:
    """Kills the node while clients write; what had been acknowledged."""
    kept: dict[str, bytes] = {}
    enough = threading.Event()

    def work(seed: int) -> None:
        ledger, dice = Ledger(node, tenant), random.Random(seed)
        for number in range(1_000_000):
            name, data = f"w/{seed}/{number}", dice.randbytes(dice.choice((100, 9_000, 200_000)))
            try:
                ledger.put("many", name, data)
            except (OSError, http.client.HTTPException, Failure):  # killed, as intended
                return
            kept[name] = data
            if len(kept) >= 200:
                enough.set()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    expect(enough.wait(120), "no 200 objects in 120 s")
    node.kill()
    for thread in threads:
        thread.join()
    return kept
