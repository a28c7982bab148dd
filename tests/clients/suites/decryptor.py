"""Decryptor: a program that shares no code with the node opens what the node stored."""

from __future__ import annotations

from collections.abc import Callable

from decryptor import appendix
from decryptor.directory import Directory
from decryptor.kluis_v1 import DoesNotOpen

from .. import disk
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, MIB, SIZES, body
from ..report import Failure, equal, expect
from ..sigv4 import encode

BUCKET = "sealed"
HEADERS = {"x-amz-meta-colour": "green", "x-amz-tagging": "a=1&b=2", "Content-Type": "text/x-kluis"}


def run(job: Job) -> None:
    known_answers(job)
    for ending in ("a clean stop", "SIGKILL"):
        node = job.node(ending.split()[-1])
        node.start()
        tenant, other = node.create_tenant("owner"), node.create_tenant("other")
        stored = fill(Ledger(node, tenant))
        node.stop() if ending == "a clean stop" else node.kill()
        with job.report.case(f"after {ending}: the directory opens with its passphrase"):
            directory = open_directory(job, node)
            objects(job, directory, tenant, stored, ending)
            refusals(job, node, directory, other, ending)


def known_answers(job: Job) -> None:
    for name, (got, want) in appendix.KNOWN.items():
        with job.report.case(f"known answer: {name}"):
            equal(got.hex(), want, name)
    with job.report.case("known answer: what was sealed opens again"):
        expect(appendix.reopened() == appendix.BODY, "other bytes")
    for name, attempt in appendix.MUST_NOT_OPEN.items():
        with job.report.case(f"must not open: {name}"):
            expect(not appendix.opens(attempt), "it opens")


def fill(ledger: Ledger) -> dict[str, bytes]:
    """One object of every way to store one; what each holds."""
    ledger.create_bucket(BUCKET)
    stored = {f"size/{name}": body(size, name) for name, size in SIZES.items()}
    stored["two extents"] = body(9 * MIB, "two extents")
    for name, data in stored.items():
        ledger.put(BUCKET, name, data, HEADERS)
    parts = [body(5 * MIB, "one"), body(6 * MIB + 5, "two"), body(3 * KIB, "three")]
    ledger.multipart(BUCKET, "parts/ключ\x01", parts, HEADERS)
    stored["parts/ключ\x01"] = b"".join(parts)
    ledger.put(BUCKET, "aes256", b"sse-s3", HEADERS | {"x-amz-server-side-encryption": "AES256"})
    stored["aes256"] = b"sse-s3"
    copied = {"x-amz-copy-source": f"/{BUCKET}/{encode('two extents')}"}
    ledger.must("PUT", BUCKET, "copy", "", copied)
    stored["copy"] = stored["two extents"]
    ledger.put(BUCKET, "again", b"first")
    ledger.put(BUCKET, "again", b"second", HEADERS)
    stored["again"] = b"second"
    return stored


def open_directory(job: Job, node: Node) -> Directory:
    passphrase = (node.data / "keys" / "dev-passphrase").read_bytes().rstrip(b"\r\n")
    return Directory(node.data, disk.dump(job.rows, node.data), passphrase)


def objects(
    job: Job, directory: Directory, tenant: Tenant, stored: dict[str, bytes], ending: str
) -> None:
    for name, want in stored.items():
        with job.report.case(f"after {ending}: {name!r} opens"):
            opened = directory.open(bytes.fromhex(tenant.tenant_id), BUCKET, name)
            expect(opened.body == want, f"{len(opened.body)} bytes, other than sent")
            equal(opened.headers.get("x-amz-meta-colour"), "green", "user metadata")
            equal(opened.headers.get("content-type"), "text/x-kluis", "Content-Type")
            equal(opened.tags, {"a": "1", "b": "2"}, "tags")


def refusals(
    job: Job, node: Node, directory: Directory, other: Tenant, ending: str
) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "by another passphrase": lambda: Directory(node.data, "", b"another passphrase"),
        "as another tenant's": lambda: directory.open(
            bytes.fromhex(other.tenant_id), BUCKET, "again"),
    }
    for name, attempt in attempts.items():
        with job.report.case(f"after {ending}: nothing opens {name}"):
            try:
                attempt()
            except DoesNotOpen:
                continue
            raise Failure("it opened")
