"""Runs the rows of the campaign, keeps its ledger, and shows that the campaign can fail.

A row is an entry of rows.json: a command that takes a first seed and a count, prints one line of
JSON ({"row", "sequences", "violations", ...}) and ends. Whatever can do that can be a row.
Owns: time, processes, seed ranges, the ledger. Knows nothing of: what a row does.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEDGER = HERE / "ledger.jsonl"
# Figures of a release (docs/TESTING.md, "Campaign"), by row of the table there.
RELEASE = {1: ("model sequences", 10_000_000), 2: ("fault sequences", 5_000_000),
           3: ("crash sequences", 5_000_000), 5: ("SIGKILLs", 5_000),
           6: ("power-loss points", 5_000), 9: ("random flips", 1_000_000),
           12: ("linearizability histories", 1_000)}
# Sequences after which a bug that no cheap row has found counts as not found.
MUTATION_MAX = 20_000
# Seconds for one run of a row with a bug in it.
MUTATION_SECONDS = 120


def main():
    asked = arguments()
    if asked.report:
        return report()
    if asked.mutations:
        return mutations(asked)
    rows = load_rows(asked)
    campaign = Campaign(asked, rows)
    campaign.run()
    return campaign.finish()


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--for", dest="seconds", type=duration, metavar="TIME",
                        help="how long, such as 90s, 30m or 2h")
    parser.add_argument("--push", action="store_true",
                        help="each row's figure for a push instead of a time; nothing is recorded")
    parser.add_argument("--seed", type=int, help="begin every row here; nothing is recorded")
    parser.add_argument("--row", action="append", default=[], help="only this row; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--report", action="store_true", help="add the ledger up and end")
    parser.add_argument("--mutations", action="store_true",
                        help="seed one bug after the other: each has to be found")
    parser.add_argument("--campaign", default="campaign", help=argparse.SUPPRESS)
    parser.add_argument("--flips", default="flips", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not (asked.seconds or asked.push or asked.report or asked.mutations):
        asked.seconds = 60
    return asked


def duration(text):
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is no time: try 90s, 30m or 2h")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def load_rows(asked):
    rows = json.loads((HERE / "rows.json").read_text())
    known = {row["row"] for row in rows}
    for name in asked.row:
        if name not in known:
            sys.exit(f"no row {name}; there are {', '.join(sorted(known))}")
    return [row for row in rows if not asked.row or row["row"] in asked.row]


def ledger():
    if not LEDGER.exists():
        return []
    return [json.loads(line) for line in LEDGER.read_text().splitlines() if line.strip()]


def commit():
    """The commit that runs, and whether the tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "--", ":!tests/campaign/ledger.jsonl"],
                             capture_output=True, text=True, check=False)
    return (head.stdout.strip() or "unknown") + ("+changes" if changed.stdout.strip() else "")


class Campaign:
    """Rows in turn, as many processes as there are cores, until the time or the figures are up."""

    def __init__(self, asked, rows):
        self.asked, self.rows = asked, rows
        self.recorded = asked.seed is None and not asked.push
        ends = collections.defaultdict(int)
        for line in ledger():
            ends[line["row"]] = max(ends[line["row"]], line["seed_end"])
        first = asked.seed if asked.seed is not None else 0
        self.next = {row["row"]: first if not self.recorded else ends[row["row"]] for row in rows}
        self.first = dict(self.next)
        self.sums = {row["row"]: Sum() for row in rows}
        self.broken = []
        self.begun = time.monotonic()
        self.needed = self.required()

    def required(self):
        """The states that each row has to reach, by the campaign's own word."""
        out = subprocess.run([self.asked.campaign, "states"], capture_output=True, text=True, check=True)
        needed = collections.defaultdict(list)
        for line in out.stdout.splitlines():
            row, state = line.split("\t")
            needed[row].append(state)
        return needed

    def left(self, row):
        if self.asked.push:
            return row["push"] - (self.next[row["row"]] - self.first[row["row"]])
        return row["chunk"]

    def run(self):
        running, turn = [], 0
        while True:
            over = self.asked.seconds and time.monotonic() - self.begun >= self.asked.seconds
            stop = over or self.broken or any(s.violations for s in self.sums.values())
            open_rows = [] if stop else [row for row in self.rows if self.left(row) > 0]
            while open_rows and len(running) < self.asked.jobs:
                row = open_rows[turn % len(open_rows)]
                turn += 1
                running.append(self.start(row))
                open_rows = [row for row in self.rows if self.left(row) > 0]
            if not running:
                return
            time.sleep(0.05)
            for job in [job for job in running if job[1].poll() is not None]:
                running.remove(job)
                self.take(*job)

    def start(self, row):
        name, count = row["row"], min(row["chunk"], self.left(row))
        words = {"campaign": self.asked.campaign, "flips": self.asked.flips,
                 "seed": str(self.next[name]), "count": str(count)}
        self.next[name] += count
        command = [word.format(**words) for word in row["command"]]
        return row, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT), command

    def take(self, row, process, command):
        lines = process.stdout.read().splitlines()
        try:
            outcome = json.loads(lines[-1])
        except (IndexError, ValueError):
            self.broken.append(f"{' '.join(command)} ended with {process.returncode} and no line")
            return
        if process.returncode and not outcome["violations"]:
            self.broken.append(f"{' '.join(command)} ended with {process.returncode}")
        self.sums[row["row"]].add(outcome)

    def finish(self):
        self.show()
        if self.recorded and not self.broken:
            self.record()
        wrong = list(self.broken)
        for row in self.rows:
            name, total = row["row"], self.sums[row["row"]]
            wrong += [f"{name}: {what}" for what in total.found]
            # A handful of sequences does not have to see everything.
            if total.sequences >= row.get("states_from", 1):
                missing = [s for s in self.needed[name] if not total.states[s]]
                wrong += [f"{name}: never reached: {state}" for state in missing]
        for what in wrong:
            print(f"violation: {what}")
        print(f"{len(wrong)} violations in {time.monotonic() - self.begun:.0f} s")
        return 1 if wrong else 0

    def show(self):
        print(f"{'row':12} {'sequences':>10} {'ops':>11} {'crashes':>9} {'faults':>9} "
              f"{'states':>7} {'violations':>10}  seeds")
        for row in self.rows:
            name = row["row"]
            total = self.sums[name]
            reached = sum(1 for state in self.needed[name] if total.states[state])
            print(f"{name:12} {total.sequences:10} {total.ops:11} {total.crashes:9} "
                  f"{sum(total.faults.values()):9} {reached:3}/{len(self.needed[name]):<3} "
                  f"{total.violations:10}  {self.first[name]}..{self.next[name]}")
        faults, states = collections.Counter(), collections.Counter()
        for total in self.sums.values():
            faults.update(total.faults)
            states.update(total.states)
        for title, counts in (("faults", faults), ("states", states)):
            if counts:
                print(title + ": " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))

    def record(self):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        head = commit()
        with LEDGER.open("a") as out:
            for name, total in self.sums.items():
                if total.sequences:
                    line = {"date": now, "commit": head, "row": name, "seed": self.first[name],
                            "seed_end": self.next[name], **total.line()}
                    out.write(json.dumps(line) + "\n")


class Sum:
    """What the processes of one row came to."""

    def __init__(self):
        self.sequences = self.ops = self.crashes = self.violations = 0
        self.faults, self.states = collections.Counter(), collections.Counter()
        self.found = []

    def add(self, outcome):
        self.sequences += outcome["sequences"]
        self.ops += outcome.get("ops", 0)
        self.crashes += outcome.get("crashes", 0)
        self.violations += outcome["violations"]
        self.faults.update(outcome.get("faults", {}))
        self.states.update(outcome.get("states", {}))
        if outcome["violations"]:
            self.found.append(outcome.get("violation") or "see above")

    def line(self):
        return {"sequences": self.sequences, "ops": self.ops, "crashes": self.crashes,
                "faults": sum(self.faults.values()), "states": len(self.states),
                "violations": self.violations}


def report():
    """The ledger against the figures of a release."""
    tables = {row["row"]: row["table"] for row in json.loads((HERE / "rows.json").read_text())}
    sequences, violations, ranges = collections.Counter(), 0, collections.defaultdict(list)
    for line in ledger():
        sequences[tables.get(line["row"], 0)] += line["sequences"]
        violations += line["violations"]
        ranges[line["row"]].append((line["seed"], line["seed_end"]))
    twice = 0
    for of in ranges.values():
        of.sort()
        twice += sum(1 for (_, end), (first, _) in zip(of, of[1:]) if first < end)
    for table, (what, figure) in RELEASE.items():
        print(f"{what:26} {sequences[table]:12} of {figure:12}  {100 * sequences[table] / figure:6.2f} %")
    print(f"violations {violations}, ranges of seeds that overlap {twice}")
    return 1 if violations or twice else 0


def mutations(asked):
    """Every seeded bug, and the first row that finds it."""
    bugs = subprocess.run([asked.campaign, "bugs"], capture_output=True, text=True, check=True)
    rows = [row["row"] for row in load_rows(asked) if row["command"][0] == "{campaign}"]
    missed = []
    print(f"{'bug':24} {'found by':12} {'sequences':>10}  how")
    for bug in bugs.stdout.split():
        found = find(asked, bug, rows)
        if found is None:
            missed.append(bug)
        row, sequences, how = found or ("nothing", MUTATION_MAX, "")
        print(f"{bug:24} {row:12} {sequences:10}  {how[:110]}", flush=True)
    total = len(bugs.stdout.split())
    print(f"{total - len(missed)} of {total} seeded bugs found")
    return 1 if missed or total < 12 else 0


def find(asked, bug, rows):
    """Every row in turn, with ever more sequences."""
    first, count, spent = 0, 100, 0
    while first < MUTATION_MAX:
        for row in rows:
            command = [asked.campaign, "run", "--row", row, "--seed", str(first), "--count", str(count)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False,
                                      timeout=MUTATION_SECONDS,
                                      env={**os.environ, "KLUIS_BUG": bug})
            except subprocess.TimeoutExpired:
                # A bug may keep a sequence from ending; another row says what is wrong.
                continue
            outcome = json.loads(done.stdout.splitlines()[-1])
            spent += outcome["sequences"]
            if outcome["violations"]:
                return row, spent, outcome["violation"]
        first, count = first + count, count * 3
    return None


if __name__ == "__main__":
    sys.exit(main())
