"""A volume on two disks: one is pulled under load, an empty one is filled, the other one is pulled.

The disks are file systems in image files. Pulling one is the kernel's own switch for it: from then
on everything that touches it answers EIO, as a disk does that fell off its bus.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..job import Job
from ..ledger import Ledger
from ..node import Node
from ..payload import KIB, MIB, body
from ..report import Failure, equal, expect

# Bytes of a disk: room for what the load writes on a machine that is fast.
DISK_BYTES = 3 << 30
# Sizes that the load writes: inline, packed with others, streamed, more than one extent.
SIZES = (2 * KIB, 100 * KIB, MIB, 9 * MIB)
# How long a change of the mirror may take to show, in seconds; nothing is concluded from less.
SHOWS_SECONDS_MAX = 60.0
# Objects written in one stretch of load.
STRETCH = 60

# FS_IOC_SHUTDOWN without a last flush of the journal (linux/fs.h).
SHUTDOWN = (
    "import fcntl,os,struct,sys;"
    "fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))"
)


def privileged(*words: str) -> None:
    """Runs a command as root."""
    command = list(words) if os.geteuid() == 0 else ["sudo", "-n", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)}: {done.returncode}: {done.stderr.strip()}")


class Disk:
    """One file system that can be pulled."""

    def __init__(self, job: Job, name: str) -> None:
        self.image = job.path(f"{name}.img")
        self.mountpoint = job.path(f"{name}/x").parent
        self.folder = self.mountpoint / "kluis"
        self.is_mounted = False
        self.renew()

    def renew(self) -> None:
        """Puts an empty disk in its place."""
        self.unmount()
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as image:
            image.truncate(DISK_BYTES)
        privileged("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()
        privileged("mkdir", "-m", "700", str(self.folder))
        privileged("chown", f"{os.geteuid()}:{os.getegid()}", str(self.folder))

    def mount(self) -> None:
        privileged("mount", "-o", "loop", str(self.image), str(self.mountpoint))
        self.is_mounted = True

    def unmount(self) -> None:
        if self.is_mounted:
            privileged("umount", "-l", str(self.mountpoint))
            self.is_mounted = False

    def pull(self) -> None:
        privileged(sys.executable, "-c", SHUTDOWN, str(self.mountpoint))


class Load:
    """Clients that write and read until told to stop, and remember what was acknowledged."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self.node = node
        self.tenant = ledger.tenant
        self.stored: dict[str, int] = {}
        self.errors: list[str] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        self.stopping.clear()
        self.threads = [
            threading.Thread(target=self.work, args=(number, len(self.stored)), daemon=True)
            for number in range(4)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, number: int, begun: int) -> None:
        ledger = Ledger(self.node, self.tenant)
        count = 0
        while not self.stopping.is_set():
            count += 1
            size = SIZES[count % len(SIZES)]
            name = f"{begun}-{number}-{count}"
            try:
                ledger.put("mirror", name, body(size, name))
                with self.lock:
                    self.stored[name] = size
                if ledger.get("mirror", name) != body(size, name):
                    raise Failure(f"{name} reads as something else")
            except Exception as error:
                with self.lock:
                    self.errors.append(f"{name}: {error}")
                return

    def go_on(self) -> None:
        """Waits until as much was written again as a stretch holds."""
        want = len(self.stored) + STRETCH
        until(lambda: len(self.stored) >= want or bool(self.errors), "the load goes on")
        equal(self.errors, [], "errors that clients saw")

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def check(self) -> None:
        """Everything acknowledged reads."""
        ledger = Ledger(self.node, self.tenant)
        for name, size in self.stored.items():
            expect(ledger.get("mirror", name) == body(size, name), f"{name} of {size} bytes")


def until(condition: object, what: str, seconds: float = SHOWS_SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise Failure(f"never came: {what}")
        time.sleep(0.05)


def configure(job: Job, name: str, paths: list[Path]) -> str:
    listed = ", ".join(f'"{path}"' for path in paths)
    file = job.path(name)
    file.write_text(f"[[volumes]]\npaths = [{listed}]\n")
    return str(file)


def health(node: Node) -> dict[str, object]:
    return json.loads(node.plain_get("/health/ready")[1])


def states(node: Node) -> list[str]:
    done = node.command("volume", "list", "--data-dir", str(node.data), "--json")
    told = json.loads(done.stdout)
    equal(done.returncode, 1 if told["degraded"] else 0, "status of `kluis volume list`")
    equal(health(node)["degraded"], told["degraded"], "what health says")
    return [member["state"] for member in told["members"]]


def refused(node: Node, text: str) -> None:
    """A start that must not come about, and says why."""
    try:
        node.start()
    except Failure:
        expect(text in node.tail(), f"`{text}` is not in:\n{node.tail()}")
        return
    node.kill()
    raise Failure("the node started")


def run(job: Job) -> None:
    disks = [Disk(job, "one"), Disk(job, "two")]
    try:
        exercise(job, disks)
    finally:
        for node in job.nodes:
            node.kill()
        for disk in disks:
            disk.unmount()


def exercise(job: Job, disks: list[Disk]) -> None:
    one, two = disks
    paths = [disk.folder for disk in disks]
    node = job.node(
        KLUIS_CONFIG=configure(job, "kluis.toml", paths),
        KLUIS_SEGMENT_BYTES=str(16 * MIB), KLUIS_RESERVE_BYTES=str(64 * MIB),
    )
    with job.report.case("two directories make a mirror"):
        node.start()
        equal(states(node), ["current", "current"], "members")
    ledger = Ledger(node, node.create_tenant("mirror"))
    ledger.create_bucket("mirror")
    load = Load(node, ledger)
    load.start()
    with job.report.case("load"):
        load.go_on()
    pulled_and_filled(job, node, disks, load)
    load.stop()
    with job.report.case("no client saw an error"):
        equal(load.errors, [], "errors")
    with job.report.case("every object reads from the disk that was filled"):
        load.check()
    restarts(job, node, disks, load)
    one.unmount()
    two.unmount()


def pulled_and_filled(job: Job, node: Node, disks: list[Disk], load: Load) -> None:
    one, two = disks
    with job.report.case("a disk is pulled under load, and the load goes on"):
        two.pull()
        until(lambda: health(node)["degraded"], "the node notices")
        load.go_on()
        equal(states(node), ["current", "out"], "members")
        samples = node.metrics()
        equal(samples["kluis_degraded"], 1.0, "kluis_degraded")
        equal(samples['kluis_mirror_members{state="out"}'], 1.0, "members that are out")
        equal(samples["kluis_fenced"], 0.0, "kluis_fenced")
    with job.report.case("what is not a directory of this mirror does not take its place"):
        two.renew()
        (two.folder / "SUPER.a").write_bytes(bytes(4096))
        done = node.command(
            "volume", "replace", str(two.folder), "--data-dir", str(node.data))
        equal(done.returncode, 1, done.stderr)
        expect("not empty" in done.stderr, done.stderr)
        (two.folder / "SUPER.a").unlink()
    with job.report.case("an empty disk is filled while the load goes on"):
        rebuild = node.ask("volume", "replace", str(two.folder))
        equal((rebuild["state"], rebuild["why"]), ("done", None), "the rebuild")
        equal(rebuild["bytes_done"], rebuild["bytes"], "bytes copied")
        expect(rebuild["files"] > 3, f"{rebuild['files']} files")
        equal(node.ask("volume", "rebuild-status")["state"], "done", "its status")
        load.go_on()
        equal(states(node), ["current", "current"], "members")
    with job.report.case("the other disk is pulled, and the load goes on"):
        one.pull()
        until(lambda: health(node)["degraded"], "the node notices")
        load.go_on()
        equal(states(node), ["out", "current"], "members")


def restarts(job: Job, node: Node, disks: list[Disk], load: Load) -> None:
    one, two = disks
    with job.report.case("a start with the current disk alone, after SIGKILL"):
        node.kill()
        one.unmount()
        node.start()
        equal(states(node), ["out", "current"], "members")
        load.check()
        node.stop()
    with job.report.case("a start with the stale disk alone is refused"):
        one.mount()
        two.unmount()
        refused(node, "current copy is missing")
    with job.report.case("disks in each other's place are refused"):
        two.mount()
        exchanged = configure(job, "exchanged.toml", [two.folder, one.folder])
        straight, node.settings["KLUIS_CONFIG"] = node.settings["KLUIS_CONFIG"], exchanged
        refused(node, "exchange the two paths")
        node.settings["KLUIS_CONFIG"] = straight
    with job.report.case("a stale disk is not taken back by itself, and filled when told to"):
        node.start()
        equal(states(node), ["out", "current"], "members")
        equal(node.ask("volume", "replace", str(one.folder))["state"], "done", "the rebuild")
        equal(states(node), ["current", "current"], "members")
        load.check()
    with job.report.case("check is clean"):
        node.stop()
        done = node.check()
        equal(done.returncode, 0, f"status: {done.stdout[-300:]}{done.stderr[-300:]}")
