"""Requests that must be refused: what is sent, and the exact status and code that must come back.

Codes are those of AWS ("Error responses", Amazon S3 API reference) where it documents one. A code
of "" means an answer below S3: HTTP itself was broken, and the answer has no error document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ledger import Ledger
from ..payload import MIB, body
from ..sigv4 import Signer, encode
from ..wire import Reply, Wire, element, elements

BUCKET = "kept"


@dataclass(frozen=True)
class Case:
    """One request and the answer that it must get."""

    name: str
    status: int
    code: str
    send: Callable[[Bench], Reply]


class Bench:
    """What the cases aim at: a bucket with three objects and an open upload of three parts."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.wire: Wire = ledger.wire
        self.signer: Signer = ledger.wire.signer
        ledger.create_bucket(BUCKET)
        ledger.put(BUCKET, "small", b"small" * 20)
        ledger.put(BUCKET, "large", body(200_000, "bad input"))
        ledger.multipart(BUCKET, "parts", [body(5 * MIB, "one"), body(77, "two")])
        self.etags: list[str] = []
        begun = ledger.must("POST", BUCKET, "open", "uploads=")
        self.upload = encode(element(begun.body, "UploadId"))
        for number, size in ((1, 5 * MIB), (2, 5 * MIB), (3, 10), (4, 10)):
            self.etags.append(self.part(number, body(size, f"part {number}")).headers["etag"])

    def part(self, number: int, data: bytes) -> Reply:
        query = f"partNumber={number}&uploadId={self.upload}"
        return self.ledger.must("PUT", BUCKET, "open", query, None, data)

    def state(self) -> tuple[str, list[str], list[str], list[str]]:
        """Everything that a request could have changed."""
        uploads = self.ledger.must("GET", BUCKET, "", "uploads=").body
        parts = self.ledger.must("GET", BUCKET, "open", f"uploadId={self.upload}").body
        buckets = self.ledger.must("GET", "").body
        return (
            self.ledger.digest(BUCKET),
            elements(uploads, "UploadId"),
            elements(parts, "ETag"),
            elements(buckets, "Name"),
        )

    def put(self, headers: dict[str, str] | None = None, data: bytes = b"other") -> Reply:
        """A PUT over the object `small`."""
        return self.wire.request("PUT", f"/{BUCKET}/small", "", headers, data)

    def get(self, path: str, query: str = "", headers: dict[str, str] | None = None) -> Reply:
        return self.wire.request("GET", path, query, headers)

    def ask(
        self, method: str, path: str, query: str = "", headers: dict[str, str] | None = None,
        data: bytes = b"",
    ) -> Reply:
        return self.wire.request(method, path, query, headers, data)
