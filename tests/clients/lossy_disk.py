"""The program of tests/faultfs from outside: a mounted disk whose power can be cut.

Mounting needs /dev/fuse, and root or fusermount3. Docs: docs/TESTING.md, "The real program under faults".
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .report import Failure

# What the disk says it holds. Only written pages take memory, so it may be larger than the machine.
DISK_BYTES = 64 << 30
DEVICE_BYTES = 16 << 30
READY_SECONDS_MAX = 20.0
# How a file system is made on a device.
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-K"),
}
LOSSES = ("drop-all", "random-subset", "torn")


class LossyDisk:
    """A disk of its own process. `mount` is its root; a clean shutdown of it does not exist."""

    def __init__(self, program: Path, folder: Path, size: int = DISK_BYTES) -> None:
        if not Path("/dev/fuse").exists():
            raise Failure("no /dev/fuse: the kernel has no FUSE, or the container hides it")
        self.mount = folder / "mount"
        self.mount.mkdir(parents=True)
        path = folder / "control"
        self.process = subprocess.Popen(
            [str(program), "serve", "--mount", str(self.mount), "--control", str(path),
             "--bytes", str(size)],
            stdin=subprocess.DEVNULL,
        )
        begun = time.monotonic()
        self.link = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.link.connect(str(path))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() - begun > READY_SECONDS_MAX:
                    raise Failure("faultfs does not run") from None
                time.sleep(0.005)
        self.lines = self.link.makefile("rw")
        self.tell("mount")

    def tell(self, line: str) -> dict[str, Any]:
        """One line of the control protocol and its answer."""
        self.lines.write(line + "\n")
        self.lines.flush()
        answer = json.loads(self.lines.readline() or '{"error": "the control socket closed"}')
        if "error" in answer:
            raise Failure(f"faultfs: {line}: {answer['error']}")
        return answer

    @property
    def has_power(self) -> bool:
        return bool(self.tell("state")["power"])

    def power_on(self, loss: str, seed: int) -> dict[str, int]:
        """One of the disks that the last cut may have left, mounted; says what was lost."""
        self.tell("unmount")
        toll = self.tell(f"power-on {loss} {seed}")
        self.tell("mount")
        return toll

    def remount(self) -> None:
        """Mounts again; nothing is lost, and no handle survives."""
        self.tell("unmount")
        self.tell("mount")

    def close(self) -> None:
        if self.process.poll() is None:
            try:
                self.tell("quit")
                self.process.wait(READY_SECONDS_MAX)
            except (Failure, OSError, ValueError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.link.close()
        if is_mounted(self.mount):
            # It died before it was told to quit.
            subprocess.run(["umount", "-l", str(self.mount)], check=False)


class LossyDevice(LossyDisk):
    """A block device whose power can be cut, with ext4 or XFS on it: what the kernel's own file
    system makes of lost and torn sectors. `mount` is its root. Needs root, for loop devices."""

    def __init__(self, program: Path, folder: Path, kind: str, size: int = DEVICE_BYTES) -> None:
        if os.geteuid() != 0:
            raise Failure("loop devices need root")
        super().__init__(program, folder)
        self.kind = kind
        self.device = ""
        self.folder = self.mount
        self.image = self.folder / "device"
        with self.image.open("wb") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        directory = os.open(self.folder, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        call(*MAKE[kind], str(self.image))
        self.mount = folder / kind
        self.mount.mkdir()
        self.attach()

    def attach(self) -> None:
        """Replays the file system's journal, checks that nothing else is wrong, and mounts it."""
        self.device = call("losetup", "-f", "--show", "--direct-io=on", str(self.image)).strip()
        if self.kind == "xfs":
            # Its log is replayed by mounting alone.
            call("mount", self.device, str(self.mount))
            self.unmount()
            call("xfs_repair", "-n", self.device)
        else:
            # 1 says that the journal, or what it left open, was dealt with.
            call("e2fsck", "-p", self.device, right=(0, 1))
            call("e2fsck", "-f", "-n", self.device)
        call("mount", self.device, str(self.mount))

    def unmount(self) -> None:
        """A ring's files are closed some time after its process has ended, so this is tried again."""
        until = time.monotonic() + READY_SECONDS_MAX
        while is_mounted(self.mount):
            right = (0, 32) if time.monotonic() < until else (0,)
            call("umount", str(self.mount), right=right)

    def detach(self) -> None:
        if self.device:
            self.unmount()
            call("losetup", "-d", self.device)
            self.device = ""

    def power_on(self, loss: str, seed: int) -> dict[str, int]:
        self.detach()
        toll = super().power_on(loss, seed)
        self.attach()
        return toll

    def close(self) -> None:
        try:
            self.detach()
        finally:
            self.mount = self.folder
            super().close()


def is_mounted(path: Path) -> bool:
    """As the kernel says: a file system without a device cannot be asked itself."""
    return f" {path} " in Path("/proc/self/mounts").read_text()


def call(*words: str, right: tuple[int, ...] = (0,)) -> str:
    """An administrator's command; anything but a right status is a failure."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(words, capture_output=True, text=True, check=False,
                          env=os.environ | {"PATH": path})
    if done.returncode not in right:
        text = (done.stdout + done.stderr).strip()[-500:]
        raise Failure(f"{' '.join(words)}: {done.returncode}: {text}")
    return done.stdout
