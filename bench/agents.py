"""The spec's "Performance Impact", on the spec's workload: several agents, a 2 s tick.

What the supervisor uses while they work, in a process of its own, and how fast a piece of work
runs with and without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cgmem
from bench.footprint import bare_rss
from bench.measure import Metric, Question, Row, spread
from cgmem.supervising.supervisor import Supervisor
from cgmem.task_tool import TaskToolConfiguration, TaskToolHelper

AGENTS = 5
SECONDS = 60

_AGENT = """
import time
while True:
    held = bytearray(40 << 20)
    time.sleep(0.2)
    del held
    time.sleep(0.2)
"""
"""Takes and gives back memory several times within a tick, so that no look finds it at rest."""

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
    used = _used()
    over = float(used["rss_mb"]) - bare_rss()
    yield _row("CPU, % of one processor", [float(used["cpu_percent"])], "< 0.1 % for monitoring")
    yield _row("memory, MB over a bare interpreter", [over], "~10 MB for infrastructure")
    ratios = _slowdown(rounds)
    yield _row("a subprocess's time, in that under Popen", ratios, "no impact on its speed")
    yield _row("writes a minute", [float(used["writes"])], "minimal, buffered")
    yield _row("bytes written a minute", [float(used["written"])], f"backend {used['backend']}")


def _row(name: str, values: list[float], claim: str) -> Row:
    return Row("", name, {"measured": spread(values)}, {}, claim)


def _used() -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.agents"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


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


def _supervise() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        config = TaskToolConfiguration(command=[sys.executable, "-c", _AGENT])
        with TaskToolHelper(directory, config) as helper:
            started = [helper.create_agent_subprocess("engineer", "work") for _ in range(AGENTS)]
            time.sleep(5)  # what is new about them has been looked at
            cpu, (writes, written) = time.process_time(), _written()
            time.sleep(SECONDS)
            cpu, (writes_after, written_after) = time.process_time() - cpu, _written()
            return {
                "backend": started[0]["memory_monitoring"]["backend"],
                "cpu_percent": 100 * cpu / SECONDS,
                "rss_mb": _status("VmRSS") / 1024,
                "writes": round((writes_after - writes) * 60 / SECONDS),
                "written": round((written_after - written) * 60 / SECONDS),
            }


def _written() -> tuple[int, int]:
    found = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(found["syscw"]), int(found["wchar"])


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


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

if __name__ == "__main__":
    print(json.dumps(_supervise()))
