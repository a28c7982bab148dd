"""Apart: with B's credentials, A's names answer exactly as names that do not exist.

Every request is made twice by B: once with a name of A's and once with a name that nobody has.
The two answers must be equal in status, headers and body, with the names, the ids of the requests
and the dates masked. A's own requests are made first, so that the case would fail if A's were gone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..payload import MIB, body
from ..report import equal, expect
from ..sigv4 import encode
from ..wire import Reply, element

# Names of one length, so that not even a Content-Length tells them apart.
THEIRS = "vault-of-a"
NOBODYS = "vault-of-x"
OWN = "bucket-of-b"
UNKNOWN_UPLOAD = "0123456789abcdef0123456789abcdef"
UNKNOWN_KEY = "fedcba9876543210fedcba9876543210"


@dataclass(frozen=True)
class Names:
    """The names that a request speaks of: A's, or nobody's of the same shape."""

    bucket: str
    upload: str
    tenant_key: str

    def fill(self, text: str) -> str:
        return text.format(bucket=self.bucket, upload=self.upload, tenant_key=self.tenant_key)

    def mask(self, text: str) -> str:
        for name in (self.bucket, self.upload, self.tenant_key):
            text = text.replace(name, "NAME").replace(encode(name), "NAME")
        return text


@dataclass(frozen=True)
class Operation:
    """A request of B's; `{bucket}`, `{upload}` and `{tenant_key}` stand for A's or nobody's."""

    name: str
    method: str
    object_key: str = ""
    query: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    # In B's own bucket, with A's names in the query and the headers only.
    own: bool = False

    def send(self, b: Ledger, names: Names) -> Reply:
        bucket = OWN if self.own else names.bucket
        headers = {name: names.fill(value) for name, value in self.headers.items()}
        query = names.fill(self.query)
        return b.ask(self.method, bucket, self.object_key, query, headers, self.body)


PARTS = (b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>"
         b"</CompleteMultipartUpload>")
DELETE = b"<Delete><Object><Key>object</Key></Object></Delete>"
MD5 = {"content-md5": base64.b64encode(hashlib.md5(DELETE).digest()).decode()}
FROM_B = {"x-amz-copy-source": f"/{OWN}/mine"}
FROM_A = {"x-amz-copy-source": "/{bucket}/object"}
UNDER_A = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "{tenant_key}",
}
PART = "partNumber=1&uploadId={upload}"
UPLOAD = "uploadId={upload}"

OPERATIONS = [
    Operation("HeadBucket", "HEAD"),
    *(Operation(f"GET ?{name}", "GET", query=f"{name}=") for name in (
        "acl", "cors", "encryption", "lifecycle", "location", "object-lock", "policy", "tagging",
        "uploads", "versioning", "versions")),
    Operation("DeleteBucket", "DELETE"),
    Operation("ListObjects", "GET"),
    Operation("ListObjectsV2", "GET", query="list-type=2&prefix=o"),
    Operation("HeadObject", "HEAD", "object"),
    Operation("GetObject", "GET", "object"),
    Operation("GetObject, absent", "GET", "absent"),
    Operation("GetObject, a range", "GET", "object", headers={"Range": "bytes=0-1"}),
    Operation("GetObject, If-None-Match", "GET", "object", headers={"If-None-Match": "*"}),
    Operation("GetObject, partNumber", "GET", "object", "partNumber=1"),
    Operation("GetObjectAttributes", "GET", "object", "attributes=",
              headers={"x-amz-object-attributes": "ETag"}),
    Operation("GetObjectTagging", "GET", "object", "tagging="),
    Operation("GetObjectAcl", "GET", "object", "acl="),
    Operation("PutObject", "PUT", "object", body=b"of b"),
    Operation("PutObject, If-None-Match", "PUT", "object", "", b"of b", {"If-None-Match": "*"}),
    Operation("DeleteObject", "DELETE", "object"),
    Operation("DeleteObjects", "POST", "", "delete=", DELETE, MD5),
    Operation("CopyObject into it", "PUT", "copy", headers=FROM_B),
    Operation("CopyObject out of it", "PUT", "copy", headers=FROM_A, own=True),
    Operation("CopyObject out of it, absent", "PUT", "copy",
              headers={"x-amz-copy-source": "/{bucket}/absent"}, own=True),
    Operation("CreateMultipartUpload", "POST", "new", "uploads="),
    Operation("UploadPart", "PUT", "open", PART, b"of b"),
    Operation("UploadPartCopy", "PUT", "open", PART, headers=FROM_B),
    Operation("ListParts", "GET", "open", UPLOAD),
    Operation("CompleteMultipartUpload", "POST", "open", UPLOAD, PARTS),
    Operation("AbortMultipartUpload", "DELETE", "open", UPLOAD),
    Operation("UploadPart to A's upload from B's bucket", "PUT", "open", PART, b"of b", own=True),
    Operation("ListParts of A's upload from B's bucket", "GET", "open", UPLOAD, own=True),
    Operation("CompleteMultipartUpload of A's from B's bucket", "POST", "open", UPLOAD, PARTS,
              own=True),
    Operation("AbortMultipartUpload of A's from B's bucket", "DELETE", "open", UPLOAD, own=True),
    Operation("PutObject under A's tenant key", "PUT", "sealed", "", b"of b", UNDER_A, own=True),
    Operation("CreateMultipartUpload under A's tenant key", "POST", "sealed", "uploads=",
              headers=UNDER_A, own=True),
]

VOLATILE = {"date", "x-amz-request-id", "x-amz-id-2", "last-modified"}
IDS = re.compile(r"<(RequestId|HostId)>[^<]*</\1>")


def run(job: Job) -> None:
    node = job.node()
    node.start()
    tenant = node.create_tenant("tenant-a")
    a, b = Ledger(node, tenant), Ledger(node, node.create_tenant("tenant-b"))
    theirs, nobodys = furnish(a, b)
    before = state(a)
    for operation in OPERATIONS:
        with job.report.case(f"{operation.name}: A's answers as nobody's"):
            told = masked(operation.send(b, theirs), theirs)
            equal(told, masked(operation.send(b, nobodys), nobodys), "answer")
            expect(told[0] >= 400, f"it answered {told[0]}")
    with job.report.case("nothing of A's changed"):
        equal(state(a), before, "A's buckets, objects and uploads")
    with job.report.case("B lists no bucket of A's"):
        expect(THEIRS.encode() not in b.must("GET", "").body, "A's bucket is listed")
    names_are_free(job, a, b)
    another_user(job, node, tenant)
    suspended(job, node, a)


def furnish(a: Ledger, b: Ledger) -> tuple[Names, Names]:
    """A bucket of A's with objects and an open upload; a bucket of B's."""
    a.create_bucket(THEIRS)
    kept = a.put(THEIRS, "object", body(70_000, "of a"))
    a.put(THEIRS, "other", b"of a")
    begun = a.must("POST", THEIRS, "open", "uploads=")
    upload = element(begun.body, "UploadId")
    a.must("PUT", THEIRS, "open", f"partNumber=1&uploadId={encode(upload)}", None, body(MIB, "a"))
    b.create_bucket(OWN)
    b.put(OWN, "mine", b"of b")
    key_id = kept.headers["x-amz-server-side-encryption-aws-kms-key-id"]
    unknown_key = key_id[: -len(UNKNOWN_KEY)] + UNKNOWN_KEY
    theirs = Names(THEIRS, upload, key_id)
    return theirs, Names(NOBODYS, UNKNOWN_UPLOAD[: len(upload)], unknown_key)


def masked(reply: Reply, names: Names) -> tuple[int, dict[str, str], str]:
    headers = {
        name: names.mask(value) for name, value in reply.headers.items() if name not in VOLATILE
    }
    text = IDS.sub(r"<\1/>", reply.body.decode())
    return reply.status, headers, names.mask(text)


def state(a: Ledger) -> tuple[str, bytes, bytes]:
    uploads = a.must("GET", THEIRS, "", "uploads=").body
    return a.digest(THEIRS), IDS.sub(r"", uploads.decode()).encode(), a.must("GET", "").body


def names_are_free(job: Job, a: Ledger, b: Ledger) -> None:
    """Bucket names belong to a tenant: B may have a bucket of A's name, and both stay apart."""
    with job.report.case("B makes a bucket of A's name, and it is empty"):
        b.create_bucket(THEIRS)
        equal(b.list(THEIRS), [], "objects in B's bucket of that name")
        b.put(THEIRS, "object", b"of b")
        equal(b.get(THEIRS, "object"), b"of b", "B's object")
        expect(a.get(THEIRS, "object") == body(70_000, "of a"), "A's object changed")
        b.delete(THEIRS, "object")
        b.must("DELETE", THEIRS)
        equal(a.ask("HEAD", THEIRS).status, 200, "A's bucket after B deleted its own")


def another_user(job: Job, node: Node, tenant: Tenant) -> None:
    """A second user of A's own tenant owns nothing yet, and is told AccessDenied."""
    with job.report.case("a user without rights in the same tenant gets AccessDenied"):
        node.ask("user", "create", "second", "--tenant", "tenant-a")
        told = node.ask("access-key", "create", "--tenant", "tenant-a", "--user", "second")
        fields = {name: told[name] for name in ("access_key_id", "secret_access_key")}
        second = Ledger(node, replace(tenant, **fields))
        for method, object_key in (("GET", "object"), ("PUT", "object"), ("GET", "")):
            reply = second.ask(method, THEIRS, object_key)
            equal((reply.status, reply.code), (403, "AccessDenied"), f"{method} {object_key}")


def suspended(job: Job, node: Node, a: Ledger) -> None:
    with job.report.case("a suspended tenant is served again only when resumed"):
        node.ask("tenant", "suspend", "tenant-a")
        equal(a.ask("GET", THEIRS, "object").status, 403, "GET while suspended")
        node.ask("tenant", "resume", "tenant-a")
        equal(a.ask("GET", THEIRS, "object").status, 200, "GET when resumed")
