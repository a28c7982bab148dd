"""The KMS API against botocore's model: answers in its shapes, refusals in its errors.

Every right call's answer is validated as JSON, before any SDK has read it. Every wrong call must
give exactly the error that AWS gives, in AWS's envelope, and change nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import shapes
from ..job import Job
from ..node import Node, Tenant
from ..owner import OAEP, Owner, Refused, advance
from ..report import equal, expect

# Kluis' own limit (docs/OPERATIONS.md); AWS has 25.
MATERIALS_MAX = 256
YEAR_SECONDS = 366 * 86_400
# What Kluis says openly that it does not do.
UNSUPPORTED = (
    "ConnectCustomKeyStore", "CreateCustomKeyStore", "Decapsulate", "DeleteCustomKeyStore",
    "DeriveSharedSecret", "DescribeCustomKeyStores", "DisconnectCustomKeyStore", "Encapsulate",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "GetPublicKey", "ReplicateKey", "Sign",
    "UpdateCustomKeyStore", "UpdatePrimaryRegion", "Verify", "VerifyMac",
)


def run(job: Job) -> None:
    node = job.node()
    node.start()
    first, second = node.create_tenant("model"), node.create_tenant("stranger")
    bench = Bench(job, node, first, second)
    bench.right()
    bench.pages()
    bench.unsupported()
    before = bench.state()
    for name, code, target, fields in bench.wrong():
        bench.refuse(name, code, target, fields)
    bench.malformed()
    with job.report.case("nothing changed by any refused call"):
        equal(bench.state(), before, "keys, aliases, policies, tags, grants, rotations")
    bench.rotations()
    bench.expired_token()
    with job.report.case("the node stops by itself after all this, without a panic"):
        node.stop()
        expect("panicked at" not in node.log.read_text(errors="replace"), "a thread panicked")


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Bench:
    """Keys in every state, and calls on them."""

    def __init__(self, job: Job, node: Node, first: Tenant, second: Tenant) -> None:
        self.job, self.report, self.node = job, job.report, node
        self.owner = Owner(node, first, job.path("first"))
        self.stranger = Owner(node, second, job.path("second"))
        self.principal = f"arn:aws:iam::{first.account_id}:root"
        self.covered: set[str] = set()
        self.key = self.ok("CreateKey", Description="k")["KeyMetadata"]["KeyId"]
        self.disabled = self.new("DisableKey")
        self.pending = self.new("ScheduleKeyDeletion", PendingWindowInDays=30)
        self.empty = self.ok("CreateKey", Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
        self.other_empty = self.ok("CreateKey", Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
        self.foreign = self.stranger.create_key()
        self.ok("CreateAlias", AliasName="alias/model", TargetKeyId=self.key)
        self.blob = self.ok("Encrypt", KeyId=self.key, Plaintext=text(b"model"),
                            EncryptionContext={"a": "b"})["CiphertextBlob"]

    def new(self, verb: str, **fields: Any) -> str:
        key = self.ok("CreateKey")["KeyMetadata"]["KeyId"]
        self.ok(verb, KeyId=key, **fields)
        return str(key)

    def ok(self, name: str, **fields: Any) -> dict[str, Any]:
        """A right call, its answer held to the model."""
        told: dict[str, Any] = {}
        with self.report.case(f"{name}({', '.join(sorted(fields))})"):
            self.covered.add(name)
            told = self.owner.call(f"TrentService.{name}", fields)
            found = shapes.wrong(shapes.operation(name).output_shape, told, name)
            expect(not found, "; ".join(found))
        return told

    def right(self) -> None:
        """Every supported operation at least once, and every field that has a say."""
        key, ok = self.key, self.ok
        ok("CreateKey", Tags=[{"TagKey": "a", "TagValue": "b"}], Description="é", Policy=json.dumps(
            policy(self.principal)), KeyUsage="ENCRYPT_DECRYPT", KeySpec="SYMMETRIC_DEFAULT")
        ok("DescribeKey", KeyId="alias/model")
        ok("UpdateKeyDescription", KeyId=key, Description="other")
        ok("UpdateAlias", AliasName="alias/model", TargetKeyId=key)
        ok("CreateAlias", AliasName="alias/model2", TargetKeyId=key)
        ok("DeleteAlias", AliasName="alias/model2")
        ok("ListAliases", KeyId=key)
        ok("ListAliases")
        ok("EnableKeyRotation", KeyId=key, RotationPeriodInDays=90)
        ok("GetKeyRotationStatus", KeyId=key)
        ok("DisableKeyRotation", KeyId=key)
        ok("RotateKeyOnDemand", KeyId=key)
        ok("ListKeyRotations", KeyId=key)
        ok("ListKeyRotations", KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")
        self.right_crypto()
        ok("TagResource", KeyId=key, Tags=[{"TagKey": "t", "TagValue": ""}])
        ok("ListResourceTags", KeyId=key)
        ok("UntagResource", KeyId=key, TagKeys=["t"])
        ok("GetKeyPolicy", KeyId=key)
        ok("PutKeyPolicy", KeyId=key, PolicyName="default",
           Policy=json.dumps(policy(self.principal)))
        ok("ListKeyPolicies", KeyId=key)
        grant = ok("CreateGrant", KeyId=key, GranteePrincipal=self.principal, Name="n",
                   RetiringPrincipal=self.principal, Operations=["Decrypt", "Encrypt"],
                   Constraints={"EncryptionContextSubset": {"a": "b"}})
        ok("ListGrants", KeyId=key)
        ok("ListRetirableGrants", RetiringPrincipal=self.principal)
        ok("RevokeGrant", KeyId=key, GrantId=grant["GrantId"])
        retired = ok("CreateGrant", KeyId=key, GranteePrincipal=self.principal,
                     Operations=["Decrypt"], RetiringPrincipal=self.principal)
        ok("RetireGrant", GrantToken=retired["GrantToken"])
        ok("GetKeyLastUsage", KeyId=key)
        told = ok("GetParametersForImport", KeyId=self.empty, WrappingKeySpec="RSA_2048",
                  WrappingAlgorithm="RSAES_OAEP_SHA_256")
        expect("PublicKey" in told, "no public key")
        ok("GetParametersForImport", KeyId=self.empty, WrappingKeySpec="RSA_4096",
           WrappingAlgorithm="RSA_AES_KEY_WRAP_SHA_256")
        spare = ok("CreateKey", Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
        public, token = self.owner.import_parameters(spare)
        ok("ImportKeyMaterial", KeyId=spare, ImportToken=text(token), EncryptedKeyMaterial=text(
            public.encrypt(secrets.token_bytes(32), OAEP)), ValidTo=time.time() + 86_400,
           ExpirationModel="KEY_MATERIAL_EXPIRES")
        ok("DescribeKey", KeyId=spare)
        ok("DeleteImportedKeyMaterial", KeyId=spare)
        gone = self.new("ScheduleKeyDeletion", PendingWindowInDays=7)
        ok("CancelKeyDeletion", KeyId=gone)
        ok("EnableKey", KeyId=gone)
        ok("DisableKey", KeyId=gone)
        for state in (self.disabled, self.pending, self.empty):
            ok("DescribeKey", KeyId=state)
        with self.report.case("every supported operation was called"):
            supported = set(shapes.KMS.operation_names) - set(UNSUPPORTED)
            missing = supported - self.covered - {"ListKeys"}
            expect(not missing, f"not called: {sorted(missing)}")

    def right_crypto(self) -> None:
        key, ok, context = self.key, self.ok, {"a": "b", "": "empty", "ключ": "ä"}
        sealed = ok("Encrypt", KeyId=key, Plaintext=text(b"x" * 4_096), EncryptionContext=context)
        opened = ok("Decrypt", CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context)
        equal(opened.get("Plaintext"), text(b"x" * 4_096), "the plaintext")
        ok("Decrypt", CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context,
           KeyId=key, EncryptionAlgorithm="SYMMETRIC_DEFAULT")
        for spec in ({"KeySpec": "AES_128"}, {"KeySpec": "AES_256"}, {"NumberOfBytes": 1_024}):
            made = ok("GenerateDataKey", KeyId=key, **spec)
            opened = ok("Decrypt", CiphertextBlob=made["CiphertextBlob"])
            equal(opened.get("Plaintext"), made["Plaintext"], "the data key")
            ok("GenerateDataKeyWithoutPlaintext", KeyId=key, **spec)
        other = ok("CreateKey")["KeyMetadata"]["KeyId"]
        moved = ok("ReEncrypt", CiphertextBlob=sealed["CiphertextBlob"], DestinationKeyId=other,
                   SourceEncryptionContext=context, DestinationEncryptionContext={"c": "d"})
        opened = ok("Decrypt", CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"c": "d"})
        equal(opened.get("KeyId", "").rpartition("/")[2], other, "the key after ReEncrypt")
        equal(len(base64.b64decode(ok("GenerateRandom", NumberOfBytes=1_024)["Plaintext"])), 1_024,
              "random bytes")

    def pages(self) -> None:
        lists: list[tuple[str, str, dict[str, Any]]] = [
            ("ListKeys", "Keys", {}), ("ListAliases", "Aliases", {}),
            ("ListKeyRotations", "Rotations",
             {"KeyId": self.key, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"}),
        ]
        for name, member, fields in lists:
            whole = self.ok(name, **fields)[member]
            with self.report.case(f"{name}: pages of one add up to the whole"):
                found: list[Any] = []
                marker: dict[str, str] = {}
                for _ in range(100):
                    told = self.owner.call(f"TrentService.{name}", {**fields, "Limit": 1, **marker})
                    found += told[member]
                    if not told.get("Truncated"):
                        break
                    equal(len(told[member]), 1, "items on a page")
                    marker = {"Marker": told["NextMarker"]}
                equal(found, whole, name)

    def unsupported(self) -> None:
        for name in UNSUPPORTED:
            self.refuse(name, "UnsupportedOperationException", name, {})
        self.refuse("an operation that AWS does not have", "UnknownOperationException", "Nope", {})
        with self.report.case("a target under no known prefix"):
            self.expect_error("UnknownOperationException",
                              lambda: self.owner.call("Other.ListKeys", {}))

    def refuse(self, name: str, code: str, target: str, fields: dict[str, Any]) -> None:
        with self.report.case(f"refused: {name}"):
            if target in shapes.KMS.operation_names and code not in shapes.COMMON_ERRORS:
                known = {shape.name for shape in shapes.operation(target).error_shapes}
                expect(code in known, f"the suite wants {code}, the model has {sorted(known)}")
            self.expect_error(
                code, lambda: self.owner.call(f"TrentService.{target}", fields))

    def expect_error(self, code: str, attempt: Callable[[], Any]) -> None:
        try:
            told = attempt()
        except Refused as refusal:
            equal((refusal.code, refusal.status), (code, 400), str(refusal))
        else:
            expect(False, f"accepted: {told!r:.200}")

    def wrong(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Name, error, operation, fields."""
        yield from self.wrong_names()
        yield from self.wrong_blobs()
        yield from self.wrong_fields()
        yield from self.wrong_states()
        yield from self.wrong_policies()
        yield from self.wrong_imports()

    def wrong_names(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        account = self.stranger.tenant.account_id
        names = {
            "no key": secrets.token_hex(16),
            "another tenant's key": self.foreign,
            "an ARN of another tenant": f"arn:aws:kms:us-east-1:{account}:key/{self.foreign}",
            "own key under another account": f"arn:aws:kms:us-east-1:{account}:key/{self.key}",
            "own key in another region":
                f"arn:aws:kms:eu-west-1:{self.owner.tenant.account_id}:key/{self.key}",
            "an alias that is not": "alias/absent",
        }
        for what, name in names.items():
            for verb in ("DescribeKey", "Encrypt", "GenerateDataKey"):
                fields = {"KeyId": name} | ({"Plaintext": "eA=="} if verb == "Encrypt" else {})
                fields |= {"KeySpec": "AES_256"} if verb == "GenerateDataKey" else {}
                yield f"{verb}: {what}", "NotFoundException", verb, fields
        for verb in ("DisableKey", "EnableKey", "ScheduleKeyDeletion", "RotateKeyOnDemand",
                     "GetKeyPolicy", "ListResourceTags"):
            yield (f"{verb}: another tenant's key", "NotFoundException", verb,
                   {"KeyId": self.foreign})
        yield ("CreateAlias: to another tenant's key", "NotFoundException", "CreateAlias",
               {"AliasName": "alias/theirs", "TargetKeyId": self.foreign})
        yield ("CreateAlias: taken", "AlreadyExistsException", "CreateAlias",
               {"AliasName": "alias/model", "TargetKeyId": self.key})
        yield ("CreateAlias: no prefix", "ValidationException", "CreateAlias",
               {"AliasName": "model", "TargetKeyId": self.key})
        yield ("CreateAlias: characters", "ValidationException", "CreateAlias",
               {"AliasName": "alias/a b", "TargetKeyId": self.key})
        yield ("UpdateAlias: absent", "NotFoundException", "UpdateAlias",
               {"AliasName": "alias/absent", "TargetKeyId": self.key})
        yield "DeleteAlias: absent", "NotFoundException", "DeleteAlias", {"AliasName": "alias/no"}

    def wrong_blobs(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        code, context = "InvalidCiphertextException", {"a": "b"}
        raw = base64.b64decode(self.blob)
        step = max(1, len(raw) // 12)
        for at in [*range(0, len(raw), step), len(raw) - 1]:
            broken = bytearray(raw)
            broken[at] ^= 0x40
            yield (f"Decrypt: bit flipped in byte {at}", code, "Decrypt",
                   {"CiphertextBlob": text(bytes(broken)), "EncryptionContext": context})
        for what, blob in {"cut short": raw[:-1], "with a byte more": raw + b"x",
                           "of random bytes": secrets.token_bytes(len(raw)),
                           "of one byte": b"x"}.items():
            yield (f"Decrypt: a blob {what}", code, "Decrypt",
                   {"CiphertextBlob": text(blob), "EncryptionContext": context})
        for what, wrong in {"another value": {"a": "c"}, "another name": {"b": "b"},
                            "one more": {"a": "b", "c": "d"}, "none": {}}.items():
            yield (f"Decrypt: context with {what}", code, "Decrypt",
                   {"CiphertextBlob": self.blob, "EncryptionContext": wrong})
        yield ("Decrypt: with another key named", "IncorrectKeyException", "Decrypt",
               {"CiphertextBlob": self.blob, "EncryptionContext": context, "KeyId": self.disabled})
        yield ("Decrypt: more than the most", "ValidationException", "Decrypt",
               {"CiphertextBlob": text(b"x" * 6_145)})
        yield ("ReEncrypt: wrong source context", code, "ReEncrypt",
               {"CiphertextBlob": self.blob, "DestinationKeyId": self.key})
        yield ("ReEncrypt: to another tenant's key", "NotFoundException", "ReEncrypt",
               {"CiphertextBlob": self.blob, "DestinationKeyId": self.foreign,
                "SourceEncryptionContext": context})

    def wrong_fields(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        key, code = self.key, "ValidationException"
        cases: list[tuple[str, str, dict[str, Any]]] = [
            ("no key", "Encrypt", {"Plaintext": "eA=="}),
            ("no plaintext", "Encrypt", {"KeyId": key}),
            ("empty plaintext", "Encrypt", {"KeyId": key, "Plaintext": ""}),
            ("4,097 bytes", "Encrypt", {"KeyId": key, "Plaintext": text(b"x" * 4_097)}),
            ("a name that is too long", "DescribeKey", {"KeyId": "k" * 2_049}),
            ("an empty name", "DescribeKey", {"KeyId": ""}),
            ("no size", "GenerateDataKey", {"KeyId": key}),
            ("two sizes", "GenerateDataKey",
             {"KeyId": key, "KeySpec": "AES_256", "NumberOfBytes": 32}),
            ("an unknown spec", "GenerateDataKey", {"KeyId": key, "KeySpec": "AES_512"}),
            ("0 bytes", "GenerateDataKey", {"KeyId": key, "NumberOfBytes": 0}),
            ("1,025 bytes", "GenerateDataKey", {"KeyId": key, "NumberOfBytes": 1_025}),
            ("0 bytes", "GenerateRandom", {"NumberOfBytes": 0}),
            ("1,025 bytes", "GenerateRandom", {"NumberOfBytes": 1_025}),
            ("no size", "GenerateRandom", {}),
            ("6 days", "ScheduleKeyDeletion", {"KeyId": key, "PendingWindowInDays": 6}),
            ("31 days", "ScheduleKeyDeletion", {"KeyId": key, "PendingWindowInDays": 31}),
            ("89 days", "EnableKeyRotation", {"KeyId": key, "RotationPeriodInDays": 89}),
            ("2,561 days", "EnableKeyRotation", {"KeyId": key, "RotationPeriodInDays": 2_561}),
            ("a page of 0", "ListKeys", {"Limit": 0}),
            ("a page of 1,001", "ListKeys", {"Limit": 1_001}),
            ("a long description", "CreateKey", {"Description": "d" * 8_193}),
            ("an unknown usage", "CreateKey", {"KeyUsage": "NOTHING"}),
            ("an unknown grant operation", "CreateGrant",
             {"KeyId": key, "GranteePrincipal": self.principal, "Operations": ["Everything"]}),
            ("no grant operation", "CreateGrant",
             {"KeyId": key, "GranteePrincipal": self.principal}),
        ]
        for what, verb, fields in cases:
            yield f"{verb}: {what}", code, verb, fields
        yield ("ListKeys: a marker of nobody's", "InvalidMarkerException", "ListKeys",
               {"Marker": "bm9uc2Vuc2U"})
        yield ("TagResource: a reserved name", "TagException", "TagResource",
               {"KeyId": key, "Tags": [{"TagKey": "aws:x", "TagValue": "y"}]})
        yield ("TagResource: a name twice", "TagException", "TagResource",
               {"KeyId": key, "Tags": [{"TagKey": "x", "TagValue": "y"}] * 2})
        for what, extra in {"an RSA key": {"KeySpec": "RSA_2048"}, "several regions":
                            {"MultiRegion": True}, "an HSM": {"Origin": "AWS_CLOUDHSM"}}.items():
            yield f"CreateKey: {what}", "UnsupportedOperationException", "CreateKey", extra
        for verb, fields in {
            "Encrypt": {"KeyId": key, "Plaintext": "eA=="},
            "GenerateDataKey": {"KeyId": key, "KeySpec": "AES_256"},
            "Decrypt": {"CiphertextBlob": self.blob, "EncryptionContext": {"a": "b"}},
        }.items():
            yield (f"{verb}: a dry run", "DryRunOperationException", verb,
                   fields | {"DryRun": True})

    def wrong_states(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        code = "KMSInvalidStateException"
        uses: dict[str, dict[str, Any]] = {
            "Encrypt": {"Plaintext": "eA=="}, "GenerateDataKey": {"KeySpec": "AES_256"},
            "GenerateDataKeyWithoutPlaintext": {"KeySpec": "AES_256"},
        }
        for verb, fields in uses.items():
            yield (f"{verb}: disabled", "DisabledException", verb,
                   {"KeyId": self.disabled} | fields)
            for what, key in {"pending deletion": self.pending, "no material": self.empty}.items():
                yield f"{verb}: {what}", code, verb, {"KeyId": key} | fields
        yield ("RotateKeyOnDemand: disabled", "DisabledException", "RotateKeyOnDemand",
               {"KeyId": self.disabled})
        yield ("EnableKeyRotation: disabled", "DisabledException", "EnableKeyRotation",
               {"KeyId": self.disabled})
        for verb in ("EnableKey", "DisableKey", "ScheduleKeyDeletion", "EnableKeyRotation",
                     "RotateKeyOnDemand"):
            yield f"{verb}: pending deletion", code, verb, {"KeyId": self.pending}
        for what, key in {"enabled": self.key, "disabled": self.disabled}.items():
            yield f"CancelKeyDeletion: {what}", code, "CancelKeyDeletion", {"KeyId": key}
        yield ("EnableKeyRotation: imported", "UnsupportedOperationException", "EnableKeyRotation",
               {"KeyId": self.empty})
        yield ("TagResource: pending deletion", code, "TagResource",
               {"KeyId": self.pending, "Tags": [{"TagKey": "x", "TagValue": "y"}]})
        yield ("UpdateAlias: to a key pending deletion", code, "UpdateAlias",
               {"AliasName": "alias/model", "TargetKeyId": self.pending})

    def wrong_policies(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        code = "MalformedPolicyDocumentException"
        lockout = policy(self.principal)
        lockout["Statement"][0]["Action"] = ["kms:Encrypt"]
        unknown = policy("arn:aws:iam::not-an-account:root")
        for what, document in {
            "no JSON": "{", "a list": "[]", "no statement": '{"Version":"2012-10-17"}',
            "an effect of its own": json.dumps(policy(self.principal)).replace("Allow", "Maybe"),
            "one that locks its owner out": json.dumps(lockout),
            "a principal that cannot be": json.dumps(unknown),
        }.items():
            yield (f"PutKeyPolicy: {what}", code, "PutKeyPolicy",
                   {"KeyId": self.key, "PolicyName": "default", "Policy": document})
        long = policy(self.principal)
        long["Statement"][0]["Sid"] = "s" * 40_000
        yield ("PutKeyPolicy: 40,000 bytes", "LimitExceededException", "PutKeyPolicy",
               {"KeyId": self.key, "PolicyName": "default", "Policy": json.dumps(long)})
        yield ("RevokeGrant: no such grant", "NotFoundException", "RevokeGrant",
               {"KeyId": self.key, "GrantId": "0" * 64})

    def wrong_imports(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        public, token = self.owner.import_parameters(self.empty)
        strange, their_token = self.owner.import_parameters(self.other_empty)
        never = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
        good = text(public.encrypt(secrets.token_bytes(32), OAEP))
        base = {"KeyId": self.empty, "ImportToken": text(token), "EncryptedKeyMaterial": good}
        cases: list[tuple[str, str, dict[str, Any]]] = [
            ("under another wrapping key", "InvalidCiphertextException", never | {
                "EncryptedKeyMaterial": text(strange.encrypt(secrets.token_bytes(32), OAEP))}),
            ("random bytes", "InvalidCiphertextException", never | {
                "EncryptedKeyMaterial": text(secrets.token_bytes(256))}),
            ("16 bytes", "IncorrectKeyMaterialException", never | {
                "EncryptedKeyMaterial": text(public.encrypt(bytes(16), OAEP))}),
            ("33 bytes", "IncorrectKeyMaterialException", never | {
                "EncryptedKeyMaterial": text(public.encrypt(bytes(33), OAEP))}),
            ("another key's token", "InvalidImportTokenException", never | {
                "ImportToken": text(their_token)}),
            ("a broken token", "InvalidImportTokenException", never | {
                "ImportToken": text(token[:-1] + bytes([token[-1] ^ 1]))}),
            ("a token of random bytes", "InvalidImportTokenException", never | {
                "ImportToken": text(secrets.token_bytes(len(token)))}),
            ("expires, but when", "ValidationException", {
                "ExpirationModel": "KEY_MATERIAL_EXPIRES"}),
            ("expired already", "ValidationException", {"ValidTo": time.time() - 60}),
            ("expires in more than a year", "ValidationException", {
                "ValidTo": time.time() + YEAR_SECONDS}),
        ]
        for what, code, fields in cases:
            yield f"ImportKeyMaterial: {what}", code, "ImportKeyMaterial", base | fields
        own = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
        yield ("GetParametersForImport: of a key that is not for it",
               "UnsupportedOperationException", "GetParametersForImport", own | {"KeyId": self.key})
        yield ("ImportKeyMaterial: to a key that is not for it", "UnsupportedOperationException",
               "ImportKeyMaterial", base | never | {"KeyId": self.key})
        yield ("DeleteImportedKeyMaterial: of a key without", "UnsupportedOperationException",
               "DeleteImportedKeyMaterial", {"KeyId": self.key})

    def malformed(self) -> None:
        """Bodies that are no requests of the protocol."""
        code = "SerializationException"
        bodies = {
            "no JSON": b"{", "a list": b"[]", "a member twice": b'{"KeyId":"k","KeyId":"k"}',
            "text that is not UTF-8": b'{"KeyId":"\xff\xfe"}',
            "a number for a string": b'{"KeyId":5,"Plaintext":"eA=="}',
            "a string for a number": b'{"KeyId":"k","PendingWindowInDays":"seven"}',
            "a blob that is no base64": b'{"KeyId":"k","Plaintext":"***"}',
        }
        targets = {"a string for a number": "ScheduleKeyDeletion"}
        for what, raw in bodies.items():
            with self.report.case(f"refused: a body with {what}"):
                name = f"TrentService.{targets.get(what, 'Encrypt')}"
                headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": name}
                status, told = self.owner.post(headers, raw)
                equal((status, json.loads(told)["__type"].rpartition("#")[2]), (400, code), what)
        with self.report.case("a blob of another tenant tells no more than one of nobody"):
            theirs = self.stranger.kms.encrypt(KeyId=self.foreign, Plaintext=b"x")["CiphertextBlob"]
            forged = bytearray(base64.b64decode(self.blob))
            # Where a blob names its key: whichever bytes two blobs of one key have in common.
            for at in range(4, 20):
                forged[at] ^= 0x55
            codes = []
            for blob in (theirs, bytes(forged)):
                try:
                    self.owner.call("TrentService.Decrypt", {"CiphertextBlob": text(blob)})
                except Refused as refusal:
                    codes.append((refusal.code, refusal.status))
            equal(len(codes), 2, "refusals")
            equal(codes[0], codes[1], "a foreign blob against one of nobody")

    def rotations(self) -> None:
        with self.report.case(f"material {MATERIALS_MAX + 1} is one too many"):
            key = self.owner.create_key()
            for _ in range(MATERIALS_MAX - 1):
                self.owner.kms.rotate_key_on_demand(KeyId=key)
            self.expect_error("LimitExceededException", lambda: self.owner.call(
                "TrentService.RotateKeyOnDemand", {"KeyId": key}))
            equal(self.owner.materials(key), MATERIALS_MAX, "materials")

    def expired_token(self) -> None:
        with self.report.case("import parameters end after 24 hours"):
            public, token = self.owner.import_parameters(self.empty)
            advance(self.node, 2)
            self.expect_error("ExpiredImportTokenException", lambda: self.owner.call(
                "TrentService.ImportKeyMaterial", {
                    "KeyId": self.empty, "ImportToken": text(token),
                    "EncryptedKeyMaterial": text(public.encrypt(bytes(32), OAEP)),
                    "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}))
            equal(self.owner.state(self.empty), "PendingImport", "state")

    def state(self) -> dict[str, Any]:
        """Everything that a tenant can see of its keys, in one value."""
        call = self.owner.call
        seen: dict[str, Any] = {"aliases": call("TrentService.ListAliases", {})["Aliases"]}
        for entry in call("TrentService.ListKeys", {"Limit": 1000})["Keys"]:
            named = {"KeyId": entry["KeyId"]}
            seen[entry["KeyId"]] = [
                call("TrentService.DescribeKey", named),
                call("TrentService.GetKeyPolicy", named | {"PolicyName": "default"}),
                call("TrentService.ListResourceTags", named),
                call("TrentService.ListGrants", named),
            ]
        return seen


def policy(principal: str) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{
        "Sid": "all", "Effect": "Allow", "Principal": {"AWS": principal}, "Action": "kms:*",
        "Resource": "*",
    }]}
