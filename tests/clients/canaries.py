"""Known secrets, every form in which one could stand somewhere, and where it was found."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .node import Node
from .report import Failure

# Read in pieces of this size, which overlap by the longest form of a canary.
PIECE = 16 << 20
OVERLAP = 4096


@dataclass
class Canaries:
    """Secrets by name. Searching tells names and places, never the secret."""

    forms: dict[bytes, str] = field(default_factory=dict)

    def plant(self, name: str, secret: bytes, *, encoded: bool = True) -> bytes:
        """Adds a secret; `encoded` adds hex and base64 at every alignment too."""
        self.forms[secret] = name
        if encoded:
            self.forms[secret.hex().encode()] = f"{name}, in hex"
            self.forms[secret.hex().upper().encode()] = f"{name}, in hex"
            for shift in range(3):
                # Without the characters that neighbours decide.
                text = base64.b64encode(bytes(shift) + secret)
                start = -(-shift * 4 // 3)
                self.forms[text[start + (shift > 0) : -4]] = f"{name}, in base64"
        return secret

    def find(self, data: bytes) -> set[str]:
        return {name for form, name in self.forms.items() if form in data}

    def count(self, data: bytes, counts: dict[str, int]) -> None:
        for form, name in self.forms.items():
            hits = data.count(form)
            if hits:
                counts[name] = counts.get(name, 0) + hits

    def in_files(self, paths: Iterable[Path]) -> list[str]:
        """'NAME in FILE' for every hit; sparse files are read whole."""
        found: set[str] = set()
        for path in paths:
            if not path.is_file() or path.is_symlink():
                continue
            with path.open("rb") as file:
                tail = b""
                while piece := file.read(PIECE):
                    found |= {f"{name} in {path.name}" for name in self.find(tail + piece)}
                    tail = piece[-OVERLAP:]
        return sorted(found)


@dataclass(frozen=True)
class Scan:
    """What a look into a running process gave."""

    read: int
    unreadable: list[str]
    # By kind of region, then by canary: how often.
    hits: dict[str, dict[str, int]]

    def of(self, name: str) -> int:
        return sum(counts.get(name, 0) for counts in self.hits.values())


def scan_memory(node: Node, canaries: Canaries) -> Scan:
    """Reads every mapped page of the node's process. Needs root where the node is not dumpable."""
    hits: dict[str, dict[str, int]] = {}
    unreadable: list[str] = []
    read = 0
    maps = Path(f"/proc/{node.pid}/maps").read_text()
    with Path(f"/proc/{node.pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)", line)
            if found is None:
                raise Failure(f"a line of maps: {line}")
            start, end = int(found[1], 16), int(found[2], 16)
            name = found[4] or "anonymous"
            if found[3][0] != "r" or name in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            kind = "a mapped file" if name.startswith("/") else name
            try:
                data = pages(memory, start, end)
            except OSError:
                unreadable.append(name)
                continue
            read += len(data)
            canaries.count(data, hits.setdefault(kind, {}))
    return Scan(read, unreadable, {kind: counts for kind, counts in hits.items() if counts})


def pages(memory: object, start: int, end: int) -> bytes:
    memory.seek(start)  # type: ignore[attr-defined]
    data = b""
    while len(data) < end - start:
        piece = memory.read(end - start - len(data))  # type: ignore[attr-defined]
        if not piece:
            break
        data += piece
    return data
