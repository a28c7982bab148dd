"""Names of buckets, objects, metadata and tags that are not allowed, and what is not there."""

from __future__ import annotations

from ..wire import Reply
from . import BUCKET, Bench, Case


def make(name: str) -> Case:
    """A bucket's name that AWS refuses ("General purpose bucket naming rules")."""
    return Case(f"bucket {name[:24]!r}", 400, "InvalidBucketName",
                lambda b: b.ask("PUT", f"/{name}"))


def put_to(bench: Bench, path: str) -> Reply:
    return bench.ask("PUT", path, "", None, b"other")


def put(bench: Bench, headers: dict[str, str]) -> Reply:
    return bench.put(headers)


def tags(count: int) -> str:
    return "&".join(f"k{n}=v" for n in range(count))


def copy(bench: Bench, source: str, headers: dict[str, str] | None = None) -> Reply:
    given = {"x-amz-copy-source": source} | (headers or {})
    return bench.ask("PUT", f"/{BUCKET}/small", "", given)


CASES = [
    *(make(name) for name in (
        "ab", "a" * 64, "Upper", "under_score", "-dash", "dash-", "two..dots", ".dot",
        "192.168.5.4", "xn--bucket", "bucket-s3alias", "sthree-bucket",
    )),
    Case("an object key of 1,025 bytes", 400, "KeyTooLongError",
         lambda b: put_to(b, f"/{BUCKET}/" + "k" * 1025)),
    Case("an object key of 1,026 bytes in 513 letters", 400, "KeyTooLongError",
         lambda b: put_to(b, f"/{BUCKET}/" + "%C3%A4" * 513)),
    Case("an object key that is not UTF-8", 400, "InvalidURI",
         lambda b: put_to(b, f"/{BUCKET}/%FF%FE")),
    Case("an object key with an overlong form", 400, "InvalidURI",
         lambda b: put_to(b, f"/{BUCKET}/%C0%AE")),
    Case("a broken percent escape", 400, "InvalidURI", lambda b: put_to(b, f"/{BUCKET}/%zz")),
    Case("half a percent escape", 400, "InvalidURI", lambda b: put_to(b, f"/{BUCKET}/a%2")),
    Case("no such bucket", 404, "NoSuchBucket", lambda b: b.get("/no-such-bucket/x")),
    Case("no such bucket to put into", 404, "NoSuchBucket",
         lambda b: put_to(b, "/no-such-bucket/x")),
    Case("no such object", 404, "NoSuchKey", lambda b: b.get(f"/{BUCKET}/absent")),
    Case("a bucket that is not empty deleted", 409, "BucketNotEmpty",
         lambda b: b.ask("DELETE", f"/{BUCKET}")),
    Case("metadata of more than 2 KiB", 400, "MetadataTooLarge",
         lambda b: put(b, {"x-amz-meta-a": "v" * 2049})),
    Case("eleven tags", 400, "InvalidTag", lambda b: put(b, {"x-amz-tagging": tags(11)})),
    Case("a tag's name of 129 letters", 400, "InvalidTag",
         lambda b: put(b, {"x-amz-tagging": "k" * 129 + "=v"})),
    Case("a tag's value of 257 letters", 400, "InvalidTag",
         lambda b: put(b, {"x-amz-tagging": "k=" + "v" * 257})),
    Case("a tag twice", 400, "InvalidArgument", lambda b: put(b, {"x-amz-tagging": "a=1&a=2"})),
    Case("an unknown storage class", 400, "InvalidStorageClass",
         lambda b: put(b, {"x-amz-storage-class": "COLD"})),
    Case("an unknown encryption", 400, "InvalidArgument",
         lambda b: put(b, {"x-amz-server-side-encryption": "ROT13"})),
    Case("a copy from no such bucket", 404, "NoSuchBucket",
         lambda b: copy(b, "/no-such-bucket/x")),
    Case("a copy of no such object", 404, "NoSuchKey", lambda b: copy(b, f"/{BUCKET}/absent")),
    Case("a copy source without an object", 400, "InvalidArgument", lambda b: copy(b, "nothing")),
    Case("a copy onto itself that changes nothing", 400, "InvalidRequest",
         lambda b: copy(b, f"/{BUCKET}/small")),
    Case("a copy with an unknown directive", 400, "InvalidArgument",
         lambda b: copy(b, f"/{BUCKET}/large", {"x-amz-metadata-directive": "MERGE"})),
    Case("a method that does not go with an object", 405, "MethodNotAllowed",
         lambda b: b.ask("POST", f"/{BUCKET}/small")),
    Case("an operation that is not built", 501, "NotImplemented",
         lambda b: b.ask(
             "PUT", f"/{BUCKET}", "accelerate=", None,
             b"<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>")),
]
