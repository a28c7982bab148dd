"""AWS Signature Version 4, written from its description and from nothing of the node.

Everything that a signer decides is a field, so that a test can get each of them wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field, replace
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True)
class Signer:
    """Who signs, for where, and when."""

    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"
    service: str = "s3"
    terminator: str = "aws4_request"
    skew_seconds: float = 0.0
    # Lower-case names that stay out of SignedHeaders.
    unsigned: frozenset[str] = field(default_factory=frozenset)

    def but(self, **changes: object) -> Signer:
        return replace(self, **changes)  # type: ignore[arg-type]

    def now(self) -> str:
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + self.skew_seconds))

    def scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self.region}/{self.service}/{self.terminator}"

    def key(self, stamp: str) -> bytes:
        secret = ("AWS4" + self.secret_access_key).encode()
        for part in (stamp[:8], self.region, self.service, self.terminator):
            secret = mac(secret, part)
        return secret

    def sign(self, stamp: str, text: str) -> str:
        return mac(self.key(stamp), text).hex()

    def headers(
        self, method: str, path: str, query: str, headers: dict[str, str], payload: str
    ) -> dict[str, str]:
        """`headers` with the date, the payload's hash and the signature added."""
        stamp = self.now()
        full = {"x-amz-date": stamp, "x-amz-content-sha256": payload} | headers
        names = self.signed_names(full)
        request = canonical(method, path, query, full, names, payload)
        signature = self.sign(stamp, to_sign(stamp, self.scope(stamp), request))
        full["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key_id}/{self.scope(stamp)}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return full

    def presign(
        self, method: str, path: str, query: str, headers: dict[str, str], expires: str
    ) -> str:
        """The query of a presigned URL for the given query and headers."""
        stamp = self.now()
        names = self.signed_names(headers)
        own = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key_id}/{self.scope(stamp)}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": expires,
            "X-Amz-SignedHeaders": ";".join(names),
        }
        full = "&".join(filter(None, [query, *(f"{k}={encode(v)}" for k, v in own.items())]))
        request = canonical(method, path, full, headers, names, UNSIGNED)
        signature = self.sign(stamp, to_sign(stamp, self.scope(stamp), request))
        return f"{full}&X-Amz-Signature={signature}"

    def signed_names(self, headers: dict[str, str]) -> list[str]:
        names = {name.lower() for name in headers}
        chosen = {n for n in names if n == "host" or n.startswith(("x-amz-", "content-"))}
        return sorted(chosen - self.unsigned - {"content-length"})


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def encode(text: str, safe: str = "-._~") -> str:
    return quote(text, safe=safe)


def encode_path(object_key: str) -> str:
    return quote(object_key, safe="-._~/")


def canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs))


def canonical(
    method: str, path: str, query: str, headers: dict[str, str], names: list[str], payload: str
) -> str:
    """The canonical request. `path` and `query` are as they go over the wire."""
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    lines = "".join(f"{name}:{lower[name]}\n" for name in names)
    return "\n".join([method, path, canonical_query(query), lines, ";".join(names), payload])


def to_sign(stamp: str, scope: str, request: str) -> str:
    digest = hashlib.sha256(request.encode()).hexdigest()
    return f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"


@dataclass
class ChunkSigner:
    """The chain of chunk signatures of one aws-chunked body."""

    signer: Signer
    stamp: str
    previous: str

    def chunk(self, data: bytes) -> str:
        text = "\n".join([
            "AWS4-HMAC-SHA256-PAYLOAD", self.stamp, self.signer.scope(self.stamp), self.previous,
            EMPTY_SHA256, hashlib.sha256(data).hexdigest(),
        ])
        self.previous = self.signer.sign(self.stamp, text)
        return self.previous

    def trailer(self, lines: bytes) -> str:
        text = "\n".join([
            "AWS4-HMAC-SHA256-TRAILER", self.stamp, self.signer.scope(self.stamp), self.previous,
            hashlib.sha256(lines).hexdigest(),
        ])
        self.previous = self.signer.sign(self.stamp, text)
        return self.previous
