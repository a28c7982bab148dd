"""The AWS SDK for JavaScript v3, through tests/clients/js/verb.mjs: one process per verb."""

from __future__ import annotations

import json
from pathlib import Path

from . import Driver

SCRIPT = Path(__file__).parent.parent / "js" / "verb.mjs"


class JavaScript(Driver):
    name = "AWS SDK for JavaScript v3"

    def run(self, verb: str, **arguments: object) -> str:
        job = json.dumps({"verb": verb, "modules": str(self.account.js)} | arguments)
        return self.execute("node", str(SCRIPT), job).decode()

    def put(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("put", bucket=bucket, key=object_key, file=str(source))

    def get(self, bucket: str, object_key: str, target: Path) -> None:
        self.run("get", bucket=bucket, key=object_key, file=str(target))

    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("putParts", bucket=bucket, key=object_key, file=str(source))

    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        target = self.account.folder / "js-range"
        asked = f"bytes={first}-{first + length - 1}"
        self.run("get", bucket=bucket, key=object_key, file=str(target), range=asked)
        return target.read_bytes()

    def list(self, bucket: str, prefix: str) -> list[str]:
        names = json.loads(self.run("list", bucket=bucket, prefix=prefix))
        return [str(name) for name in names]

    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        self.run("putIfAbsent", bucket=bucket, key=object_key, file=str(source))

    def delete(self, bucket: str, object_key: str) -> None:
        self.run("delete", bucket=bucket, key=object_key)
