"""Backends: io_uring is real, and the thread pool gives the same answers.

A run in which the ring did not carry the bytes has failed, whatever else worked.
"""

from __future__ import annotations

from ..job import Job
from ..ledger import Ledger
from ..node import Node
from ..payload import MIB, SIZES, body
from ..report import equal, expect

# The variable that names the backend.
SETTING = "KLUIS_IO_BACKEND"
BACKENDS = ("ring", "threads")


def run(job: Job) -> None:
    answers = {}
    for backend in BACKENDS:
        node = job.node(backend, **{SETTING: backend})
        with job.report.case(f"{backend}: a node starts on it"):
            node.start()
        answers[backend] = exercise(job, node, backend)
        with job.report.case(f"{backend}: check is clean"):
            node.stop()
            done = node.check()
            equal(done.returncode, 0, f"status: {done.stdout[-300:]}{done.stderr[-300:]}")
    with job.report.case("both backends answered the same"):
        equal(answers["ring"], answers["threads"], "what was read")


def exercise(job: Job, node: Node, backend: str) -> list[tuple[str, int]]:
    ledger = Ledger(node, node.create_tenant("backends"))
    ledger.create_bucket("backends")
    parts = [body(5 * MIB, "one"), body(6 * MIB, "two"), b"three"]
    with job.report.case(f"{backend}: every size comes back"):
        for name, size in SIZES.items():
            ledger.put("backends", name, body(size, name))
        ledger.multipart("backends", "parts", parts)
        read_all(ledger, parts)
    counts(job, node, backend, ("read", "sync", "write"))
    with job.report.case(f"{backend}: the same after SIGKILL"):
        node.kill()
        node.start()
        ledger = Ledger(node, ledger.tenant)
        read_all(ledger, parts)
    counts(job, node, backend, ("read",))
    return [(key, size) for key, size, _ in ledger.list("backends")]


def read_all(ledger: Ledger, parts: list[bytes]) -> None:
    for name, size in SIZES.items():
        expect(ledger.get("backends", name) == body(size, name), name)
    expect(ledger.get("backends", "parts") == b"".join(parts), "the parts")


def counts(job: Job, node: Node, backend: str, verbs: tuple[str, ...]) -> None:
    """/metrics names the backend, and no other, and counts what it did."""
    samples = node.metrics()
    with job.report.case(f"{backend}: /metrics names it"):
        named = [name for name in samples if name.startswith("kluis_io_backend{")]
        equal(named, [f'kluis_io_backend{{kind="{backend}"}}'], "backends in use")
    for verb in verbs:
        with job.report.case(f"{backend}: /metrics counts a {verb}"):
            count = samples[f'kluis_io_operations_total{{op="{verb}"}}']
            expect(count > 0, f"{count} operations")
    was = "used" if backend == "ring" else "not used"
    with job.report.case(f"{backend}: the kernel's ring was {was}"):
        expect((samples["kluis_io_batches_total"] > 0) == (backend == "ring"),
               f"{samples['kluis_io_batches_total']} batches were handed to the ring")
