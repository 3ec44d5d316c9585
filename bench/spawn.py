"""Spawn + wait of /bin/true under a budget, against subprocess.Popen, and where the time goes."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cgmem
from bench.measure import Measured, Table, interleaved
from cgmem.contract import Limits, Scope, ScopeRecord
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.selector import choose
from cgmem.supervisor import Supervisor

COMMAND = ["/bin/true"]
BASE = "subprocess.Popen(…).wait()"
SPAWN = "cgmem.spawn(…).wait()"
OUTCOME = "cgmem.spawn(…).outcome()"


def table(rounds: int) -> Table:
    """Time every way, a round each in turn."""
    with tempfile.TemporaryDirectory() as directory:
        supervisor = Supervisor({"log_dir": directory})
        try:
            # The peers start shells and daemons' clients, and whoever follows one finds cold
            # caches: they get rounds of their own, with the same base.
            own = interleaved(_contenders(supervisor, Path(directory)), rounds=rounds)
            peers = interleaved(_peers(supervisor), rounds=max(5, rounds // 4))
        finally:
            supervisor.close()
    backend = supervisor.choice(supervisor.settings())
    return Table(
        "spawn",
        f"Spawn + wait of {COMMAND[0]} under a budget ({backend.reason}), {rounds} rounds",
        ("", "median ms", "quartiles ms", f"times {BASE}"),
        [
            *(_row(measured, own[BASE]) for measured in own.values()),
            *(_row(measured, peers[BASE]) for name, measured in peers.items() if name != BASE),
        ],
    )


def _contenders(supervisor: Supervisor, directory: Path) -> dict[str, Callable[[], object]]:
    scope_around = _scopes(supervisor)

    def placed(scope: Scope) -> None:
        scope.start(COMMAND, {}).wait()

    return {
        BASE: _popen,
        SPAWN: lambda: cgmem.spawn(COMMAND, supervisor=supervisor).wait(),
        OUTCOME: lambda: cgmem.spawn(COMMAND, supervisor=supervisor).outcome(),
        "of it: cgroup made, limited, removed": lambda: scope_around(lambda scope: None),
        "of it: the same with the process in it": lambda: scope_around(placed),
        "of it: settings": lambda: supervisor.settings({}),
        "of it: one line logged": _one_line(directory),
    }


def _peers(supervisor: Supervisor) -> dict[str, Callable[[], object]]:
    scope_around = _scopes(supervisor)
    contenders: dict[str, Callable[[], object]] = {
        BASE: _popen,
        "sh -c 'echo $$ > cgroup.procs; exec …'": lambda: scope_around(_by_shell),
    }
    if shutil.which("systemd-run") and Path("/run/systemd/system").is_dir():
        contenders["systemd-run --scope"] = lambda: subprocess.run(
            ["systemd-run", "--quiet", "--scope", "-p", "MemoryMax=4G", *COMMAND], check=True
        )
    return contenders


def _popen() -> None:
    subprocess.Popen(COMMAND).wait()


def _scopes(supervisor: Supervisor) -> Callable[[Callable[[Scope], object]], None]:
    settings = supervisor.settings()
    backend = choose().backend
    limits = Limits(settings.critical_bytes, settings.max_bytes)
    numbers = itertools.count()

    def scope_around(run: Callable[[Scope], object]) -> None:
        record = ScopeRecord(f"bench_{next(numbers)}", 0, 0, time.time(), tuple(COMMAND))
        scope, _ = backend.open_scope(record, limits)
        run(scope)
        scope.close()
        scope.detach()

    return scope_around


def _by_shell(scope: Scope) -> None:
    procs = getattr(scope, "directory", None)
    if procs is None:  # a backend without cgroups has nothing to compare with
        return
    script = 'echo $$ > "$0"; exec "$@"'
    subprocess.run(["sh", "-c", script, os.fspath(procs / "cgroup.procs"), *COMMAND], check=True)


def _one_line(directory: Path) -> Callable[[], object]:
    logs = MemoryLogs(directory / "lines", print)
    line = {"subprocess_id": "bench", "memory_stats": {"start_mb": 0.0}, "filler": "x" * 900}
    return lambda: logs.stats(line)


def _row(measured: Measured, base: Measured) -> tuple[object, ...]:
    return (
        measured.name,
        round(measured.median * 1e3, 3),
        f"{measured.low * 1e3:.3f} to {measured.high * 1e3:.3f}",
        round(measured.ratio(base), 2),
    )
