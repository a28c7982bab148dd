"""One tenant's work on its keys while the node fails, and the record of what was acknowledged.

A key's state and the number of its materials are known exactly after an answer, and as a set of
possibilities after none. What was encrypted and acknowledged has to decrypt for as long as the key
can; material that was deleted and acknowledged never decrypts again.
"""

from __future__ import annotations

import base64
import json
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_public_key

from .node import Node, Tenant
from .owner import OAEP
from .sigv4 import Signer
from .wire import Reply, Wire

# Keys of one record; each costs a call or two after every restart.
KEYS_MAX = 12
ROTATIONS_MAX = 5
SECRETS_MAX = 4
VERBS = ("create", "encrypt", "rotate", "disable", "enable", "import", "delete")
WEIGHTS = (10, 30, 15, 15, 20, 10, 10)


@dataclass
class Known:
    """What a key may be by now."""

    states: set[str]
    imported: bool = False
    materials: set[int] = field(default_factory=lambda: {1})
    sealed: list[tuple[str, bytes]] = field(default_factory=list)


class KeyLoad:
    """The keys and what is known of them, over any number of lives of the node."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def step(self, calls: KeyCalls, dice: random.Random) -> None:
        """One change of one key, or something encrypted under it."""
        verb = dice.choices(VERBS, WEIGHTS)[0]
        if verb in ("create", "import"):
            if len(self.known) < KEYS_MAX:
                self.create(calls, verb == "import")
            return
        fitting = [name for name, it in self.known.items() if fits(verb, it)]
        if fitting:
            self.change(calls, verb, dice.choice(fitting))

    def create(self, calls: KeyCalls, imported: bool) -> None:
        made = calls.ask("CreateKey", Origin="EXTERNAL" if imported else "AWS_KMS")
        if made.status != 200:
            return
        name = str(json.loads(made.body)["KeyMetadata"]["KeyId"])
        self.known[name] = Known({"PendingImport" if imported else "Enabled"}, imported)
        self.counts["keys acknowledged"] += 1
        if imported:
            self.note(name, calls.import_material(name), {"Enabled"})

    def change(self, calls: KeyCalls, verb: str, name: str) -> None:
        known = self.known[name]
        if verb == "encrypt":
            text = secrets.token_bytes(24)
            told = calls.ask("Encrypt", KeyId=name, Plaintext=base64.b64encode(text).decode())
            if told.status == 200:
                known.sealed.append((json.loads(told.body)["CiphertextBlob"], text))
                self.counts["secrets acknowledged"] += 1
        elif verb == "rotate":
            told = calls.ask("RotateKeyOnDemand", KeyId=name)
            after = {count + 1 for count in known.materials}
            known.materials = after if told.status == 200 else known.materials | after
        elif verb == "delete":
            self.note(name, calls.ask("DeleteImportedKeyMaterial", KeyId=name), {"PendingImport"})
        else:
            target, state = {
                "disable": ("DisableKey", "Disabled"), "enable": ("EnableKey", "Enabled"),
            }[verb]
            self.note(name, calls.ask(target, KeyId=name), {state})

    def note(self, name: str, reply: Reply, states: set[str]) -> None:
        """A change was answered, or not."""
        known = self.known[name]
        if reply.status == 200:
            known.states = states
            self.counts["changes of keys acknowledged"] += 1
        elif reply.status == 0 or reply.status >= 500:
            known.states = known.states | states
        else:
            self.wrong.append(f"key {name}: a change was answered with {reply.body[:200]!r}")

    def verify(self, calls: KeyCalls, settle: bool) -> None:
        """Every key is there, in a state that it may be in, and opens what it may open."""
        for name, known in self.known.items():
            told = calls.ask("DescribeKey", KeyId=name)
            if told.status != 200:
                self.wrong.append(f"key {name} was acknowledged: {told.status} {told.body[:200]!r}")
                continue
            state = str(json.loads(told.body)["KeyMetadata"]["KeyState"])
            if state not in known.states:
                self.wrong.append(f"key {name} is {state}, may be {sorted(known.states)}")
            for sealed, text in known.sealed:
                self.open(calls, name, state, sealed, text)
            count = calls.materials(name)
            if not known.imported and count not in known.materials:
                self.wrong.append(f"key {name}: {count} materials, not {sorted(known.materials)}")
            if settle:
                known.states, known.materials = {state}, {count}

    def open(self, calls: KeyCalls, name: str, state: str, sealed: str, text: bytes) -> None:
        told = calls.ask("Decrypt", CiphertextBlob=sealed)
        opened = told.status == 200 and base64.b64decode(json.loads(told.body)["Plaintext"]) == text
        if opened != (state == "Enabled"):
            what = "opens" if opened else f"does not open ({told.status} {told.body[:200]!r})"
            self.wrong.append(f"key {name} is {state} and {what} what it sealed")


class KeyCalls:
    """The KMS API of one life of a node, signed by hand."""

    def __init__(self, node: Node, tenant: Tenant) -> None:
        self.wire = Wire(node, tenant)
        self.signer = Signer(tenant.access_key_id, tenant.secret_access_key, service="kms")

    def ask(self, verb: str, **fields: Any) -> Reply:
        """One call; status 0 where there was no answer."""
        headers = {
            "X-Amz-Target": f"TrentService.{verb}", "Content-Type": "application/x-amz-json-1.1",
        }
        body = json.dumps(fields).encode()
        try:
            return self.wire.request("POST", "/", "", headers, body, signer=self.signer)
        except ConnectionRefusedError:
            raise
        except OSError:
            return Reply(0)

    def materials(self, name: str) -> int:
        told = self.ask("ListKeyRotations", KeyId=name, IncludeKeyMaterial="ALL_KEY_MATERIAL")
        return len(json.loads(told.body).get("Rotations", [])) if told.status == 200 else 0

    def import_material(self, name: str) -> Reply:
        told = self.ask("GetParametersForImport", KeyId=name, WrappingKeySpec="RSA_2048",
                        WrappingAlgorithm="RSAES_OAEP_SHA_256")
        if told.status != 200:
            return told
        fields = json.loads(told.body)
        public: Any = load_der_public_key(base64.b64decode(fields["PublicKey"]))
        wrapped = base64.b64encode(public.encrypt(secrets.token_bytes(32), OAEP)).decode()
        return self.ask("ImportKeyMaterial", KeyId=name, ImportToken=fields["ImportToken"],
                        EncryptedKeyMaterial=wrapped,
                        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE")


def fits(verb: str, known: Known) -> bool:
    """Whether a key is in a state, for sure, in which the verb does something."""
    if len(known.states) > 1:
        return False
    (state,) = known.states
    if verb == "encrypt":
        return state == "Enabled" and len(known.sealed) < SECRETS_MAX
    if verb == "rotate":
        return state == "Enabled" and not known.imported and max(known.materials) < ROTATIONS_MAX
    if verb == "delete":
        return known.imported and state != "PendingImport"
    return state == ("Enabled" if verb == "disable" else "Disabled")
