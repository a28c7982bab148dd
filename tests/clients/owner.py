"""A tenant as the owner of its keys: boto3 and the aws CLI, unchanged but for the endpoint.

Kluis' own verbs have no client of their own: they are the same protocol under another prefix, and
go out signed by botocore.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from .drivers import REGION, Account
from .drivers.awscli import AWS
from .node import Node, Tenant
from .report import Failure, equal, expect

JOB_SECONDS_MAX = 120.0
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Refused(Exception):
    """An error that the node told, by its code."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(f"{code} ({status}): {message}")
        self.code = code
        self.status = status


class Owner:
    """One tenant's clients of one node. Made anew after a restart, since the port changes."""

    def __init__(self, node: Node, tenant: Tenant, folder: Path) -> None:
        self.node = node
        self.tenant = tenant
        folder.mkdir(parents=True, exist_ok=True)
        self.account = Account(node, tenant, folder)
        session = boto3.session.Session(
            aws_access_key_id=tenant.access_key_id,
            aws_secret_access_key=tenant.secret_access_key,
            region_name=REGION,
        )
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=64)
        # Presigned URLs too: AWS wants version 4 for what is under a key of one's own.
        version_4 = config.merge(Config(signature_version="s3v4"))
        self.kms: Any = session.client("kms", endpoint_url=node.endpoint, config=config)
        self.s3: Any = session.client("s3", endpoint_url=node.endpoint, config=version_4)

    def aws(self, *words: str) -> Any:
        """Runs the aws CLI and reads its JSON; an error of the node raises [`Refused`]."""
        done = subprocess.run(
            [AWS, *words, "--output", "json"], capture_output=True, text=True, timeout=300,
            env=self.account.environment(), cwd=self.account.folder, stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            told = done.stderr.strip()
            code = told.partition("An error occurred (")[2].partition(")")[0]
            if code:
                raise Refused(code, 0, told)
            raise Failure(f"aws {' '.join(words)}: {done.returncode}: {told}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def call(self, target: str, fields: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
        """One signed call of the JSON protocol; `target` holds the prefix."""
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        status, body = self.post(headers, json.dumps(fields).encode(), seconds)
        told = json.loads(body) if body else {}
        if status != 200:
            code = str(told.get("__type", "")).rpartition("#")[2]
            raise Refused(code, status, str(told.get("message", told.get("Message", ""))))
        return dict(told)

    def post(
        self, headers: dict[str, str], body: bytes, seconds: float = 60.0
    ) -> tuple[int, bytes]:
        """Any signed POST in the scope of kms."""
        request = AWSRequest("POST", self.node.endpoint + "/", headers=headers, data=body)
        credentials = Credentials(self.tenant.access_key_id, self.tenant.secret_access_key)
        SigV4Auth(credentials, "kms", REGION).add_auth(request)
        sent = urllib.request.Request(
            request.url, data=body, headers=dict(request.headers), method="POST"
        )
        try:
            with urllib.request.urlopen(sent, timeout=seconds) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def kluis(self, verb: str, **fields: Any) -> dict[str, Any]:
        return self.call(f"KluisKms.{verb}", fields)

    def create_key(self, **fields: Any) -> str:
        """A new key's id."""
        return str(self.kms.create_key(**fields)["KeyMetadata"]["KeyId"])

    def state(self, key_id: str) -> str:
        return str(self.kms.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"])

    def materials(self, key_id: str) -> int:
        """How many materials a key has had."""
        told = self.kms.list_key_rotations(
            KeyId=key_id, IncludeKeyMaterial="ALL_KEY_MATERIAL", Limit=1000
        )
        return len(told["Rotations"])

    def finish(self, job: dict[str, Any], seconds: float = JOB_SECONDS_MAX) -> dict[str, Any]:
        """Waits until a job has ended and gives what it says then."""
        begun = time.monotonic()
        while job["State"] in ("Running", "Waiting"):
            if time.monotonic() - begun > seconds:
                raise Failure(f"not over after {seconds} s: {job}")
            time.sleep(0.05)
            job = self.kluis("DescribeJob", JobId=job["JobId"])["Job"]
        return job

    def run(self, verb: str, key_id: str, **fields: Any) -> dict[str, Any]:
        """Starts a job and waits until it has completed."""
        job = self.finish(self.kluis(verb, KeyId=key_id, **fields)["Job"])
        equal(job["State"], "Completed", f"{verb}: {job}")
        return job

    def import_parameters(self, key_id: str) -> tuple[rsa.RSAPublicKey, bytes]:
        told = self.kms.get_parameters_for_import(
            KeyId=key_id, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048"
        )
        public = load_der_public_key(told["PublicKey"])
        if not isinstance(public, rsa.RSAPublicKey):
            raise Failure(f"the wrapping key is {type(public)}")
        return public, told["ImportToken"]

    def import_material(self, key_id: str, material: bytes, **fields: Any) -> dict[str, Any]:
        """Wraps and imports; without further fields the material does not expire."""
        public, token = self.import_parameters(key_id)
        fields.setdefault("ExpirationModel", "KEY_MATERIAL_DOES_NOT_EXPIRE")
        return dict(self.kms.import_key_material(
            KeyId=key_id, ImportToken=token, EncryptedKeyMaterial=public.encrypt(material, OAEP),
            **fields,
        ))

    def put(self, bucket: str, object_key: str, body: bytes, **fields: Any) -> dict[str, Any]:
        return dict(self.s3.put_object(Bucket=bucket, Key=object_key, Body=body, **fields))

    def get(self, bucket: str, object_key: str, **fields: Any) -> bytes:
        body: bytes = self.s3.get_object(Bucket=bucket, Key=object_key, **fields)["Body"].read()
        return body

    def use_by_default(self, bucket: str, key_id: str) -> None:
        """PutBucketEncryption with this key."""
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key_id}
        self.s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": True}]
            },
        )


def refused(code: str, attempt: Callable[[], Any], what: str = "") -> None:
    """Holds an attempt to exactly this error."""
    try:
        told = attempt()
    except ClientError as error:
        equal(error.response["Error"]["Code"], code, what or str(error))
    except Refused as error:
        equal(error.code, code, what or str(error))
    else:
        expect(False, f"{what}: want {code}, got {told!r:.300}")


def advance(node: Node, days: int) -> None:
    """Moves the clock of the keys' life forward; nothing else sees it."""
    done = node.command(
        "dev", "advance-clock", "--days", str(days), "--data-dir", str(node.data), seconds=120
    )
    if done.returncode != 0:
        raise Failure(f"kluis dev advance-clock: {done.returncode}: {done.stderr.strip()}")


def settle(what: str, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something that the node does by itself."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > seconds:
            raise Failure(f"not so after {seconds} s: {what}")
        time.sleep(0.1)
