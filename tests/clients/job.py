"""What a suite is given: the program, a folder that is thrown away, and where to report."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from .lossy_disk import DISK_BYTES, LossyDevice, LossyDisk
from .node import Node
from .report import Report


class Job:
    """One run of one suite. Owns its temporary folder, every node and every disk made in it."""

    def __init__(self, args: argparse.Namespace, report: Report) -> None:
        self.binary: Path = args.binary.resolve()
        self.js: Path = args.js.resolve()
        self.rust: Path = args.rust.resolve()
        self.rows: Path = args.rows.resolve()
        self.fill: Path = args.rows.resolve().with_name("fill")
        self.faultfs: Path = args.faultfs.resolve()
        self.full: bool = args.full
        self.match: str = args.match
        self.report = report
        self.folder = Path(tempfile.mkdtemp(prefix="kluis-test-"))
        self.nodes: list[Node] = []
        self.disks: list[LossyDisk] = []
        self.made = 0

    def node(self, name: str = "node", **settings: str) -> Node:
        """A node of its own, not yet started. `settings` are environment variables."""
        node = Node(self.binary, self.folder / name, settings)
        self.nodes.append(node)
        return node

    def disk(self, size: int = DISK_BYTES) -> LossyDisk:
        """A disk of its own that loses what was not flushed, mounted."""
        self.made += 1
        disk = LossyDisk(self.faultfs, self.folder / f"disk-{self.made}", size)
        self.disks.append(disk)
        return disk

    def device(self, kind: str) -> LossyDevice:
        """A block device of its own that loses what was not flushed, with a file system, mounted."""
        self.made += 1
        device = LossyDevice(self.faultfs, self.folder / f"disk-{self.made}", kind)
        self.disks.append(device)
        return device

    def node_on(self, disk: LossyDisk, **settings: str) -> Node:
        """A node that makes its data directory on a lossy disk, not yet started."""
        folder = disk.mount.parent / "node"
        node = Node(self.binary, folder, settings, disk.mount / "data")
        self.nodes.append(node)
        return node

    def drop(self, node: Node, disk: LossyDisk | None = None) -> None:
        """Ends a node, and its disk, before the run does; its files are thrown away."""
        node.kill()
        self.nodes.remove(node)
        if disk is None:
            shutil.rmtree(node.data, ignore_errors=True)
        else:
            disk.close()
            self.disks.remove(disk)

    def path(self, name: str) -> Path:
        """A path in the temporary folder; its parent exists."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        for disk in self.disks:
            disk.close()
        if self.report.failures:
            self.report.note(f"  the folder of the run is kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
