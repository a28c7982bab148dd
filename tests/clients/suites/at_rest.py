"""At rest: what tenants stored is in no file of the data directory and in no log line.

Markers go into bodies (inline, small, large, multipart, an unfinished part), user metadata, content
headers and tags. Then every file is searched: after a clean stop, and after SIGKILL, when the WAL
still holds what the tables do not. Object names are in clear in this format (docs/THREATS.md); that
the search finds one of those shows that it looks in the right places.
"""

from __future__ import annotations

import json
import mmap
import secrets
from pathlib import Path

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import KIB, MIB, body
from ..report import expect
from ..sigv4 import encode
from ..wire import element

SIZES = {"inline": 1 * KIB, "small": 30 * KIB, "chunks": 300 * KIB, "large": 9 * MIB}


class Markers:
    """Random words, each put in one place, so that a hit says where it leaked from."""

    def __init__(self) -> None:
        self.places: dict[bytes, str] = {}

    def new(self, place: str) -> str:
        word = f"marker{secrets.token_hex(12)}"
        self.places[word.encode()] = place
        return word

    def body(self, size: int, place: str) -> bytes:
        """Random bytes with a marker at the start, in the middle and at the end."""
        data = bytearray(body(size, place))
        for at in (0, size // 2, size - 40):
            word = self.new(f"{place}, at byte {at}").encode()
            data[at : at + len(word)] = word
        return bytes(data)


def run(job: Job) -> None:
    for ending in ("clean stop", "SIGKILL"):
        node = job.node(ending.replace(" ", "-"))
        node.start()
        tenant = node.create_tenant("at-rest")
        markers = Markers()
        name = f"objectname{secrets.token_hex(12)}"
        fill(Ledger(node, tenant), markers, name)
        node.stop() if ending == "clean stop" else node.kill()
        search(job, node, tenant, markers, name, ending)
        again(job, node, tenant, markers, ending)


def fill(ledger: Ledger, markers: Markers, name: str) -> None:
    ledger.create_bucket("rest")
    for place, size in SIZES.items():
        headers = {
            "x-amz-meta-secret": markers.new(f"user metadata of {place}"),
            "Cache-Control": markers.new(f"Cache-Control of {place}"),
            "Content-Type": f"text/{markers.new(f'Content-Type of {place}')}",
            "x-amz-tagging": f"{markers.new(f'tag of {place}')}={markers.new(f'tag of {place}')}",
        }
        ledger.put("rest", f"{name}/{place}", markers.body(size, place), headers)
    parts = [markers.body(5 * MIB, "a part"), markers.body(100 * KIB, "a last part")]
    meta = {"x-amz-meta-secret": markers.new("user metadata of an upload")}
    ledger.multipart("rest", f"{name}/parts", parts, meta)
    begun = ledger.must("POST", "rest", f"{name}/open", "uploads=", meta)
    query = f"partNumber=1&uploadId={encode(element(begun.body, 'UploadId'))}"
    ledger.must("PUT", "rest", f"{name}/open", query, None, markers.body(5 * MIB, "an open part"))
    copied = {"x-amz-copy-source": f"/rest/{encode(name)}/small"}
    ledger.must("PUT", "rest", f"{name}/copy", "", copied)
    # Requests that fail are logged with more care than those that do not.
    refused = ledger.ask("PUT", "rest", f"{name}/inline", "", {
        "x-amz-meta-secret": markers.new("metadata of a refused PUT"), "If-None-Match": "*",
    }, markers.body(1 * KIB, "a refused PUT"))
    expect(refused.status == 412, f"the PUT that was to be refused answers {refused.status}")


def search(
    job: Job, node: Node, tenant: Tenant, markers: Markers, name: str, ending: str
) -> None:
    files = [path for path in node.data.rglob("*") if path.is_file()]
    secret = tenant.secret_access_key.encode()
    searched, hits = 0, 0
    with job.report.case(f"{ending}: no marker in any file of the data directory or log"):
        found: list[str] = []
        for path in [*files, node.log]:
            data = content(path)
            searched += len(data)
            hits += name.encode() in data
            where = path.relative_to(job.folder)
            found += [f"{place} in {where}" for word, place in markers.places.items()
                      if word in data]
            found += [f"the secret access key in {where}"] * (secret in data)
        expect(not found, "; ".join(found[:20]))
    with job.report.case(f"{ending}: the search would have found a marker"):
        expect(hits > 0, f"not even the object name is in {len(files)} files, {searched} bytes")
        expect(searched > 10 * MIB, f"only {searched} bytes were searched")
    with job.report.case(f"{ending}: the log has lines, in JSON, with request ids"):
        lines = [line for line in node.log.read_text().splitlines() if line.startswith("{")]
        expect(any("request_id" in json.dumps(json.loads(line)) for line in lines),
               f"none of {len(lines)} lines has a request id")


def content(path: Path) -> bytes:
    """The bytes of a file; a large one is mapped, since a segment is mostly holes."""
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view[:]


def again(job: Job, node: Node, tenant: Tenant, markers: Markers, ending: str) -> None:
    """Everything is still there for its owner: it was stored, and not lost or hashed."""
    with job.report.case(f"{ending}: after a restart the owner reads every marker"):
        node.start()
        ledger = Ledger(node, tenant)
        told = b""
        for object_key, _, _ in ledger.list("rest"):
            reply = ledger.must("GET", "rest", object_key)
            told += reply.body + repr(reply.headers).encode()
            told += ledger.must("GET", "rest", object_key, "tagging=").body
        unread = [place for word, place in markers.places.items()
                  if word not in told and "refused" not in place and "open" not in place
                  and "upload" not in place]
        expect(not unread, f"not read back: {unread[:10]}")
        node.stop()
