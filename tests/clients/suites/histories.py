"""Linearizability of single objects over kills: clients write and read few objects under conditions.

A seed is one history: eight clients, 200 calls each, kills of the node in between. It is checked by
`faultfs check-history`, which knows nothing of S3.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from typing import Any

from ..job import Job
from ..ledger import Ledger
from ..load import begin_life
from ..node import Node, Tenant
from ..payload import KIB
from ..report import Failure, equal, expect
from ..tally import Tally
from ..wire import Reply

ROW = "histories"
HISTORIES_PUSH = 2
HISTORIES_FULL = 50
CLIENTS = 8
CALLS = 200
KILLS = 2
# Few enough that clients meet on them.
OBJECTS = 4
BUCKET = "load"
# Inline, and in a segment.
SIZES = (100, 20 * KIB)
VERBS = ("get", "put", "put-if-absent", "put-if-match", "delete")
WEIGHTS = (35, 15, 20, 20, 10)
SETTINGS = {"KLUIS_SEGMENT_BYTES": str(16 << 20), "KLUIS_ACCESS_LOG": "false"}
BACKENDS = ("ring", "threads")
# How long a history may take before its clients are stuck.
SECONDS_MAX = 300.0


def run(job: Job) -> None:
    count = HISTORIES_FULL if job.full else HISTORIES_PUSH
    tally = Tally(ROW, 0)
    row(job, tally, count)
    with job.report.case(f"{tally.sequences} histories are linearizable"):
        equal(tally.violations, [], "violations")
        equal(tally.sequences, count, "histories")
    with job.report.case("conditions failed and calls stayed without an answer"):
        expect(tally.states["refused"] > 0 and tally.states["maybe"] > 0, tally.line())
    job.report.note(f"  {tally.line()}")


def row(job: Job, tally: Tally, count: int) -> None:
    for number in range(tally.seed, tally.seed + count):
        History(job, tally, number).record()
        if tally.violations:
            break


class History:
    """One history, on a node of its own."""

    def __init__(self, job: Job, tally: Tally, seed: int) -> None:
        self.job = job
        self.tally = tally
        self.seed = seed
        backend = BACKENDS[seed % len(BACKENDS)]
        self.node: Node = job.node(f"history-{seed}", KLUIS_IO_BACKEND=backend, **SETTINGS)
        self.tenant: Tenant = begin_life(self.node)
        self.calls: list[dict[str, Any]] = []
        # When the node was last known to be dead, and the calls that wait for it to be.
        self.died = 0
        self.open: list[dict[str, Any]] = []
        self.seen: dict[str, tuple[int, str]] = {}
        self.done = 0
        self.values = 0
        self.lock = threading.Lock()
        self.up = threading.Event()
        self.up.set()
        self.counts: Counter[str] = Counter()

    def record(self) -> None:
        threads = [threading.Thread(target=self.client, args=(number,), daemon=True)
                   for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        dice = random.Random(f"{ROW}/{self.seed}")
        total = CLIENTS * CALLS
        for point in sorted(dice.randrange(total // 10, total * 9 // 10) for _ in range(KILLS)):
            self.wait_for(point)
            self.kill()
        for thread in threads:
            thread.join(SECONDS_MAX)
            if thread.is_alive():
                raise Failure(f"a client is stuck:\n{self.node.tail()}")
        self.node.kill()
        self.settle_open()
        self.judge()
        self.job.drop(self.node)

    def wait_for(self, calls: int) -> None:
        until = time.monotonic() + SECONDS_MAX
        while self.done < calls:
            if time.monotonic() > until:
                raise Failure(f"{self.done} calls after {SECONDS_MAX} s")
            time.sleep(0.002)

    def kill(self) -> None:
        self.up.clear()
        self.node.kill()
        self.settle_open()
        self.tally.faults["SIGKILL"] += 1
        self.node.start()
        self.up.set()

    def settle_open(self) -> None:
        """The node is dead: what had no answer took effect by now, or never will."""
        with self.lock:
            self.died = time.monotonic_ns()
            for call in self.open:
                call["returned"] = self.died
            self.calls += self.open
            self.open = []

    def client(self, number: int) -> None:
        dice = random.Random(f"{ROW}/{self.seed}/{number}")
        for _ in range(CALLS):
            self.up.wait(SECONDS_MAX)
            self.call(dice, number)
            self.done += 1

    def call(self, dice: random.Random, client: int) -> None:
        """One call, recorded with its answer; one that was never sent leaves no trace."""
        verb = dice.choices(VERBS, WEIGHTS)[0]
        name = f"object-{dice.randrange(OBJECTS)}"
        call: dict[str, Any] = {
            "object_key": name, "client": client, "verb": verb, "value": None, "expected": None,
        }
        headers: dict[str, str] = {}
        body = b""
        if verb == "put-if-match":
            if name not in self.seen:
                return
            call["expected"], headers["If-Match"] = self.seen[name]
        if verb == "put-if-absent":
            headers["If-None-Match"] = "*"
        if verb.startswith("put"):
            call["value"] = self.next_value()
            body = f"{call['value']} ".encode().ljust(dice.choice(SIZES), b".")
        method = {"get": "GET", "delete": "DELETE"}.get(verb, "PUT")
        ledger = Ledger(self.node, self.tenant)
        call["called"] = time.monotonic_ns()
        try:
            reply = ledger.ask(method, BUCKET, name, headers=headers, body=body)
        except ConnectionRefusedError:
            return
        except OSError:
            reply = Reply(0)
        call["returned"] = time.monotonic_ns()
        self.note(call, reply)

    def next_value(self) -> int:
        with self.lock:
            self.values += 1
            return self.values

    def note(self, call: dict[str, Any], reply: Reply) -> None:
        verb = call["verb"]
        right = {"get": (200, 404), "delete": (204,)}.get(verb, (200,))
        refused = {"put-if-absent": (412,), "put-if-match": (412, 404)}.get(verb, ())
        if reply.status in right:
            call["answer"] = "done"
            if verb == "get" and reply.status == 200:
                call["value"] = int(reply.body.split(b" ", 1)[0])
            if call["value"] is not None:
                self.seen[call["object_key"]] = (call["value"], reply.headers["etag"])
        elif reply.status in refused:
            call["answer"] = "refused"
        elif reply.status == 409:
            # Another write came between: it says that it took no effect, and no more.
            self.counts["status 409"] += 1
            return
        elif verb == "get":
            return
        elif reply.status == 0 or reply.status >= 500:
            call["answer"] = "maybe"
        else:
            self.tally.wrong(self.seed, f"{verb}: {reply.status} {reply.code}")
            return
        self.counts[call["answer"]] += 1
        with self.lock:
            if call["answer"] != "maybe":
                self.calls.append(call)
            elif call["called"] < self.died:
                call["returned"] = self.died
                self.calls.append(call)
            else:
                self.open.append(call)

    def judge(self) -> None:
        path = self.job.path(f"history-{self.seed}.jsonl")
        path.write_text("".join(json.dumps(call) + "\n" for call in self.calls))
        done = subprocess.run([self.job.faultfs, "check-history", path], capture_output=True,
                              text=True, check=False)
        self.tally.sequences += 1
        self.tally.states.update(self.counts)
        self.tally.states["calls"] += len(self.calls)
        if done.returncode not in (0, 1) or not done.stdout:
            self.tally.wrong(self.seed, f"the checker: {done.stderr[-500:]}")
            return
        for violation in json.loads(done.stdout)["violations"]:
            self.tally.wrong(self.seed, f"not linearizable: {json.dumps(violation)}")
        if not self.tally.violations:
            path.unlink()
