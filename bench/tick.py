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
from collections.abc import Callable, Iterable
from pathlib import Path

import cgmem
from bench.measure import (
    Absent,
    Contender,
    Metric,
    Question,
    Row,
    Spread,
    Taken,
    compared,
    timed,
)
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervisor import Supervisor

SIZES = (1, 100, 1000)
COUNTED_TICKS = 10
_FLOOR = "two preads a scope, nothing else"
_CALLS = "system calls a scope"


def _rows(rounds: int) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as directory, _Idle(directory) as idle:
        for size in SIZES:
            idle.grow_to(size)
            contenders = [
                Contender(_FLOOR, _per_scope(idle.bare_loop(), size)),
                Contender("cgmem's tick", _per_scope(idle.poller_tick(), size)),
            ]
            # A round of one scope takes microseconds: more of them for a steady median.
            some = rounds * (10 if size == 1 else 1)
            floor, tick = compared(f"{size} idle", contenders, rounds=some, warm_up=3)
            yield floor
            yield _with_calls(tick, size) if tick.values and size <= 100 else tick


def _per_scope(look: Callable[[], object], size: int) -> Callable[[], Taken]:
    return timed(look, "µs", 1e6 / size)


def _with_calls(tick: Row, size: int) -> Row:
    try:
        calls = calls_per_scope(size)
    except Absent as error:
        return tick._replace(note=str(error))
    return tick._replace(values={**tick.values, _CALLS: Spread(calls, calls, calls)})


def calls_per_scope(size: int) -> float:
    """Count the system calls of ticks with strace, in a process of its own. Raises Absent."""
    if not shutil.which("strace"):
        raise Absent("no strace")
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        command = [sys.executable, "-m", "bench.tick", str(size), directory]
        subprocess.run(["strace", "-o", trace, *command], check=True, capture_output=True)
        text = trace.read_text(errors="replace")
    marked = re.search(r'"/ticks-begin".*?$(.*?)^\w+\("/ticks-end"', text, re.M | re.S)
    if marked is None:
        raise Absent("no marks in the trace")
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
            scope = getattr(process.supervision, "scope", None)
            directory = getattr(scope, "directory", None)
            if directory is None:
                return _no_cgroups
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


def _no_cgroups() -> None:
    raise Absent("this backend reads no cgroup's files")


def _traced(size: int, directory: str) -> None:
    with _Idle(directory) as idle:
        idle.grow_to(size)
        os.access("/ticks-begin", os.F_OK)
        for _ in range(COUNTED_TICKS):
            idle.tick()
        os.access("/ticks-end", os.F_OK)


QUESTION = Question(
    "tick",
    "One idle tick, for each scope",
    (Metric("µs", 1, ratio=True), Metric(_CALLS, 2)),
    _rows,
    rounds=40,
    quick=4,
    about="System calls are counted with strace, over ten ticks in a process of its own.",
)

if __name__ == "__main__":
    _traced(int(sys.argv[1]), sys.argv[2])
