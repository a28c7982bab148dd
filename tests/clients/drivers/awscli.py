"""The aws CLI: `aws s3` where people use it, `aws s3api` for what it lacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..report import Failure
from . import Driver

AWS = str(Path(sys.executable).parent / "aws")


class AwsCli(Driver):
    name = "aws CLI"

    def copy(self, source: str, target: str) -> None:
        self.execute(AWS, "s3", "cp", "--only-show-errors", source, target)

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.copy(str(source), f"s3://{bucket}/{object_key}")

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.copy(f"s3://{bucket}/{object_key}", str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        # Above 8 MiB the CLI uploads in parts of 8 MiB by itself.
        self.put(bucket, object_key, source)

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        target = self.account.folder / "aws-range"
        self.execute(
            AWS, "s3api", "get-object", "--bucket", bucket, "--key", object_key,
            "--range", f"bytes={first}-{first + length - 1}", str(target),
        )
        return target.read_bytes()

    def list(self, bucket: str, prefix: str) -> list[str]:
        out = self.execute(
            AWS, "s3api", "list-objects-v2", "--bucket", bucket, "--prefix", prefix,
            "--query", "Contents[].Key", "--output", "json",
        )
        return [str(name) for name in json.loads(out) or []]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        try:
            self.execute(
                AWS, "s3api", "put-object", "--bucket", bucket, "--key", object_key,
                "--body", str(source), "--if-none-match", "*",
            )
        except Failure as refusal:
            if "PreconditionFailed" not in str(refusal):
                raise

    def delete(self, bucket: str, object_key: str) -> None:
        self.execute(AWS, "s3", "rm", "--only-show-errors", f"s3://{bucket}/{object_key}")
