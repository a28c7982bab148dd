"""Below S3: header floods, broken HTTP, and peers that stop in the middle."""

from __future__ import annotations

import socket
import time

from ..report import expect
from ..sigv4 import UNSIGNED
from ..wire import Reply, head, read_reply
from . import BUCKET, Bench, Case

TARGET = f"/{BUCKET}/small"


def raw(bench: Bench, text: str) -> Reply:
    return bench.wire.raw(text.encode("latin-1"))


def flood(bench: Bench, count: int, width: int) -> Reply:
    lines = "".join(f"x-flood-{n}: {'v' * width}\r\n" for n in range(count))
    return raw(bench, f"GET / HTTP/1.1\r\nHost: {bench.wire.host}\r\n{lines}\r\n")


CASES = [
    Case("10,000 headers", 431, "", lambda b: flood(b, 10_000, 1)),
    Case("a header of 2 MiB", 431, "", lambda b: flood(b, 1, 2 << 20)),
    Case("an address of 100 KiB", 431, "",
         lambda b: raw(b, f"GET /{'a' * 102_400} HTTP/1.1\r\nHost: {b.wire.host}\r\n\r\n")),
    Case("no HTTP", 400, "", lambda b: raw(b, "HELO kluis\r\n\r\n")),
    Case("a line feed in a header's name", 400, "",
         lambda b: raw(b, f"GET / HTTP/1.1\r\nHost: {b.wire.host}\r\nbad name: x\r\n\r\n")),
    Case("an HTTP version that is none", 400, "",
         lambda b: raw(b, f"GET / HTTP/7.7\r\nHost: {b.wire.host}\r\n\r\n")),
]


def open_halves(bench: Bench) -> list[socket.socket]:
    """64 peers that send half a request and stop: half in the header, half in the body."""
    given = {"Host": bench.wire.host, "Content-Length": "1000000"}
    full = bench.signer.headers("PUT", TARGET, "", given, UNSIGNED)
    data = head("PUT", TARGET, "", full) + b"x" * 1000
    peers = []
    for number in range(64):
        link = socket.create_connection(("127.0.0.1", bench.wire.port), timeout=120)
        link.sendall(data[:100] if number % 2 else data)
        peers.append(link)
    return peers


def wait_closed(peers: list[socket.socket], seconds: float) -> None:
    """Each peer is hung up on, with or without an answer that says so."""
    end = time.monotonic() + seconds
    for number, link in enumerate(peers):
        link.settimeout(max(0.1, end - time.monotonic()))
        try:
            reply = read_reply(link, "PUT")
        except TimeoutError:
            expect(False, f"peer {number} is still held after {seconds:.0f} s")
            raise
        told = {400: "RequestTimeout", 408: "", 0: ""}
        expect(told.get(reply.status) == reply.code, f"peer {number}: {reply.status} {reply.code}")
        link.close()
