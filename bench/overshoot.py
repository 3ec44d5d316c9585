"""How far past its hard limit an allocator gets, and how long it lives there."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from bench import hog
from bench.measure import Contender, Metric, Question, Row, Taken, compared
from bench.peers import PEERS, POLLER, Budget
from bench.processes import alive

LIMIT_MB = 256
FURTHER_MB = 1024
"""Where the program stops by itself, for the guest's own sake."""
GIVEN_UP = 30.0
"""Seconds of one run: a brake that is held for ten is not the end yet."""
SPEEDS = {"0.1 GB/s": 100_000_000, "1 GB/s": 1_000_000_000, "full speed": 0}
SCENES = tuple((processes, speed) for processes in (1, 8) for speed in SPEEDS)
_CONTENDERS = (
    "cgmem run",
    "cgmem run --backend psutil",
    POLLER,
    "systemd-run --scope",
    "runexec --no-container",
    "earlyoom",
)


def _rows(rounds: int) -> Iterable[Row]:
    for processes, speed in SCENES:
        scene = f"{processes} process{'es' * (processes > 1)}, {speed}"
        contenders = [
            Contender(name, partial(_run, name, SPEEDS[speed], processes)) for name in _CONTENDERS
        ]
        yield from compared(scene, contenders, rounds=rounds)


def _run(name: str, speed: int, processes: int) -> Taken:
    each_mb = (LIMIT_MB + FURTHER_MB) // processes
    with tempfile.TemporaryDirectory() as directory:
        book = f"{directory}/book"
        hog.book(book, each_mb, processes)
        sizes = [str(number) for number in (each_mb, speed, processes)]
        words = [sys.executable, "-I", "-S", hog.__file__, book, *sizes]
        budget = Budget(LIMIT_MB << 20, Path(directory))
        with PEERS[name](budget, words) as command:
            with subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as tool:
                ended = _watch(tool, lambda: hog.read(book, each_mb, processes)[0])
        _, times = hog.read(book, each_mb, processes)
    if not times:
        return {"MB past the limit": 0.0, "seconds to dead": math.inf, "said": "never got going"}
    crossed = times[LIMIT_MB - 1] if len(times) >= LIMIT_MB else times[-1]
    past = max(0, len(times) - LIMIT_MB)
    said = "it stopped by itself" if past >= FURTHER_MB - processes else ""
    return {"MB past the limit": past, "seconds to dead": ended - crossed, "said": said}


def _watch(tool: subprocess.Popen[bytes], pids: Callable[[], list[int]]) -> float:
    """Return when all of the hog was dead; inf, after ending it, if that never came by itself."""
    until = time.monotonic() + GIVEN_UP
    found: list[int] = []
    while time.monotonic() < until:
        found = pids()
        if not any(map(alive, found)) and (found or tool.poll() is not None):
            break
        time.sleep(0.002)
    ended = time.monotonic() if time.monotonic() < until else math.inf
    for pid in filter(alive, found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        tool.wait(10)
    except subprocess.TimeoutExpired:
        tool.kill()
    return ended


QUESTION = Question(
    "overshoot",
    f"Past a hard limit of {LIMIT_MB} MB",
    (Metric("MB past the limit", 0), Metric("seconds to dead", 3)),
    _rows,
    rounds=2,
    quick=1,
    about=(
        "Bytes that the program touched beyond the limit, and the time from the megabyte that"
        " crossed it (or the last that it got) until the last of its processes was gone. Scaled to"
        f" the guest: the program stops {FURTHER_MB} MB past the limit and waits. Where the machine"
        " can't touch memory as fast as asked, it is as fast as it can."
    ),
)
