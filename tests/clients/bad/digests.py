"""Digests that do not fit the bytes, are no digests, or come in kinds that nobody knows."""

from __future__ import annotations

import base64
import hashlib
from functools import partial

from ..payload import MIB
from ..wire import Reply
from . import BUCKET, Bench, Case

DATA = b"other"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def put(bench: Bench, **headers: str) -> Reply:
    """A PUT with headers given as `content_md5=…`."""
    return bench.put({name.replace("_", "-"): value for name, value in headers.items()}, DATA)


def wrong_hash(bench: Bench, size: int) -> Reply:
    other = hashlib.sha256(b"something else").hexdigest()
    return bench.wire.request("PUT", f"/{BUCKET}/small", "", None, b"x" * size, payload=other)


def part(bench: Bench, headers: dict[str, str]) -> Reply:
    query = f"partNumber=1&uploadId={bench.upload}"
    return bench.ask("PUT", f"/{BUCKET}/open", query, headers, b"x" * (5 * MIB))


def delete_objects(bench: Bench, headers: dict[str, str]) -> Reply:
    body = b"<Delete><Object><Key>small</Key></Object></Delete>"
    return bench.ask("POST", f"/{BUCKET}", "delete=", headers, body)


def checksum(name: str, width: int, bench: Bench) -> Reply:
    """A PUT with a checksum of so many bytes, which is not that of the body."""
    return bench.put({f"x-amz-checksum-{name}": b64(b"\1" * width)}, DATA)


WIDTHS = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}

CASES = [
    Case("Content-MD5 of other bytes", 400, "BadDigest",
         lambda b: put(b, content_md5=b64(hashlib.md5(b"").digest()))),
    Case("Content-MD5 too short", 400, "InvalidDigest", lambda b: put(b, content_md5=b64(b"x"))),
    Case("Content-MD5 not base64", 400, "InvalidDigest", lambda b: put(b, content_md5="!" * 24)),
    Case("Content-MD5 empty", 400, "InvalidDigest", lambda b: put(b, content_md5="")),
    *(Case(f"{name} of other bytes", 400, "BadDigest", partial(checksum, name, width))
      for name, width in WIDTHS.items()),
    *(Case(f"{name} of a wrong length", 400, "InvalidRequest", partial(checksum, name, width + 1))
      for name, width in WIDTHS.items()),
    Case("a checksum that is not base64", 400, "InvalidRequest",
         lambda b: put(b, x_amz_checksum_crc32="!!!!")),
    Case("two checksums", 400, "InvalidRequest",
         lambda b: put(b, x_amz_checksum_crc32="AQEBAQ==", x_amz_checksum_crc32c="AQEBAQ==")),
    Case("an unknown checksum algorithm named", 400, "InvalidRequest",
         lambda b: put(b, x_amz_sdk_checksum_algorithm="MD4")),
    Case("a payload hash of other bytes", 400, "XAmzContentSHA256Mismatch",
         lambda b: wrong_hash(b, 5)),
    Case("a payload hash of other bytes, large", 400, "XAmzContentSHA256Mismatch",
         lambda b: wrong_hash(b, 5 * MIB)),
    Case("a payload hash that is none", 400, "InvalidArgument",
         lambda b: b.wire.request("PUT", f"/{BUCKET}/small", "", None, DATA, payload="nothing")),
    Case("a part with the MD5 of other bytes", 400, "BadDigest",
         lambda b: part(b, {"content-md5": b64(hashlib.md5(b"").digest())})),
    Case("a part with the CRC32 of other bytes", 400, "BadDigest",
         lambda b: part(b, {"x-amz-checksum-crc32": b64(b"\1" * 4)})),
    Case("DeleteObjects without a digest", 400, "InvalidRequest", lambda b: delete_objects(b, {})),
    Case("DeleteObjects with the MD5 of other bytes", 400, "BadDigest",
         lambda b: delete_objects(b, {"content-md5": b64(hashlib.md5(b"").digest())})),
    Case("an upload with an unknown checksum algorithm", 400, "InvalidRequest",
         lambda b: b.ask(
             "POST", f"/{BUCKET}/new", "uploads=", {"x-amz-checksum-algorithm": "MD4"})),
    Case("an upload with a checksum type that does not go with it", 400, "InvalidRequest",
         lambda b: b.ask("POST", f"/{BUCKET}/new", "uploads=", {
             "x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "FULL_OBJECT"})),
]
