"""How far a full-speed allocator gets past its hard limit."""

from __future__ import annotations

import sys
import tempfile

import cgmem
from bench.measure import Table

LIMIT_MB = 64
_ALLOCATE = "held = []\nwhile True: held.append(b'x' * (1 << 20))"


def table(rounds: int) -> Table:
    """The most that was charged (cgroup2: memory.peak) or seen (psutil), minus the limit."""
    rows = [_row(backend, rounds) for backend in ("cgroup2", "psutil")]
    return Table(
        "overshoot",
        f"Past a hard limit of {LIMIT_MB} MB, allocating at full speed, worst of {rounds}",
        ("backend", "overshoot MB", "cause", "seconds from start to end"),
        rows,
    )


def _row(backend: str, rounds: int) -> tuple[object, ...]:
    with tempfile.TemporaryDirectory() as directory:
        ends = [
            cgmem.run(
                [sys.executable, "-c", _ALLOCATE],
                max=f"{LIMIT_MB}M",
                warning=f"{LIMIT_MB - 2}M",
                critical=f"{LIMIT_MB - 1}M",
                stall_after=1,
                backend=backend,
                log_dir=directory,
            )
            for _ in range(rounds)
        ]
    worst = max(end.peak_charged_mb or end.peak_mb for end in ends)
    causes = ", ".join(sorted({end.cause for end in ends}))
    slowest = max(end.duration_seconds for end in ends)
    return backend, round(max(0.0, worst - LIMIT_MB), 1), causes, round(slowest, 1)
