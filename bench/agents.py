"""The spec's "Performance Impact", on the spec's workload: several agents, a 2 s tick.

What the supervisor uses while they work, in a process of its own, and how fast a piece of work
runs with and without it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable

import cgmem
from bench.footprint import bare_rss, line_of, measured_for, watcher
from bench.measure import Metric, Question, Row, spread
from cgmem.supervising.supervisor import Supervisor

AGENTS = 5
SECONDS = 60

_WORK = """
import time
began = time.perf_counter()
for _ in range(4):
    held = [bytes(4096) for _ in range(20000)]
    sum(i * i for i in range(100000))
print(time.perf_counter() - began)
"""


def _rows(rounds: int) -> Iterable[Row]:
    """Each claim of the spec beside what was measured."""
    with tempfile.TemporaryDirectory() as directory, watcher("agents", AGENTS, directory) as agents:
        backend = line_of(agents).strip()
        [used] = measured_for(SECONDS, [agents])
    over = used["rss_mb"] - bare_rss()
    yield _row("CPU, % of one processor", [used["cpu"]], "< 0.1 % for monitoring")
    yield _row("memory, MB over a bare interpreter", [over], "~10 MB for infrastructure")
    ratios = _slowdown(rounds)
    yield _row("a subprocess's time, in that under Popen", ratios, "no impact on its speed")
    yield _row("writes a minute", [used["writes"] * 60 / SECONDS], "minimal, buffered")
    yield _row("bytes written a minute", [used["written"] * 60 / SECONDS], f"backend {backend}")


def _row(name: str, values: list[float], claim: str) -> Row:
    return Row("", name, {"measured": spread(values)}, {}, claim)


def _slowdown(rounds: int) -> list[float]:
    """The work's own time under a budget, as a multiple of that without, round by round."""
    command = [sys.executable, "-c", _WORK]
    alone, budgeted = [], []
    with tempfile.TemporaryDirectory() as directory:
        supervisor = Supervisor({"log_dir": directory})
        for _ in range(rounds):
            done = subprocess.run(command, check=True, capture_output=True)
            alone.append(float(done.stdout))
            outcome = cgmem.run(command, check=True, capture_output=True, supervisor=supervisor)
            budgeted.append(float(outcome.stdout))
        supervisor.close()
    return [one / other for one, other in zip(budgeted, alone, strict=True)]


QUESTION = Question(
    "agents",
    f"The spec's claims on its own workload: {AGENTS} agents, tick 2 s, {SECONDS} s",
    (Metric("measured", 3),),
    _rows,
    rounds=20,
    quick=3,
    about=(
        "Agents that take and give back 40 MB five times in a tick. The note is what the spec says."
    ),
)
