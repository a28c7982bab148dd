"""Who signs, what is signed, when, and for where."""

from __future__ import annotations

from ..sigv4 import UNSIGNED
from ..wire import Reply, head
from . import BUCKET, Bench, Case

TARGET = f"/{BUCKET}/small"
MINUTES = 60.0


def signed(bench: Bench, headers: dict[str, str] | None = None, **changes: object) -> Reply:
    """A PUT that differs from a right one in how it is signed."""
    return bench.wire.request(
        "PUT", TARGET, "", headers, b"other", signer=bench.signer.but(**changes)
    )


def presigned(
    bench: Bench, expires: str = "600", extra: dict[str, str] | None = None, **changes: object
) -> Reply:
    """A presigned PUT; `extra` headers are sent and not signed."""
    headers = {"Host": bench.wire.host}
    query = bench.signer.but(**changes).presign("PUT", TARGET, "", headers, expires)
    full = headers | {"Content-Length": "5"} | (extra or {})
    return bench.wire.raw(head("PUT", TARGET, query, full) + b"other")


def edited(bench: Bench, name: str, old: str, new: str | None) -> Reply:
    """A signed PUT with one header changed, or taken out, after it was signed."""
    given = {"Host": bench.wire.host, "Content-Length": "5", "x-amz-meta-a": "1"}
    full = bench.signer.headers("PUT", TARGET, "", given, UNSIGNED)
    if new is None:
        del full[name]
    else:
        assert old in full[name]
        full[name] = full[name].replace(old, new)
    return bench.wire.raw(head("PUT", TARGET, "", full) + b"other")


def authorization(bench: Bench, value: str) -> Reply:
    headers = {
        "Host": bench.wire.host, "x-amz-date": bench.signer.now(),
        "x-amz-content-sha256": UNSIGNED, "Content-Length": "5", "Authorization": value,
    }
    return bench.wire.raw(head("PUT", TARGET, "", headers) + b"other")


def unsigned_late(bench: Bench, name: str, value: str) -> Reply:
    """A header that is added after signing."""
    given = {"Host": bench.wire.host, "Content-Length": "5"}
    full = bench.signer.headers("PUT", TARGET, "", given, UNSIGNED) | {name: value}
    return bench.wire.raw(head("PUT", TARGET, "", full) + b"other")


def anonymous(bench: Bench, method: str) -> Reply:
    headers = {"Host": bench.wire.host, "Content-Length": "0"}
    return bench.wire.raw(head(method, TARGET, "", headers))


def twice_signed(bench: Bench) -> Reply:
    headers = {"Host": bench.wire.host}
    query = bench.signer.presign("PUT", TARGET, "", headers, "600")
    return bench.wire.request("PUT", TARGET, query, None, b"other")


CASES = [
    Case("wrong secret", 403, "SignatureDoesNotMatch",
         lambda b: signed(b, secret_access_key="x" * 40)),
    Case("unknown access key", 403, "InvalidAccessKeyId",
         lambda b: signed(b, access_key_id="AKIAAAAAAAAAAAAAAAAA")),
    Case("clock 16 minutes ahead", 403, "RequestTimeTooSkewed",
         lambda b: signed(b, skew_seconds=16 * MINUTES)),
    Case("clock 16 minutes behind", 403, "RequestTimeTooSkewed",
         lambda b: signed(b, skew_seconds=-16 * MINUTES)),
    Case("wrong region", 400, "AuthorizationHeaderMalformed",
         lambda b: signed(b, region="eu-north-7")),
    Case("wrong service", 400, "AuthorizationHeaderMalformed",
         lambda b: signed(b, service="sqs")),
    Case("wrong terminator of the scope", 400, "AuthorizationHeaderMalformed",
         lambda b: signed(b, terminator="aws5_request")),
    Case("an x-amz header that is not signed", 403, "AccessDenied",
         lambda b: signed(b, {"x-amz-meta-a": "1"}, unsigned=frozenset({"x-amz-meta-a"}))),
    Case("x-amz-date not signed", 403, "AccessDenied",
         lambda b: signed(b, unsigned=frozenset({"x-amz-date"}))),
    Case("x-amz-content-sha256 not signed", 403, "AccessDenied",
         lambda b: signed(b, unsigned=frozenset({"x-amz-content-sha256"}))),
    Case("host not signed", 403, "AccessDenied",
         lambda b: signed(b, unsigned=frozenset({"host"}))),
    Case("a header changed after signing", 403, "SignatureDoesNotMatch",
         lambda b: edited(b, "x-amz-meta-a", "1", "2")),
    Case("a signed header taken out", 400, "MissingSecurityHeader",
         lambda b: edited(b, "x-amz-meta-a", "1", None)),
    Case("a copy source added after signing", 403, "AccessDenied",
         lambda b: unsigned_late(b, "x-amz-copy-source", f"/{BUCKET}/large")),
    Case("the date header taken out", 403, "AccessDenied",
         lambda b: edited(b, "x-amz-date", "", None)),
    Case("the payload hash taken out", 400, "InvalidRequest",
         lambda b: edited(b, "x-amz-content-sha256", "", None)),
    Case("the last digit of the signature changed", 403, "SignatureDoesNotMatch",
         lambda b: flipped(b)),
    Case("signature version 2", 400, "InvalidRequest",
         lambda b: authorization(b, f"AWS {b.signer.access_key_id}:c2lnbmF0dXJl")),
    Case("an unknown algorithm", 400, "InvalidArgument",
         lambda b: authorization(b, "AWS4-HMAC-SHA512 Credential=a, SignedHeaders=host")),
    Case("an Authorization header without its parts", 400, "AuthorizationHeaderMalformed",
         lambda b: authorization(b, "AWS4-HMAC-SHA256 nonsense")),
    Case("a credential without a scope", 400, "AuthorizationHeaderMalformed",
         lambda b: authorization(b, f"AWS4-HMAC-SHA256 Credential={b.signer.access_key_id}, "
                                    "SignedHeaders=host, Signature=" + "0" * 64)),
    Case("header and query signed", 400, "InvalidArgument", twice_signed),
    Case("no credentials on a PUT", 403, "AccessDenied", lambda b: anonymous(b, "PUT")),
    Case("no credentials on a GET", 403, "AccessDenied", lambda b: anonymous(b, "GET")),
    Case("no credentials on a DELETE", 403, "AccessDenied", lambda b: anonymous(b, "DELETE")),
    Case("presigned, expired", 403, "AccessDenied",
         lambda b: presigned(b, "60", skew_seconds=-2 * MINUTES)),
    Case("presigned in the future", 403, "AccessDenied",
         lambda b: presigned(b, skew_seconds=20 * MINUTES)),
    Case("presigned for more than seven days", 400, "AuthorizationQueryParametersError",
         lambda b: presigned(b, "604801")),
    Case("presigned for a negative time", 400, "AuthorizationQueryParametersError",
         lambda b: presigned(b, "-1")),
    Case("presigned for no number", 400, "AuthorizationQueryParametersError",
         lambda b: presigned(b, "soon")),
    Case("presigned, wrong region", 400, "AuthorizationQueryParametersError",
         lambda b: presigned(b, region="eu-north-7")),
    Case("presigned, wrong service", 400, "AuthorizationQueryParametersError",
         lambda b: presigned(b, service="sqs")),
    Case("presigned, wrong secret", 403, "SignatureDoesNotMatch",
         lambda b: presigned(b, secret_access_key="x" * 40)),
    Case("presigned, with tags nobody signed", 403, "AccessDenied",
         lambda b: presigned(b, extra={"x-amz-tagging": "a=b"})),
    Case("presigned, with a copy source nobody signed", 403, "AccessDenied",
         lambda b: presigned(b, extra={"x-amz-copy-source": f"/{BUCKET}/large"})),
]


def flipped(bench: Bench) -> Reply:
    given = {"Host": bench.wire.host, "Content-Length": "5"}
    full = bench.signer.headers("PUT", TARGET, "", given, UNSIGNED)
    last = full["Authorization"][-1]
    full["Authorization"] = full["Authorization"][:-1] + ("0" if last != "0" else "1")
    return bench.wire.raw(head("PUT", TARGET, "", full) + b"other")
