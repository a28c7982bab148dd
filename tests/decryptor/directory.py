"""A whole data directory: an object by its name, down every level of keys to its bytes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from .keyring import Keyring
from .kluis_v1 import (
    KIND_BUCKET_KEY, KIND_DATA_KEY, TAG_BYTES, Content, DoesNotOpen, Wrapped, open_field,
)
from .rows import (
    BucketKeyRow, ContentRow, Location, ManifestStream, ObjectRow, Rows, decode_heading,
    decode_manifest, decode_tags, encode_object_key,
)

EXTENT_CHUNKS = 64
EXTENT_HEADER_BYTES = 128


@dataclass(frozen=True)
class Opened:
    """An object in clear."""

    body: bytes
    headers: dict[str, str]
    tags: dict[str, str]


class Directory:
    """The data directory of a stopped node, its rows, and the passphrase."""

    def __init__(self, folder: Path, dump: str, passphrase: bytes) -> None:
        self.folder = folder
        self.rows = Rows(dump)
        self.keyring = Keyring(folder / "keys", passphrase)

    def open(self, tenant: bytes, bucket_name: str, object_key: str) -> Opened:
        name = object_key.encode()
        space = self.rows.namespace(tenant)
        bucket = self.rows.get(space, b"B", bucket_name.encode())[1:17]
        row = ObjectRow.decode(self.rows.get(space, b"O", bucket, encode_object_key(name)))
        field = Fields(self, tenant, space, bucket, name, row.version)
        context, headers = decode_heading(field.open("um", row.heading))
        tags = decode_tags(field.open("tg", row.tags)) if row.tags else {}
        record = ContentRow.decode(self.rows.get(space, b"D", row.content))
        content = self.content(tenant, space, bucket, name, row, record, context)
        size, streams = decode_manifest(content.open_manifest(record.sequence, record.manifest))
        if size != row.size or sum(stream.size for stream in streams) != size:
            raise DoesNotOpen("the manifest and the object row differ in size")
        body = b"".join(self.stream(space, content, row, record, stream) for stream in streams)
        return Opened(body, headers, tags)

    def bucket_key(
        self, tenant: bytes, space: bytes, bucket: bytes, purpose: str, epoch: int
    ) -> bytes:
        number = struct.pack(">I", epoch)
        value = self.rows.get(space, b"K", bucket, purpose[:1].encode(), number)
        row = BucketKeyRow.decode(value)
        wrapped = Wrapped(row.wrapped)
        tenant_key = self.keyring.tenant_key(wrapped.wrapping_id, wrapped.wrapping_version)
        context = {"b": bucket, "n": number, "p": purpose.encode(), "t": tenant}
        return wrapped.open(KIND_BUCKET_KEY, tenant_key, context)

    def content(
        self, tenant: bytes, space: bytes, bucket: bytes, name: bytes, row: ObjectRow,
        record: ContentRow, caller: bytes,
    ) -> Content:
        wrapped = Wrapped(row.wrapped)
        key = self.bucket_key(tenant, space, bucket, "data", wrapped.wrapping_version)
        context = {
            "b": bucket, "c": row.content, "k": name, "t": tenant, "u": caller, "v": row.version,
            "x": row.mode, "m": hashlib.sha256(record.manifest).digest(),
        }
        data_key = wrapped.open(KIND_DATA_KEY, key, context)
        content = Content(data_key, tenant, row.content, record.chunk_shift)
        if content.commitment() != record.commitment:
            raise DoesNotOpen("the commitment is to another data key")
        return content

    def stream(
        self, space: bytes, content: Content, row: ObjectRow, record: ContentRow,
        stream: ManifestStream,
    ) -> bytes:
        if record.inline:
            stored = self.rows.get(space, b"I", row.content)
        else:
            stored = self.extents(space, stream, 1 << record.chunk_shift)
        return content.stream(stream.stream).open(stored, stream.size)

    def extents(self, space: bytes, stream: ManifestStream, chunk_bytes: int) -> bytes:
        """The stored stream, put together from its extents."""
        chunks = max(1, -(-stream.size // chunk_bytes))
        total = stream.size + chunks * TAG_BYTES
        stored, number = b"", 0
        while len(stored) < total:
            value = self.rows.get(space, b"L", stream.stream, struct.pack(">I", number))
            stored += self.extent(space, stream.stream, number, Location.decode(value))
            number += 1
        return stored

    def extent(self, space: bytes, stream: bytes, number: int, place: Location) -> bytes:
        path = self.folder / "seg" / f"{place.segment:08}.seg"
        with path.open("rb") as file:
            file.seek(place.offset)
            header = file.read(EXTENT_HEADER_BYTES)
            named = header[44:60], header[60:76], int.from_bytes(header[76:80], "little")
            if header[:4] != b"XTNT" or named != (space, stream, number):
                raise DoesNotOpen(f"extent {number} is not at its place")
            chunks = int.from_bytes(header[80:82], "little")
            file.seek(place.offset + EXTENT_HEADER_BYTES + 4 * chunks)
            return file.read(place.data_bytes)


@dataclass(frozen=True)
class Fields:
    """The sealed fields of one object version."""

    directory: Directory
    tenant: bytes
    space: bytes
    bucket: bytes
    object_key: bytes
    version: bytes

    def open(self, field: str, sealed: bytes) -> bytes:
        epoch = int.from_bytes(sealed[1:5], "big")
        key = self.directory.bucket_key(self.tenant, self.space, self.bucket, "meta", epoch)
        return open_field(
            key, self.tenant, self.bucket, field, self.object_key, self.version, sealed)
