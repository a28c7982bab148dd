"""What a row of the campaign counted: sequences, faults, states that were reached, violations."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """The result of a run of one row over a range of seeds."""

    row: str
    seed: int
    sequences: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def wrong(self, seed: int, why: str) -> None:
        self.violations.append(f"seed {seed}: {why}")

    def line(self) -> str:
        """One line of JSON, as scripts that run rows read it. The last seed is the last that ran."""
        return json.dumps({
            "row": self.row,
            "sequences": self.sequences,
            "seeds": [self.seed, self.seed + max(self.sequences, 1) - 1],
            "faults": dict(sorted(self.faults.items())),
            "states": dict(sorted(self.states.items())),
            "violations": len(self.violations),
            "violation": self.violations[0] if self.violations else None,
        })
