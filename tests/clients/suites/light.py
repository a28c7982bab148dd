"""Light when empty: starts in under a second, takes little disk, stops cleanly, says what it is."""

from __future__ import annotations

import json
import socket
import threading
import time

from ..job import Job
from ..ledger import Ledger
from ..node import Node
from ..payload import MIB, body
from ..report import Failure, equal, expect
from ..sigv4 import UNSIGNED
from ..wire import head, read_reply

START_SECONDS_MAX = 1.0
DISK_BYTES_MAX = 256 * MIB
STOP_SECONDS_MAX = 35.0


def run(job: Job) -> None:
    node = job.node()
    starts = [node.start()]
    job.report.figure("disk of a new node", node.disk_bytes() / MIB, "MiB", DISK_BYTES_MAX / MIB)
    job.report.figure("memory of a new node", node.memory_bytes() / MIB, "MiB")
    tenant = node.create_tenant("light")
    speaks(job, node)
    drains(job, node, Ledger(node, tenant))
    for _ in range(3):
        starts.append(node.start())
        node.stop()
    job.report.figure("first start", starts[0], "s", START_SECONDS_MAX)
    job.report.figure("slowest restart", max(starts[1:]), "s", START_SECONDS_MAX)
    refuses(job, node)
    prints(job, node)


def speaks(job: Job, node: Node) -> None:
    with job.report.case("health and metrics answer without credentials"):
        equal(node.plain_get("/health/live")[0], 200, "/health/live")
        status, text = node.plain_get("/health/ready")
        equal(status, 200, "/health/ready")
        expect("dev" in text.lower(), f"/health/ready does not tell of --dev: {text}")
        expect(len(node.metrics()) > 20, "fewer than 20 samples in /metrics")
    with job.report.case("the log says that the passphrase lies beside the data"):
        expect("--dev" in node.log.read_text(), "no warning about --dev in the log")
    with job.report.case("the admin socket belongs to the operator alone"):
        mode = (node.data / "admin.sock").stat().st_mode & 0o777
        expect(mode & 0o077 == 0, f"mode {mode:o}")


def drains(job: Job, node: Node, ledger: Ledger) -> None:
    """A request that runs at SIGTERM is answered; one that comes later is not accepted."""
    ledger.create_bucket("drain")
    replies: list[int] = []
    data = body(4 * MIB, "drain")

    def slow() -> None:
        replies.append(slow_put(ledger, data))

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.5)
    with job.report.case("SIGTERM: what runs is finished, then the node ends with 0"):
        job.report.figure("stop with a request running", node.stop(), "s", STOP_SECONDS_MAX)
        thread.join(60)
        equal(replies, [200], "status of the PUT that ran")
        try:
            socket.create_connection(("127.0.0.1", node.port), timeout=2).close()
        except ConnectionRefusedError:
            pass
        else:
            raise Failure("the port still accepts connections")
    with job.report.case("what was answered before the stop is there after it"):
        node.start()
        ledger.wire.port = node.port
        expect(ledger.get("drain", "slow") == data, "stored ≠ sent")
        node.stop()


def slow_put(ledger: Ledger, data: bytes) -> int:
    """A PUT whose body takes two seconds to send."""
    wire = ledger.wire
    given = {"Host": wire.host, "Content-Length": str(len(data))}
    full = wire.signer.headers("PUT", "/drain/slow", "", given, UNSIGNED)
    with socket.create_connection(("127.0.0.1", wire.port), timeout=60) as link:
        link.sendall(head("PUT", "/drain/slow", "", full))
        step = len(data) // 20
        for at in range(0, len(data), step):
            link.sendall(data[at : at + step])
            time.sleep(0.1)
        return read_reply(link, "PUT").status


def refuses(job: Job, node: Node) -> None:
    with job.report.case("a second node on the same directory is refused"):
        node.start()
        words = ("serve", str(node.data), "--dev", "--listen", "127.0.0.1:0")
        second = node.command(*words, seconds=20)
        expect(second.returncode != 0, "it started")
        expect("panicked" not in second.stderr, second.stderr[-500:])
        node.stop()
    with job.report.case("an unknown field in the configuration is refused by name"):
        config = job.path("unknown.toml")
        config.write_text("no_such_field = 1\n")
        done = node.command("serve", str(node.data), "--dev", "--config", str(config), seconds=20)
        expect(done.returncode != 0 and "no_such_field" in done.stderr, done.stderr[-500:])
    with job.report.case("without --dev and without a passphrase a new node does not start"):
        done = node.command("serve", str(job.path("fresh/x").parent), seconds=20)
        expect(done.returncode != 0 and "passphrase" in done.stderr.lower(), done.stderr[-500:])


def prints(job: Job, node: Node) -> None:
    with job.report.case("the configuration that is printed is one that is read"):
        printed = node.command("config", "--print")
        equal(printed.returncode, 0, f"status of config --print: {printed.stderr}")
        config = job.path("printed.toml")
        config.write_text(printed.stdout)
        node.settings["KLUIS_CONFIG"] = str(config)
        node.start()
        node.stop()
        del node.settings["KLUIS_CONFIG"]
    with job.report.case("check is clean on a data directory that was stopped cleanly"):
        done = node.check()
        equal(done.returncode, 0, f"status of check: {done.stdout[-500:]}{done.stderr[-500:]}")
    with job.report.case("help has examples"):
        for command in ("serve", "tenant create", "user create", "access-key create", "check"):
            done = node.command(*command.split(), "--help")
            told = f"{command}: {done.stdout[:300]}"
            expect(done.returncode == 0 and "xample" in done.stdout, told)
    with job.report.case("tenant list answers JSON"):
        node.start()
        told = node.ask("tenant", "list")
        expect("light" in json.dumps(told), f"{told}")
        node.stop()
