"""A leak between memory.high and memory.max: how long until it ends, and does anybody say so."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measure import Table

CRITICAL, LIMIT = "200M", "400M"
CRITICAL_BYTES = 200 << 20
CAP_SECONDS = 120.0

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


class _End(NamedTuple):
    seconds: float | None
    """From crossing critical; None: still there after `CAP_SECONDS`."""
    charged_mb: float
    """The highest memory.current seen."""
    said: str


def table(rounds: int) -> Table:
    """Run the same leak under cgmem's default and under systemd's properties."""
    leak = [sys.executable, "-I", "-S", "-c", _LEAK]
    with tempfile.TemporaryDirectory() as directory:
        ours = [sys.executable, "-m", "cgmem", "run", "--critical", CRITICAL, "--max", LIMIT]
        ends = {
            f"cgmem run --critical {CRITICAL} --max {LIMIT}": [
                _run([*ours, "--id", "leak", "--log-dir", directory, "--", *leak])
                for _ in range(rounds)
            ],
            f"systemd-run -p MemoryHigh={CRITICAL} -p MemoryMax={LIMIT} -p MemorySwapMax=0": [
                _run([*_systemd_run(), *leak]) for _ in range(rounds)
            ],
        }
    return Table(
        "stall",
        f"A leak past {CRITICAL}, hard limit {LIMIT}, huge pages: {_huge_pages()}"
        f" (given up after {CAP_SECONDS:.0f} s)",
        ("under", f"seconds from {CRITICAL} to its end", "charged at most, MB", "its last word"),
        [(name, *_row(found)) for name, found in ends.items()],
    )


def _systemd_run() -> list[str]:
    properties = (f"MemoryHigh={CRITICAL}", f"MemoryMax={LIMIT}", "MemorySwapMax=0")
    given = [word for one in properties for word in ("-p", one)]
    return ["systemd-run", "--unit", _UNIT, "--wait", "--collect", "--pipe", *given, "--"]


def _run(command: Sequence[str]) -> _End:
    """Start a leak that says its cgroup first, and watch that until it is gone."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        current = Path("/sys/fs/cgroup" + process.stdout.readline().strip(), "memory.current")
        seconds, charged = _watch(process, current)
        if seconds is None:
            subprocess.run(["systemctl", "kill", "-s", "KILL", _UNIT], check=False)
        said = process.stderr.read().strip().splitlines()
    return _End(seconds, charged / 2**20, said[-1] if seconds is not None and said else "nothing")


def _watch(process: subprocess.Popen[str], current: Path) -> tuple[float | None, int]:
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
            return None, charged
        time.sleep(0.02)
    assert crossed is not None, "it ended before it got there"
    return time.monotonic() - crossed, charged


def _row(ends: Sequence[_End]) -> tuple[object, ...]:
    worst = max(ends, key=lambda end: end.seconds or float("inf"))
    if worst.seconds is None:
        return f"not within {CAP_SECONDS:.0f}", round(worst.charged_mb, 1), worst.said
    times = " / ".join(f"{end.seconds:.1f}" for end in ends if end.seconds is not None)
    return times, round(worst.charged_mb, 1), worst.said


def _huge_pages() -> str:
    enabled = _HUGE_PAGES.read_text()
    return enabled[enabled.index("[") + 1 : enabled.index("]")]
