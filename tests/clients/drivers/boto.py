"""boto3: the AWS SDK for Python, with its transfer manager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from ..payload import MIB
from ..report import equal, expect
from . import REGION, Account, Driver


def connect(account: Account, **options: Any) -> Any:
    """A client with the SDK's defaults: CRC trailers on, path-style because of the address."""
    session = boto3.session.Session(
        aws_access_key_id=account.tenant.access_key_id,
        aws_secret_access_key=account.tenant.secret_access_key,
        region_name=REGION,
    )
    config = Config(retries={"total_max_attempts": 1}, **options)
    return session.client("s3", endpoint_url=account.node.endpoint, config=config)


class Boto(Driver):
    name = "boto3"

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.s3 = connect(account)

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.s3.put_object(Bucket=bucket, Key=object_key, Body=source.read_bytes())

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.s3.download_file(bucket, object_key, str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
        self.s3.upload_file(str(source), bucket, object_key, Config=config)

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        asked = f"bytes={first}-{first + length - 1}"
        reply = self.s3.get_object(Bucket=bucket, Key=object_key, Range=asked)
        equal(reply["ResponseMetadata"]["HTTPStatusCode"], 206, "status of a range")
        body: bytes = reply["Body"].read()
        return body

    def list(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        body = source.read_bytes()
        try:
            self.s3.put_object(Bucket=bucket, Key=object_key, Body=body, IfNoneMatch="*")
        except ClientError as refusal:
            equal(refusal.response["Error"]["Code"], "PreconditionFailed", "code")
            exists = self.s3.head_object(Bucket=bucket, Key=object_key)
            expect(exists["ContentLength"] >= 0, "refused although the object does not exist")

    def delete(self, bucket: str, object_key: str) -> None:
        self.s3.delete_object(Bucket=bucket, Key=object_key)
