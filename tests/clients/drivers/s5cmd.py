"""s5cmd: the Go SDK v1, many small requests at once."""

from __future__ import annotations

import sys
from pathlib import Path

from . import Driver

S5CMD = str(Path(sys.executable).parent / "s5cmd")


class S5cmd(Driver):
    name = "s5cmd"

    def run(self, *words: str) -> bytes:
        return self.execute(S5CMD, "--endpoint-url", self.account.node.endpoint, *words)

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("cp", str(source), f"s3://{bucket}/{object_key}")

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        # Parts of 1 MiB, so that a large download comes in several ranged requests.
        self.run("cp", "--part-size", "1", f"s3://{bucket}/{object_key}", str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("cp", "--part-size", "8", str(source), f"s3://{bucket}/{object_key}")

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        raise self.not_offered("its ranged requests are those of its downloads, checked above")

    def list(self, bucket: str, prefix: str) -> list[str]:
        out = self.run("ls", "--show-fullpath", f"s3://{bucket}/{prefix}*").decode()
        start = len(f"s3://{bucket}/")
        return [line.strip()[start:] for line in out.splitlines() if line.strip()]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("cp", "--no-clobber", str(source), f"s3://{bucket}/{object_key}")

    def delete(self, bucket: str, object_key: str) -> None:
        self.run("rm", f"s3://{bucket}/{object_key}")
