"""Bad input: every request of the tables gets its exact answer, and nothing stored changes."""

from __future__ import annotations

from ..bad import BUCKET, Bench, Case, chunked, connections, digests, documents, lengths
from ..bad import multipart, names, reads, signatures
from ..job import Job
from ..ledger import Ledger
from ..report import equal, expect

TABLES = {
    "signature": signatures.CASES,
    "chunks": chunked.CASES,
    "length": lengths.CASES,
    "digest": digests.CASES,
    "name": names.CASES,
    "multipart": multipart.CASES,
    "read": reads.CASES,
    "document": documents.CASES,
    "connection": connections.CASES,
}
# Longer than the node's own limits for a header and for a body that stalls.
HALF_OPEN_SECONDS_MAX = 90.0


def run(job: Job) -> None:
    node = job.node()
    node.start()
    bench = Bench(Ledger(node, node.create_tenant("bad-input")))
    before = bench.state()
    peers = connections.open_halves(bench)
    for table, cases in TABLES.items():
        for case in cases:
            if job.match in f"{table}: {case.name}":
                refuse(job, bench, table, case)
    with job.report.case("nothing stored changed"):
        equal(bench.state(), before, "buckets, objects, bytes, uploads and parts")
    right_requests(job, bench)
    settled = bench.state()
    with job.report.case("half-open connections are closed, others served meanwhile"):
        connections.wait_closed(peers, HALF_OPEN_SECONDS_MAX)
        equal(bench.get(f"/{BUCKET}/small").status, 200, "status of a GET")
    with job.report.case("nothing stored changed after the half-open connections"):
        equal(bench.state(), settled, "buckets, objects, bytes, uploads and parts")
    with job.report.case("the node stops by itself after all this"):
        node.stop()
    with job.report.case("no panic in the log"):
        expect("panicked at" not in node.log.read_text(errors="replace"), "a thread panicked")


def refuse(job: Job, bench: Bench, table: str, case: Case) -> None:
    with job.report.case(f"{table}: {case.name}"):
        reply = case.send(bench)
        equal((reply.status, reply.code), (case.status, case.code), "status and code")
        if case.code:
            expect(b"<RequestId>" in reply.body, "the error document has no RequestId")
            expect("x-amz-request-id" in reply.headers, "the answer has no x-amz-request-id")


def right_requests(job: Job, bench: Bench) -> None:
    """The same requests, not broken, are accepted: else the tables would prove nothing."""
    with job.report.case("each chunked form, whole, is stored without its framing"):
        for form in chunked.WHOLE:
            reply = chunked.send(bench, form)
            equal((reply.status, reply.code), (200, ""), form)
            stored = bench.ledger.get(BUCKET, "small")
            expect(stored == chunked.FIRST + chunked.SECOND, f"{form}: stored ≠ sent")
    with job.report.case("a presigned PUT, whole"):
        equal(signatures.presigned(bench).status, 200, "status")
        equal(bench.ledger.get(BUCKET, "small"), b"other", "stored")
    with job.report.case("ranges that HTTP says to ignore"):
        bench.ledger.put(BUCKET, "small", b"small" * 20)
        for value in reads.IGNORED_RANGES:
            reply = bench.get(f"/{BUCKET}/small", "", {"Range": value})
            equal((reply.status, reply.body), (200, b"small" * 20), value)
    with job.report.case("an upload completed twice answers the same, and takes no more parts"):
        first, again, late = multipart.completed_twice(bench)
        equal((first.status, again.status), (200, 200), "statuses")
        equal(etag(again.body), etag(first.body), "ETag")
        equal((late.status, late.code), (404, "NoSuchUpload"), "a part after completion")
    with job.report.case("odd object keys are kept byte for byte"):
        odd_names(bench)


def etag(body: bytes) -> bytes:
    return body.split(b"<ETag>")[1].split(b"<")[0]


def odd_names(bench: Bench) -> None:
    odd = ["..", "../up", "a/../b", "a//b", "/lead", "trail/", "//", ".", "\x01\x1f\x7f", "a\nb",
           "ä/ключ/鍵", "k" * 1024, " ", "+", "a\\b", "%2F", "?#&="]
    for name in odd:
        bench.ledger.put(BUCKET, name, name.encode())
    listed = [name for name, _, _ in bench.ledger.list(BUCKET)]
    for name in odd:
        expect(name in listed, f"{name!r} is not listed")
        equal(bench.ledger.get(BUCKET, name), name.encode(), repr(name))
        bench.ledger.delete(BUCKET, name)
