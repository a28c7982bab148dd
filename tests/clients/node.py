"""A node as a process: start, wait until it is ready, stop, kill, and look at it from outside."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import Failure

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Tenant:
    """What `kluis tenant create` says: who the tenant is, and its first access key."""

    tenant_id: str
    account_id: str
    name: str
    access_key_id: str
    secret_access_key: str


def tenant_of(told: dict[str, str]) -> Tenant:
    return Tenant(**{field: told[field] for field in Tenant.__dataclass_fields__})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Node:
    """One node and its data directory. The log of every start is appended to one file."""

    def __init__(
        self, binary: Path, folder: Path, settings: dict[str, str], data: Path | None = None
    ) -> None:
        self.binary = binary
        self.data = data or folder / "data"
        self.log = folder / "node.log"
        self.settings = settings
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if data is None:
            self.data.mkdir(mode=0o700)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self.process is None:
            raise Failure("the node does not run")
        return self.process.pid

    def launch(self) -> None:
        """Starts the node and does not wait for it."""
        self.port = free_port()
        command = [
            str(self.binary), "serve", str(self.data), "--dev",
            "--listen", f"127.0.0.1:{self.port}",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=os.environ | self.settings,
            )

    def start(self) -> float:
        """Starts the node and waits until it is ready; returns how long that took, in seconds."""
        begun = time.monotonic()
        self.launch()
        process = self.process
        while process is not None and not self.is_ready():
            if process.poll() is not None:
                raise Failure(f"the node ended with {process.returncode}:\n{self.tail()}")
            if time.monotonic() - begun > READY_SECONDS_MAX:
                raise Failure(f"not ready after {READY_SECONDS_MAX} s:\n{self.tail()}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def is_ready(self) -> bool:
        try:
            return self.plain_get("/health/ready")[0] == 200
        except OSError:
            return False

    def plain_get(self, path: str) -> tuple[int, str]:
        """A GET without credentials, for health and metrics."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            link.request("GET", path)
            reply = link.getresponse()
            return reply.status, reply.read().decode()
        finally:
            link.close()

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels as printed."""
        status, text = self.plain_get("/metrics")
        if status != 200:
            raise Failure(f"/metrics answers {status}")
        samples = re.findall(r"^([a-zA-Z_:][^ ]*(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in samples}

    def stop(self) -> float:
        """SIGTERM; the node must end by itself with status 0. Returns how long that took."""
        if self.process is None:
            return 0.0
        process, self.process = self.process, None
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            why = f"still runs {STOP_SECONDS_MAX} s after SIGTERM:\n{self.tail()}"
            raise Failure(why) from None
        if status != 0:
            raise Failure(f"ended with {status} after SIGTERM:\n{self.tail()}")
        return time.monotonic() - begun

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def command(self, *words: str, seconds: float = 600.0) -> subprocess.CompletedProcess[str]:
        """Runs the program with other arguments; the caller looks at the status."""
        return subprocess.run(
            [str(self.binary), *words], capture_output=True, text=True, timeout=seconds,
            env=os.environ | self.settings, stdin=subprocess.DEVNULL, check=False,
        )

    def ask(self, *words: str) -> Any:
        """Runs an operator's command against this node and reads its JSON."""
        done = self.command(*words, "--data-dir", str(self.data), "--json")
        if done.returncode != 0:
            raise Failure(f"kluis {' '.join(words)}: {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def create_tenant(self, name: str) -> Tenant:
        return tenant_of(self.ask("tenant", "create", name))

    def create_tenants(self, count: int, prefix: str) -> list[Tenant]:
        """Many tenants by one command, named by the prefix and a number."""
        told = self.ask("tenant", "create", "--count", str(count), "--prefix", prefix)
        return [tenant_of(one) for one in told["tenants"]]

    def check(self) -> subprocess.CompletedProcess[str]:
        """`kluis check` on the stopped node's data directory, tags included: 0 says clean."""
        return self.command("check", str(self.data), "--dev", seconds=3600)

    def memory_bytes(self) -> int:
        """Resident memory, as /proc says."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        if found is None:
            raise Failure("no VmRSS in /proc")
        return int(found.group(1)) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def disk_bytes(self) -> int:
        """Blocks that the data directory takes, not the length of sparse files."""
        files = (path for path in self.data.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.lstat().st_blocks * 512 for path in files)
