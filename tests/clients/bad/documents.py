"""XML that is a bomb, too long, too deep, or no XML."""

from __future__ import annotations

import base64
import hashlib

from ..payload import MIB
from ..wire import Reply
from . import BUCKET, Bench, Case


def delete(bench: Bench, body: bytes) -> Reply:
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    return bench.ask("POST", f"/{BUCKET}", "delete=", {"content-md5": digest}, body)


def complete(bench: Bench, body: bytes) -> Reply:
    return bench.ask("POST", f"/{BUCKET}/open", f"uploadId={bench.upload}", None, body)


def create(bench: Bench, body: bytes) -> Reply:
    return bench.ask("PUT", "/new-bucket", "", None, body)


def laughs() -> bytes:
    """Ten levels of ten: 10^10 letters if anybody expands them."""
    levels = [b'<!ENTITY l0 "lol">']
    levels += [b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 11)]
    return (b"<!DOCTYPE Delete [" + b"".join(levels) + b"]>"
            b"<Delete><Object><Key>&l10;</Key></Object></Delete>")


EXTERNAL = (b'<!DOCTYPE Delete [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            b"<Delete><Object><Key>&x;</Key></Object></Delete>")
OBJECT = b"<Object><Key>small</Key></Object>"
DEEP = b"<Delete>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Delete>"

CASES = [
    Case("an entity bomb", 400, "MalformedXML", lambda b: delete(b, laughs())),
    Case("an external entity", 400, "MalformedXML", lambda b: delete(b, EXTERNAL)),
    Case("no XML", 400, "MalformedXML", lambda b: delete(b, b"delete everything")),
    Case("an empty document", 400, "MissingRequestBodyError", lambda b: delete(b, b"")),
    Case("an element that is not closed", 400, "MalformedXML",
         lambda b: delete(b, b"<Delete>" + OBJECT)),
    Case("another root", 400, "MalformedXML",
         lambda b: delete(b, b"<Remove>" + OBJECT + b"</Remove>")),
    Case("bytes that are not UTF-8", 400, "MalformedXML",
         lambda b: delete(b, b"<Delete><Object><Key>\xff\xfe</Key></Object></Delete>")),
    Case("1,001 objects", 400, "MalformedXML",
         lambda b: delete(b, b"<Delete>" + OBJECT * 1001 + b"</Delete>")),
    Case("no objects", 400, "MalformedXML", lambda b: delete(b, b"<Delete></Delete>")),
    Case("100,000 elements deep", 400, "MalformedXML", lambda b: delete(b, DEEP)),
    Case("longer than any document may be", 400, "MaxMessageLengthExceeded",
         lambda b: delete(b, b"<Delete>" + b" " * (24 * MIB) + b"</Delete>")),
    Case("a complete that is no XML", 400, "MalformedXML", lambda b: complete(b, b"{}")),
    Case("a complete with an entity bomb", 400, "MalformedXML", lambda b: complete(b, laughs())),
    Case("10,001 parts", 400, "MalformedXML", lambda b: complete(
        b, b"<CompleteMultipartUpload>"
        + b"<Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>" * 10_001
        + b"</CompleteMultipartUpload>")),
    Case("a new bucket with no XML", 400, "MalformedXML", lambda b: create(b, b"here please")),
]
