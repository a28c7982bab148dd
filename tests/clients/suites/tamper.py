"""Tamper: one flipped bit anywhere is an error or changes nothing; it is never wrong bytes.

Every flip has an object, or a bucket, of its own, so that one copy of a directory carries them all.
Rot (a bit that flips by itself) and tampering (somebody changed bytes and made the checksums right)
are told apart in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from decryptor.rows import ObjectRow, Rows, encode_object_key

from .. import disk
from ..disk import Extent
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, body
from ..report import Failure, equal, expect
from .moved import streams_of

INLINE, EXTENT = 200, 140 * KIB
HEADERS = {"x-amz-meta-a": "b", "x-amz-tagging": "c=d"}
# Fields of an extent's header (docs/FORMAT.md, "Extent"), the table, a chunk and a tag.
HEADER_FIELDS = {
    "magic": 0, "version": 4, "flags": 5, "chunk_shift": 6, "reserved byte": 7, "volume": 8,
    "segment": 24, "incarnation": 28, "rec_seq": 36, "namespace": 44, "stream": 60, "number": 76,
    "n_chunks": 80, "logical_off": 82, "stored_len": 90, "meta_seq": 94, "write_time": 102,
    "checksum": 110, "reserved": 114, "table": 128,
}


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenant = node.create_tenant("tamper")
    ledger = Ledger(node, tenant)
    ledger.create_bucket("flips")
    lengths = row_lengths(job, node, ledger, tenant)
    ledger = Ledger(node, tenant)
    for table, length in lengths.items():
        names = ((f"{table}-{at:03}", inline(f"{table}-{at:03}")) for at in range(length))
        for name, data in names:
            ledger.put("flips", name, data, HEADERS)
    for name in (*HEADER_FIELDS, *CHUNK_FLIPS):
        ledger.put("flips", f"extent {name}", body(EXTENT, name))
    node.stop()
    rows(job, node, tenant, lengths)
    segments(job, node, tenant)
    superblocks(job, node)
    metadata_files(job, node)


def inline(name: str) -> bytes:
    return body(INLINE, name)


def row_lengths(job: Job, node: Node, ledger: Ledger, tenant: Tenant) -> dict[str, int]:
    """How long the rows of an inline object are, so that every byte can have an object."""
    ledger.put("flips", "O-000", inline("O-000"), HEADERS)
    node.stop()
    held = Rows(disk.dump(job.rows, node.data))
    lengths = {table: len(row(held, tenant, "O-000", table)[1]) for table in "ODI"}
    node.start()
    return lengths


def row(held: Rows, tenant: Tenant, name: str, table: str) -> tuple[bytes, bytes]:
    space = held.namespace(bytes.fromhex(tenant.tenant_id))
    bucket = held.get(space, b"B", b"flips")[1:17]
    row_key = space + b"O" + bucket + encode_object_key(name.encode())
    if table != "O":
        row_key = space + table.encode() + ObjectRow.decode(held.values[row_key]).content
    return row_key, held.values[row_key]


def rows(job: Job, node: Node, tenant: Tenant, lengths: dict[str, int]) -> None:
    """One bit in every byte of every row of an object: object, content and inline body."""
    held = Rows(disk.dump(job.rows, node.data))
    copy = job.node("rows")
    disk.copy(node.data, copy.data)
    changes: list[tuple[str, bytes, bytes | None]] = []
    for table, length in lengths.items():
        for at in range(length):
            row_key, value = row(held, tenant, f"{table}-{at:03}", table)
            flipped = value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :]
            changes.append((held.families[row_key], row_key, flipped))
    disk.edit(job.rows, copy.data, changes)
    copy.start()
    ledger = Ledger(copy, tenant)
    for table, length in lengths.items():
        with job.report.case(f"{length} flips in rows {table}: an error, or the right bytes"):
            told = Counter(read_inline(ledger, f"{table}-{at:03}") for at in range(length))
            job.report.note(f"        {table}: {dict(told)}")
            expect(told["500"] > length // 2, f"few of the flips were noticed: {dict(told)}")
            odd = sorted(answer for answer in told if answer not in ("200", "404", "500"))
            expect(not odd, "; ".join(odd[:20]))
    expect_alive(job, copy, "rows")
    copy.stop()


def read_inline(ledger: Ledger, name: str) -> str:
    """How a GET was answered: its status, or what is wrong with it."""
    reply = ledger.ask("GET", "flips", name)
    if reply.status == 200 and reply.body != inline(name):
        return f"{name}: wrong bytes"
    if reply.status == 200 and reply.headers.get("x-amz-meta-a") != "b":
        return f"{name}: wrong metadata"
    return str(reply.status) if reply.status in (200, 404, 500) else f"{name}: {reply.status}"


def expect_alive(job: Job, node: Node, what: str) -> None:
    with job.report.case(f"{what}: no panic, and the node still serves"):
        expect("panicked at" not in node.log.read_text(errors="replace"), "a thread panicked")
        expect(node.is_ready(), "it is not ready")


def flip_chunk(extent: Extent) -> None:
    disk.flip(extent.path, extent.chunk_at(1)[0] + 1000)


def flip_tag(extent: Extent) -> None:
    start, length = extent.chunk_at(0)
    disk.flip(extent.path, start + length - 1)


def tampered(change: Callable[[Extent], None]) -> Callable[[Extent], None]:
    """The same, with every checksum made right again."""

    def both(extent: Extent) -> None:
        change(extent)
        extent.fix_checksums()

    return both


def swap_chunks(extent: Extent) -> None:
    record = bytearray(extent.read())
    (one, length), (two, _) = extent.chunk_at(0), extent.chunk_at(1)
    one, two = one - extent.offset, two - extent.offset
    record[one : one + length], record[two : two + length] = (
        record[two : two + length], record[one : one + length])
    extent.write(bytes(record))


def zero(extent: Extent) -> None:
    extent.write(bytes(extent.stored_bytes))


# What is done, whether it is tampering.
CHUNK_FLIPS: dict[str, tuple[Callable[[Extent], None], bool]] = {
    "a chunk": (flip_chunk, False),
    "a tag": (flip_tag, False),
    "two chunks swapped": (swap_chunks, False),
    "zeroes": (zero, False),
    "a chunk, checksums right": (tampered(flip_chunk), True),
    "a tag, checksums right": (tampered(flip_tag), True),
    "two chunks swapped, checksums right": (tampered(swap_chunks), True),
}


def segments(job: Job, node: Node, tenant: Tenant) -> None:
    copy = job.node("segments")
    disk.copy(node.data, copy.data)
    held = Rows(disk.dump(job.rows, node.data))
    records = {extent.stream: extent for extent in disk.extents(copy.data)}

    def extent_of(name: str) -> Extent:
        content = row(held, tenant, f"extent {name}", "D")[1]
        return records[streams_of(content)[0]]

    for name, at in HEADER_FIELDS.items():
        extent = extent_of(name)
        disk.flip(extent.path, extent.offset + at)
    for name, (change, _) in CHUNK_FLIPS.items():
        change(extent_of(name))
    copy.start()
    for name in HEADER_FIELDS:
        with job.report.case(f"a bit in an extent's {name}: an error, or the right bytes"):
            read_extent(Ledger(copy, tenant), name)
    for name, (_, is_tampering) in CHUNK_FLIPS.items():
        judge_chunk(job, copy, tenant, name, is_tampering=is_tampering)
    expect_alive(job, copy, "segments")
    copy.stop()
    found_by_check(job, copy)


def read_extent(ledger: Ledger, name: str) -> int:
    reply = ledger.ask("GET", "flips", f"extent {name}")
    if reply.status == 200:
        expect(reply.body == body(EXTENT, name), "wrong bytes")
    else:
        equal(reply.status, 500, "status")
    return reply.status


def judge_chunk(
    job: Job, copy: Node, tenant: Tenant, name: str, *, is_tampering: bool
) -> None:
    with job.report.case(f"{name}: an error, and the log tells rot from tampering"):
        before = copy.log.stat().st_size
        equal(whole_or_cut(Ledger(copy, tenant), f"extent {name}"), False, "served whole")
        told = copy.log.read_bytes()[before:].decode(errors="replace").lower()
        expect(("tampered" in told) == is_tampering, f"the log says: {told[-600:]}")
        expect(("corrupt" in told) != is_tampering, f"the log says: {told[-600:]}")


def whole_or_cut(ledger: Ledger, name: str) -> bool:
    """Whether a GET gave a whole body: the first chunks may be right, and then it is cut."""
    reply = ledger.ask("GET", "flips", name)
    return reply.status == 200


def found_by_check(job: Job, copy: Node) -> None:
    with job.report.case("check finds the damage and says what it is"):
        done = copy.check()
        told = (done.stdout + done.stderr).lower()
        equal(done.returncode, 1, "status: 1 says damage")
        expect("tamper" in told, f"no tampering in: {told[-800:]}")
        expect("rot" in told or "corrupt" in told, f"no rot in: {told[-800:]}")


def superblocks(job: Job, node: Node) -> None:
    for damaged, starts in ((("SUPER.a",), True), (("SUPER.b",), True),
                            (("SUPER.a", "SUPER.b"), False)):
        name = " and ".join(damaged)
        copy = job.node(f"super {name}")
        disk.copy(node.data, copy.data)
        for file in damaged:
            disk.flip(copy.data / file, 20)
        with job.report.case(f"a bit in {name}: {'the other is used' if starts else 'refused'}"):
            try_start(copy, starts=starts)
        copy.kill()


def try_start(copy: Node, *, starts: bool) -> None:
    try:
        copy.start()
    except Failure as refusal:
        expect(not starts, str(refusal))
        told = copy.tail()
        expect("panicked" not in told, told)
        expect("super" in told.lower(), f"it does not name the superblock: {told}")
        return
    expect(starts, "it started on two damaged superblocks")


def metadata_files(job: Job, node: Node) -> None:
    """A bit in RocksDB's own files: its checksums see it, and nobody is told a lie."""
    for pattern in ("*.log", "*.sst", "MANIFEST-*"):
        files = sorted((node.data / "meta").glob(pattern), key=lambda path: path.stat().st_size)
        files = [path for path in files if path.stat().st_size > 4 * KIB]
        if not files:
            continue
        copy = job.node(f"meta {pattern.strip('*.-')}")
        disk.copy(node.data, copy.data)
        target: Path = copy.data / "meta" / files[-1].name
        disk.flip(target, target.stat().st_size // 2, 3)
        with job.report.case(f"a bit in the middle of {files[-1].name}: check refuses"):
            done = copy.check()
            told = done.stdout + done.stderr
            expect(done.returncode in (1, 2), f"status {done.returncode}: {told[-300:]}")
            expect("panicked" not in told, told[-600:])
