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
from pathlib import Path

import cgmem
from bench.footprint import bare_rss
from bench.measure import Table
from cgmem.supervisor import Supervisor
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


def table(rounds: int) -> Table:
    """Return each claim of the spec beside what was measured."""
    used = _used()
    slowdown = _slowdown(rounds)
    rows = [
        ("CPU", "< 0.1 % for monitoring operations", f"{used['cpu_percent']:.2f} % of one CPU"),
        ("memory", "~10 MB for infrastructure", f"{used['rss_mb'] - bare_rss():.1f} MB over bare"),
        (
            "speed",
            "no impact on a subprocess",
            f"{slowdown:.3f} times its time under Popen",
        ),
        ("I/O", "minimal, buffered", f"{used['writes']} writes, {used['written']} bytes a minute"),
    ]
    title = f"{AGENTS} agents, 2 s tick, {SECONDS} s ({used['backend']}); {rounds} rounds of work"
    return Table("agents", title, ("", "the spec says", "measured"), rows)


def _used() -> dict[str, float]:
    command = [sys.executable, "-m", "bench.agents"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _slowdown(rounds: int) -> float:
    """The work's own time under a budget, as a multiple of that without; the fastest of each.

    Whatever else runs makes a round slower, never faster.
    """
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
    return min(budgeted) / min(alone)


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


if __name__ == "__main__":
    print(json.dumps(_supervise()))
