"""Uploads completed wrongly, parts that cannot be, uploads that are not there."""

from __future__ import annotations

from ..payload import MIB, body
from ..wire import Reply
from . import BUCKET, Bench, Case

OPEN = f"/{BUCKET}/open"
NO_UPLOAD = "uploadId=00000000000000000000000000000000"
WRONG_ETAG = '"00000000000000000000000000000000-1"'


def complete(
    bench: Bench, parts: list[int], *, etag: str | None = None, query: str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """CompleteMultipartUpload with the given part numbers and their right ETags."""
    known = dict(enumerate(bench.etags, 1))
    lines = "".join(
        f"<Part><PartNumber>{number}</PartNumber>"
        f"<ETag>{etag or known.get(number, WRONG_ETAG)}</ETag></Part>"
        for number in parts
    )
    text = f"<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>"
    return bench.ask("POST", OPEN, query or f"uploadId={bench.upload}", headers, text.encode())


def part(bench: Bench, number: str, query: str | None = None) -> Reply:
    upload = query or f"uploadId={bench.upload}"
    return bench.ask("PUT", OPEN, f"partNumber={number}&{upload}", None, b"part")


def copy_part(bench: Bench, headers: dict[str, str]) -> Reply:
    query = f"partNumber=1&uploadId={bench.upload}"
    return bench.ask("PUT", OPEN, query, {"x-amz-copy-source": f"/{BUCKET}/large"} | headers)


def raw_complete(bench: Bench, text: str) -> Reply:
    return bench.ask("POST", OPEN, f"uploadId={bench.upload}", None, text.encode())


CASES = [
    Case("parts in the wrong order", 400, "InvalidPartOrder", lambda b: complete(b, [2, 1])),
    Case("a part twice", 400, "InvalidPartOrder", lambda b: complete(b, [1, 1])),
    Case("a part that was never sent", 400, "InvalidPart", lambda b: complete(b, [1, 2, 9])),
    Case("a part with another ETag", 400, "InvalidPart",
         lambda b: complete(b, [1, 2], etag=WRONG_ETAG)),
    Case("a part in the middle below 5 MiB", 400, "EntityTooSmall",
         lambda b: complete(b, [1, 3, 4])),
    Case("no parts", 400, "MalformedXML", lambda b: complete(b, [])),
    Case("a part number that is no number", 400, "MalformedXML",
         lambda b: raw_complete(b, "<CompleteMultipartUpload><Part><PartNumber>one</PartNumber>"
                                   "<ETag>x</ETag></Part></CompleteMultipartUpload>")),
    Case("the wrong size of the whole", 400, "InvalidRequest",
         lambda b: complete(b, [1, 2], headers={"x-amz-mp-object-size": "17"})),
    Case("complete of an unknown upload", 404, "NoSuchUpload",
         lambda b: complete(b, [1], query=NO_UPLOAD)),
    Case("complete of a name that is no upload", 404, "NoSuchUpload",
         lambda b: complete(b, [1], query="uploadId=nonsense")),
    Case("a part of an unknown upload", 404, "NoSuchUpload", lambda b: part(b, "1", NO_UPLOAD)),
    Case("the parts of an unknown upload", 404, "NoSuchUpload", lambda b: b.get(OPEN, NO_UPLOAD)),
    Case("abort of an unknown upload", 404, "NoSuchUpload",
         lambda b: b.ask("DELETE", OPEN, NO_UPLOAD)),
    Case("an upload under another object key", 404, "NoSuchUpload",
         lambda b: b.get(f"/{BUCKET}/other", f"uploadId={b.upload}")),
    Case("part 0", 400, "InvalidArgument", lambda b: part(b, "0")),
    Case("part 10,001", 400, "InvalidArgument", lambda b: part(b, "10001")),
    Case("part -1", 400, "InvalidArgument", lambda b: part(b, "-1")),
    Case("part one", 400, "InvalidArgument", lambda b: part(b, "one")),
    Case("a part copied from beyond its source", 400, "InvalidArgument",
         lambda b: copy_part(b, {"x-amz-copy-source-range": "bytes=300000-300010"})),
    Case("a part copied by a malformed range", 400, "InvalidArgument",
         lambda b: copy_part(b, {"x-amz-copy-source-range": "bytes=9-"})),
    Case("If-None-Match on a complete over an object", 412, "PreconditionFailed",
         lambda b: taken(b)),
]


def taken(bench: Bench) -> Reply:
    """Completes an upload of `small` on the condition that `small` is not there."""
    target = f"/{BUCKET}/small"
    begun = bench.ask("POST", target, "uploads=")
    upload = begun.body.split(b"<UploadId>")[1].split(b"<")[0].decode()
    query = f"uploadId={upload}"
    sent = bench.ask("PUT", target, f"partNumber=1&{query}", None, body(10, "taken"))
    text = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{sent.headers['etag']}</ETag></Part></CompleteMultipartUpload>")
    reply = bench.ask("POST", target, query, {"If-None-Match": "*"}, text.encode())
    bench.ask("DELETE", target, query)
    return reply


def completed_twice(bench: Bench) -> list[Reply]:
    """An upload completed, completed again, and then used: the last two answers of four."""
    target = f"/{BUCKET}/twice"
    begun = bench.ask("POST", target, "uploads=")
    upload = begun.body.split(b"<UploadId>")[1].split(b"<")[0].decode()
    query = f"uploadId={upload}"
    sent = bench.ask("PUT", target, f"partNumber=1&{query}", None, body(MIB, "twice"))
    text = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{sent.headers['etag']}</ETag></Part></CompleteMultipartUpload>").encode()
    first = bench.ask("POST", target, query, None, text)
    again = bench.ask("POST", target, query, None, text)
    late = bench.ask("PUT", target, f"partNumber=2&{query}", None, b"late")
    bench.ask("DELETE", target)
    return [first, again, late]
