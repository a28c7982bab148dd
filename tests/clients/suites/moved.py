"""Moved: rows, extents and wrapped keys put where they do not belong never open.

Every case has a victim and a donor of its own: two objects that differ in their bytes and in one
scope (object, bucket, tenant or version). In a copy of the stopped node's directory a piece of the
donor's takes the place of the victim's. Then a node starts on the copy, and a GET of the victim
must fail or, where the piece does not matter, give the victim's bytes: never the donor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decryptor.rows import ObjectRow, Rows, encode_object_key

from .. import disk
from ..disk import Extent
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, body
from ..report import equal, expect

# The length of an object row up to its wrapped key's length (docs/FORMAT.md, "Rows").
BEFORE_WRAPPED = 1 + 1 + 16 + 16 + 8 + 8 + 1 + 16
INLINE, EXTENT = 1 * KIB, 40 * KIB
SCOPES = ("object", "bucket", "tenant", "version")
Changes = list[tuple[str, bytes, bytes | None]]


@dataclass(frozen=True)
class Place:
    """Where an object is: whose, in which bucket, under which name."""

    tenant: Tenant
    bucket: str
    object_key: str


@dataclass(frozen=True)
class Pair:
    """A victim and its donor, and the rows that hold them."""

    victim: Place
    donor: Place
    rows: Rows
    donor_rows: Rows

    def row(self, table: bytes, *, of_donor: bool = False) -> tuple[bytes, bytes]:
        """The key and value of the first row of a table that belongs to an object."""
        place, rows = (self.donor, self.donor_rows) if of_donor else (self.victim, self.rows)
        space = rows.namespace(bytes.fromhex(place.tenant.tenant_id))
        bucket = rows.get(space, b"B", place.bucket.encode())[1:17]
        if table == b"B":
            row_key = space + b"B" + place.bucket.encode()
        elif table == b"K":
            row_key = next(k for k in rows.values if k.startswith(space + b"K" + bucket + b"d"))
        else:
            row_key = space + b"O" + bucket + encode_object_key(place.object_key.encode())
            if table != b"O":
                content = ObjectRow.decode(rows.values[row_key]).content
                row_key = space + table + content
            if table == b"L":
                held = rows.values[space + b"D" + content]
                row_key = space + b"L" + streams_of(held)[0] + bytes(4)
        return row_key, rows.values[row_key]


def streams_of(content_row: bytes) -> list[bytes]:
    """The streams that a content row names in clear."""
    count = int.from_bytes(content_row[44:48], "big")
    return [content_row[48 + 20 * i : 64 + 20 * i] for i in range(count)]


def replace(pair: Pair, table: bytes) -> Changes:
    """The donor's value under the victim's row key."""
    row_key, _ = pair.row(table)
    _, value = pair.row(table, of_donor=True)
    return [(pair.rows.families[row_key], row_key, value)]


def splice(pair: Pair, field: int) -> Changes:
    """One length-prefixed field of the donor's object row, in the victim's: 0 is the wrap."""
    row_key, value = pair.row(b"O")
    _, other = pair.row(b"O", of_donor=True)
    mine, theirs = fields(value), fields(other)
    mine[field] = theirs[field]
    joined = b"".join(len(piece).to_bytes(4, "big") + piece for piece in mine)
    return [(pair.rows.families[row_key], row_key, value[:BEFORE_WRAPPED] + joined)]


def fields(value: bytes) -> list[bytes]:
    """Wrapped key, heading, tags and attributes of an object row."""
    found, at = [], BEFORE_WRAPPED
    while at < len(value):
        length = int.from_bytes(value[at : at + 4], "big")
        found.append(value[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def wrap_and_content(pair: Pair) -> Changes:
    """The donor's wrapped key and content id together: a forged copy without the wrap's binding."""
    changes = splice(pair, 0)
    family, row_key, value = changes[0]
    assert value is not None
    _, other = pair.row(b"O", of_donor=True)
    forged = value[:18] + other[18:34] + value[34:]
    theirs, held = pair.row(b"D", of_donor=True)
    mine, _ = pair.row(b"D")
    _, inline = pair.row(b"I", of_donor=True)
    own = pair.rows.families[mine]
    return [
        (family, row_key, forged),
        (own, mine[:16] + b"D" + theirs[17:], held),
        (own, mine[:16] + b"I" + theirs[17:], inline),
    ]


@dataclass(frozen=True)
class Move:
    """What is moved, and for bodies of which size."""

    name: str
    size: int
    changes: Callable[[Pair], Changes]
    # Whether the victim can still be served rightly, because the piece does not carry it.
    harmless: bool = False


MOVES = (
    Move("the wrapped key", INLINE, lambda pair: splice(pair, 0)),
    Move("the sealed headers", INLINE, lambda pair: splice(pair, 1)),
    Move("the sealed tags", INLINE, lambda pair: splice(pair, 2), harmless=True),
    Move("the sealed attributes", INLINE, lambda pair: splice(pair, 3)),
    Move("the content row", INLINE, lambda pair: replace(pair, b"D")),
    Move("the inline body", INLINE, lambda pair: replace(pair, b"I")),
    Move("the wrapped key and the content", INLINE, wrap_and_content),
    Move("the location row", EXTENT, lambda pair: replace(pair, b"L")),
    Move("the content row of an extent", EXTENT, lambda pair: replace(pair, b"D")),
)
# An older row of the same object is a rollback, which docs/THREATS.md declares out of scope.
ROW_MOVES = (Move("the object row", INLINE, lambda pair: replace(pair, b"O")),)
# Between buckets and tenants only: inside one bucket there is one.
KEY_MOVES = (Move("the wrapped bucket key", INLINE, lambda pair: replace(pair, b"K")),)
# Between tenants only: inside one it renames a bucket, and its objects stay with its id.
BUCKET_MOVES = (Move("the bucket row", INLINE, lambda pair: replace(pair, b"B")),)


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenants = [node.create_tenant(name) for name in ("victim", "donor")]
    plan = list(cases(tenants))
    places = {place for step in plan for place in (step.victim, step.donor)}
    for bucket, tenant in {(place.bucket, place.tenant) for place in places}:
        Ledger(node, tenant).create_bucket(bucket)
    old = first_versions(job, node, plan)
    store(node, plan)
    node.stop()
    rows = Rows(disk.dump(job.rows, node.data))
    copy = job.node("copy")
    disk.copy(node.data, copy.data)
    move(job, copy, plan, rows, old)
    copy.start()
    for step in plan:
        judge(job, copy, step)
    log_and_listing(job, copy, tenants[0])
    copy.stop()


@dataclass(frozen=True)
class Step:
    """One move between two places."""

    name: str
    kind: Move
    victim: Place
    donor: Place

    @property
    def of_old_version(self) -> bool:
        return self.victim == self.donor


def cases(tenants: list[Tenant]) -> Iterator[Step]:
    """Every move in every scope, with a victim and a donor of its own."""
    mine, theirs = tenants
    for scope in SCOPES:
        moves: tuple[Move, ...] = (*MOVES, *EXTENT_MOVES)
        moves += ROW_MOVES if scope != "version" else ()
        moves += KEY_MOVES if scope in ("bucket", "tenant") else ()
        moves += BUCKET_MOVES if scope == "tenant" else ()
        for number, kind in enumerate(moves):
            own_bucket = kind in KEY_MOVES + BUCKET_MOVES
            bucket = f"v-{scope}-{number}" if own_bucket else "victims"
            name = f"{scope}-{number}"
            victim = Place(mine, bucket, name)
            donor = {
                "object": Place(mine, bucket, f"{name}-donor"),
                "bucket": Place(mine, "donors", name),
                "tenant": Place(theirs, bucket, name),
                "version": victim,
            }[scope]
            yield Step(f"{kind.name}, from another {scope}", kind, victim, donor)


def bytes_of(place: Place, size: int, *, old: bool = False) -> bytes:
    return body(size, f"{place.tenant.name}/{place.bucket}/{place.object_key}/{old}")


HEADERS = {"x-amz-meta-a": "b", "x-amz-tagging": "c=d"}


def first_versions(job: Job, node: Node, plan: list[Step]) -> Rows:
    """Stores the versions that are overwritten later, and reads their rows."""
    for step in plan:
        if step.of_old_version:
            data = bytes_of(step.victim, step.kind.size, old=True)
            put(node, step.victim, data)
    node.stop()
    rows = Rows(disk.dump(job.rows, node.data))
    node.start()
    return rows


def store(node: Node, plan: list[Step]) -> None:
    for step in plan:
        for place in {step.victim, step.donor}:
            put(node, place, bytes_of(place, step.kind.size))


def put(node: Node, place: Place, data: bytes) -> None:
    Ledger(node, place.tenant).put(place.bucket, place.object_key, data, HEADERS)


def extent_of(data_extents: list[Extent], row_key: bytes) -> Extent:
    stream = row_key[17:33]
    return next(extent for extent in data_extents if extent.stream == stream)


def over(victim: Extent, donor: Extent) -> None:
    """The donor's record as it is, in the victim's place."""
    victim.write(donor.read())


def over_renamed(victim: Extent, donor: Extent) -> None:
    """The donor's chunks under the victim's header, every checksum made right."""
    victim.write(victim.read()[:disk.HEADER_BYTES] + donor.read()[disk.HEADER_BYTES :])
    victim.fix_checksums()


def no_rows(_: Pair) -> Changes:
    return []


EXTENT_MOVES = (
    Move("the extent", EXTENT, no_rows),
    Move("the extent's chunks under a right header", EXTENT, no_rows),
)
ON_DISK = dict(zip((kind.name for kind in EXTENT_MOVES), (over, over_renamed), strict=True))


def move(job: Job, copy: Node, plan: list[Step], rows: Rows, old: Rows) -> None:
    """Makes every change in the copy."""
    changes: Changes = []
    records = list(disk.extents(copy.data))
    for step in plan:
        with job.report.case(f"{step.name}: it can be moved"):
            pair = Pair(step.victim, step.donor, rows, old if step.of_old_version else rows)
            changes += step.kind.changes(pair)
            if step.kind.name in ON_DISK:
                mine = extent_of(records, pair.row(b"L")[0])
                theirs = extent_of(records, pair.row(b"L", of_donor=True)[0])
                ON_DISK[step.kind.name](mine, theirs)
    disk.edit(job.rows, copy.data, changes)


def judge(job: Job, copy: Node, step: Step) -> None:
    with job.report.case(f"{step.name}: it does not open"):
        victim = step.victim
        reply = Ledger(copy, victim.tenant).ask("GET", victim.bucket, victim.object_key)
        theirs = bytes_of(step.donor, step.kind.size, old=step.of_old_version)
        expect(reply.body != theirs, "the donor's bytes came back")
        if reply.status == 200:
            expect(step.kind.harmless, "it was served")
            expect(reply.body == bytes_of(victim, step.kind.size), "wrong bytes came back")
        else:
            expect(reply.status in (404, 500), f"{reply.status} {reply.code}")


def log_and_listing(job: Job, copy: Node, tenant: Tenant) -> None:
    with job.report.case("a bucket full of such objects can still be listed"):
        reply = Ledger(copy, tenant).ask("GET", "victims", "", "list-type=2")
        equal(reply.status, 200, "status")
    with job.report.case("no panic in the log"):
        expect("panicked at" not in copy.log.read_text(errors="replace"), "a thread panicked")
