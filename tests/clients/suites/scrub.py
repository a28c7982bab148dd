"""Scrub: bytes that change under a running node are found by it, listed, and forgotten in time.

Rot is found by a pass, without a key; tampering by the read that stumbles over it. Both are on one
list, which `kluis scrub status`, the health of the node and `kluis check` show, until the objects
are overwritten or deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from decryptor.rows import Rows

from .. import disk
from ..disk import Extent
from ..job import Job
from ..ledger import Ledger
from ..node import Node
from ..payload import KIB, MIB, body
from ..report import equal, expect
from .moved import streams_of
from .tamper import flip_chunk, row, tampered

BUCKET = "flips"
SEGMENT = 16 * MIB
SIZE = 140 * KIB
ROTTEN, TAMPERED, WHOLE = "rotten", "tampered with", "whole"
SECONDS_MAX = 60.0


def run(job: Job) -> None:
    node = job.node(KLUIS_SEGMENT_BYTES=str(SEGMENT))
    node.start()
    tenant = node.create_tenant("scrub")
    ledger = Ledger(node, tenant)
    ledger.create_bucket(BUCKET)
    for name in (ROTTEN, TAMPERED, WHOLE):
        ledger.put(BUCKET, name, body(SIZE, name))
    for nth in range(2 * SEGMENT // (4 * MIB)):
        ledger.put(BUCKET, f"more {nth}", body(4 * MIB, f"more {nth}"))
    # Which record is whose is in rows that only a stopped node lets go of.
    node.stop()
    held = Rows(disk.dump(job.rows, node.data))
    records = {extent.stream: extent for extent in disk.extents(node.data)}
    places = {
        name: records[streams_of(row(held, tenant, name, "D")[1])[0]] for name in (ROTTEN, TAMPERED)
    }
    node.start()
    ledger = Ledger(node, tenant)
    with job.report.case("a pass over a clean node finds nothing"):
        told = scrub(node, "now", 0)
        equal(told["damage"], [], "damage")
        expect(told["segments_done"] > 0 and told["ended_ms"] > 0, f"{told}")
    change(places[ROTTEN], flip_chunk)
    change(places[TAMPERED], tampered(flip_chunk))
    with job.report.case("rot is found by a pass, tampering is not: that takes a key"):
        told = scrub(node, "now", 1)
        equal(kinds(told), {places[ROTTEN].stream.hex(): "rot"}, "damage")
        equal(told["damage"][0]["tenant_id"], tenant.tenant_id, "whose it is")
    with job.report.case("health and metrics tell of it, and the node stays ready"):
        status, text = node.plain_get("/health/ready")
        equal((status, json.loads(text)["damaged"]), (200, 1), "health")
        equal(node.metrics()["kluis_damaged_extents"], 1.0, "damaged extents")
    with job.report.case("a GET of either is an error, of another the right bytes"):
        for name in (ROTTEN, TAMPERED):
            expect(not is_whole(ledger, name), f"{name}: served")
        equal(ledger.get(BUCKET, WHOLE), body(SIZE, WHOLE), "bytes")
    both = {places[ROTTEN].stream.hex(): "rot", places[TAMPERED].stream.hex(): "tampered"}
    with job.report.case("what the GET found tampered with is on the list, told from rot"):
        wait_for(node, both)
    with job.report.case("a pass, which has no keys, does not clear it; nor does a SIGKILL"):
        equal(kinds(scrub(node, "now", 1)), both, "damage")
        node.kill()
        node.start()
        wait_for(node, both)
    found_by_check(job, node)
    ledger = Ledger(node, tenant)
    with job.report.case("overwritten and deleted, both leave the list"):
        ledger.put(BUCKET, ROTTEN, body(SIZE, "anew"))
        ledger.delete(BUCKET, TAMPERED)
        wait_for(node, {})
        equal(kinds(scrub(node, "now", 0)), {}, "damage")
        equal(ledger.get(BUCKET, ROTTEN), body(SIZE, "anew"), "bytes")
    with job.report.case("no panic"):
        expect("panicked at" not in node.log.read_text(errors="replace"), "a thread panicked")


def change(extent: Extent, what: Callable[[Extent], None]) -> None:
    """Changes a record below the running node, down to the device."""
    what(extent)
    handle = os.open(extent.path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def scrub(node: Node, verb: str, status: int | None) -> dict[str, Any]:
    """`kluis scrub` on the running node."""
    done = node.command("scrub", verb, "--data-dir", str(node.data), "--json")
    if status is not None:
        equal(done.returncode, status, f"status of scrub {verb}: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def kinds(told: dict[str, Any]) -> dict[str, str]:
    return {one["stream"]: one["kind"] for one in told["damage"]}


def wait_for(node: Node, wanted: dict[str, str]) -> None:
    begun = time.monotonic()
    while (found := kinds(scrub(node, "status", None))) != wanted:
        expect(time.monotonic() - begun < SECONDS_MAX, f"damage: {found}, want {wanted}")
        time.sleep(0.1)


def is_whole(ledger: Ledger, name: str) -> bool:
    """Whether a GET gave a whole body: the first chunks may be right, and then it is cut."""
    return ledger.ask("GET", BUCKET, name).status == 200


def found_by_check(job: Job, node: Node) -> None:
    node.stop()
    with job.report.case("check, without a passphrase, lists both and says what was known"):
        done = node.command("check", str(node.data), "--json")
        equal(done.returncode, 1, f"status: {done.stdout[-300:]}{done.stderr[-300:]}")
        told = [one["message"] for one in json.loads(done.stdout)["findings"]]
        equal(len(told), 2, f"findings: {told}")
        expect(any("known as rot" in text for text in told), f"{told}")
        expect(any("known as tampered" in text for text in told), f"{told}")
    node.start()
