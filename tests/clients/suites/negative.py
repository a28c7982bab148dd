"""What must not be possible: three negative properties.

Operator credentials decrypt nothing. A tenant's key opens no other tenant's object. Logs, metrics
and errors hold no key byte. (That Debug output holds none is a matter of types: kms asserts at
compile time that no secret has one.)
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import secrets
import shutil
import socket
from typing import Any

from decryptor.directory import Directory
from decryptor.kluis_v1 import DoesNotOpen

from .. import disk
from ..canaries import Canaries
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, refused
from ..report import Failure, equal, expect
from ..sigv4 import Signer, encode
from ..wire import Reply

MARK = b"plaintext-of-a-customer-"


def run(job: Job) -> None:
    node = job.node(KLUIS_LOG_LEVEL="debug")
    node.start()
    first, second = node.create_tenant("first"), node.create_tenant("second")
    canaries = Canaries()
    words = plant(job, node, first, canaries)
    foreigners(job, node, first, second)
    operator(job, node, first, words)
    told = leaks(job, node, first, canaries)
    node.stop()
    with job.report.case("no planted secret in the log of a run at debug level"):
        log = node.log.read_bytes()
        expect(b'"DEBUG"' in log, "the log has no line at debug level")
        found = canaries.find(log)
        expect(not found, f"in the log: {sorted(found)}")
    job.report.note(f"  searched {len(node.log.read_bytes()):,} bytes of log, {told:,} of answers")
    directory(job, node, first)


def plant(job: Job, node: Node, tenant: Tenant, canaries: Canaries) -> bytes:
    """Known key bytes through every verb that takes or gives some."""
    owner, ledger = Owner(node, tenant, job.path("first")), Ledger(node, tenant)
    canaries.plant("the secret of an access key", tenant.secret_access_key.encode())
    material = canaries.plant("imported key material", secrets.token_bytes(32))
    key = owner.create_key(Origin="EXTERNAL")
    owner.import_material(key, material)
    owner.kms.create_alias(AliasName="alias/mine", TargetKeyId=key)
    made = owner.kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    canaries.plant("a generated data key", made["Plaintext"])
    text = canaries.plant("a plaintext of Encrypt", secrets.token_bytes(48))
    sealed = owner.kms.encrypt(KeyId=key, Plaintext=text)["CiphertextBlob"]
    owner.kms.decrypt(CiphertextBlob=sealed)
    owner.kms.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=owner.create_key())
    ledger.create_bucket("mine")
    owner.use_by_default("mine", key)
    words = MARK + secrets.token_bytes(24)
    canaries.plant("plaintext of an object", words)
    ledger.put("mine", "object", words * 1_000)
    ledger.put("mine", "inline", words)
    customer = canaries.plant("an SSE-C key", secrets.token_bytes(32))
    headers = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": base64.b64encode(customer).decode(),
        "x-amz-server-side-encryption-customer-key-MD5":
            base64.b64encode(hashlib.md5(customer).digest()).decode(),
    }
    for method in ("PUT", "GET", "HEAD"):
        ledger.ask(method, "mine", "by-customer", "", headers, b"x" if method == "PUT" else b"")
    return words


def foreigners(job: Job, node: Node, first: Tenant, second: Tenant) -> None:
    """The second tenant tries everything on what is the first one's."""
    owner = Owner(node, first, job.path("first"))
    thief, ledger = Owner(node, second, job.path("second")), Ledger(node, second)
    key = owner.kms.describe_key(KeyId="alias/mine")["KeyMetadata"]
    sealed = owner.kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")["CiphertextBlob"]
    ledger.create_bucket("theirs")
    names = {"the id": key["KeyId"], "the ARN": key["Arn"], "the alias": "alias/mine"}
    for what, name in names.items():
        attempts: dict[str, Any] = {
            "DescribeKey": lambda name=name: thief.kms.describe_key(KeyId=name),
            "Encrypt": lambda name=name: thief.kms.encrypt(KeyId=name, Plaintext=b"x"),
            "GenerateDataKey":
                lambda name=name: thief.kms.generate_data_key(KeyId=name, KeySpec="AES_256"),
        }
        for verb, attempt in attempts.items():
            with job.report.case(f"another tenant's key by {what}: {verb}"):
                refused("NotFoundException", attempt)
        with job.report.case(f"another tenant's key by {what}: PUT under it"):
            refused("KMS.NotFoundException", lambda name=name: thief.put(
                "theirs", "x", b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=name))
    for verb, attempt in {
        "DisableKey": lambda: thief.kms.disable_key(KeyId=key["KeyId"]),
        "ScheduleKeyDeletion": lambda: thief.kms.schedule_key_deletion(KeyId=key["KeyId"]),
        "StartRewrap": lambda: thief.kluis("StartRewrap", KeyId=key["KeyId"]),
        "DescribeKeyImpact": lambda: thief.kluis("DescribeKeyImpact", KeyId=key["KeyId"]),
        "GetErasureReport": lambda: thief.kluis("GetErasureReport", KeyId=key["KeyId"]),
    }.items():
        with job.report.case(f"another tenant's key: {verb}"):
            refused("NotFoundException", attempt)
    with job.report.case("another tenant's ciphertext opens under no key of one's own"):
        for fields in ({}, {"KeyId": thief.create_key()}):
            try:
                thief.kms.decrypt(CiphertextBlob=sealed, **fields)
            except thief.kms.exceptions.ClientError:
                continue
            expect(False, "it opened")
    with job.report.case("another tenant's object is absent, to read and to copy"):
        refused("NoSuchBucket", lambda: thief.get("mine", "object"))
        refused("NoSuchBucket", lambda: thief.s3.copy_object(
            Bucket="theirs", Key="x", CopySource={"Bucket": "mine", "Key": "object"}))
    with job.report.case("the first tenant's key and object are untouched"):
        equal(owner.state(key["KeyId"]), "Enabled", "state")
        expect(owner.get("mine", "inline").startswith(MARK), "the object")


def operator(job: Job, node: Node, tenant: Tenant, words: bytes) -> None:
    """Everything that an operator can say, and no byte of a customer's in any answer."""
    commands = (
        ("tenant", "list"), ("tenant", "show", "first"), ("user", "list", "first"),
        ("access-key", "list", "first"),
    )
    for command in commands:
        with job.report.case(f"operator: kluis {' '.join(command)} tells no plaintext, no secret"):
            done = node.command(*command, "--data-dir", str(node.data), "--json")
            told = (done.stdout + done.stderr).encode()
            expect(words not in told and MARK not in told, "plaintext")
            expect(tenant.secret_access_key.encode() not in told, "the secret of an access key")
    paths = ("/", "/mine/object", "/mine?list-type=2", "/metrics", "/health/ready")
    for path in paths:
        with job.report.case(f"operator: the admin socket serves no S3: GET {path}"):
            reply = ask_socket(node, "GET", path, b"", {})
            expect(words not in reply and MARK not in reply, "plaintext")
            expect(b"<ListBucketResult" not in reply, "a listing")
    for verb in ("Decrypt", "DescribeKey", "GenerateDataKey"):
        with job.report.case(f"operator: the admin socket serves no KMS: {verb}"):
            reply = ask_socket(node, "POST", "/", b'{"KeyId":"alias/mine"}', {
                "X-Amz-Target": f"TrentService.{verb}",
                "Content-Type": "application/x-amz-json-1.1"})
            expect(b" 200 " not in reply.split(b"\r\n")[0], f"it answers {reply[:200]!r}")
    with job.report.case("operator: a copy of the data directory without the passphrase is shut"):
        copy = job.path("copy/data")
        shutil.copytree(node.data, copy, ignore=shutil.ignore_patterns("admin.sock", "LOCK"))
        (copy / "keys" / "dev-passphrase").unlink()
        wrong = job.path("copy/wrong")
        wrong.write_text("not the passphrase of this node\n")
        wrong.chmod(0o600)
        # Without any passphrase `kluis check` verifies ciphertext, which needs no key.
        attempts = (
            ("serve", str(copy), "--listen", "127.0.0.1:0"),
            ("serve", str(copy), "--listen", "127.0.0.1:0", "--passphrase-file", str(wrong)),
            ("check", str(copy), "--passphrase-file", str(wrong)),
        )
        for attempt in attempts:
            done = node.command(*attempt, seconds=120)
            expect(done.returncode != 0, f"{attempt}: it opened")
            expect(MARK.decode() not in done.stdout + done.stderr, "plaintext")


class Unix(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def ask_socket(node: Node, method: str, path: str, sent: bytes, headers: dict[str, str]) -> bytes:
    link = Unix(str(node.data / "admin.sock"))
    try:
        link.request(method, path, body=sent or None, headers=headers)
        reply = link.getresponse()
        return f"HTTP/1.1 {reply.status} \r\n{reply.headers}\r\n".encode() + reply.read()
    finally:
        link.close()


def leaks(job: Job, node: Node, tenant: Tenant, canaries: Canaries) -> int:
    """Metrics, and the answers to requests that fail with secrets in them."""
    told = 0
    with job.report.case("no planted secret in the metrics"):
        _, metrics = node.plain_get("/metrics")
        found = canaries.find(metrics.encode())
        expect(not found, f"{sorted(found)}")
        told += len(metrics)
    ledger, owner = Ledger(node, tenant), Owner(node, tenant, job.path("first"))
    for name, secret in [(name, form) for form, name in canaries.forms.items()
                         if not name.endswith(("hex", "base64"))]:
        with job.report.case(f"no error answer repeats {name}"):
            word = base64.b64encode(secret).decode()
            replies: list[bytes] = []
            for headers in (
                {"x-amz-server-side-encryption": "aws:kms",
                 "x-amz-server-side-encryption-aws-kms-key-id": "alias/absent",
                 "x-amz-server-side-encryption-context": word},
                {"x-amz-server-side-encryption-customer-algorithm": "AES256",
                 "x-amz-server-side-encryption-customer-key": word,
                 "x-amz-server-side-encryption-customer-key-MD5": "AAAA"},
            ):
                reply = ledger.ask("PUT", "mine", "refused", "", headers, b"x")
                expect(reply.status >= 400, f"{sorted(headers)}: {reply.status}")
                replies.append(whole(reply))
            for verb, fields in {
                "Decrypt": {"CiphertextBlob": word},
                "Encrypt": {"KeyId": "alias/absent", "Plaintext": word},
                "ImportKeyMaterial": {"KeyId": "alias/mine", "ImportToken": word,
                                      "EncryptedKeyMaterial": word},
            }.items():
                headers = {"Content-Type": "application/x-amz-json-1.1",
                           "X-Amz-Target": f"TrentService.{verb}"}
                status, raw = owner.post(headers, repr(fields).replace("'", '"').encode())
                expect(status >= 400, f"{verb}: {status}")
                replies.append(raw)
            told += sum(len(raw) for raw in replies)
            for raw in replies:
                expect(not canaries.find(raw), f"{sorted(canaries.find(raw))} in {raw[:300]!r}")
    with job.report.case("a request with a wrong signature is not told the right one"):
        wrong = Signer(tenant.access_key_id, "x" * 40)
        reply = ledger.wire.request("GET", f"/mine/{encode('object')}", signer=wrong)
        equal(reply.code, "SignatureDoesNotMatch", "the answer")
        expect(not canaries.find(whole(reply)), "a secret")
    return told


def whole(reply: Reply) -> bytes:
    return repr(reply.headers).encode() + reply.body


def directory(job: Job, node: Node, tenant: Tenant) -> None:
    """The independent decryptor opens the directory with the passphrase, and not without."""
    rows = disk.dump(job.rows, node.data)
    with job.report.case("the directory does not open by another passphrase"):
        try:
            Directory(node.data, rows, b"another passphrase")
        except DoesNotOpen:
            return
        raise Failure("it opened")
