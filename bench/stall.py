"""A leak between memory.high and memory.max: how long until it ends, and does anybody say so."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from bench.cgroups import end_unit
from bench.measure import Absent, Contender, Metric, Question, Row, Taken, compared
from bench.peers import cgmem_command

CRITICAL, LIMIT = "200M", "400M"
CRITICAL_BYTES = 200 << 20
CAP_SECONDS = 60.0

_LEAK = """
import mmap
print(open("/proc/self/cgroup").read().strip().rpartition(":")[2], flush=True)
held = []
while True:
    held.append(mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    held[-1][::4096] = b"x" * 1024
"""
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_UNIT = "cgmem-bench-stall"
_PROPERTIES = (f"MemoryHigh={CRITICAL}", f"MemoryMax={LIMIT}", "MemorySwapMax=0")


def _rows(rounds: int) -> Iterable[Row]:
    leak = [sys.executable, "-I", "-S", "-c", _LEAK]
    with tempfile.TemporaryDirectory() as directory:
        ours = [*cgmem_command(), "run", "--critical", CRITICAL, "--max", LIMIT, "--id", "leak"]
        ours += ["--log-dir", directory]
        given = [word for one in _PROPERTIES for word in ("-p", one)]
        theirs = ["systemd-run", "--unit", _UNIT, "--wait", "--collect", "--pipe", *given]
        contenders = [
            ("cgmem run (stall after 10 s)", ours),
            ("cgmem run --on-stall abort", [*ours, "--on-stall", "abort"]),
            ("cgmem run --stall-after 4", [*ours, "--stall-after", "4"]),
            ("systemd-run -p MemoryHigh -p MemoryMax", theirs),
        ]
        return compared(
            f"huge pages: {_huge_pages()}",
            [Contender(name, partial(_run, [*words, "--", *leak])) for name, words in contenders],
            rounds=rounds,
        )


def _run(command: Sequence[str]) -> Taken:
    """Start a leak that says its cgroup first, and watch that until it is gone."""
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        raise Absent("no memory.high here")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        current = Path("/sys/fs/cgroup" + process.stdout.readline().strip(), "memory.current")
        seconds, charged = _watch(process, current)
        if math.isinf(seconds):
            end_unit(_UNIT)
        said = process.stderr.read().strip().splitlines()
    return {
        "seconds above critical": seconds,
        "charged at most, MB": charged / 2**20,
        "said": said[-1] if said and math.isfinite(seconds) else f"nothing in {CAP_SECONDS:.0f} s",
    }


def _watch(process: subprocess.Popen[str], current: Path) -> tuple[float, int]:
    crossed, charged = None, 0
    while process.poll() is None:
        try:
            now_charged = int(current.read_text())
        except OSError:  # gone, and its parent about to be
            time.sleep(0.01)
            continue
        now, charged = time.monotonic(), max(charged, now_charged)
        if crossed is None and now_charged >= CRITICAL_BYTES:
            crossed = now
        if crossed is not None and now - crossed > CAP_SECONDS:
            return math.inf, charged
        time.sleep(0.02)
    if crossed is None:
        raise Absent("it ended before it got there")
    return time.monotonic() - crossed, charged


def _huge_pages() -> str:
    enabled = _HUGE_PAGES.read_text()
    return enabled[enabled.index("[") + 1 : enabled.index("]")]


QUESTION = Question(
    "stall",
    f"A leak above critical ({CRITICAL}), below its hard limit ({LIMIT}), no swap",
    (Metric("seconds above critical", 1), Metric("charged at most, MB", 0)),
    _rows,
    rounds=2,
    quick=1,
    about=f"From memory.current's first look above {CRITICAL} until the command is back.",
)
