"""From the passphrase to the tenant keys: root.sealed, slots and keyring (docs/KEYS.md)."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .kluis_v1 import KIND_NODE_SECRET, KIND_TENANT_KEY, DoesNotOpen, Wrapped, encode_context, kdf, mac, open_aead

SLOT_BYTES = 4096
RECORD_HEAD_BYTES, WRAP_BYTES, CANARY_BYTES = 79, 136, 4 + 136 + 136
TYPE_KEY, FLAG_SLOT, FLAG_WRAP = 1, 2, 4


@dataclass(frozen=True)
class Material:
    """One version of a tenant key, still wrapped."""

    slot: int
    wrapped: bytes


@dataclass(frozen=True)
class Record:
    """A tenant key as the keyring keeps it."""

    tenant_key: bytes
    tenant: bytes
    origin: bytes
    materials: dict[int, Material]


class Keyring:
    """The folder `keys` of a data directory, opened with a passphrase."""

    def __init__(self, folder: Path, passphrase: bytes) -> None:
        sealed = (folder / "root.sealed").read_bytes()
        self.root, self.keyring_id, self.epoch = open_root(sealed, passphrase)
        wrapped, epoch = sealed[-32 - WRAP_BYTES : -32], struct.pack(">I", self.epoch)
        context = {"e": epoch, "r": self.keyring_id}
        self.node_secret = Wrapped(wrapped).open(KIND_NODE_SECRET, self.root, context)
        self.mac_key = kdf(self.node_secret, "root-mac", b"", 32)
        self.slots = (folder / f"slots.{self.epoch}").read_bytes()
        self.records = {
            record.tenant_key: record
            for record in self.journal((folder / f"keyring.{self.epoch}").read_bytes())
        }

    def journal(self, data: bytes) -> list[Record]:
        """Every record in order; each entry's MAC is checked with its place."""
        head, told = data[:32], data[32:64]
        generation = head[28:32]
        own = b"KLUISKR1" + self.keyring_id + struct.pack(">I", self.epoch) + generation
        if head != own or not hmac.compare_digest(mac(self.mac_key, b"kms/keyring\0" + head), told):
            raise DoesNotOpen("the keyring's header")
        place = self.keyring_id + struct.pack(">I", self.epoch) + generation
        records, at, sequence = [], 64, 0
        while at < len(data):
            entry = data[at : at + 16]
            length, complement, number = struct.unpack(">IIQ", entry)
            body = data[at + 16 : at + 16 + length]
            told = data[at + 16 + length : at + 48 + length]
            own_mac = mac(self.mac_key, b"kms/entry\0" + place + entry + body)
            if complement != length ^ 0xFFFFFFFF or number != sequence:
                raise DoesNotOpen(f"entry {sequence} of the keyring")
            if not hmac.compare_digest(own_mac, told):
                raise DoesNotOpen(f"entry {sequence} of the keyring: its MAC")
            records += entry_records(body)
            at, sequence = at + 48 + length, sequence + 1
        return records

    def tenant_key(self, tenant_key: bytes, material: int) -> bytes:
        """The 32 bytes of a tenant key's material."""
        record = self.records[tenant_key]
        held = record.materials[material]
        block = self.slots[(1 + held.slot) * SLOT_BYTES :][:SLOT_BYTES]
        name = b"SLOT" + struct.pack(">I", held.slot) + tenant_key + struct.pack(">I", material)
        if block[:28] != name:
            raise DoesNotOpen(f"slot {held.slot} is another's")
        wrapping_key = mac(block[32:64], self.root)
        context = {"k": tenant_key, "o": record.origin, "t": record.tenant}
        return Wrapped(held.wrapped).open(KIND_TENANT_KEY, wrapping_key, context)


def open_root(data: bytes, passphrase: bytes) -> tuple[bytes, bytes, int]:
    """The root key, the keyring's id and its epoch."""
    body, checksum = data[:-32], data[-32:]
    if body[:8] != b"KLUISRT1" or hashlib.sha256(body).digest() != checksum:
        raise DoesNotOpen("root.sealed is damaged")
    epoch = int.from_bytes(body[8:12], "big")
    keyring_id, length = body[12:28], int.from_bytes(body[28:32], "big")
    sealed = body[32 : 32 + length]
    header, salt = sealed[:80], sealed[16:48]
    if header[:2] != b"\x01\x01":
        raise DoesNotOpen("root.sealed is not sealed by a passphrase")
    memory_kib, passes, lanes = struct.unpack(">III", header[4:16])
    stretched = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib
    ).derive(passphrase)
    context = encode_context({"e": struct.pack(">I", epoch), "r": keyring_id})
    okm = kdf(stretched, "root-seal", header + hashlib.sha256(context).digest(), 76)
    if not hmac.compare_digest(okm[44:], sealed[128:160]):
        raise DoesNotOpen("root.sealed: another passphrase")
    return open_aead(okm[:32], okm[32:44], sealed[80:128], header, "root.sealed"), keyring_id, epoch


def entry_records(body: bytes) -> list[Record]:
    """The tenant keys of an entry; what is of the key directory is passed over."""
    records, at = [], 0
    while at < len(body):
        length = int.from_bytes(body[at + 1 : at + 5], "big")
        if body[at] == TYPE_KEY:
            records.append(decode_record(body[at + 5 : at + 5 + length]))
        at += 5 + length
    return records


class Reader:
    """Takes bytes off the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        self.at += length
        if self.at > len(self.data):
            raise DoesNotOpen("the record of a tenant key")
        return self.data[self.at - length : self.at]

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")


def decode_record(data: bytes) -> Record:
    reader = Reader(data)
    head = reader.take(RECORD_HEAD_BYTES)
    if head[0] != 1:
        raise DoesNotOpen("the record of a tenant key")
    if head[43] == 3:
        reader.take(reader.number(2))
        reader.take(reader.number(2))
    if head[78] != 0:
        reader.take(24)
        reader.take(reader.number(2) * CANARY_BYTES)
    materials = {}
    for _ in range(reader.number(2)):
        number, _, flags = reader.number(4), reader.number(1), reader.number(1)
        reader.take(8 + 8 + 32)
        reader.take(reader.number(2))
        slot = reader.number(4) if flags & FLAG_SLOT else -1
        if flags & FLAG_WRAP:
            materials[number] = Material(slot, reader.take(WRAP_BYTES))
    if reader.at != len(data):
        raise DoesNotOpen("the record of a tenant key")
    return Record(head[1:17], head[17:33], head[43:44], materials)
