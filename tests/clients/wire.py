"""HTTP/1.1 by hand: what is written is what was meant, however wrong."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse

from .node import Node, Tenant
from .sigv4 import Signer


# CompleteMultipartUpload may put an error under a 200, so the status alone does not tell.
ERROR_DOCUMENT = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<Error[ >]")


@dataclass(frozen=True)
class Reply:
    """An answer; `status` 0 means that the node closed the connection without one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self) -> str:
        """The S3 error code; empty where the body is no error document."""
        return element(self.body, "Code") if ERROR_DOCUMENT.match(self.body) else ""


def element(body: bytes, name: str) -> str:
    """The text of the first element of that name."""
    found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), body)
    return found.group(1).decode() if found else ""


def elements(body: bytes, name: str) -> list[str]:
    return [text.decode() for text in re.findall(rf"<{name}>([^<]*)</{name}>".encode(), body)]


class Wire:
    """Requests to one node, signed as one tenant unless told otherwise."""

    def __init__(self, node: Node, tenant: Tenant) -> None:
        self.port = node.port
        self.signer = Signer(tenant.access_key_id, tenant.secret_access_key)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        signer: Signer | None = None,
        payload: str | None = None,
    ) -> Reply:
        """A signed request with a whole body."""
        digest = hashlib.sha256(body).hexdigest() if payload is None else payload
        given = {"Host": self.host} | (headers or {})
        if body or method in ("PUT", "POST"):
            given.setdefault("Content-Length", str(len(body)))
        full = (signer or self.signer).headers(method, path, query, given, digest)
        return self.raw(head(method, path, query, full) + body, method=method)

    def raw(
        self, data: bytes, *, method: str = "GET", half_close: bool = False, seconds: float = 60.0
    ) -> Reply:
        """Writes exactly `data` and reads one answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as link:
            try:
                link.sendall(data)
                if half_close:
                    link.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # The node answered before it had read all; the answer is still there.
            return read_reply(link, method)


def read_reply(link: socket.socket, method: str) -> Reply:
    """Reads an answer, an interim 100 skipped."""
    try:
        reply = HTTPResponse(link, method=method)
        reply.begin()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    except (HTTPException, ConnectionResetError):
        return Reply(0)


def head(method: str, path: str, query: str, headers: dict[str, str]) -> bytes:
    target = f"{path}?{query}" if query else path
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
