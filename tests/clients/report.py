"""What a suite found: cases that passed or failed, and figures that were measured."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Failure(Exception):
    """A case did not come out as it should; the text says how."""


class NotOffered(Exception):
    """The client has no such verb. Neither passed nor failed, and printed as such."""


def expect(truth: bool, why: str) -> None:
    if not truth:
        raise Failure(why)


def equal(got: Any, want: Any, what: str) -> None:
    if got != want:
        raise Failure(f"{what}: got {shorten(got)}, want {shorten(want)}")


def shorten(value: Any, most: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


class Report:
    """Counts the cases of one suite and prints what failed."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.passes = 0
        self.failures = 0
        self.begun = time.monotonic()

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Runs one case: any exception in it fails it and no other."""
        try:
            yield
        except NotOffered as reason:
            self.note(f"  -     {name}: not offered: {reason}")
        except Failure as why:
            self.failed(name, str(why))
        except Exception:
            self.failed(name, traceback.format_exc())
        else:
            self.passes += 1

    def failed(self, name: str, why: str) -> None:
        self.failures += 1
        self.note(f"  FAIL  {name}\n        " + why.strip().replace("\n", "\n        "))

    def figure(self, name: str, value: float, unit: str, most: float | None = None) -> None:
        """A number that was measured; with `most`, a case that fails above it."""
        bound = "" if most is None else f" (at most {most:g})"
        self.note(f"  figure  {name}: {value:,.6g} {unit}{bound}")
        if most is not None:
            with self.case(name):
                expect(value <= most, f"{value:g} {unit} is more than {most:g}")

    def note(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        seconds = time.monotonic() - self.begun
        total = self.passes + self.failures
        self.note(f"  {self.suite}: {self.passes} of {total} cases right, {seconds:.0f} s")
        sys.stdout.flush()
