"""A stopped node's data directory from below: rows by the program `rows`, extents by their bytes.

Written from docs/FORMAT.md; it shares no code with the node.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .report import Failure

HEADER_BYTES = 128
CRC_AT = 110
CHUNK_BYTES = 65_536 + 16


def copy(data: Path, target: Path) -> Path:
    """A copy of a data directory; holes stay holes."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["cp", "-a", "--sparse=always", str(data), str(target)], check=False)
    if done.returncode != 0:
        raise Failure(f"cp ended with {done.returncode}")
    return target


def dump(program: Path, data: Path) -> str:
    """Every row, a line each: family, row key, value."""
    return call(program, "dump", data, "")


def edit(program: Path, data: Path, changes: list[tuple[str, bytes, bytes | None]]) -> None:
    """Writes rows as (family, row key, value); none as value deletes."""
    lines = [
        f"{family}\t{row_key.hex()}\t{'-' if value is None else value.hex()}\n"
        for family, row_key, value in changes
    ]
    call(program, "edit", data, "".join(lines))


def call(program: Path, verb: str, data: Path, text: str) -> str:
    done = subprocess.run(
        [str(program), verb, str(data / "meta")], input=text, capture_output=True, text=True,
        timeout=300, check=False,
    )
    if done.returncode != 0:
        raise Failure(f"rows {verb} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flips one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


@dataclass(frozen=True)
class Extent:
    """A record in a segment file."""

    path: Path
    offset: int
    namespace: bytes
    stream: bytes
    number: int
    chunks: int
    stored_bytes: int

    def chunk_at(self, index: int) -> tuple[int, int]:
        """Where a chunk lies in the file, and its length with its tag."""
        start = HEADER_BYTES + 4 * self.chunks + index * CHUNK_BYTES
        end = min(start + CHUNK_BYTES, self.stored_bytes)
        return self.offset + start, end - start

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.stored_bytes)

    def write(self, record: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.offset)
            file.write(record)

    def fix_checksums(self) -> None:
        """Makes header and table agree with the chunks, as somebody who tampers would."""
        record = bytearray(self.read())
        for index in range(self.chunks):
            start, length = self.chunk_at(index)
            start -= self.offset
            crc = crc32c(bytes(record[start : start + length]))
            struct.pack_into("<I", record, HEADER_BYTES + 4 * index, crc)
        record[CRC_AT : CRC_AT + 4] = bytes(4)
        crc = crc32c(bytes(record[: HEADER_BYTES + 4 * self.chunks]))
        struct.pack_into("<I", record, CRC_AT, crc)
        self.write(bytes(record))


def extents(data: Path) -> Iterator[Extent]:
    """Every record of every segment that is not a filler."""
    for path in sorted((data / "seg").glob("*.seg")):
        whole = path.read_bytes()
        at = whole.find(b"XTNT")
        while at >= 0:
            if at % 8 == 0 and whole[at + 5] == 0:
                number, chunks = struct.unpack_from("<IH", whole, at + 76)
                stored = struct.unpack_from("<I", whole, at + 90)[0]
                namespace, stream = whole[at + 44 : at + 60], whole[at + 60 : at + 76]
                yield Extent(path, at, namespace, stream, number, chunks, stored)
            at = whole.find(b"XTNT", at + 4)


def make_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = make_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
