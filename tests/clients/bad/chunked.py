"""aws-chunked bodies: each link of the chain, the framing and the trailer, broken once."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from ..sigv4 import ChunkSigner
from ..wire import Reply, head
from . import BUCKET, Bench, Case

TARGET = f"/{BUCKET}/small"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
FIRST = b"a" * 65_536
SECOND = b"b" * 1_000
LENGTH = len(FIRST) + len(SECOND)


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@dataclass
class Body:
    """The frames of a body, to be changed before they are sent."""

    frames: list[bytes]
    end: bytes
    trailer: bytes = b""

    def bytes(self) -> bytes:
        return b"".join(self.frames) + self.end + self.trailer + b"\r\n"


def send(
    bench: Bench,
    form: str,
    break_it: Callable[[Body], None] = lambda body: None,
    headers: dict[str, str | None] | None = None,
    cut: int | None = None,
) -> Reply:
    """A right chunked PUT of FIRST and SECOND, then broken by `break_it`, `headers` or `cut`."""
    given: dict[str, str] = {"Host": bench.wire.host, "x-amz-decoded-content-length": str(LENGTH)}
    if form != SIGNED:
        given["x-amz-trailer"] = "x-amz-checksum-crc32"
    for name, value in (headers or {}).items():
        if value is None:
            del given[name]
        else:
            given[name] = value
    full = bench.signer.headers("PUT", TARGET, "", given, form)
    body = build(bench, form, full)
    break_it(body)
    data = body.bytes()
    full["Content-Length"] = str(len(data))
    sent = data if cut is None else data[:cut]
    return bench.wire.raw(head("PUT", TARGET, "", full) + sent, half_close=cut is not None)


def build(bench: Bench, form: str, full: dict[str, str]) -> Body:
    seed = full["Authorization"].rsplit("=", 1)[1]
    chain = ChunkSigner(bench.signer, full["x-amz-date"], seed)

    def frame(data: bytes) -> bytes:
        mark = "" if form == UNSIGNED_TRAILER else f";chunk-signature={chain.chunk(data)}"
        tail = b"\r\n" if data else b""
        return f"{len(data):x}{mark}\r\n".encode() + data + tail

    body = Body([frame(FIRST), frame(SECOND)], frame(b""))
    if form != SIGNED:
        line = f"x-amz-checksum-crc32:{crc32(FIRST + SECOND)}"
        body.trailer = f"{line}\r\n".encode()
        if form == SIGNED_TRAILER:
            signature = chain.trailer(f"{line}\n".encode())
            body.trailer += f"x-amz-trailer-signature:{signature}\r\n".encode()
    return body


def replace(field: str, old: bytes, new: bytes) -> Callable[[Body], None]:
    """Changes the trailer or the end of a body."""

    def change(body: Body) -> None:
        value = getattr(body, field)
        assert old in value
        setattr(body, field, value.replace(old, new))

    return change


def in_frame(index: int, old: bytes, new: bytes) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        assert old in body.frames[index]
        body.frames[index] = body.frames[index].replace(old, new, 1)

    return change


def swap(body: Body) -> None:
    body.frames.reverse()


def drop_second(body: Body) -> None:
    del body.frames[1]


def no_end(body: Body) -> None:
    body.end = b""


# A whole body of each form is stored as it should be: else the cases would pass for other reasons.
WHOLE = (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER)

CASES = [
    Case("signed chunks: a byte of data changed", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED, in_frame(1, b"bbbb", b"bbxb"))),
    Case("signed chunks: a digit of a signature changed", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED, flip_signature)),
    Case("signed chunks: two chunks swapped", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED, swap)),
    Case("signed chunks: a chunk left out", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED, drop_second)),
    Case("signed chunks: cut inside a chunk", 400, "IncompleteBody",
         lambda b: send(b, SIGNED, cut=30_000)),
    Case("signed chunks: the last chunk left out", 400, "IncompleteBody",
         lambda b: send(b, SIGNED, no_end)),
    Case("signed chunks: no signature on a chunk", 400, "IncompleteBody",
         lambda b: send(b, SIGNED, strip_signature)),
    Case("signed chunks: decoded length too large", 400, "IncompleteBody",
         lambda b: send(b, SIGNED, headers={"x-amz-decoded-content-length": str(LENGTH + 1)})),
    Case("signed chunks: decoded length too small", 400, "IncompleteBody",
         lambda b: send(b, SIGNED, headers={"x-amz-decoded-content-length": str(LENGTH - 1)})),
    Case("signed chunks: no decoded length", 411, "MissingContentLength",
         lambda b: send(b, SIGNED, headers={"x-amz-decoded-content-length": None})),
    Case("signed chunks: decoded length negative", 411, "MissingContentLength",
         lambda b: send(b, SIGNED, headers={"x-amz-decoded-content-length": "-5"})),
    Case("signed chunks: decoded length no number", 411, "MissingContentLength",
         lambda b: send(b, SIGNED, headers={"x-amz-decoded-content-length": "many"})),
    Case("signed trailer: its signature changed", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED_TRAILER, flip_trailer)),
    Case("signed trailer: its signature left out", 400, "MalformedTrailerError",
         lambda b: send(b, SIGNED_TRAILER, strip_trailer_signature)),
    Case("signed trailer: a value that was not signed", 403, "SignatureDoesNotMatch",
         lambda b: send(b, SIGNED_TRAILER, wrong_checksum)),
    Case("unsigned trailer: wrong checksum", 400, "BadDigest",
         lambda b: send(b, UNSIGNED_TRAILER, wrong_checksum)),
    Case("unsigned trailer: a byte of data changed", 400, "BadDigest",
         lambda b: send(b, UNSIGNED_TRAILER, in_frame(1, b"bbbb", b"bbxb"))),
    Case("unsigned trailer: announced and not sent", 400, "MalformedTrailerError",
         lambda b: send(b, UNSIGNED_TRAILER, lambda body: setattr(body, "trailer", b""))),
    Case("unsigned trailer: another than announced", 400, "MalformedTrailerError",
         lambda b: send(b, UNSIGNED_TRAILER, replace("trailer", b"crc32:", b"crc32c:"))),
    Case("unsigned trailer: not base64", 400, "InvalidRequest",
         lambda b: send(b, UNSIGNED_TRAILER, lambda body: setattr(
             body, "trailer", b"x-amz-checksum-crc32:!!!!\r\n"))),
    Case("unsigned trailer: an unknown algorithm announced", 400, "InvalidRequest",
         lambda b: send(b, UNSIGNED_TRAILER, headers={"x-amz-trailer": "x-amz-checksum-md4"})),
    Case("unsigned chunks: cut inside a chunk", 400, "IncompleteBody",
         lambda b: send(b, UNSIGNED_TRAILER, cut=30_000)),
    Case("unsigned chunks: a size that is not hexadecimal", 400, "IncompleteBody",
         lambda b: send(b, UNSIGNED_TRAILER, in_frame(0, b"10000\r\n", b"ten\r\n"))),
    Case("unsigned chunks: a size beyond 64 bits", 400, "IncompleteBody",
         lambda b: send(b, UNSIGNED_TRAILER, in_frame(0, b"10000\r\n", b"f" * 17 + b"\r\n"))),
    Case("unsigned chunks: decoded length too small", 400, "IncompleteBody",
         lambda b: send(
             b, UNSIGNED_TRAILER, headers={"x-amz-decoded-content-length": str(LENGTH - 1)})),
    Case("an unknown streaming form", 400, "InvalidArgument",
         lambda b: send(b, "STREAMING-AWS4-HMAC-SHA512-PAYLOAD")),
]


def flip_signature(body: Body) -> None:
    at = body.frames[0].index(b"\r\n") - 1
    digit = body.frames[0][at : at + 1]
    other = b"0" if digit != b"0" else b"1"
    body.frames[0] = body.frames[0][:at] + other + body.frames[0][at + 1 :]


def strip_signature(body: Body) -> None:
    size, rest = body.frames[0].split(b";", 1)
    body.frames[0] = size + rest[rest.index(b"\r\n") :]


def flip_trailer(body: Body) -> None:
    digit = body.trailer[-3:-2]
    body.trailer = body.trailer[:-3] + (b"0" if digit != b"0" else b"1") + b"\r\n"


def strip_trailer_signature(body: Body) -> None:
    body.trailer = body.trailer.split(b"x-amz-trailer-signature")[0]


def wrong_checksum(body: Body) -> None:
    right, wrong = crc32(FIRST + SECOND).encode(), crc32(b"other").encode()
    assert right in body.trailer
    body.trailer = body.trailer.replace(right, wrong)
