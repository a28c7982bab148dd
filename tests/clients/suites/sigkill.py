"""SIGKILL of the node at any moment, under load: nothing acknowledged is lost, nothing is invented.

A seed is one kill. The data directory lives on for a number of kills, so that recovery also meets
what earlier recoveries left.
"""

from __future__ import annotations

import random
import time

from ..job import Job
from ..load import Load, begin_life, restart
from ..report import equal, expect
from ..tally import Tally

ROW = "sigkill"
KILLS_PUSH = 8
KILLS_FULL = 500
# Kills of one data directory; then a new one.
LIVES = 50
# A load that ran this long has filled more than one segment.
SECONDS_MAX = 0.4
# Of the restarts, those that are killed as well, one in so many; and within how many seconds.
AGAIN = 4
START_SECONDS_MAX = 0.5
SETTINGS = {"KLUIS_SEGMENT_BYTES": str(16 << 20), "KLUIS_ACCESS_LOG": "false"}
BACKENDS = ("ring", "threads")


def run(job: Job) -> None:
    kills = KILLS_FULL if job.full else KILLS_PUSH
    tally = Tally(ROW, 0)
    row(job, tally, 2 * kills)
    with job.report.case(f"{tally.sequences} kills: nothing acknowledged is lost"):
        equal(tally.violations, [], "violations")
        equal(tally.sequences, 2 * kills, "kills")
    with job.report.case("kills came in the middle of changes"):
        expect(tally.states["unanswered"] > 0, f"{dict(tally.states)}")
    job.report.note(f"  {tally.line()}")


def row(job: Job, tally: Tally, count: int) -> None:
    """`count` kills from the first seed on, on one backend after the other."""
    lives = min(LIVES, max(1, count // len(BACKENDS)))
    for first in range(tally.seed, tally.seed + count, lives):
        backend = BACKENDS[first // lives % len(BACKENDS)]
        kill_often(job, tally, backend, range(first, min(first + lives, tally.seed + count)))
        if tally.violations:
            break


def kill_often(job: Job, tally: Tally, backend: str, seeds: range) -> None:
    node = job.node(f"kill-{seeds[0]}", KLUIS_IO_BACKEND=backend, **SETTINGS)
    tenant = begin_life(node)
    load = Load(f"{ROW}/{seeds[0]}")
    for seed in seeds:
        dice = random.Random(f"{ROW}/{seed}")
        load.begin(node, tenant)
        time.sleep(dice.uniform(0.0, SECONDS_MAX))
        node.kill()
        load.end()
        if dice.randrange(AGAIN) == 0:
            node.launch()
            time.sleep(dice.uniform(0.0, START_SECONDS_MAX))
            node.kill()
            tally.faults[f"SIGKILL while it starts, {backend}"] += 1
        tally.faults[f"SIGKILL, {backend}"] += 1
        refusal = restart(node)
        if refusal:
            load.wrong.append(f"the node does not start: {refusal}")
        else:
            load.verify(node, tenant, settle=True)
        tally.sequences += 1
        for why in load.take_wrong():
            tally.wrong(seed, f"{backend}: {why}")
        if tally.violations:
            return
    node.kill()
    checked = node.check()
    if checked.returncode != 0:
        tally.wrong(seeds[-1], f"check: {checked.stdout[-300:]}{checked.stderr[-300:]}")
    tally.states.update(load.totals())
    job.drop(node)
