"""One idle tick of N scopes, against a bare loop of two preads a scope; its system calls."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tempfile
import threading
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
            yield _with_calls(tick, idle, size) if tick.values else tick


def _per_scope(look: Callable[[], object], size: int) -> Callable[[], Taken]:
    return timed(look, "µs", 1e6 / size)


def _with_calls(tick: Row, idle: _Idle, size: int) -> Row:
    try:
        calls = _calls_of(lambda: idle.tick(COUNTED_TICKS))
    except Absent as error:
        return tick._replace(note=str(error))
    each = round(calls / (size * COUNTED_TICKS), 2)
    return tick._replace(values={**tick.values, _CALLS: Spread(each, each, each)})


def _calls_of(do: Callable[[], object]) -> int:
    """Count the system calls of this thread with strace. Raises Absent."""
    if not shutil.which("strace"):
        raise Absent("no strace")
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        words = ["strace", "-o", str(trace), "-p", str(threading.get_native_id())]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as strace:
            while not _is_traced():
                if strace.poll() is not None:
                    raise Absent("strace may not attach")
                time.sleep(0.01)
            os.access("/begin", os.F_OK)
            do()
            os.access("/end", os.F_OK)
            strace.terminate()
        text = trace.read_text(errors="replace")
    marked = re.search(r'"/begin".*?$(.*?)^\w+\("/end"', text, re.M | re.S)
    if marked is None:
        raise Absent("no marks in the trace")
    return len(re.findall(r"^\w+\(", marked[1], re.M))


def _is_traced() -> bool:
    status = Path("/proc/thread-self/status").read_text()
    return re.search(r"^TracerPid:\s*[1-9]", status, re.M) is not None


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
        self.tick(2)  # what is new about a scope is looked at once

    def tick(self, times: int) -> None:
        for _ in range(times):
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


QUESTION = Question(
    "tick",
    "One idle tick, for each scope",
    (Metric("µs", 1, ratio=True), Metric(_CALLS, 2)),
    _rows,
    rounds=40,
    quick=4,
    about="System calls are counted with strace, over ten more ticks.",
)
