"""What a suite is given: the program, a folder that is thrown away, and where to report."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from .node import Node
from .report import Report


class Job:
    """One run of one suite. Owns its temporary folder and every node that was started in it."""

    def __init__(self, args: argparse.Namespace, report: Report) -> None:
        self.binary: Path = args.binary.resolve()
        self.js: Path = args.js.resolve()
        self.rust: Path = args.rust.resolve()
        self.rows: Path = args.rows.resolve()
        self.full: bool = args.full
        self.match: str = args.match
        self.report = report
        self.folder = Path(tempfile.mkdtemp(prefix="kluis-test-"))
        self.nodes: list[Node] = []

    def node(self, name: str = "node", **settings: str) -> Node:
        """A node of its own, not yet started. `settings` are environment variables."""
        node = Node(self.binary, self.folder / name, settings)
        self.nodes.append(node)
        return node

    def path(self, name: str) -> Path:
        """A path in the temporary folder; its parent exists."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        if self.report.failures:
            self.report.note(f"  the folder of the run is kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
