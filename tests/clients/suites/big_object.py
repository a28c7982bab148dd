"""One large object by multipart, up and down, while the node's memory is watched."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..job import Job
from ..ledger import Ledger
from ..node import Node
from ..payload import MIB, body
from ..report import equal, expect
from ..sigv4 import EMPTY_SHA256, encode
from ..wire import element

PART_BYTES = 64 * MIB
PARTS_PUSH = 8
PARTS_FULL = 160  # 10 GiB
WORKERS = 3
MEMORY_MIB_MAX = 512.0


class Watch(threading.Thread):
    """Samples a node's resident memory until told to stop."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.done = threading.Event()
        self.samples: list[int] = []

    def run(self) -> None:
        while not self.done.wait(0.05):
            self.samples.append(self.node.memory_bytes())

    def peak_mib(self) -> float:
        self.done.set()
        self.join()
        return max(self.samples) / MIB


def run(job: Job) -> None:
    count = PARTS_FULL if job.full else PARTS_PUSH
    node = job.node()
    node.start()
    ledger = Ledger(node, node.create_tenant("big"))
    ledger.create_bucket("big")
    watch = Watch(node)
    watch.start()
    size_mib = count * PART_BYTES / MIB
    begun = time.monotonic()
    with job.report.case(f"{size_mib:.0f} MiB up in {count} parts"):
        upload(ledger, count)
    job.report.figure("up", size_mib / (time.monotonic() - begun), "MiB/s, client included")
    begun = time.monotonic()
    with job.report.case("down in one GET, byte for byte"):
        compare(ledger, count)
    job.report.figure("down", size_mib / (time.monotonic() - begun), "MiB/s, client included")
    with job.report.case("ranges across parts, extents and chunks"):
        ranges(ledger, count)
    with job.report.case("memory was sampled throughout"):
        expect(len(watch.samples) > 20, f"{len(watch.samples)} samples")
    job.report.figure("memory at its highest", watch.peak_mib(), "MiB", MEMORY_MIB_MAX)
    with job.report.case("still right after SIGKILL"):
        node.kill()
        job.report.figure("restart", node.start(), "s")
        ledger.wire.port = node.port
        ranges(ledger, count)
    node.stop()


def part(number: int) -> bytes:
    return body(PART_BYTES, f"part {number}")


def upload(ledger: Ledger, count: int) -> None:
    begun = ledger.must("POST", "big", "object", "uploads=")
    query = f"uploadId={encode(element(begun.body, 'UploadId'))}"

    def send(number: int) -> str:
        numbered = f"partNumber={number}&{query}"
        reply = ledger.must("PUT", "big", "object", numbered, None, part(number))
        return reply.headers["etag"]

    with ThreadPoolExecutor(WORKERS) as pool:
        etags = list(pool.map(send, range(1, count + 1)))
    lines = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    text = f"<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>"
    done = ledger.must("POST", "big", "object", query, None, text.encode())
    etag = element(done.body, "ETag").replace("&quot;", '"')
    expect(etag.endswith(f'-{count}"'), f"ETag {etag}")


def pieces(ledger: Ledger) -> Iterator[bytes]:
    """The whole object by one GET, a part's length at a time."""
    wire = ledger.wire
    link = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=600)
    given = {"Host": wire.host}
    headers = wire.signer.headers("GET", "/big/object", "", given, EMPTY_SHA256)
    link.request("GET", "/big/object", headers=headers)
    reply = link.getresponse()
    equal(reply.status, 200, "status")
    while piece := reply.read(PART_BYTES):
        yield piece
    link.close()


def compare(ledger: Ledger, count: int) -> None:
    number = 0
    for number, piece in enumerate(pieces(ledger), 1):
        got, want = (hashlib.sha256(data).hexdigest() for data in (piece, part(number)))
        equal(got, want, f"SHA-256 of part {number}")
    equal(number, count, "parts")


def ranges(ledger: Ledger, count: int) -> None:
    total = count * PART_BYTES
    starts = [0, 65_535, 4 * MIB - 1, PART_BYTES - 10, total // 2 - 7, total - 100]
    for first in starts:
        reply = ledger.must("GET", "big", "object", "", {"Range": f"bytes={first}-{first + 99}"})
        number, offset = divmod(first, PART_BYTES)
        want = (part(number + 1) + (part(number + 2) if number + 1 < count else b""))
        expect(reply.body == want[offset : offset + 100], f"bytes {first} and on")
