"""The whole life of a key, with boto3 and with the aws CLI.

Create, alias, default encryption, put, rotate, put, read both, rewrap to zero, retire, disable,
failing reads, enable, import, expiry, re-import, deletion scheduled, called off, scheduled again,
destruction, the report; then a restart, after which everything is as before.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import urllib.error
import urllib.request
from typing import Any

from ..job import Job
from ..node import Node, Tenant
from ..owner import Owner, advance, refused, settle
from ..payload import KIB, MIB, body
from ..report import equal, expect
from ..wire import element

DISABLED = "KMS.DisabledException"
BAD_STATE = "KMS.KMSInvalidStateException"
# Inline, one chunk, several extents.
SIZES = {"inline": 1 * KIB, "small": 60 * KIB, "large": 9 * MIB + 1}
PART = 5 * MIB


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenant = node.create_tenant("keys")
    life = Life(job, node, tenant)
    life.create()
    life.rotate()
    life.rewrap()
    life.disable()
    by_cli(job, node, tenant)
    imported = import_and_expire(job, node, tenant)
    life.destroy()
    life.restart(imported)
    with job.report.case("a stopped node's directory checks, and a key that is off is no damage"):
        life.owner.kms.disable_key(KeyId=life.other)
        node.stop()
        checked = node.check()
        told = checked.stdout + checked.stderr
        equal(checked.returncode, 0, told[-500:])
        expect("1 objects under keys that are off" in told, told[-500:])


class Life:
    """The key under test, what is stored under it, and what must stay readable."""

    def __init__(self, job: Job, node: Node, tenant: Tenant) -> None:
        self.job, self.report = job, job.report
        self.node, self.tenant = node, tenant
        self.owner = Owner(node, tenant, job.path("owner"))
        self.stored: dict[str, bytes] = {}
        self.key = ""
        self.arn = ""
        self.other = ""
        self.url = ""
        self.upload: dict[str, Any] = {}

    def put(self, object_key: str, size: int, **fields: Any) -> dict[str, Any]:
        data = body(size, object_key)
        reply = self.owner.put("life", object_key, data, **fields)
        self.stored[object_key] = data
        return reply

    def reads(self, what: str) -> None:
        """Every object, whole and by every other path."""
        with self.report.case(f"{what}: every object reads as it was written"):
            for object_key, data in self.stored.items():
                expect(self.owner.get("life", object_key) == data, f"{object_key} differs")
        with self.report.case(f"{what}: a range, a part, a copy and a presigned URL read too"):
            data = self.stored["first/large"]
            part = self.owner.get("life", "first/large", Range="bytes=70000-140000")
            expect(part == data[70_000:140_001], "the range differs")
            parts = self.stored["first/parts"]
            expect(self.owner.get("life", "first/parts", PartNumber=2) == parts[PART:], "part 2")
            self.owner.s3.copy_object(
                Bucket="life", Key="copy", CopySource={"Bucket": "life", "Key": "first/small"}
            )
            expect(self.owner.get("life", "copy") == self.stored["first/small"], "the copy")
            with urllib.request.urlopen(self.presigned(), timeout=30) as reply:
                expect(reply.read() == self.stored["first/small"], "the presigned URL")

    def presigned(self) -> str:
        names = {"Bucket": "life", "Key": "first/small"}
        return str(self.owner.s3.generate_presigned_url("get_object", Params=names))

    def create(self) -> None:
        owner = self.owner
        with self.report.case("create, describe and list a key; an alias finds it"):
            made = owner.kms.create_key(Description="of the suite")["KeyMetadata"]
            self.key, self.arn = made["KeyId"], made["Arn"]
            equal((made["KeyState"], made["Enabled"], made["Origin"]),
                  ("Enabled", True, "AWS_KMS"), "a new key")
            equal(self.arn, f"arn:aws:kms:us-east-1:{self.tenant.account_id}:key/{self.key}", "ARN")
            owner.kms.create_alias(AliasName="alias/life", TargetKeyId=self.key)
            found = owner.kms.describe_key(KeyId="alias/life")["KeyMetadata"]
            equal(found["KeyId"], self.key, "the key of the alias")
            listed = owner.kms.list_keys()["Keys"]
            expect({"KeyId": self.key, "KeyArn": self.arn} in listed, f"{self.key} in {listed}")
            self.other = owner.create_key(Description="not touched")
        with self.report.case("default encryption of a bucket, set, told, and used"):
            owner.s3.create_bucket(Bucket="life")
            owner.use_by_default("life", "alias/life")
            told = owner.s3.get_bucket_encryption(Bucket="life")
            rule = told["ServerSideEncryptionConfiguration"]["Rules"][0]
            equal(rule["ApplyServerSideEncryptionByDefault"],
                  {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/life"}, "the rule")
            for name, size in SIZES.items():
                reply = self.put(f"first/{name}", size)
                equal((reply["ServerSideEncryption"], reply["SSEKMSKeyId"]),
                      ("aws:kms", self.arn), f"a reply to PUT of {name}")
            parts = [body(PART, "a"), body(100 * KIB, "b")]
            self.parts("first/parts", parts)
            for name in (self.key, self.arn, "alias/life"):
                reply = self.put(f"first/by-{name[:5]}", 1_000, ServerSideEncryption="aws:kms",
                                 SSEKMSKeyId=name)
                equal(reply["SSEKMSKeyId"], self.arn, name)
            reply = self.put("other/large", 2 * MIB, ServerSideEncryption="aws:kms",
                             SSEKMSKeyId=self.other)
            expect(reply["SSEKMSKeyId"].endswith(self.other), reply["SSEKMSKeyId"])
            reply = self.put("default/small", 10_000, ServerSideEncryption="AES256")
            equal(reply["ServerSideEncryption"], "AES256", "SSE-S3")
        self.reads("before rotation")

    def parts(self, object_key: str, parts: list[bytes]) -> None:
        names = {"Bucket": "life", "Key": object_key}
        upload = self.owner.s3.create_multipart_upload(**names)
        equal(upload["SSEKMSKeyId"], self.arn, "the key of an upload")
        done = self.send(names, upload["UploadId"], parts)
        self.owner.s3.complete_multipart_upload(
            **names, UploadId=upload["UploadId"], MultipartUpload={"Parts": done}
        )
        self.stored[object_key] = b"".join(parts)

    def send(self, names: dict[str, str], upload: str, parts: list[bytes]) -> list[dict[str, Any]]:
        done = []
        for number, part in enumerate(parts, 1):
            reply = self.owner.s3.upload_part(
                **names, UploadId=upload, PartNumber=number, Body=part
            )
            done.append({"PartNumber": number, "ETag": reply["ETag"]})
        return done

    def rotate(self) -> None:
        owner = self.owner
        with self.report.case("rotate on demand; both materials read, new objects use the new one"):
            before = owner.kms.describe_key(KeyId=self.key)["KeyMetadata"]["CurrentKeyMaterialId"]
            sealed = owner.kms.encrypt(KeyId=self.key, Plaintext=b"from before")["CiphertextBlob"]
            told = owner.kms.rotate_key_on_demand(KeyId=self.key)
            equal(told["KeyId"].rpartition("/")[2], self.key, "the key rotated")
            after = owner.kms.describe_key(KeyId=self.key)["KeyMetadata"]["CurrentKeyMaterialId"]
            expect(after != before, "the current material is still the first")
            equal(owner.materials(self.key), 2, "materials")
            opened = owner.kms.decrypt(CiphertextBlob=sealed)
            equal((opened["Plaintext"], opened["KeyMaterialId"]), (b"from before", before), "old")
            for name, size in SIZES.items():
                self.put(f"second/{name}", size)
        with self.report.case("rotation by period is switched on, told, and off"):
            owner.kms.enable_key_rotation(KeyId=self.key, RotationPeriodInDays=180)
            told = owner.kms.get_key_rotation_status(KeyId=self.key)
            equal((told["KeyRotationEnabled"], told["RotationPeriodInDays"]), (True, 180), "status")
            owner.kms.disable_key_rotation(KeyId=self.key)
            told = owner.kms.get_key_rotation_status(KeyId=self.key)
            equal(told["KeyRotationEnabled"], False, "status after switching off")
        self.reads("after rotation")

    def rewrap(self) -> None:
        owner = self.owner
        with self.report.case("a material in use cannot be retired"):
            refused("ConflictException",
                    lambda: owner.kluis("RetireKeyMaterial", KeyId=self.key, Material=1))
        with self.report.case("rewrap leaves nothing under the first material"):
            owner.run("StartRewrap", self.key)
            impact = owner.kluis("DescribeKeyImpact", KeyId=self.key)
            under = {it["Material"]: it["Count"] for it in impact["BucketKeys"]}
            equal(under.get(1, 0), 0, f"bucket keys under material 1: {impact}")
            expect(under.get(2, 0) > 0, f"no bucket key under material 2: {impact}")
            expect(impact["Objects"] >= len(self.stored) - 3, f"objects: {impact}")
        self.reads("after rewrap")
        with self.report.case("deep rewrap and re-encryption do all there is, and complete"):
            impact = owner.kluis("DescribeKeyImpact", KeyId=self.key)
            deep = owner.run("StartRewrap", self.key, Deep=True)
            expect(deep["Done"] > 0, f"nothing was bound anew: {deep}")
            anew = owner.run("StartReencrypt", self.key)
            equal(anew["Done"], impact["Objects"], f"objects encrypted anew: {anew}")
            equal(anew["Bytes"], impact["Bytes"], f"bytes encrypted anew: {anew}")
            equal((deep["Remaining"], anew["Remaining"]), (0, 0), "found by the verifying scans")
        self.reads("after re-encryption")
        with self.report.case("the first material is retired, by force for ciphertexts outside"):
            refused("ConflictException",
                    lambda: owner.kluis("RetireKeyMaterial", KeyId=self.key, Material=1),
                    "retire with ciphertexts of Encrypt")
            owner.kluis("RetireKeyMaterial", KeyId=self.key, Material=1, Force=True)
        self.reads("after retirement")

    def begin_upload(self) -> None:
        names = {"Bucket": "life", "Key": "open"}
        upload = self.owner.s3.create_multipart_upload(**names)["UploadId"]
        done = self.send(names, upload, [body(PART, "open"), b"end"])
        self.upload = {**names, "UploadId": upload, "MultipartUpload": {"Parts": done}}

    def failing(self, code: str, what: str) -> None:
        """Every way to the bytes, and every way to write more of them, is shut."""
        owner, s3 = self.owner, self.owner.s3
        names = {"Bucket": "life", "Key": "first/large"}
        source = {"Bucket": "life", "Key": "first/small"}
        ways: dict[str, Any] = {
            "GET": lambda: s3.get_object(**names),
            "GET of a range": lambda: s3.get_object(**names, Range="bytes=0-9"),
            "GET of a part": lambda: s3.get_object(Bucket="life", Key="first/parts", PartNumber=2),
            "GET of an inline object": lambda: s3.get_object(Bucket="life", Key="first/inline"),
            "copy": lambda: s3.copy_object(Bucket="life", Key="copy2", CopySource=source),
            "copy to another key": lambda: s3.copy_object(
                Bucket="life", Key="copy3", CopySource=source, ServerSideEncryption="aws:kms",
                SSEKMSKeyId=self.other),
            "PUT": lambda: s3.put_object(Bucket="life", Key="new", Body=b"x"),
            "CreateMultipartUpload": lambda: s3.create_multipart_upload(Bucket="life", Key="new"),
        }
        if self.upload:
            ways["UploadPart"] = lambda: s3.upload_part(
                Bucket="life", Key="open", UploadId=self.upload["UploadId"], PartNumber=3,
                Body=b"x")
            ways["UploadPartCopy"] = lambda: s3.upload_part_copy(
                Bucket="life", Key="open", UploadId=self.upload["UploadId"], PartNumber=3,
                CopySource=source)
            ways["CompleteMultipartUpload"] = lambda: s3.complete_multipart_upload(**self.upload)
        for way, attempt in ways.items():
            with self.report.case(f"{what}: {way} fails with {code}"):
                refused(code, attempt)
        with self.report.case(f"{what}: a presigned URL fails with {code}"):
            try:
                with urllib.request.urlopen(self.url, timeout=30) as reply:
                    expect(False, f"it answers {reply.status}")
            except urllib.error.HTTPError as error:
                equal((error.code, element(error.read(), "Code")), (400, code), "the answer")
        with self.report.case(f"{what}: a list shows every name"):
            listed = {it["Key"] for it in s3.list_objects_v2(Bucket="life")["Contents"]}
            expect(set(self.stored) <= listed, f"missing: {set(self.stored) - listed}")
        with self.report.case(f"{what}: objects under other keys read"):
            for object_key in ("other/large", "default/small"):
                equal(owner.get("life", object_key), self.stored[object_key], object_key)

    def disable(self) -> None:
        owner = self.owner
        self.begin_upload()
        self.url = self.presigned()
        sealed = owner.kms.encrypt(KeyId=self.key, Plaintext=b"x")["CiphertextBlob"]
        with self.report.case("disable"):
            owner.kms.disable_key(KeyId=self.key)
            equal(owner.state(self.key), "Disabled", "state")
        self.failing(DISABLED, "disabled")
        for name, attempt in self.uses(sealed).items():
            with self.report.case(f"disabled: {name} fails with DisabledException"):
                refused("DisabledException", attempt)
        with self.report.case("enable brings everything back, the open upload too"):
            owner.kms.enable_key(KeyId=self.key)
            owner.s3.complete_multipart_upload(**self.upload)
            self.stored["open"] = body(PART, "open") + b"end"
            self.upload = {}
        self.reads("enabled again")

    def uses(self, sealed: bytes) -> dict[str, Any]:
        kms = self.owner.kms
        return {
            "Encrypt": lambda: kms.encrypt(KeyId=self.key, Plaintext=b"x"),
            "Decrypt": lambda: kms.decrypt(CiphertextBlob=sealed),
            "GenerateDataKey": lambda: kms.generate_data_key(KeyId=self.key, KeySpec="AES_256"),
            "ReEncrypt": lambda: kms.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=self.other),
            "RotateKeyOnDemand": lambda: kms.rotate_key_on_demand(KeyId=self.key),
        }

    def destroy(self) -> None:
        owner = self.owner
        self.url = self.presigned()
        sealed = owner.kms.encrypt(KeyId=self.key, Plaintext=b"x")["CiphertextBlob"]
        with self.report.case("a deletion is scheduled, and called off"):
            told = owner.kms.schedule_key_deletion(KeyId=self.key, PendingWindowInDays=7)
            equal((told["KeyState"], told["PendingWindowInDays"]), ("PendingDeletion", 7), "told")
        self.failing(BAD_STATE, "pending deletion")
        with self.report.case("called off, the key is disabled, and enabled it reads"):
            owner.kms.cancel_key_deletion(KeyId=self.key)
            equal(owner.state(self.key), "Disabled", "state after calling off")
            owner.kms.enable_key(KeyId=self.key)
        self.reads("after a deletion that was called off")
        with self.report.case("the waiting period holds: six days on, the key can be called back"):
            owner.kms.schedule_key_deletion(KeyId=self.key, PendingWindowInDays=7)
            advance(self.node, 6)
            equal(owner.state(self.key), "PendingDeletion", "after six days")
        with self.report.case("after it the key is destroyed, and a report says what that means"):
            advance(self.node, 2)
            settle("destroyed", lambda: self.is_destroyed())
            report = owner.kluis("GetErasureReport", KeyId=self.key)["Report"]
            text = repr(report)
            expect("overwrite-best-effort" in text, f"no assurance level: {text[:600]}")
            self.job.report.note(f"  erasure report: {text[:1500]}")
        with self.report.case("a destroyed key cannot be called back or used"):
            for attempt in (lambda: owner.kms.cancel_key_deletion(KeyId=self.key),
                            lambda: owner.kms.enable_key(KeyId=self.key),
                            lambda: owner.kms.decrypt(CiphertextBlob=sealed)):
                try:
                    attempt()
                except owner.kms.exceptions.ClientError as error:
                    code = error.response["Error"]["Code"]
                    expect(code in ("NotFoundException", "KMSInvalidStateException",
                                    "InvalidCiphertextException"), code)
                else:
                    expect(False, "it was accepted")
        self.gone("destroyed")

    def is_destroyed(self) -> bool:
        try:
            self.owner.kluis("GetErasureReport", KeyId=self.key)
        except Exception:
            return False
        return True

    def gone(self, what: str) -> None:
        with self.report.case(f"{what}: no object under the key reads"):
            for object_key in self.stored:
                if object_key.startswith(("first/", "second/")):
                    try:
                        self.owner.get("life", object_key)
                    except self.owner.s3.exceptions.ClientError as error:
                        code = error.response["Error"]["Code"]
                        expect(code in (BAD_STATE, "NoSuchKey", "KMS.NotFoundException"), code)
                    else:
                        expect(False, f"{object_key} reads")
        with self.report.case(f"{what}: objects under other keys read"):
            for object_key in ("other/large", "default/small"):
                equal(self.owner.get("life", object_key), self.stored[object_key], object_key)

    def restart(self, imported: tuple[str, bytes]) -> None:
        with self.report.case("after a restart everything is as it was"):
            self.node.stop()
            self.node.start()
            self.owner = Owner(self.node, self.tenant, self.job.path("owner"))
            equal(self.owner.get("life", imported[0]), imported[1], "under imported material")
        self.gone("after a restart")


def by_cli(job: Job, node: Node, tenant: Tenant) -> None:
    """The short life of a key with nothing but `aws kms` and `aws s3api`."""
    owner = Owner(node, tenant, job.path("cli"))
    aws = owner.aws
    blob = job.path("cli/blob")
    with job.report.case("aws CLI: create, alias, encrypt, rotate, decrypt"):
        key = aws("kms", "create-key", "--description", "cli")["KeyMetadata"]["KeyId"]
        aws("kms", "create-alias", "--alias-name", "alias/cli", "--target-key-id", key)
        listed = aws("kms", "list-aliases", "--key-id", key)["Aliases"]
        equal([it["AliasName"] for it in listed], ["alias/cli"], "aliases of the key")
        blob.write_bytes(b"secret")
        sealed = aws("kms", "encrypt", "--key-id", "alias/cli", "--plaintext", f"fileb://{blob}",
                     "--encryption-context", "a=b")["CiphertextBlob"]
        blob.write_bytes(base64.b64decode(sealed))
        aws("kms", "rotate-key-on-demand", "--key-id", key)
        decrypt = ("kms", "decrypt", "--ciphertext-blob", f"fileb://{blob}")
        opened = aws(*decrypt, "--encryption-context", "a=b")
        equal(base64.b64decode(opened["Plaintext"]), b"secret", "plaintext")
        refused("InvalidCiphertextException", lambda: aws(*decrypt, "--encryption-context", "a=c"))
    with job.report.case("aws CLI: default encryption, put, get, disable, enable, delete"):
        rule = ('{"Rules":[{"ApplyServerSideEncryptionByDefault":'
                f'{{"SSEAlgorithm":"aws:kms","KMSMasterKeyID":"{key}"}}}}]}}')
        aws("s3api", "create-bucket", "--bucket", "by-cli")
        aws("s3api", "put-bucket-encryption", "--bucket", "by-cli",
            "--server-side-encryption-configuration", rule)
        blob.write_bytes(body(300 * KIB, "cli"))
        put = aws("s3api", "put-object", "--bucket", "by-cli", "--key", "k", "--body", str(blob))
        expect(put["SSEKMSKeyId"].endswith(key), f"the key of the object: {put}")
        target = job.path("cli/target")
        get = ("s3api", "get-object", "--bucket", "by-cli", "--key", "k", str(target))
        aws(*get)
        equal(target.read_bytes(), blob.read_bytes(), "the object")
        aws("kms", "disable-key", "--key-id", key)
        refused(DISABLED, lambda: aws(*get), "get-object of a disabled key")
        aws("kms", "enable-key", "--key-id", key)
        aws(*get)
        told = aws("kms", "schedule-key-deletion", "--key-id", key,
                   "--pending-window-in-days", "30")
        equal(told["KeyState"], "PendingDeletion", "state")
        aws("kms", "cancel-key-deletion", "--key-id", key)
        aws("kms", "enable-key", "--key-id", key)
        aws(*get)
        aws("s3api", "delete-bucket-encryption", "--bucket", "by-cli")


def import_and_expire(job: Job, node: Node, tenant: Tenant) -> tuple[str, bytes]:
    """Material of the tenant's own: in, expired, out, in again. Gives an object under it."""
    owner = Owner(node, tenant, job.path("import"))
    material = secrets.token_bytes(32)
    data = body(200 * KIB, "imported")
    names = {"Bucket": "life", "Key": "imported"}
    with job.report.case("import: a key without material waits for it"):
        key = owner.create_key(Origin="EXTERNAL")
        equal(owner.state(key), "PendingImport", "state")
        refused("KMSInvalidStateException",
                lambda: owner.kms.encrypt(KeyId=key, Plaintext=b"x"), "Encrypt without material")
        refused(BAD_STATE, lambda: owner.put("life", "imported", data, SSEKMSKeyId=key,
                                             ServerSideEncryption="aws:kms"), "PUT")
    with job.report.case("import: with an expiry the key works until then"):
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=40)
        owner.import_material(key, material, ExpirationModel="KEY_MATERIAL_EXPIRES", ValidTo=until)
        told = owner.kms.describe_key(KeyId=key)["KeyMetadata"]
        equal((told["KeyState"], told["ExpirationModel"]),
              ("Enabled", "KEY_MATERIAL_EXPIRES"), "after the import")
        owner.put("life", "imported", data, SSEKMSKeyId=key, ServerSideEncryption="aws:kms")
        equal(owner.get("life", "imported"), data, "the object")
        sealed = owner.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        advance(node, 41)
        settle("expired", lambda: owner.state(key) == "PendingImport")
        refused(BAD_STATE, lambda: owner.s3.get_object(**names), "GET after the expiry")
    with job.report.case("import: other material than before is refused"):
        refused("IncorrectKeyMaterialException",
                lambda: owner.import_material(key, secrets.token_bytes(32)))
        equal(owner.state(key), "PendingImport", "state")
    with job.report.case("import: the same material brings everything back"):
        owner.import_material(key, material)
        equal(owner.get("life", "imported"), data, "the object")
        equal(owner.kms.decrypt(CiphertextBlob=sealed)["Plaintext"], b"x", "the ciphertext")
    with job.report.case("import: deleted by its tenant, and in again"):
        owner.kms.delete_imported_key_material(KeyId=key)
        equal(owner.state(key), "PendingImport", "state")
        refused(BAD_STATE, lambda: owner.s3.get_object(**names), "GET after the deletion")
        owner.import_material(key, material)
        equal(owner.get("life", "imported"), data, "the object")
    return "imported", data
