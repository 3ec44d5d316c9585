"""What a shell waits for: whole commands, against a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from bench.measure import Contender, Metric, Question, Row, compared, timed
from bench.peers import Budget, cgmem_command, finished_under

BUDGET = 256 << 20
_AROUND_TRUE = (
    "cgmem run",
    "cgmem run --backend psutil",
    "systemd-run --scope",
    "runexec",
    "runexec --no-container",
    "con-duct",
    "/usr/bin/time -v",
)


def _rows(rounds: int) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as directory:
        budget = Budget(BUDGET, Path(directory))
        contenders = [
            _plain("python3 -c pass", [sys.executable, "-c", "pass"]),
            _plain("python3 -I -S -c pass", [sys.executable, "-I", "-S", "-c", "pass"]),
            *(_around(name, budget) for name in _AROUND_TRUE),
            _plain("cgmem --help", [*cgmem_command(), "--help"]),
            _plain("cgmem ps", [*cgmem_command(), "ps"]),
        ]
        return compared("", contenders, rounds=rounds, warm_up=2)


def _plain(name: str, words: list[str]) -> Contender:
    run = partial(subprocess.run, words, check=True, stdout=subprocess.DEVNULL)
    return Contender(name, timed(run))


def _around(name: str, budget: Budget) -> Contender:
    return Contender(f"{name} … true", timed(partial(finished_under, name, budget, ["true"])))


QUESTION = Question(
    "command",
    "The whole command",
    (Metric("ms", 1, ratio=True),),
    _rows,
    rounds=20,
    quick=3,
    about="From start to end, as a shell sees it; the ratio is to `python3 -c pass`.",
)
