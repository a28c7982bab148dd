"""A node with key stores of its tenants': what one store's trouble costs its tenant, and nobody else.

Tenant `vault` has a key in OpenBao over TLS, `own` one behind an XKS proxy, `hsm` one in a token of
SoftHSM2, and `plain` none outside the node. The stores are stopped in the middle, killed, made to
refuse, given another key, and started again; the node never is, but once, while two are dead.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..job import Job
from ..ledger import Ledger
from ..node import Node, Tenant
from ..owner import Owner, Refused, advance, refused, settle
from ..payload import KIB, MIB, body
from ..peers import Authority, Bao, Token, Xks, private
from ..report import equal, expect
from ..wire import Reply, elements

KEY = "kluis-tenant"
# Inline, small, two extents.
SIZES = {"inline": 1 * KIB, "small": 60 * KIB, "large": 5 * MIB + 3}
# What is unwrapped is kept no longer than this, so that a store's trouble shows at once.
CACHE_SECONDS = 1
# Above the stores' own limits; a request that waits longer waits for a store without a bound.
ANSWER_SECONDS_MAX = 20.0
TROUBLE_SECONDS = 6.0
HAMMERS = 8
SERVED_MIN = 50
RETURN_SECONDS_MAX = 30.0
UNUSABLE = "KMS.KMSInvalidStateException"


def run(job: Job) -> None:
    scene = Scene(job)
    try:
        scene.create()
        scene.other_tenants_stores()
        scene.wrong_authority()
        scene.trouble("a Transit store that says nothing", "vault", scene.bao.stop_answering,
                      scene.bao.go_on)
        scene.trouble("an XKS proxy that says nothing", "own", scene.xks.stop_answering,
                      scene.xks.go_on)
        scene.trouble("an XKS proxy that is slow", "own", lambda: scene.xks.be("slow"),
                      lambda: scene.xks.be("well"))
        scene.trouble("an XKS proxy that fails", "own", lambda: scene.xks.be("failing"),
                      lambda: scene.xks.be("well"))
        scene.trouble("a Transit store that was killed", "vault", scene.bao.kill, scene.bao.start)
        scene.trouble("an XKS proxy that was killed", "own", scene.xks.kill, scene.xks.start)
        scene.refusals()
        scene.another_key()
        scene.start_without_stores()
        scene.life()
        scene.destruction()
        with job.report.case("the node stops, and its directory checks while two stores are dead"):
            scene.bao.kill()
            scene.xks.kill()
            scene.node.stop()
    finally:
        scene.bao.kill()
        scene.xks.kill()


@dataclass
class Hammer:
    """Threads that read one tenant's object all the time, and how they were answered."""

    ledger: Ledger
    bucket: str
    want: bytes
    replies: list[tuple[Reply, float]] = field(default_factory=list)
    wrong: int = 0

    def start(self, count: int) -> None:
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self) -> None:
        while not self.stop.is_set():
            begun = time.monotonic()
            reply = self.ledger.ask("GET", self.bucket, "small")
            self.wrong += reply.status == 200 and reply.body != self.want
            self.replies.append((reply, time.monotonic() - begun))
            if reply.status == 503:
                # So that refusals do not take the processor from those who are served.
                time.sleep(0.05)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def statuses(self) -> set[int]:
        return {reply.status for reply, _ in self.replies}

    def middle_ms(self) -> float:
        return statistics.median(seconds for _, seconds in self.replies) * 1_000


class Scene:
    """A node, four tenants, three stores."""

    def __init__(self, job: Job) -> None:
        self.job, self.report = job, job.report
        authority = Authority(job.folder / "authority", "ours")
        other = Authority(job.folder / "other-authority", "other")
        self.bao = Bao(job.folder / "bao", authority)
        self.bao.start()
        token_file = self.bao.prepare(KEY)
        self.token_file = token_file
        self.xks = Xks(job.folder / "xks", KEY)
        self.xks.start()
        hsm = Token(job.folder / "hsm", KEY)
        self.configuration = private(job.folder / "kluis.toml", f"""\
key_store_cache_seconds = {CACHE_SECONDS}

[[key_stores]]
name = "transit"
kind = "transit"
tenants = ["vault"]
url = "{self.bao.url}"
ca_file = "{authority.file}"
token_file = "{token_file}"

[[key_stores]]
name = "misled"
kind = "transit"
tenants = ["vault"]
url = "{self.bao.url}"
ca_file = "{other.file}"
token_file = "{token_file}"

[[key_stores]]
name = "proxy"
kind = "xks"
tenants = ["own"]
url = "{self.xks.url}"
access_key_file = "{self.xks.access_key_file}"

[[key_stores]]
name = "token"
kind = "pkcs11"
tenants = ["hsm"]
module = "{hsm.module}"
token = "kluis"
pin_file = "{hsm.pin_file}"
""")
        self.node: Node = job.node(
            KLUIS_CONFIG=str(self.configuration), SOFTHSM2_CONF=str(hsm.configuration)
        )
        self.node.start()
        self.stores = {"vault": "transit", "own": "proxy", "hsm": "token", "plain": ""}
        self.tenants: dict[str, Tenant] = {
            name: self.node.create_tenant(name) for name in self.stores
        }
        self.keys: dict[str, str] = {}
        self.data = {
            tenant: {name: body(size, f"{tenant}/{name}") for name, size in SIZES.items()}
            for tenant in self.stores
        }
        self.connect()

    def connect(self) -> None:
        folder: Path = self.job.folder / "owners"
        self.owners = {
            name: Owner(self.node, tenant, folder / name) for name, tenant in self.tenants.items()
        }
        self.ledgers = {name: Ledger(self.node, tenant) for name, tenant in self.tenants.items()}

    def create_key(self, tenant: str, store: str) -> str:
        if not store:
            return self.owners[tenant].create_key()
        return self.owners[tenant].create_key(
            Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store, XksKeyId=KEY
        )

    def create(self) -> None:
        for tenant, store in self.stores.items():
            with self.report.case(f"{tenant}: a key in its store, a bucket under it, put and get"):
                self.keys[tenant] = self.create_key(tenant, store)
                told = self.owners[tenant].kms.describe_key(KeyId=self.keys[tenant])["KeyMetadata"]
                if store:
                    equal(told["Origin"], "EXTERNAL_KEY_STORE", "Origin")
                    equal(told["CustomKeyStoreId"], store, "CustomKeyStoreId")
                self.ledgers[tenant].create_bucket(tenant)
                self.owners[tenant].use_by_default(tenant, self.keys[tenant])
                for name, data in self.data[tenant].items():
                    reply = self.ledgers[tenant].put(tenant, name, data)
                    expect(self.keys[tenant] in reply.headers[
                        "x-amz-server-side-encryption-aws-kms-key-id"], "the key that was named")
                self.reads(tenant)
        for tenant in ("vault", "own", "hsm"):
            with self.report.case(f"{tenant}: Encrypt and Decrypt with the key in its store"):
                kms = self.owners[tenant].kms
                sealed = kms.encrypt(KeyId=self.keys[tenant], Plaintext=b"words")["CiphertextBlob"]
                equal(kms.decrypt(CiphertextBlob=sealed)["Plaintext"], b"words", "Decrypt")

    def reads(self, tenant: str) -> None:
        for name, data in self.data[tenant].items():
            expect(self.ledgers[tenant].get(tenant, name) == data, f"{tenant}/{name} differs")

    def is_back(self, tenant: str) -> None:
        def answers() -> bool:
            return self.ledgers[tenant].ask("GET", tenant, "small").status == 200

        settle(f"{tenant} reads again", answers, RETURN_SECONDS_MAX)
        self.reads(tenant)
        self.ledgers[tenant].put(tenant, "again", b"again")

    def other_tenants_stores(self) -> None:
        for tenant, store in (("plain", "transit"), ("own", "transit"), ("vault", "proxy"),
                              ("plain", "no-such-store")):
            with self.report.case(f"{tenant} makes no key in {store}, which is not its"):
                before = self.owners[tenant].kms.list_keys()["Keys"]
                try:
                    self.create_key(tenant, store)
                except self.owners[tenant].kms.exceptions.ClientError as error:
                    told = error.response["Error"]
                    expect(error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, str(told))
                else:
                    expect(False, "it was made")
                equal(self.owners[tenant].kms.list_keys()["Keys"], before, "keys")

    def wrong_authority(self) -> None:
        with self.report.case("a store with a certificate of another authority is not talked to"):
            refused("KeyUnavailableException", lambda: self.create_key("vault", "misled"))
            log = self.node.log.read_text()
            expect("certificate" in log, "the log does not name the certificate")

    def trouble(self, what: str, tenant: str, begin: object, end: object) -> None:
        """One store's trouble, with everybody reading: its tenant gets 503, the others serve."""
        hammers = {
            name: Hammer(self.ledgers[name], name, self.data[name]["small"])
            for name in self.stores
        }
        for hammer in hammers.values():
            hammer.start(1)
        time.sleep(1.0)
        for hammer in hammers.values():
            hammer.end()
        calm = {name: hammer.middle_ms() for name, hammer in hammers.items()}
        begin()  # type: ignore[operator]
        # From here on nothing that was unwrapped before is in the cache.
        time.sleep(CACHE_SECONDS + 0.2)
        for name, hammer in hammers.items():
            hammer.replies.clear()
            hammer.start(HAMMERS if name == tenant else 1)
        time.sleep(TROUBLE_SECONDS)
        write = self.ledgers[tenant].ask("PUT", tenant, "refused", "", None, b"refused")
        for hammer in hammers.values():
            hammer.end()
        with self.report.case(f"{what}: its tenant is answered 503 with Retry-After, in time"):
            replies = hammers[tenant].replies
            equal(hammers[tenant].statuses(), {503}, f"{len(replies)} reads")
            expect(all("retry-after" in reply.headers for reply, _ in replies), "no Retry-After")
            slowest = max(seconds for _, seconds in replies)
            expect(slowest < ANSWER_SECONDS_MAX, f"one took {slowest:.1f} s")
            equal(write.status, 503, "a write")
            self.report.note(
                f"  {what}: {len(replies)} reads refused, the slowest after {slowest * 1e3:.0f} ms"
            )
        with self.report.case(f"{what}: everybody else is served, right and whole"):
            for name in self.stores:
                if name == tenant:
                    continue
                equal(hammers[name].statuses(), {200}, name)
                equal(hammers[name].wrong, 0, f"{name}: wrong bodies")
                served = len(hammers[name].replies)
                expect(served >= SERVED_MIN, f"{name}: only {served} reads")
                self.report.note(
                    f"  {what}: {name} p50 {calm[name]:.2f} ms before, "
                    f"{hammers[name].middle_ms():.2f} ms during ({served} reads)"
                )
        with self.report.case(f"{what}: metrics and health name it, and no other store"):
            self.held_back(tenant)
            metrics, health = self.node.metrics(), json.loads(self.node.plain_get("/health/ready")[1])
            failing = {
                store: metrics[f'kluis_key_store_failing{{key_store="{store}"}}']
                for store in self.stores.values() if store
            }
            equal(failing, {store: float(store == self.stores[tenant]) for store in failing}, what)
            equal((health["status"], health["key_stores_failing"]), ("ready", 1), "health")
        end()  # type: ignore[operator]
        with self.report.case(f"{what}: it comes back, and everything reads without a restart"):
            self.is_back(tenant)
            equal(self.ledgers[tenant].ask("GET", tenant, "refused").status, 404, "the refused PUT")
            told = self.node.metrics()
            name = self.stores[tenant]
            equal(told[f'kluis_key_store_failing{{key_store="{name}"}}'], 0.0, "failing")
            for outcome in ("answered", "failed", "held_back"):
                label = f'{{key_store="{name}",outcome="{outcome}"}}'
                expect(told[f"kluis_key_store_calls_total{label}"] > 0, outcome)
            expect(told[f'kluis_key_store_wait_microseconds_total{{key_store="{name}"}}'] > 0, "wait")

    def held_back(self, tenant: str) -> None:
        """Asks until the node has given up asking the tenant's store, and says so."""
        label = f'{{key_store="{self.stores[tenant]}",outcome="held_back"}}'

        def calls() -> float:
            return self.node.metrics()[f"kluis_key_store_calls_total{label}"]

        before = calls()

        def is_held_back() -> bool:
            self.ledgers[tenant].ask("GET", tenant, "small")
            return calls() > before

        settle(f"{tenant}'s store is not asked any more", is_held_back, RETURN_SECONDS_MAX)

    def refusals(self) -> None:
        for mood in ("denied", "disabled"):
            with self.report.case(f"a proxy that answers {mood}: the key is unusable, then usable"):
                self.xks.be(mood)
                time.sleep(CACHE_SECONDS + 0.2)
                reply = self.ledgers["own"].ask("GET", "own", "small")
                equal((reply.status, reply.code), (400, UNUSABLE), "GET")
                self.reads("plain")
                self.xks.be("well")
                self.is_back("own")
        with self.report.case("a token that Transit does not take: unusable until it is put right"):
            right = self.token_file.read_text()
            self.token_file.write_text("s.none\n")
            time.sleep(CACHE_SECONDS + 0.2)
            reply = self.ledgers["vault"].ask("GET", "vault", "small")
            equal((reply.status, reply.code), (400, UNUSABLE), "GET")
            self.token_file.write_text(right)
            self.is_back("vault")

    def another_key(self) -> None:
        with self.report.case("a proxy with another key under the name opens nothing, takes nothing"):
            right = self.xks.seed_file.read_text()
            self.xks.kill()
            self.xks.forget_key()
            self.xks.start()
            time.sleep(CACHE_SECONDS + 0.2)

            def is_asked() -> bool:
                return self.ledgers["own"].ask("GET", "own", "small").status != 503

            settle("the proxy is asked again", is_asked, RETURN_SECONDS_MAX)
            for method in ("GET", "PUT"):
                reply = self.ledgers["own"].ask(method, "own", "small", "", None, b"")
                expect(reply.status >= 400, f"{method} answers {reply.status}")
            self.xks.seed_file.write_text(right)
            self.xks.kill()
            self.xks.start()
            self.is_back("own")

    def start_without_stores(self) -> None:
        with self.report.case("a node starts while stores are dead, and serves who has another"):
            self.bao.kill()
            self.xks.kill()
            self.node.stop()
            self.node.start()
            self.connect()
            self.reads("plain")
            self.reads("hsm")
            for tenant in ("vault", "own"):
                reply = self.ledgers[tenant].ask("GET", tenant, "small")
                equal(reply.status, 503, f"{tenant}: {reply.code}")
                names = elements(self.ledgers[tenant].ask("GET", tenant, "", "list-type=2").body,
                                 "Key")
                expect({*SIZES} <= {*names}, f"{tenant}: a listing needs no key: {names}")
        with self.report.case("a node whose stores came back after its start reads everything"):
            self.bao.start()
            self.xks.start()
            self.is_back("vault")
            self.is_back("own")

    def life(self) -> None:
        for tenant in ("vault", "own", "hsm"):
            owner, ledger, key = self.owners[tenant], self.ledgers[tenant], self.keys[tenant]
            with self.report.case(f"{tenant}: disable and enable here"):
                owner.kms.disable_key(KeyId=key)
                equal(ledger.ask("GET", tenant, "small").code, "KMS.DisabledException", "GET")
                owner.kms.enable_key(KeyId=key)
                self.reads(tenant)
            with self.report.case(f"{tenant}: a key in a store is not rotated here"):
                refused("UnsupportedOperationException",
                        lambda owner=owner, key=key: owner.kms.rotate_key_on_demand(KeyId=key))
                self.reads(tenant)
            with self.report.case(f"{tenant}: a deletion that is scheduled and called off"):
                owner.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
                equal(ledger.ask("GET", tenant, "small").code, UNUSABLE, "GET")
                owner.kms.cancel_key_deletion(KeyId=key)
                owner.kms.enable_key(KeyId=key)
                self.reads(tenant)
        with self.report.case("disable and enable while the store is dead"):
            self.xks.kill()
            owner, key = self.owners["own"], self.keys["own"]
            owner.kms.disable_key(KeyId=key)
            equal(self.ledgers["own"].ask("GET", "own", "small").code, "KMS.DisabledException",
                  "GET of what was disabled here")
            owner.kms.enable_key(KeyId=key)
            self.xks.start()
            self.is_back("own")

    def destruction(self) -> None:
        """Destroying a key here erases its inner half, also while its store is dead."""
        owner, key = self.owners["own"], self.keys["own"]
        with self.report.case("a key is destroyed here while its store is dead, and stays so"):
            owner.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
            self.xks.kill()
            advance(self.node, 8)

            def is_over() -> bool:
                try:
                    return bool(owner.kluis("GetErasureReport", KeyId=key)["Report"])
                except Refused:
                    return False

            settle("the key is destroyed", is_over, 60.0)
            self.xks.start()
            for name in SIZES:
                reply = self.ledgers["own"].ask("GET", "own", name)
                expect(reply.status in (400, 404), f"GET answers {reply.status}")
            refused("NotFoundException", lambda: owner.kms.enable_key(KeyId=key))
        with self.report.case("the others are untouched by it"):
            for tenant in ("vault", "hsm", "plain"):
                self.is_back(tenant)
