"""Ranges, conditions and parameters of lists that cannot be met."""

from __future__ import annotations

from ..wire import Reply
from . import BUCKET, Bench, Case

SMALL = f"/{BUCKET}/small"
OTHER = '"00000000000000000000000000000000-1"'


def ranged(bench: Bench, value: str) -> Reply:
    return bench.get(SMALL, "", {"Range": value})


def listed(bench: Bench, query: str) -> Reply:
    return bench.get(f"/{BUCKET}", query)


CASES = [
    Case("a range behind the end", 416, "InvalidRange", lambda b: ranged(b, "bytes=100-200")),
    Case("a suffix of no bytes", 416, "InvalidRange", lambda b: ranged(b, "bytes=-0")),
    Case("part 2 of an object with one", 416, "InvalidPartNumber",
         lambda b: b.get(SMALL, "partNumber=2")),
    Case("part 3 of an object with two", 416, "InvalidPartNumber",
         lambda b: b.get(f"/{BUCKET}/parts", "partNumber=3")),
    Case("part 0 of an object", 400, "InvalidArgument", lambda b: b.get(SMALL, "partNumber=0")),
    Case("a range and a part number", 400, "InvalidRequest",
         lambda b: b.get(SMALL, "partNumber=1", {"Range": "bytes=0-1"})),
    Case("If-Match with another ETag", 412, "PreconditionFailed",
         lambda b: b.get(SMALL, "", {"If-Match": OTHER})),
    Case("If-Unmodified-Since long ago", 412, "PreconditionFailed",
         lambda b: b.get(SMALL, "", {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"})),
    Case("If-None-Match on a put over an object", 412, "PreconditionFailed",
         lambda b: b.put({"If-None-Match": "*"})),
    Case("If-Match on a put with another ETag", 412, "PreconditionFailed",
         lambda b: b.put({"If-Match": OTHER})),
    Case("If-Match on a put of a new name", 404, "NoSuchKey",
         lambda b: b.ask("PUT", f"/{BUCKET}/new", "", {"If-Match": OTHER}, b"x")),
    Case("If-Match on a delete with another ETag", 412, "PreconditionFailed",
         lambda b: b.ask("DELETE", SMALL, "", {"If-Match": OTHER})),
    Case("max-keys negative", 400, "InvalidArgument",
         lambda b: listed(b, "list-type=2&max-keys=-1")),
    Case("max-keys no number", 400, "InvalidArgument",
         lambda b: listed(b, "list-type=2&max-keys=all")),
    Case("an unknown encoding type", 400, "InvalidArgument",
         lambda b: listed(b, "encoding-type=rot13&list-type=2")),
    Case("a continuation token that is none", 400, "InvalidArgument",
         lambda b: listed(b, "continuation-token=nonsense&list-type=2")),
]

# A header that HTTP says to ignore must not fail: the whole object comes with 200.
IGNORED_RANGES = ("bytes=5-2", "bytes=x-y", "lines=0-1", "bytes=0-1,4-5")
