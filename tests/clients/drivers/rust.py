"""The Rust SDKs, through the program of tests/clients/rust: one process per verb."""

from __future__ import annotations

from pathlib import Path

from . import Driver


class RustClient(Driver):
    """Either SDK; they share a command line."""

    client: str

    def run(self, *words: str) -> bytes:
        return self.execute(str(self.account.rust), self.client, *words)

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("put", bucket, object_key, str(source))

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.run("get", bucket, object_key, str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("put-parts", bucket, object_key, str(source))

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        target = self.account.folder / "rust-range"
        self.run("get", bucket, object_key, str(target), str(first), str(length))
        return target.read_bytes()

    def list(self, bucket: str, prefix: str) -> list[str]:
        return self.run("list", bucket, prefix).decode().splitlines()

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("put-if-absent", bucket, object_key, str(source))

    def delete(self, bucket: str, object_key: str) -> None:
        self.run("delete", bucket, object_key)


class AwsSdkRust(RustClient):
    name = "aws-sdk-s3 (Rust)"
    client = "aws-sdk"


class ObjectStore(RustClient):
    name = "object_store (Rust)"
    client = "object-store"
