"""Where known secrets stand: in the memory of the running node, in a core file, in its files.

Canaries: a customer's plaintext, an SSE-C key, key material that a tenant imported, a data key that
was generated, an access key's secret. Key material may stand in locked memory only, which no reader
of the process's memory and no core file gets. What clients sent and got of their own is gone once
their requests are over, but for what a buffer that is kept still holds: less than a chunk of
plaintext. An access key's secret stands where signatures are verified: a figure. Nothing of it may
stand in a file.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from ..canaries import Canaries, Scan, scan_memory
from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner
from ..payload import KIB, MIB
from ..report import expect

MATERIAL = "imported key material"
DATA_KEY = "a generated data key"
PLAIN = "plaintext of an object"
SSE_C = "an SSE-C key"
SECRET = "the secret of an access key"
WORD = 40
CHUNK = 64 * KIB
SETTLE_SECONDS = 2.0


def run(job: Job) -> None:
    node = job.node(KLUIS_LOG_LEVEL="debug")
    node.start()
    tenant = node.create_tenant("memory")
    canaries = Canaries()
    canaries.plant(SECRET, tenant.secret_access_key.encode())
    key = use(job, node, tenant, canaries)
    # The node's side of the last connection is closed a moment after the client's.
    time.sleep(SETTLE_SECONDS)
    running(job, node, canaries, "running")
    owner = Owner(node, tenant, job.path("owner"))
    owner.kms.disable_key(KeyId=key)
    running(job, node, canaries, "with the key disabled")
    owner.kms.enable_key(KeyId=key)
    core(job, node, canaries)
    files(job, node, canaries, "running")
    node.stop()
    files(job, node, canaries, "stopped")


def use(job: Job, node: Node, tenant: Tenant, canaries: Canaries) -> str:
    """Brings every canary into the node by the way that customers use."""
    owner, ledger = Owner(node, tenant, job.path("owner")), Ledger(node, tenant)
    material = canaries.plant(MATERIAL, secrets.token_bytes(32))
    key = owner.create_key(Origin="EXTERNAL")
    owner.import_material(key, material)
    made = owner.kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    canaries.plant(DATA_KEY, made["Plaintext"])
    owner.kms.decrypt(CiphertextBlob=made["CiphertextBlob"])
    ledger.create_bucket("memory")
    owner.use_by_default("memory", key)
    word = canaries.plant(PLAIN, secrets.token_bytes(WORD), encoded=False)
    for size in (1 * KIB, 100 * KIB, 6 * MIB):
        ledger.put("memory", f"size-{size}", word * (size // len(word)))
        ledger.get("memory", f"size-{size}")
    customer = canaries.plant(SSE_C, secrets.token_bytes(32))
    digest = base64.b64encode(hashlib.md5(customer).digest()).decode()
    headers = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": base64.b64encode(customer).decode(),
        "x-amz-server-side-encryption-customer-key-MD5": digest,
    }
    # Off by default: the refusal has seen the key all the same.
    ledger.ask("PUT", "memory", "by-customer", "", headers, b"x" * 100)
    return key


def running(job: Job, node: Node, canaries: Canaries, when: str) -> None:
    seen: Scan | None = None
    with job.report.case(f"{when}: the memory of the process can be read, as root"):
        seen = scan_memory(node, canaries)
        expect(seen.read > 4 * MIB, f"only {seen.read} bytes were read")
    if seen is None:
        return
    job.report.note(f"  {when}: {seen.read:,} bytes read, not readable: {set(seen.unreadable)}")
    for kind, counts in sorted(seen.hits.items()):
        for name, count in sorted(counts.items()):
            job.report.note(f"  {when}: {name}: {count} times in {kind}")
    with job.report.case(f"{when}: no key material in memory that can be read"):
        for form in ("", ", in hex", ", in base64"):
            expect(seen.of(MATERIAL + form) == 0, f"{MATERIAL}{form}: {seen.hits}")
    with job.report.case(f"{when}: nothing in memory of a client's key or a data key given out"):
        for name in (SSE_C, DATA_KEY):
            for form in ("", ", in hex", ", in base64"):
                expect(seen.of(name + form) == 0, f"{name}{form}: {seen.hits}")
    with job.report.case(f"{when}: less than a chunk of plaintext of requests that are over"):
        expect(seen.of(PLAIN) * WORD < CHUNK, f"{seen.of(PLAIN)} times: {seen.hits}")


def core(job: Job, node: Node, canaries: Canaries) -> None:
    """What gcore writes is what a crash would: pages that are not to be dumped are left out."""
    gcore = shutil.which("gcore")
    with job.report.case("the process gives no core file to its own user"):
        limits = Path(f"/proc/{node.pid}/limits").read_text()
        line = next(it for it in limits.splitlines() if it.startswith("Max core file size"))
        expect(line.split()[4] == "0", f"a crash would write a core file: {line}")
    if gcore is None:
        job.report.note("  no gcore on this machine: the core file was not made")
        return
    target = job.path("core")
    subprocess.run([gcore, "-o", str(target), str(node.pid)], capture_output=True, check=False,
                   timeout=300)
    for path in target.parent.glob("core.*"):
        with job.report.case("a core file made by root holds no key material"):
            found = [it for it in canaries.in_files([path]) if it.startswith(MATERIAL)]
            expect(not found, "; ".join(found))
        os.unlink(path)


def files(job: Job, node: Node, canaries: Canaries, when: str) -> None:
    with job.report.case(f"{when}: no canary in any file of the data directory or in the log"):
        found = canaries.in_files([*sorted(node.data.rglob("*")), node.log])
        expect(not found, "; ".join(found))
