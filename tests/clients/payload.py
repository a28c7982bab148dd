"""Bodies that a seed determines, so that a failure can be repeated."""

from __future__ import annotations

import random
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB

# The edges of a chunk (64 KiB), of an inline body (4 KiB) and of a part (5 MiB).
SIZES = {
    "0 B": 0,
    "1 B": 1,
    "4 KiB": 4 * KIB,
    "64 KiB - 1": 64 * KIB - 1,
    "64 KiB": 64 * KIB,
    "64 KiB + 1": 64 * KIB + 1,
    "5 MiB + 1": 5 * MIB + 1,
}
# Three parts whatever a client's part size is: 8 MiB for most, 10 MiB for pyarrow.
THREE_PARTS = 20 * MIB + 1


def body(size: int, seed: str) -> bytes:
    return random.Random(f"{seed}/{size}").randbytes(size)


def write(path: Path, size: int, seed: str) -> Path:
    path.write_bytes(body(size, seed))
    return path
