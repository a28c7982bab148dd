"""One file per client that people have; each offers the verbs of [`Driver`]."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ..node import Node, Tenant
from ..report import Failure, NotOffered

REGION = "us-east-1"


@dataclass(frozen=True)
class Account:
    """Where a client connects, and as whom."""

    node: Node
    tenant: Tenant
    folder: Path
    # Where the JavaScript packages lie, and the program of the Rust clients.
    js: Path = Path()
    rust: Path = Path()

    def environment(self) -> dict[str, str]:
        """The variables that AWS clients read, and none of this machine's own settings."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return own | {
            "AWS_ACCESS_KEY_ID": self.tenant.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.tenant.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.node.endpoint,
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(self.folder),
        }


class Driver(ABC):
    """What the matrix asks of a client. A verb that a client has not raises `NotOffered`."""

    name: str

    def __init__(self, account: Account) -> None:
        self.account = account

    @abstractmethod
    def put(self, bucket: str, object_key: str, source: Path) -> None:
        """Uploads a file, in one request where the client can."""

    @abstractmethod
    def get(self, bucket: str, object_key: str, target: Path) -> None:
        """Downloads an object into a file."""

    @abstractmethod
    def put_parts(self, bucket: str, object_key: str, source: Path) -> None:
        """Uploads a file of `payload.THREE_PARTS` bytes by multipart in three parts."""

    @abstractmethod
    def get_range(self, bucket: str, object_key: str, first: int, length: int) -> bytes:
        """Bytes from the middle of an object."""

    @abstractmethod
    def list(self, bucket: str, prefix: str) -> list[str]:
        """Every object key under a prefix."""

    @abstractmethod
    def put_if_absent(self, bucket: str, object_key: str, source: Path) -> None:
        """Uploads unless the object exists; an existing object stays, told or untold."""

    @abstractmethod
    def delete(self, bucket: str, object_key: str) -> None:
        """Deletes an object."""

    def not_offered(self, why: str) -> NotOffered:
        return NotOffered(why)

    def execute(self, *words: str, accept: tuple[int, ...] = (0,), binary: bool = False) -> bytes:
        """Runs a client's program and returns what it printed."""
        done = subprocess.run(
            words, capture_output=True, env=self.environment(), cwd=self.account.folder,
            stdin=subprocess.DEVNULL, timeout=300, check=False,
        )
        if done.returncode not in accept:
            told = (done.stderr + (b"" if binary else done.stdout)).decode(errors="replace")
            raise Failure(f"{' '.join(words)}\nended with {done.returncode}:\n{told[-1500:]}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        return self.account.environment()
