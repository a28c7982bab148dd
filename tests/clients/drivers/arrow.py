"""pyarrow: the AWS SDK for C++."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs

from . import REGION, Account, Driver


class Arrow(Driver):
    name = "pyarrow"

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.files = fs.S3FileSystem(
            access_key=account.tenant.access_key_id,
            secret_key=account.tenant.secret_access_key,
            endpoint_override=f"127.0.0.1:{account.node.port}",
            scheme="http",
            region=REGION,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        with self.files.open_output_stream(f"{bucket}/{object_key}") as out:
            out.write(source.read_bytes())

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        with self.files.open_input_stream(f"{bucket}/{object_key}") as stored:
            target.write_bytes(stored.read())

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        # A stream that is written in small pieces goes up in parts of 10 MiB.
        with self.files.open_output_stream(f"{bucket}/{object_key}") as out:
            body = source.read_bytes()
            for at in range(0, len(body), 1 << 20):
                out.write(body[at : at + (1 << 20)])

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        with self.files.open_input_file(f"{bucket}/{object_key}") as stored:
            stored.seek(first)
            return bytes(stored.read(length))

    def list(self, bucket: str, prefix: str) -> list[str]:
        base = f"{bucket}/{prefix}".rstrip("/")
        found = self.files.get_file_info(fs.FileSelector(base, recursive=True))
        files = [info.path for info in found if info.type == fs.FileType.File]
        return [path[len(bucket) + 1 :] for path in files]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        raise self.not_offered("S3FileSystem has no conditional write")

    def delete(self, bucket: str, object_key: str) -> None:
        self.files.delete_file(f"{bucket}/{object_key}")
