"""Clients that work on a node that will fail, and the record of what it acknowledged.

The record lies outside the node. An object key belongs to one client, so its state is known exactly:
one state after an answer, a set of two or more after none. A state is the hash of a body, or ABSENT.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .key_load import KeyCalls, KeyLoad
from .ledger import Ledger
from .node import Node, Tenant
from .payload import KIB, MIB
from .report import Failure
from .sigv4 import encode
from .wire import Reply, element

BUCKET = "load"
ABSENT = "absent"
CLIENTS = 4
KEYS = 40
# A body may be: inline, packed with others, streamed in one extent, more than one.
SIZES = ((45, 1, 4 * KIB), (40, 4 * KIB, 200 * KIB), (13, 256 * KIB, 900 * KIB), (2, 4 * MIB, 5 * MIB))
PART_BYTES = 5 * MIB
VERBS = ("put", "delete", "get", "copy", "multipart", "two parts")
WEIGHTS = (55, 13, 14, 12, 5, 1)


def state_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:20]


class Load:
    """The clients and their record, over any number of lives of the node."""

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self.rounds = 0
        self.known: dict[str, set[str]] = {f"object-{n:02}": {ABSENT} for n in range(KEYS)}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.keys = KeyLoad()
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def begin(self, node: Node, tenant: Tenant) -> None:
        """Starts the clients; they go on until `end` or until the node is dead."""
        self.rounds += 1
        self.stopping.clear()
        self.threads = [
            threading.Thread(target=self.client, args=(node, tenant, number), daemon=True)
            for number in range(CLIENTS)
        ]
        owner = threading.Thread(target=self.owner, args=(node, tenant), daemon=True)
        self.threads.append(owner)
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def client(self, node: Node, tenant: Tenant, number: int) -> None:
        dice = random.Random(f"{self.seed}/{self.rounds}/{number}")
        ledger = Ledger(node, tenant)
        own = [name for at, name in enumerate(self.known) if at % CLIENTS == number]
        try:
            while not self.stopping.is_set():
                self.step(ledger, dice, own)
        except ConnectionRefusedError:
            # Nobody listens: the node is dead, and the call was never sent.
            return

    def owner(self, node: Node, tenant: Tenant) -> None:
        """The client that works on keys."""
        dice = random.Random(f"{self.seed}/{self.rounds}/owner")
        calls = KeyCalls(node, tenant)
        try:
            while not self.stopping.is_set():
                self.keys.step(calls, dice)
        except ConnectionRefusedError:
            return

    def step(self, ledger: Ledger, dice: random.Random, own: list[str]) -> None:
        """One call of one client on an object key of its own."""
        verb = dice.choices(VERBS, WEIGHTS)[0]
        name = dice.choice(own)
        if verb == "get":
            self.read(name, answer(ledger, "GET", name))
        elif verb == "delete":
            self.note(name, ABSENT, answer(ledger, "DELETE", name), (204,))
        elif verb == "copy":
            self.copy(ledger, name, dice.choice(own))
        elif verb == "put":
            body = some_body(dice)
            self.note(name, state_of(body), answer(ledger, "PUT", name, body=body), (200,))
        else:
            parts = [some_body(dice)]
            if verb == "two parts":
                parts.insert(0, dice.randbytes(PART_BYTES))
            self.multipart(ledger, name, parts)
        self.counts[verb] += 1

    def copy(self, ledger: Ledger, source: str, target: str) -> None:
        if source == target or len(self.known[source]) > 1 or ABSENT in self.known[source]:
            return
        (state,) = self.known[source]
        headers = {"x-amz-copy-source": f"/{BUCKET}/{source}"}
        self.note(target, state, answer(ledger, "PUT", target, headers=headers), (200,))

    def multipart(self, ledger: Ledger, name: str, parts: list[bytes]) -> None:
        begun = answer(ledger, "POST", name, "uploads=")
        upload = encode(element(begun.body, "UploadId"))
        if begun.status != 200:
            return
        lines = []
        for number, part in enumerate(parts, 1):
            query = f"partNumber={number}&uploadId={upload}"
            put = answer(ledger, "PUT", name, query, body=part)
            if put.status != 200:
                return
            etag = put.headers["etag"]
            lines.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        text = f"<CompleteMultipartUpload>{''.join(lines)}</CompleteMultipartUpload>"
        done = answer(ledger, "POST", name, f"uploadId={upload}", body=text.encode())
        if done.status == 200 and done.code:
            # An error under a 200: whether it took effect is open.
            done = Reply(500)
        self.note(name, state_of(b"".join(parts)), done, (200,))

    def note(self, name: str, state: str, reply: Reply, right: tuple[int, ...]) -> None:
        """A change was answered, or not."""
        if reply.status in right:
            self.known[name] = {state}
            self.counts["acknowledged"] += 1
        elif reply.status == 0 or reply.status >= 500:
            self.known[name] = self.known[name] | {state}
            self.counts["unanswered" if reply.status == 0 else f"status {reply.status}"] += 1
        else:
            self.wrong.append(f"{name}: a change was answered with {reply.status} {reply.code}")

    def read(self, name: str, reply: Reply) -> str | None:
        """Judges what a GET brought: one of the states that are possible; gives it."""
        if reply.status == 200:
            found = state_of(reply.body)
        elif reply.status == 404:
            found = ABSENT
        else:
            return None
        if found in self.known[name]:
            return found
        self.wrong.append(
            f"{name}: reads as {found} ({reply.status}, {len(reply.body)} bytes), "
            f"may be {sorted(self.known[name])}"
        )
        return None

    def verify(self, node: Node, tenant: Tenant, settle: bool) -> None:
        """Reads every object after a restart. With `settle`, what was read is what it is now."""
        ledger = Ledger(node, tenant)
        with ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(lambda name: answer(ledger, "GET", name), self.known))
        sizes = {}
        for name, reply in zip(list(self.known), replies, strict=True):
            found = self.read(name, reply)
            if found is None and reply.status not in (200, 404):
                self.wrong.append(f"{name}: GET answers {reply.status} {reply.code}")
            if len(self.known[name]) > 1:
                self.counts["open before a restart"] += 1
            if reply.status == 200:
                sizes[name] = len(reply.body)
            if settle and found is not None:
                self.known[name] = {found}
        self.keys.verify(KeyCalls(node, tenant), settle)
        listed = {name: size for name, size, _ in ledger.list(BUCKET)}
        if listed != sizes:
            self.wrong.append(f"the list differs from what reads: {set(listed) ^ set(sizes)}")

    def take_wrong(self) -> list[str]:
        wrong = self.wrong + self.keys.wrong
        self.wrong, self.keys.wrong = [], []
        return wrong

    def totals(self) -> Counter[str]:
        return self.counts + self.keys.counts


def some_body(dice: random.Random) -> bytes:
    _, least, most = dice.choices(SIZES, [it[0] for it in SIZES])[0]
    return dice.randbytes(dice.randint(least, most))


def answer(
    ledger: Ledger, method: str, name: str, query: str = "",
    headers: dict[str, str] | None = None, body: bytes = b"",
) -> Reply:
    """A call on a node that may be dead: status 0 where there was no answer."""
    try:
        return ledger.ask(method, BUCKET, name, query, headers, body)
    except ConnectionRefusedError:
        raise
    except OSError:
        return Reply(0)


def begin_life(node: Node) -> Tenant:
    """Starts a new node and makes the tenant and the bucket that the load works in."""
    node.start()
    tenant = node.create_tenant("load")
    Ledger(node, tenant).create_bucket(BUCKET)
    return tenant


def restart(node: Node) -> str:
    """Starts a node that was killed; empty, or why it does not start."""
    try:
        node.start()
    except Failure as why:
        node.kill()
        return str(why)
    return ""
