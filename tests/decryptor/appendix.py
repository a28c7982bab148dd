"""The known answers of `kluis.v1` (docs/KEYS.md, "Known answers"), and what must not open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from .kluis_v1 import (
    KIND_BUCKET_KEY, KIND_DATA_KEY, Content, DoesNotOpen, Wrapped, encode_context, wrap,
)


def run_of(first: int, length: int) -> bytes:
    return bytes((first + i) % 256 for i in range(length))


TENANT, BUCKET, VERSION = run_of(0x10, 16), run_of(0x20, 16), run_of(0x30, 16)
CONTENT, STREAM = run_of(0x40, 16), run_of(0x50, 16)
TENANT_KEY, BUCKET_KEY, DATA_KEY = run_of(0x80, 32), run_of(0xA0, 32), run_of(0xC0, 32)
SCOPE = Content(DATA_KEY, TENANT, CONTENT, 16)
BODY = bytes(i % 251 for i in range(65_541))
SEALED_MANIFEST = SCOPE.seal_manifest(1, b"manifest")
DATA_CONTEXT = {
    "b": BUCKET, "c": CONTENT, "k": "dir/ключ".encode(), "t": TENANT, "v": VERSION, "x": b"\x02",
    "m": hashlib.sha256(SEALED_MANIFEST).digest(),
    "u": encode_context({"aws:s3:arn": b"arn:aws:s3:::b/dir"}),
}
BUCKET_CONTEXT = {"b": BUCKET, "n": b"\0\0\0\7", "p": b"data", "t": TENANT}
KIND_3 = wrap(
    3, BUCKET_KEY, run_of(1, 16), 7, DATA_CONTEXT, DATA_KEY, run_of(0xE0, 32), commit=False)
KIND_2 = wrap(
    2, TENANT_KEY, run_of(2, 16), 1, BUCKET_CONTEXT, BUCKET_KEY, run_of(0xE1, 32), commit=True)
STORED = SCOPE.stream(STREAM).seal(BODY)
CHUNK = 65_536 + 16

KNOWN: dict[str, tuple[bytes, str]] = {
    "commitment": (SCOPE.commitment(),
        "3d0577304c4ddcbb8e6e0854364a35e2e1b40a3a7f34c6d713ba321c4564771f"),
    "stream key": (SCOPE.stream(STREAM).secret,
        "b88d2619d7f685034a1092f50c796e21b95b3d00ce737b8a031b0427c4a72487"),
    "base nonce": (SCOPE.stream(STREAM).nonce, "dd2fb24816829c00a5834787"),
    "tag of an empty body": (SCOPE.stream(STREAM).seal(b""), "f01260f40479edcd37ab7c873c74a040"),
    "first tag": (STORED[CHUNK - 16 : CHUNK], "375af13d74722ab99dda0f32eff6c6ee"),
    "second chunk": (STORED[CHUNK:], "f646cbf720747c3b487bb2f1bcaf15d83f34e311d9"),
    "sealed manifest": (SEALED_MANIFEST, "51f9e7934af763f9cbebe28940eadcdf093f753cb0a99fbb"),
    "context digest": (hashlib.sha256(encode_context(DATA_CONTEXT)).digest(),
        "866ecdc761ea72b484e1f3443307830c3f68f92575bf3e98946b347f418b22dd"),
    "wrap of kind 3": (KIND_3,
        "010103000102030405060708090a0b0c0d0e0f1000000007"
        "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
        "57d85ab84d36edb6d8b89be253caf8593d1891d3d9d258d549049ebb089970c3"
        "8e0cacea118ed87d9b88975d586aa63f"),
    "wrap of kind 2": (KIND_2,
        "0101020102030405060708090a0b0c0d0e0f101100000001"
        "e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff00"
        "05e2e10a8807003b06337bbf10486b5fa15b87fd06842cee08da41203dc9f176"
        "8378c60f6e471ad5dfb66a528ba0ed33"
        "e5e8bc77a6d5d40ddb895ac374f105357b5a32f749892f208a4e5bf874a8043a"),
}


def reopened() -> bytes:
    """What was wrapped and encrypted, opened again."""
    bucket_key = Wrapped(KIND_2).open(KIND_BUCKET_KEY, TENANT_KEY, BUCKET_CONTEXT)
    data_key = Wrapped(KIND_3).open(KIND_DATA_KEY, bucket_key, DATA_CONTEXT)
    return Content(data_key, TENANT, CONTENT, 16).stream(STREAM).open(STORED, len(BODY))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def open_data_key(wrapped: bytes = KIND_3, secret: bytes = BUCKET_KEY, **changes: bytes) -> bytes:
    return Wrapped(wrapped).open(KIND_DATA_KEY, secret, DATA_CONTEXT | changes)


def open_stream(stored: bytes, length: int, stream: bytes = STREAM, **changes: bytes) -> bytes:
    scope = Content(
        DATA_KEY, changes.get("tenant", TENANT), changes.get("content", CONTENT), 16)
    return scope.stream(stream).open(stored, length)


def open_flipped(at: int) -> bytes:
    return open_data_key(flipped(KIND_3, at))


MUST_NOT_OPEN: dict[str, Callable[[], bytes]] = {
    "under another version": lambda: open_data_key(v=run_of(0x31, 16)),
    "under another bucket": lambda: open_data_key(b=run_of(0x21, 16)),
    "under another object key": lambda: open_data_key(k=b"dir/other"),
    "under another tenant": lambda: open_data_key(t=run_of(0x11, 16)),
    "under another manifest": lambda: open_data_key(m=bytes(32)),
    "under another mode": lambda: open_data_key(x=b"\x01"),
    "under another caller's context": lambda: open_data_key(u=b""),
    "by another bucket key": lambda: open_data_key(secret=run_of(0xA1, 32)),
    "a bucket key by another tenant key": lambda: Wrapped(KIND_2).open(
        KIND_BUCKET_KEY, run_of(0x81, 32), BUCKET_CONTEXT),
    "a bucket key for another purpose": lambda: Wrapped(KIND_2).open(
        KIND_BUCKET_KEY, TENANT_KEY, BUCKET_CONTEXT | {"p": b"meta"}),
    "cut after the first chunk": lambda: open_stream(STORED[:CHUNK], 65_536),
    "without its last byte": lambda: open_stream(STORED[:-17] + STORED[-16:], len(BODY) - 1),
    "with its chunks swapped": lambda: open_stream(
        STORED[CHUNK:] + STORED[:CHUNK], len(BODY)),
    "under another stream": lambda: open_stream(STORED, len(BODY), run_of(0x51, 16)),
    "under another content": lambda: open_stream(STORED, len(BODY), content=run_of(0x41, 16)),
    "of another tenant": lambda: open_stream(STORED, len(BODY), tenant=run_of(0x11, 16)),
    "a manifest of another sequence": lambda: SCOPE.open_manifest(2, SEALED_MANIFEST),
    **{f"a wrap with bit 0 of byte {at} flipped": partial(open_flipped, at)
       for at in range(len(KIND_3))},
}


def opens(attempt: Callable[[], bytes]) -> bool:
    try:
        attempt()
    except DoesNotOpen:
        return False
    return True
