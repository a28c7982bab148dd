"""rclone, as the provider that people without a known name choose."""

from __future__ import annotations

from pathlib import Path

from . import REGION, Driver

# A retry would hide an error.
ONCE = ("--retries", "1", "--low-level-retries", "1")


class Rclone(Driver):
    name = "rclone"

    def remote(self, path: str) -> str:
        return f"kluis:{path}"

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "RCLONE_CONFIG": str(self.account.folder / "no-rclone.conf"),
            "RCLONE_CONFIG_KLUIS_TYPE": "s3",
            "RCLONE_CONFIG_KLUIS_PROVIDER": "Other",
            "RCLONE_CONFIG_KLUIS_ENDPOINT": self.account.node.endpoint,
            "RCLONE_CONFIG_KLUIS_REGION": REGION,
            "RCLONE_CONFIG_KLUIS_ACCESS_KEY_ID": self.account.tenant.access_key_id,
            "RCLONE_CONFIG_KLUIS_SECRET_ACCESS_KEY": self.account.tenant.secret_access_key,
        }

    def run(self, *words: str, accept: tuple[int, ...] = (0,)) -> bytes:
        return self.execute("rclone", *ONCE, *words, accept=accept, binary=words[0] == "cat")

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("copyto", str(source), self.remote(f"{bucket}/{object_key}"))

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.run("copyto", self.remote(f"{bucket}/{object_key}"), str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        self.run(
            "copyto", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "8M",
            str(source), self.remote(f"{bucket}/{object_key}"),
        )

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        return self.run(
            "cat", "--offset", str(first), "--count", str(length),
            self.remote(f"{bucket}/{object_key}"),
        )

    def list(self, bucket: str, prefix: str) -> list[str]:
        out = self.run("lsf", "-R", "--files-only", self.remote(f"{bucket}/{prefix}")).decode()
        return [prefix + line for line in out.splitlines()]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        self.run(
            "copyto", "--ignore-existing", str(source), self.remote(f"{bucket}/{object_key}")
        )

    def delete(self, bucket: str, object_key: str) -> None:
        self.run("deletefile", self.remote(f"{bucket}/{object_key}"))
