"""`kluis.v1`: derivation, wraps, contexts, commitment, chunks. Nothing here does I/O."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

TAG_BYTES = 16
SUITE = 1
HEADER_BYTES, SALT_BYTES = 24, 32
KIND_TENANT_KEY, KIND_BUCKET_KEY, KIND_DATA_KEY, KIND_NODE_SECRET = 1, 2, 3, 7


class DoesNotOpen(Exception):
    """Something is not what it was sealed as."""


def mac(secret: bytes, text: bytes) -> bytes:
    return hmac.new(secret, text, hashlib.sha256).digest()


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand-SHA-256 (RFC 5869)."""
    block = out = b""
    number = 1
    while len(out) < length:
        block = mac(prk, block + info + bytes([number]))
        out += block
        number += 1
    return out[:length]


def kdf(prk: bytes, label: str, context: bytes, length: int) -> bytes:
    return expand(prk, b"kluis.v1/" + label.encode() + b"\0" + context, length)


def encode_context(entries: dict[str, bytes]) -> bytes:
    """CTX: names sorted by their bytes, every name and value behind its length."""
    named = sorted((name.encode(), value) for name, value in entries.items())
    parts = [struct.pack(">H", len(named))]
    for name, value in named:
        parts += [struct.pack(">H", len(name)), name, struct.pack(">I", len(value)), value]
    return b"".join(parts)


def open_aead(secret: bytes, nonce: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    try:
        return AESGCMSIV(secret).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise DoesNotOpen(f"{what}: the tag does not fit") from None


def wrap(
    kind: int, wrapping_key: bytes, wrapping_id: bytes, version: int,
    context: dict[str, bytes], secret: bytes, salt: bytes, *, commit: bool,
) -> bytes:
    """A wrapped key, as the known answers show it."""
    header = bytes([1, SUITE, kind, int(commit)]) + wrapping_id + struct.pack(">I", version)
    okm = wrap_secrets(wrapping_key, salt, header, context, commit=commit)
    return header + salt + AESGCMSIV(okm[:32]).encrypt(okm[32:44], secret, header) + okm[44:]


def wrap_secrets(
    wrapping_key: bytes, salt: bytes, header: bytes, context: dict[str, bytes], *, commit: bool
) -> bytes:
    digest = hashlib.sha256(encode_context(context)).digest()
    return kdf(mac(salt, wrapping_key), "wrap", header + digest, 76 if commit else 44)


@dataclass(frozen=True)
class Wrapped:
    """A wrapped key, taken apart."""

    data: bytes

    @property
    def kind(self) -> int:
        return self.data[2]

    @property
    def wrapping_id(self) -> bytes:
        return self.data[4:20]

    @property
    def wrapping_version(self) -> int:
        return int.from_bytes(self.data[20:24], "big")

    def open(self, kind: int, wrapping_key: bytes, context: dict[str, bytes]) -> bytes:
        commit = bool(self.data[3] & 1)
        if self.data[:2] != bytes([1, SUITE]) or self.kind != kind or self.data[3] > 1:
            raise DoesNotOpen(f"not a wrapped key of kind {kind}: {self.data[:4].hex()}")
        if len(self.data) != (136 if commit else 104):
            raise DoesNotOpen(f"a wrapped key of {len(self.data)} bytes")
        header, rest = self.data[:HEADER_BYTES], self.data[HEADER_BYTES:]
        salt, sealed, commitment = rest[:SALT_BYTES], rest[32:80], rest[80:]
        okm = wrap_secrets(wrapping_key, salt, header, context, commit=commit)
        if not hmac.compare_digest(okm[44:], commitment):
            raise DoesNotOpen(f"a wrapped key of kind {kind}: another key or context")
        return open_aead(okm[:32], okm[32:44], sealed, header, f"a wrapped key of kind {kind}")


@dataclass(frozen=True)
class Content:
    """One data key and what it is committed to."""

    data_key: bytes
    tenant: bytes
    content: bytes
    chunk_shift: int

    @property
    def context(self) -> bytes:
        return self.tenant + self.content + bytes([SUITE, self.chunk_shift])

    def commitment(self) -> bytes:
        return kdf(self.data_key, "commit", self.context, 32)

    def manifest_secrets(self, sequence: int) -> tuple[bytes, bytes, bytes]:
        number = struct.pack(">I", sequence)
        okm = kdf(self.data_key, "manifest", self.context + number, 44)
        return okm[:32], okm[32:], self.commitment() + number

    def seal_manifest(self, sequence: int, manifest: bytes) -> bytes:
        secret, nonce, aad = self.manifest_secrets(sequence)
        return AESGCMSIV(secret).encrypt(nonce, manifest, aad)

    def open_manifest(self, sequence: int, sealed: bytes) -> bytes:
        secret, nonce, aad = self.manifest_secrets(sequence)
        return open_aead(secret, nonce, sealed, aad, "the manifest")

    def stream(self, stream: bytes) -> Stream:
        okm = kdf(self.data_key, "stream", self.context + stream, 44)
        return Stream(okm[:32], okm[32:], 1 << self.chunk_shift)


@dataclass(frozen=True)
class Stream:
    """The key and base nonce of one stream."""

    secret: bytes
    nonce: bytes
    chunk_bytes: int

    def seal(self, body: bytes) -> bytes:
        """The stored form of a whole body."""
        count = max(1, -(-len(body) // self.chunk_bytes))
        pieces = [body[i * self.chunk_bytes : (i + 1) * self.chunk_bytes] for i in range(count)]
        cipher = AESGCMSIV(self.secret)
        return b"".join(
            cipher.encrypt(self.nonce_of(i), piece, associated(i, len(piece), i == count - 1))
            for i, piece in enumerate(pieces)
        )

    def open(self, stored: bytes, length: int) -> bytes:
        """The body of `length` bytes; every chunk and the end are verified."""
        count = max(1, -(-length // self.chunk_bytes))
        if len(stored) != length + count * TAG_BYTES:
            raise DoesNotOpen(f"{len(stored)} bytes stored for {length}")
        step = self.chunk_bytes + TAG_BYTES
        out = []
        for i in range(count):
            sealed = stored[i * step : (i + 1) * step]
            aad = associated(i, len(sealed) - TAG_BYTES, i == count - 1)
            out.append(open_aead(self.secret, self.nonce_of(i), sealed, aad, f"chunk {i}"))
        return b"".join(out)

    def nonce_of(self, index: int) -> bytes:
        return (int.from_bytes(self.nonce, "big") ^ index).to_bytes(12, "big")


def associated(index: int, length: int, is_last: bool) -> bytes:
    return bytes([1, int(is_last), 0, 0]) + struct.pack(">IQ", length, index)


def open_field(
    bucket_key: bytes, tenant: bytes, bucket: bytes, field: str, object_key: bytes, version: bytes,
    sealed: bytes,
) -> bytes:
    """A sealed metadata field: `um`, `tg` or `la`."""
    if sealed[:1] != b"\x01" or len(sealed) < 33:
        raise DoesNotOpen(f"field {field}: {sealed[:5].hex()}")
    secret = kdf(bucket_key, "meta", tenant + bucket, 32)
    entries = {"b": bucket, "f": field.encode(), "k": object_key, "v": version}
    aad = hashlib.sha256(encode_context(entries)).digest()
    return open_aead(secret, sealed[5:17], sealed[17:], aad, f"field {field}")
