"""New machine: scripts/serve ends in a running node, and the lines it prints work when pasted."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from ..job import Job
from ..node import free_port
from ..report import Failure, equal, expect

SCRIPT = Path(__file__).parents[3] / "scripts" / "serve"
BEGIN, END = "# --- paste", "# --- end"
SECONDS_MAX = 120.0


def run(job: Job) -> None:
    folder = job.path("served/x").parent / "data"
    for attempt in ("first", "second"):
        port = free_port()
        script = Script(folder, port)
        try:
            lines = ""
            with job.report.case(f"{attempt} run: it prints its lines"):
                lines = script.lines()
            with job.report.case(f"{attempt} run: the lines work when pasted"):
                expect(bool(lines), "there are none")
                pasted(lines)
            with job.report.case(f"{attempt} run: Ctrl-C ends it, and nothing is left behind"):
                script.interrupt()
        finally:
            script.end()
    with job.report.case("a port that is taken is told in one line"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            script = Script(folder, int(taken.getsockname()[1]))
            equal(script.process.wait(SECONDS_MAX), 1, "status")
            expect("already listens" in script.told(), "it does not say why")


class Script:
    """scripts/serve in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.log = folder.parent / f"serve-{port}.log"
        self.process = subprocess.Popen(
            [str(SCRIPT), str(folder), "--port", str(port)],
            stdout=subprocess.PIPE, stderr=self.log.open("wb"), stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def lines(self) -> str:
        """What stands between the marks, once it is there."""
        assert self.process.stdout is not None
        out, end = b"", time.monotonic() + SECONDS_MAX
        while END.encode() not in out:
            ready, _, _ = select.select([self.process.stdout], [], [], 1.0)
            if ready:
                piece = os.read(self.process.stdout.fileno(), 65_536)
                if not piece:
                    raise Failure(f"it ended: {self.told()}")
                out += piece
            elif time.monotonic() > end:
                raise Failure(f"no lines after {SECONDS_MAX:.0f} s: {self.told()}")
        return out.decode().split(BEGIN, 1)[1].split("\n", 1)[1].split(END, 1)[0]

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        equal(self.process.wait(60), 0, f"status after Ctrl-C: {self.told()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except ConnectionRefusedError:
            return
        raise Failure("the node still listens")

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


def pasted(lines: str) -> None:
    """Pastes into a shell that stops at the first line that fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_"))}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"], input=lines, capture_output=True, text=True, env=clean,
        timeout=SECONDS_MAX, check=False,
    )
    equal(done.returncode, 0, f"status:\n{done.stdout[-800:]}\n{done.stderr[-800:]}")
    for wanted in ("aws-cli.txt", "hello from boto3", "boto3.txt", "rclone.txt"):
        told = done.stdout[-800:]
        expect(wanted in done.stdout, f"{wanted!r} is not in what they printed: {told}")
