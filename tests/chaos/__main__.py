"""Chaos on real cgroups: `python -m tests.chaos [--seed N] [--seconds S]`, as root, cgroup v2.

Round after round a supervisor runs a drawn set of misbehaving subprocesses while one fault is
done to it. After each round `cgmem gc` is run and the invariants are checked. Prints its counts
as JSON; exit status 1 if an invariant was broken, with the seed and the round that show it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger
from tests.chaos.stage import Stage, marked

JOBS_A_ROUND = 12


def chaos(seed: int, seconds: float, at_least: int, jobs: int) -> Ledger:
    """Run rounds of `jobs` until the time is up, every fault at least `at_least` times."""
    draw = random.Random(seed)
    ledger = Ledger(seed)
    with tempfile.TemporaryDirectory() as home, Stage(Path(home)) as stage:
        deadline = time.monotonic() + seconds
        number = 0
        while time.monotonic() < deadline or number < at_least * len(FAULTS):
            fault = FAULTS[number % len(FAULTS)]
            number += 1
            before = time.monotonic()
            ledger.begin_round(number, fault.__name__)
            fault(stage, ledger, f"{seed}_{number}", jobs, draw)
            stage.clean_up(ledger)
            ledger.check(stage, marked())
            took = time.monotonic() - before
            print(f"round {number}, {fault.__name__}: {took:.0f} s", file=sys.stderr, flush=True)
    return ledger


def main() -> int:
    """Run, print the counts, and say what was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--at-least", type=int, default=1, help="times that each fault is done")
    parser.add_argument("--jobs", type=int, default=JOBS_A_ROUND, help="subprocesses a round")
    options = parser.parse_args()
    ledger = chaos(options.seed, options.seconds, options.at_least, options.jobs)
    print(json.dumps(ledger.counts(), indent=1))
    for broken in ledger.broken:
        print(f"BROKEN (seed {options.seed}): {broken}", file=sys.stderr)
    return 1 if ledger.broken else 0


if __name__ == "__main__":
    sys.exit(main())
