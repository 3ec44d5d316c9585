"""One idle tick of N scopes, against a bare loop of two preads a scope; its system calls."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cgmem
from bench.measure import Table, interleaved
from cgmem.process import MonitoredProcess
from cgmem.supervisor import Supervisor

SIZES = (1, 100, 1000)
COUNTED_TICKS = 10


def table(rounds: int) -> Table:
    """Time ticks of 1, 100 and 1000 idle subprocesses; count the calls of 100."""
    rows = []
    with tempfile.TemporaryDirectory() as directory, _Idle(directory) as idle:
        for size in SIZES:
            idle.grow_to(size)
            contenders = {"bare": idle.bare_loop(), "tick": idle.poller_tick()}
            # A round of one scope takes microseconds: more of them for a steady median.
            times = interleaved(contenders, rounds=rounds * (10 if size == 1 else 1), warm_up=3)
            bare, tick = times["bare"], times["tick"]
            rows.append(
                (
                    size,
                    round(bare.median * 1e6, 1),
                    round(tick.median * 1e6, 1),
                    round(tick.ratio(bare), 2),
                    calls_per_scope(size) if size <= 100 else "",
                )
            )
    return Table(
        "tick",
        f"One idle tick, {rounds} rounds",
        ("scopes", "two preads a scope, µs", "tick, µs", "ratio", "system calls a scope"),
        rows,
    )


def calls_per_scope(size: int) -> float | str:
    """Count the system calls of ticks with strace, in a process of its own."""
    if not shutil.which("strace"):
        return "no strace"
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        command = [sys.executable, "-m", "bench.tick", str(size), directory]
        subprocess.run(["strace", "-o", trace, *command], check=True, capture_output=True)
        text = trace.read_text(errors="replace")
    marked = re.search(r'"/ticks-begin".*?$(.*?)^\w+\("/ticks-end"', text, re.M | re.S)
    if marked is None:
        return "no marks in the trace"
    calls = re.findall(r"^\w+\(", marked[1], re.M)
    return round(len(calls) / (size * COUNTED_TICKS), 2)


class _Idle:
    """Subprocesses that do nothing, with the poller's own thread kept from ticking."""

    def __init__(self, directory: str) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 8192 <= hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (8192, hard))
        self._supervisor = Supervisor({"log_dir": directory, "tick": 3600.0, "preflight": False})
        self._processes: list[MonitoredProcess] = []

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.supervision.kill("abort")
        for process in self._processes:
            process.outcome()
        self._supervisor.close()

    def grow_to(self, size: int) -> None:
        while len(self._processes) < size:
            process = cgmem.spawn(["sleep", "3600"], supervisor=self._supervisor)
            self._processes.append(process)
        for _ in range(2):  # what is new about a scope is looked at once
            self.tick()

    def tick(self) -> None:
        self.poller_tick()()

    def poller_tick(self) -> Callable[[], None]:
        tick, now = self._supervisor.poller().tick, time.monotonic
        return lambda: tick(now())

    def bare_loop(self) -> Callable[[], None]:
        pairs = []
        for process in self._processes:
            directory = process.supervision.scope.directory  # type: ignore[union-attr]  # cgroup2
            pairs.append(
                (
                    os.open(directory / "memory.current", os.O_RDONLY),
                    os.open(directory / "memory.events", os.O_RDONLY),
                )
            )

        def loop() -> None:
            for current, events in pairs:
                os.pread(current, 32, 0)
                os.pread(events, 512, 0)

        return loop


def _traced(size: int, directory: str) -> None:
    with _Idle(directory) as idle:
        idle.grow_to(size)
        os.access("/ticks-begin", os.F_OK)
        for _ in range(COUNTED_TICKS):
            idle.tick()
        os.access("/ticks-end", os.F_OK)


if __name__ == "__main__":
    _traced(int(sys.argv[1]), sys.argv[2])
