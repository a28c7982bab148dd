"""How long a body says it is, and how long it is."""

from __future__ import annotations

from ..payload import MIB
from ..sigv4 import UNSIGNED
from ..wire import Reply, head
from . import BUCKET, Bench, Case

TARGET = f"/{BUCKET}/small"


def put(
    bench: Bench, framing: list[str], data: bytes, *, cut: bool = False, payload: str = UNSIGNED,
    target: str = TARGET, query: str = "",
) -> Reply:
    """A signed PUT whose framing headers are written line by line."""
    given = {"Host": bench.wire.host}
    full = bench.signer.headers("PUT", target, query, given, payload)
    lines = [f"{name}: {value}" for name, value in full.items()] + framing
    path = f"{target}?{query}" if query else target
    start = "\r\n".join([f"PUT {path} HTTP/1.1", *lines]) + "\r\n\r\n"
    return bench.wire.raw(start.encode() + data, method="PUT", half_close=cut)


def expecting(bench: Bench, length: int) -> Reply:
    """A PUT that waits for `100 Continue` and must not get it."""
    given = {"Host": bench.wire.host}
    full = bench.signer.headers("PUT", TARGET, "", given, UNSIGNED)
    full |= {"Content-Length": str(length), "Expect": "100-continue"}
    return bench.wire.raw(head("PUT", TARGET, "", full), method="PUT")


def part(bench: Bench, framing: list[str], data: bytes, *, cut: bool = False) -> Reply:
    query = f"partNumber=1&uploadId={bench.upload}"
    return put(bench, framing, data, cut=cut, target=f"/{BUCKET}/open", query=query)


CASES = [
    Case("no length", 411, "MissingContentLength", lambda b: put(b, [], b"")),
    Case("no length on a part", 411, "MissingContentLength", lambda b: part(b, [], b"")),
    Case("HTTP chunks without a decoded length", 411, "MissingContentLength",
         lambda b: put(b, ["Transfer-Encoding: chunked"], b"5\r\nother\r\n0\r\n\r\n")),
    Case("shorter than said", 400, "IncompleteBody",
         lambda b: put(b, ["Content-Length: 100"], b"x" * 99, cut=True)),
    Case("shorter than said, large", 400, "IncompleteBody",
         lambda b: put(b, [f"Content-Length: {6 * MIB}"], b"x" * (5 * MIB), cut=True)),
    Case("a part shorter than said", 400, "IncompleteBody",
         lambda b: part(b, [f"Content-Length: {6 * MIB}"], b"x" * (5 * MIB), cut=True)),
    Case("length negative", 400, "", lambda b: put(b, ["Content-Length: -1"], b"other")),
    Case("length no number", 400, "", lambda b: put(b, ["Content-Length: five"], b"other")),
    Case("length beyond 64 bits", 400, "",
         lambda b: put(b, ["Content-Length: 99999999999999999999999"], b"other")),
    Case("two lengths", 400, "",
         lambda b: put(b, ["Content-Length: 5", "Content-Length: 6"], b"other!")),
    Case("more than 5 GiB in one PUT", 400, "EntityTooLarge",
         lambda b: expecting(b, (5 << 30) + 1)),
    Case("more than 5 GiB in one part", 400, "EntityTooLarge",
         lambda b: part(b, [f"Content-Length: {(5 << 30) + 1}", "Expect: 100-continue"], b"")),
]
