"""Row keys and row values (docs/FORMAT.md, "Rows"), from what tests/rows prints."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .kluis_v1 import DoesNotOpen


class Reader:
    """A value, read from its front. All integers are big-endian."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self.what = what

    def take(self, length: int) -> bytes:
        piece = self.data[self.at : self.at + length]
        if len(piece) != length:
            raise DoesNotOpen(f"{self.what} is cut short")
        self.at += length
        return piece

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def long(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        return self.take(self.number(2)).decode()

    def version(self) -> None:
        if self.number(1) != 1:
            raise DoesNotOpen(f"{self.what} of another version")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


@dataclass(frozen=True)
class ObjectRow:
    version: bytes
    content: bytes
    size: int
    mode: bytes
    wrapped: bytes
    heading: bytes
    tags: bytes
    attributes: bytes

    @classmethod
    def decode(cls, data: bytes) -> ObjectRow:
        read = Reader(data, "an object row")
        read.version()
        read.number(1)
        version, content, size = read.take(16), read.take(16), read.number(8)
        read.number(8)
        mode = read.take(1)
        read.take(16)
        return cls(version, content, size, mode, read.long(), read.long(), read.long(), read.long())


@dataclass(frozen=True)
class ContentRow:
    chunk_shift: int
    inline: bool
    sequence: int
    commitment: bytes
    manifest: bytes

    @classmethod
    def decode(cls, data: bytes) -> ContentRow:
        read = Reader(data, "a content row")
        read.version()
        if read.number(1) != 1:
            raise DoesNotOpen("a content row of another suite")
        chunk_shift, inline, sequence = read.number(1), bool(read.number(1)), read.number(4)
        commitment = read.take(32)
        read.number(4)
        for _ in range(read.number(4)):
            read.take(20)
        return cls(chunk_shift, inline, sequence, commitment, read.long())


@dataclass(frozen=True)
class ManifestStream:
    stream: bytes
    size: int


def decode_manifest(data: bytes) -> tuple[int, list[ManifestStream]]:
    """The whole size, and the streams in order."""
    read = Reader(data, "a manifest")
    if read.take(4) != b"OM\x01\x01":
        raise DoesNotOpen("a manifest of another version")
    read.take(2)
    size = read.number(8)
    streams = []
    for _ in range(read.number(4)):
        streams.append(ManifestStream(read.take(16), read.number(8)))
        read.number(4)
    return size, streams


@dataclass(frozen=True)
class BucketKeyRow:
    tenant_key: bytes
    wrapped: bytes

    @classmethod
    def decode(cls, data: bytes) -> BucketKeyRow:
        read = Reader(data, "a bucket key row")
        version = read.number(1)
        if version not in (1, 2):
            raise DoesNotOpen("a bucket key row of another version")
        tenant_key = read.take(16)
        read.take(12 if version == 1 else 16)
        return cls(tenant_key, read.long())


@dataclass(frozen=True)
class Location:
    segment: int
    offset: int
    data_bytes: int

    @classmethod
    def decode(cls, data: bytes) -> Location:
        version, _, segment, _, offset, length = struct.unpack("<BBIQQI", data)
        if version != 1:
            raise DoesNotOpen("a location row of another version")
        return cls(segment, offset, length)


def decode_heading(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The caller's encryption context, and the headers."""
    read = Reader(data, "a heading")
    read.version()
    context = read.long()
    return context, {read.text(): read.long().decode() for _ in range(read.number(2))}


def decode_tags(data: bytes) -> dict[str, str]:
    read = Reader(data, "tags")
    read.version()
    return {read.text(): read.text() for _ in range(read.number(2))}


def encode_object_key(object_key: bytes) -> bytes:
    """0x00 as 01 01, 0x01 as 01 02, and 0x00 at the end."""
    return object_key.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01") + b"\0"


class Rows:
    """All rows of a data directory."""

    def __init__(self, dump: str) -> None:
        self.families: dict[bytes, str] = {}
        self.values: dict[bytes, bytes] = {}
        self.system: dict[bytes, bytes] = {}
        for line in dump.splitlines():
            family, row_key, value = line.split("\t")
            if family.startswith("ns"):
                self.families[bytes.fromhex(row_key)] = family
                self.values[bytes.fromhex(row_key)] = bytes.fromhex(value)
            elif family == "sys":
                self.system[bytes.fromhex(row_key)] = bytes.fromhex(value)

    def namespace(self, tenant: bytes) -> bytes:
        read = Reader(self.system[b"N" + tenant], "a namespace row")
        read.version()
        return read.take(16)

    def get(self, namespace: bytes, table: bytes, *parts: bytes) -> bytes:
        row_key = namespace + table + b"".join(parts)
        if row_key not in self.values:
            raise DoesNotOpen(f"no row {table.decode()} {b''.join(parts).hex()}")
        return self.values[row_key]
