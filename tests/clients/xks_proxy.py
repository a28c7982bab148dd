"""A small External Key Store proxy, as a tenant might run one: for tests.

Speaks the AWS KMS External Key Store proxy API (health, metadata, encrypt, decrypt) over HTTP on
loopback, verifies SigV4 for the service kms-xks-proxy, and holds its AES-256 keys in memory only:
random ones, or with a seed the same ones at each start.
A file says how it behaves: well, slow, failing, throttling, garbage, denied, disabled.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SLOW_SECONDS = 2
CLOCK_SKEW_SECONDS = 300
METADATA = b"v1"


class Refusal(Exception):
    """An answer that is an error: a status and a name of the specification."""

    def __init__(self, status, name):
        super().__init__(name)
        self.status = status
        self.name = name


def sign(secret, parts, text):
    """The SigV4 signature of `text` in the scope of `parts`: date, region, service."""
    step = b"AWS4" + secret
    for part in [*parts, "aws4_request"]:
        step = hmac.new(step, part.encode(), hashlib.sha256).digest()
    return hmac.new(step, text.encode(), hashlib.sha256).hexdigest()


def verify(path, headers, body, access_key, secret):
    """Raises unless the request is signed with the access key, now, whole."""
    pattern = (
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/kms-xks-proxy/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
    )
    found = re.fullmatch(pattern, headers.get("authorization", ""))
    if not found:
        raise Refusal(401, "AuthenticationFailedException")
    who, date, region, names, signature = found.groups()
    when = headers.get("x-amz-date", "")
    names = names.split(";")
    signed = {"host", "x-amz-date"} <= set(names) and names == sorted(names)
    if who != access_key or not signed or not when.startswith(date):
        raise Refusal(401, "AuthenticationFailedException")
    at = datetime.datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    if abs(at.timestamp() - time.time()) > CLOCK_SKEW_SECONDS:
        raise Refusal(401, "AuthenticationFailedException")
    lines = ["POST", path, ""] + [f"{name}:{headers.get(name, '').strip()}" for name in names]
    canonical = "\n".join([*lines, "", ";".join(names), hashlib.sha256(body).hexdigest()])
    scope = f"{date}/{region}/kms-xks-proxy/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{digest}"
    expected = sign(secret, [date, region, "kms-xks-proxy"], text)
    if not hmac.compare_digest(expected, signature):
        raise Refusal(401, "AuthenticationFailedException")


def field(request, name):
    """A field of base64, strictly."""
    try:
        return base64.b64decode(request[name], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(400, "ValidationException") from error


def encrypt(secret_key, request):
    if request.get("encryptionAlgorithm") != "AES_GCM":
        raise Refusal(400, "ValidationException")
    nonce = os.urandom(12)
    aad = METADATA + field(request, "additionalAuthenticatedData")
    sealed = AESGCM(secret_key).encrypt(nonce, field(request, "plaintext"), aad)
    parts = {
        "ciphertext": sealed[:-16],
        "authenticationTag": sealed[-16:],
        "initializationVector": nonce,
        "ciphertextMetadata": METADATA,
    }
    return {name: base64.b64encode(value).decode() for name, value in parts.items()}


def decrypt(secret_key, request):
    aad = field(request, "ciphertextMetadata") + field(request, "additionalAuthenticatedData")
    sealed = field(request, "ciphertext") + field(request, "authenticationTag")
    try:
        plain = AESGCM(secret_key).decrypt(field(request, "initializationVector"), sealed, aad)
    except (InvalidTag, ValueError) as error:
        raise Refusal(400, "InvalidCiphertextException") from error
    return {"plaintext": base64.b64encode(plain).decode()}


def answer(options, path, headers, body):
    """What the proxy says to one request: a status and a document."""
    verify(path, headers, body, options.access_key, options.secret)
    request = json.loads(body)
    if not request.get("requestMetadata", {}).get("kmsRequestId"):
        raise Refusal(400, "ValidationException")
    base = options.prefix + "/kms/xks/v1/"
    if not path.startswith(base):
        raise Refusal(404, "InvalidUriPathException")
    match path.removeprefix(base).split("/"):
        case ["health"]:
            return {"xksProxyFleetSize": 1, "xksProxyVendor": "test", "xksProxyModel": "test"}
        case ["keys", name, verb]:
            if name not in options.keys:
                raise Refusal(404, "KeyNotFoundException")
            mood = options.mood_file.read_text().strip()
            if mood == "denied":
                raise Refusal(403, "AccessDeniedException")
            if mood == "disabled":
                raise Refusal(400, "InvalidStateException")
            if verb == "metadata":
                usage = ["ENCRYPT", "DECRYPT"]
                return {"keySpec": "AES_256", "keyUsage": usage, "keyStatus": "ENABLED"}
            if verb in ("encrypt", "decrypt"):
                work = encrypt if verb == "encrypt" else decrypt
                return work(options.keys[name], request)
    raise Refusal(404, "InvalidUriPathException")


def handler_of(options):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            mood = options.mood_file.read_text().strip()
            if mood == "slow":
                time.sleep(SLOW_SECONDS)
            try:
                if mood == "failing":
                    raise Refusal(500, "InternalException")
                if mood == "throttling":
                    raise Refusal(429, "ThrottlingException")
                status, said = 200, answer(options, self.path, self.headers, body)
            except Refusal as refusal:
                status, said = refusal.status, {"errorName": refusal.name}
            except ValueError:
                status, said = 400, {"errorName": "ValidationException"}
            text = b"<html>" if mood == "garbage" else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--key", action="append", default=[], help="the id of a key to make")
    parser.add_argument("--access-key-file", type=pathlib.Path, required=True)
    parser.add_argument("--mood-file", type=pathlib.Path, required=True)
    parser.add_argument("--seed-file", type=pathlib.Path, help="what the keys are derived from")
    options = parser.parse_args()
    options.access_key, secret = options.access_key_file.read_text().split()
    options.secret = secret.encode()
    seed = options.seed_file.read_bytes() if options.seed_file else os.urandom(32)
    options.keys = {
        name: hmac.new(seed, name.encode(), hashlib.sha256).digest() for name in options.key
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), handler_of(options))
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
