"""Many tenants: the time to make the last one, to restart, and what they cost while idle."""

from __future__ import annotations

import time

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import MIB
from ..report import equal, expect

COUNT_PUSH = 300
COUNT_FULL = 10_000
# The bounds of the design for 10,000 tenants on one node.
RESTART_SECONDS_MAX = 5.0
MEMORY_MIB_MAX = 1536.0
WAL_MIB_MAX = 1126.0
CREATE_SECONDS_MAX = 1.0
DESCRIPTORS_MAX = 8192.0


def run(job: Job) -> None:
    count = COUNT_FULL if job.full else COUNT_PUSH
    node = job.node()
    node.start()
    made = create(job, node, count)
    store(job, node, made)
    figures(job, node, "running")
    job.report.figure("stop", node.stop(), "s")
    job.report.figure("restart after a stop", node.start(), "s", RESTART_SECONDS_MAX)
    read(job, node, made)
    figures(job, node, "restarted")
    node.kill()
    job.report.figure("restart after SIGKILL", node.start(), "s", RESTART_SECONDS_MAX)
    with job.report.case("every tenant is listed once"):
        names = [told["name"] for told in pages(node)]
        equal(len(names), count, "tenants listed")
        equal(len(set(names)), count, "different names")
    node.stop()


def create(job: Job, node: Node, count: int) -> list[Tenant]:
    """All but one by one command, then the last alone; some of all of them are kept."""
    begun = time.monotonic()
    made = node.create_tenants(count - 1, "tenant-")
    job.report.figure(f"{count - 1} tenants by one command", time.monotonic() - begun, "s")
    begun = time.monotonic()
    made.append(node.create_tenant("the-last"))
    seconds = time.monotonic() - begun
    job.report.figure(f"tenant {count}, command included", seconds, "s", CREATE_SECONDS_MAX)
    return [*made[:: max(1, count // 50)], made[-1]]


def store(job: Job, node: Node, made: list[Tenant]) -> None:
    with job.report.case(f"{len(made)} tenants store under one and the same name"):
        for tenant in made:
            ledger = Ledger(node, tenant)
            ledger.create_bucket("data")
            ledger.put("data", "object", tenant.tenant_id.encode())


def read(job: Job, node: Node, made: list[Tenant]) -> None:
    with job.report.case(f"{len(made)} tenants read their own after a restart"):
        for tenant in made:
            ledger = Ledger(node, tenant)
            equal(ledger.get("data", "object"), tenant.tenant_id.encode(), tenant.name)
            equal([key for key, _, _ in ledger.list("data")], ["object"], tenant.name)


def pages(node: Node) -> list[dict[str, str]]:
    told = node.ask("tenant", "list")
    found = told["tenants"] if isinstance(told, dict) else told
    expect(isinstance(found, list), f"tenant list answers {type(found)}")
    return list(found)


def figures(job: Job, node: Node, when: str) -> None:
    wal = sum(path.stat().st_blocks * 512 for path in (node.data / "meta").glob("*.log"))
    job.report.figure(f"memory, {when}", node.memory_bytes() / MIB, "MiB", MEMORY_MIB_MAX)
    job.report.figure(f"write-ahead log, {when}", wal / MIB, "MiB", WAL_MIB_MAX)
    job.report.figure(f"file descriptors, {when}", node.descriptors(), "open", DESCRIPTORS_MAX)
    job.report.figure(f"disk, {when}", node.disk_bytes() / MIB, "MiB")
