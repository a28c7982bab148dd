"""s3cmd: compares the ETag of what it sends with an MD5 of its own, unless told that it is none."""

from __future__ import annotations

from pathlib import Path

from . import Account, Driver


class S3cmd(Driver):
    name = "s3cmd"

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        host = f"127.0.0.1:{account.node.port}"
        self.config = account.folder / "s3cmd.ini"
        self.config.write_text(
            "[default]\n"
            f"access_key = {account.tenant.access_key_id}\n"
            f"secret_key = {account.tenant.secret_access_key}\n"
            f"host_base = {host}\nhost_bucket = {host}\n"
            "use_https = False\nmax_retries = 0\n"
        )

    def run(self, *words: str) -> bytes:
        return self.execute("s3cmd", "--config", str(self.config), "--no-progress", *words)

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("put", "--disable-multipart", str(source), f"s3://{bucket}/{object_key}")

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.run("get", "--force", f"s3://{bucket}/{object_key}", str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        self.run(
            "put", "--multipart-chunk-size-mb=8", str(source), f"s3://{bucket}/{object_key}"
        )

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        # It asks for a range when it continues a download: from what a file holds to the end.
        target = self.account.folder / "s3cmd-range"
        target.write_bytes(b"\0" * first)
        self.run("get", "--continue", f"s3://{bucket}/{object_key}", str(target))
        return target.read_bytes()[first : first + length]

    def list(self, bucket: str, prefix: str) -> list[str]:
        out = self.run("ls", "--recursive", f"s3://{bucket}/{prefix}").decode()
        mark = f"s3://{bucket}/"
        return [line.split(mark, 1)[1] for line in out.splitlines() if mark in line]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("sync", "--skip-existing", str(source), f"s3://{bucket}/{object_key}")

    def delete(self, bucket: str, object_key: str) -> None:
        self.run("del", f"s3://{bucket}/{object_key}")
