"""Disable at once: 64 downloads, 16 uploads and lists are under way when DisableKey is called.

Readers are raw sockets. Half of them read slowly all the time, half have stopped, so that every
buffer on the way is full. When the call returns, each socket is asked how much its own kernel
holds (FIONREAD); whatever more can be read after that came after the return, and must be nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, refused
from ..payload import KIB, MIB, body
from ..report import equal, expect
from ..sigv4 import UNSIGNED
from ..wire import Reply, elements, head, read_reply

DOWNLOADS = 64
UPLOADS = 16
ROUNDS = 3
OBJECT = 24 * MIB
UPLOAD = 8 * MIB
SMALL = [f"small/{number}" for number in range(20)]
SIP = 16 * KIB
SIP_SECONDS = 0.02
WARM_SECONDS = 1.5
# The design's bound is 100 ms on a machine of its own; a shared one gets more.
CALL_SECONDS_MAX = 0.1
CALL_SECONDS_SHARED_MAX = 1.0
RESET_SECONDS_MAX = 10.0


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenant = node.create_tenant("disable")
    scene = Scene(job, node, tenant)
    for number in range(ROUNDS):
        scene.play(f"round {number + 1}")
    with job.report.case("the node stops by itself after all this"):
        node.stop()


@dataclass
class Download:
    """One raw GET; `got` counts body and header bytes that the program has read."""

    link: socket.socket
    reads: bool
    got: int = 0
    ended: str = ""
    # What it had read, and what its kernel held, when DisableKey returned.
    mark: int = 0
    held: int = 0

    def sip(self) -> None:
        """Reads a little without waiting."""
        try:
            data = self.link.recv(SIP)
            self.got += len(data)
            self.ended = self.ended or ("" if data else "closed")
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = "reset"

    def kernel(self) -> int:
        raw = fcntl.ioctl(self.link.fileno(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", raw)[0])

    def drain(self) -> None:
        """Reads to the end."""
        self.link.settimeout(RESET_SECONDS_MAX)
        while not self.ended:
            try:
                data = self.link.recv(1 << 20)
                self.got += len(data)
                if not data:
                    self.ended = "closed"
            except ConnectionResetError:
                self.ended = "reset"
            except TimeoutError:
                self.ended = "open"
        self.link.close()


@dataclass
class Background:
    """Threads that go on until told to stop, and what they saw go wrong."""

    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def start(self, work: Callable[[], None]) -> None:
        def loop() -> None:
            try:
                while not self.stop.is_set():
                    work()
            except Exception as error:
                self.faults.append(repr(error))

        thread = threading.Thread(target=loop, daemon=True)
        self.threads.append(thread)
        thread.start()

    def end(self) -> list[str]:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return self.faults


class Scene:
    """A bucket under a key, and everything that goes on in it."""

    def __init__(self, job: Job, node: Node, tenant: Tenant) -> None:
        self.job, self.report, self.node = job, job.report, node
        self.ledger = Ledger(node, tenant)
        self.owner = Owner(node, tenant, job.path("owner"))
        self.key = self.owner.create_key()
        self.other = self.owner.create_key()
        for bucket, key in (("scene", self.key), ("aside", self.other)):
            self.ledger.create_bucket(bucket)
            self.owner.use_by_default(bucket, key)
        self.big = body(OBJECT, "big")
        self.ledger.put("scene", "big", self.big)
        self.ledger.put("aside", "big", self.big)
        for name in SMALL:
            self.ledger.put("scene", name, name.encode())

    def request(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        wire = self.ledger.wire
        given = {"Host": wire.host} | headers
        digest = UNSIGNED if method == "PUT" else hashlib.sha256(b"").hexdigest()
        return head(method, path, "", wire.signer.headers(method, path, "", given, digest))

    def download(self, bucket: str, *, reads: bool) -> Download:
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        link.connect(("127.0.0.1", self.node.port))
        link.sendall(self.request("GET", f"/{bucket}/big", {}))
        link.setblocking(False)
        return Download(link, reads)

    def upload(self, number: int) -> socket.socket:
        """A PUT of which half was sent."""
        link = socket.create_connection(("127.0.0.1", self.node.port), timeout=60)
        headers = {"Content-Length": str(UPLOAD)}
        link.sendall(self.request("PUT", f"/scene/upload-{number}", headers))
        link.sendall(bytes(UPLOAD // 2))
        return link

    def list(self) -> None:
        reply = self.ledger.ask("GET", "scene", "", "list-type=2")
        names = elements(reply.body, "Key")
        if reply.status != 200 or not {"big", *SMALL} <= set(names):
            raise AssertionError(f"a list answers {reply.status}, {len(names)} names")

    def play(self, name: str) -> None:
        downloads = [self.download("scene", reads=number % 2 == 0) for number in range(DOWNLOADS)]
        aside = self.download("aside", reads=True)
        uploads = [self.upload(number) for number in range(UPLOADS)]
        lists, sips = Background(), Background()
        lists.start(self.list)
        still = threading.Lock()

        def sip() -> None:
            with still:
                for download in downloads:
                    if download.reads:
                        download.sip()
            time.sleep(SIP_SECONDS)

        sips.start(sip)
        time.sleep(WARM_SECONDS)
        begun = time.monotonic()
        self.owner.call("TrentService.DisableKey", {"KeyId": self.key})
        took = time.monotonic() - begun
        with still:
            for download in downloads:
                download.mark, download.held = download.got, download.kernel()
        time.sleep(0.5)
        faults = sips.end() + lists.end()
        self.judge(name, downloads, uploads, faults, took)
        with self.report.case(f"{name}: a download under another key goes on to its end"):
            # The node closes no connection that its client may use again.
            aside.link.settimeout(RESET_SECONDS_MAX)
            while aside.got < OBJECT and not aside.ended:
                aside.link.setblocking(True)
                aside.sip()
            expect(aside.got >= OBJECT, f"{aside.got} of {OBJECT} bytes, {aside.ended}")
            aside.link.close()
        self.after(name)

    def judge(
        self, name: str, downloads: list[Download], uploads: list[socket.socket],
        faults: list[str], took: float,
    ) -> None:
        before = sum(download.mark for download in downloads)
        bound = CALL_SECONDS_MAX if self.job.full else CALL_SECONDS_SHARED_MAX
        self.report.figure(f"{name}: DisableKey with {DOWNLOADS} downloads open, time of the call",
                           took * 1000, "ms", bound * 1000)
        after = 0
        late = []
        for number, download in enumerate(downloads):
            download.drain()
            came = download.got - download.mark
            after += max(0, came - download.held)
            if came > download.held or download.ended != "reset":
                late.append(f"{number}: {came} bytes, {download.held} held at the return, "
                            f"{download.ended}, {download.got} in all")
        with self.report.case(f"{name}: no byte came after the return, and every reader is reset"):
            expect(not late, "; ".join(late[:5]))
        self.report.figure(f"{name}: bytes received before the call returned", before, "B")
        self.report.figure(f"{name}: bytes received after the call returned", after, "B", 0)
        with self.report.case(f"{name}: the downloads had begun, and none had ended"):
            for download in downloads:
                expect(0 < download.got < OBJECT, f"{download.got} of {OBJECT} bytes")
        with self.report.case(f"{name}: every upload fails"):
            for number, link in enumerate(uploads):
                reply = finish(link)
                expect(reply.status != 200, f"upload {number} is stored")
                expect(reply.status == 0 or reply.code == "KMS.DisabledException",
                       f"upload {number} answers {reply.status} {reply.code}")
        with self.report.case(f"{name}: lists show every name all along"):
            equal(faults, [], "faults of the threads")

    def after(self, name: str) -> None:
        with self.report.case(f"{name}: nothing reads until the key is enabled, then all does"):
            refused("KMS.DisabledException", lambda: self.owner.get("scene", "big"))
            self.list()
            self.owner.kms.enable_key(KeyId=self.key)
            expect(self.owner.get("scene", "big") == self.big, "the object differs")
            names = [key for key, _, _ in self.ledger.list("scene")]
            equal(sorted(names), sorted(["big", *SMALL]), "what is stored")


def finish(link: socket.socket) -> Reply:
    """Sends the other half of an upload and reads the answer."""
    try:
        link.sendall(bytes(UPLOAD // 2))
    except (BrokenPipeError, ConnectionResetError):
        pass
    with link:
        return read_reply(link, "PUT")
