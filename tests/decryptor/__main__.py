"""The command line of the decryptor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import appendix
from .directory import Directory


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="decryptor")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("appendix", help="check the known answers")
    opening = verbs.add_parser("open", help="write an object's bytes to standard output")
    opening.add_argument("--data", type=Path, required=True, help="the data directory")
    opening.add_argument("--rows", type=Path, required=True, help="what `rows dump` printed")
    opening.add_argument("--passphrase-file", type=Path, required=True)
    opening.add_argument("--tenant", required=True, help="the tenant's id, 32 hex digits")
    opening.add_argument("--bucket", required=True)
    opening.add_argument("--object-key", required=True)
    return parser.parse_args()


def check_appendix() -> int:
    wrong = [name for name, (got, want) in appendix.KNOWN.items() if got.hex() != want]
    wrong += [name for name, attempt in appendix.MUST_NOT_OPEN.items() if appendix.opens(attempt)]
    wrong += [] if appendix.reopened() == appendix.BODY else ["what was sealed, opened again"]
    for name in wrong:
        print(f"wrong: {name}")
    print(f"{len(appendix.KNOWN)} known answers, {len(appendix.MUST_NOT_OPEN)} that must not open, "
          f"{len(wrong)} wrong")
    return 1 if wrong else 0


def main() -> int:
    args = arguments()
    if args.verb == "appendix":
        return check_appendix()
    passphrase = args.passphrase_file.read_bytes().rstrip(b"\r\n")
    directory = Directory(args.data, args.rows.read_text(), passphrase)
    opened = directory.open(bytes.fromhex(args.tenant), args.bucket, args.object_key)
    sys.stdout.buffer.write(opened.body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
