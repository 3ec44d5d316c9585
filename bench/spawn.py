"""Spawn + wait of /bin/true under a budget, against subprocess.Popen, and where the time goes."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

import cgmem
from bench.measure import Measured, interleaved
from cgmem.contract import Limits, Scope, ScopeRecord
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.selector import choose
from cgmem.supervisor import Supervisor

COMMAND = ["/bin/true"]
BASE = "subprocess.Popen"
FULL = "cgmem.spawn, outcome, log"


def measure(rounds: int) -> dict[str, Measured]:
    """Time every way; the keys are their names, `BASE` the one to compare with."""
    with tempfile.TemporaryDirectory() as logs:
        supervisor = Supervisor({"log_dir": logs})
        settings = supervisor.settings()
        backend = choose().backend
        limits = Limits(settings.critical_bytes, settings.max_bytes)
        numbers = itertools.count()

        def record() -> ScopeRecord:
            return ScopeRecord(f"bench_{next(numbers)}", 0, 0, time.time())

        def scope_only(run: Callable[[Scope], object] = lambda scope: None) -> None:
            scope, _ = backend.open_scope(record(), limits)
            run(scope)
            scope.close()
            scope.detach()

        def popen() -> None:
            subprocess.Popen(COMMAND).wait()

        def full() -> None:
            cgmem.spawn(COMMAND, supervisor=supervisor).outcome()

        def placed() -> None:
            scope_only(lambda scope: scope.start(COMMAND, {}).wait())

        contenders: dict[str, Callable[[], object]] = {
            BASE: popen,
            FULL: full,
            "of it: scope made, read, removed (no process)": lambda: scope_only(
                lambda scope: scope.sample()
            ),
            "of it: the same, and the process in it": placed,
            "of it: one line logged": _one_line(logs),
        }
        if shutil.which("systemd-run"):
            contenders["systemd-run --scope"] = lambda: subprocess.run(
                ["systemd-run", "--quiet", "--scope", "-p", "MemoryMax=4G", *COMMAND], check=True
            )
        try:
            return interleaved(contenders, rounds=rounds)
        finally:
            supervisor.close()


def _one_line(directory: str) -> Callable[[], object]:
    logs = MemoryLogs(_path(directory), print)
    line = {"subprocess_id": "bench", "memory_stats": {"start_mb": 0.0}, "filler": "x" * 900}
    return lambda: logs.stats(line)


def _path(directory: str) -> object:
    from pathlib import Path

    return Path(directory)
