"""The process that spawns: as large as asked, with as many threads. Prints its rows as JSON."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cgmem
from bench.measure import Absent, Contender, Taken, compared, timed
from bench.peers import Budget, finished_under
from bench.spawn import Case
from cgmem.errors import CgmemError
from cgmem.supervising.supervisor import Supervisor

COMMAND = ["/bin/true"]
PAUSE_SECONDS = 0.1
BUDGET = 256 << 20
_SETTINGS: dict[str, dict[str, Any]] = {
    "cgroup2": {"backend": "cgroup2"},
    "psutil": {"backend": "psutil"},
    "systemd": {"backend": "systemd", "allow_move": True},
    "the same, each placed by systemd (allow_move=False)": {
        "backend": "systemd",
        "allow_move": False,
    },
}


def main() -> None:
    """Measure the case in argv[1]."""
    case = Case(**json.loads(sys.argv[1]))
    if os.geteuid() != 0:
        os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    held = _grown(case.parent_mb)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(case.threads))
        ways = _Ways(Path(directory), stack)
        contenders = [Contender(way, _measure(ways.named(way), pool, case)) for way in case.ways]
        warm_up = 3 if case.rounds > 5 else 1
        rows = compared(case.scene, contenders, rounds=case.rounds, warm_up=warm_up)
    held.close()
    print(json.dumps(rows))


def _grown(megabytes: int) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)  # Linux's
    return mmap.mmap(-1, max(1, megabytes) << 20, flags=flags)


class _Ways:
    """The ways to spawn, by name; those of one mechanism share a supervisor."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._supervisors: dict[str, Supervisor] = {}

    def named(self, way: str) -> Callable[[], object]:
        if way.startswith("subprocess.Popen"):
            return lambda: subprocess.Popen(COMMAND).wait()
        mechanism = way.partition("), ")[2] or way
        if mechanism in _SETTINGS:
            options = {"umask": 0o22} if "umask" in way else {}
            return partial(_spawn, self._supervisor(mechanism), "outcome" in way, options)
        return partial(finished_under, way, Budget(BUDGET, self._directory), COMMAND)

    def _supervisor(self, mechanism: str) -> Supervisor:
        if mechanism not in self._supervisors:
            fixed = {"log_dir": str(self._directory), "max": f"{BUDGET}B"}
            supervisor = Supervisor({**_SETTINGS[mechanism], **fixed})
            self._stack.callback(supervisor.close)
            self._supervisors[mechanism] = supervisor
        return self._supervisors[mechanism]


def _spawn(supervisor: Supervisor, to_the_outcome: bool, options: Mapping[str, Any]) -> None:
    try:
        process = cgmem.spawn(COMMAND, supervisor=supervisor, **options)
    except CgmemError as error:
        raise Absent(str(error)) from error
    if to_the_outcome:
        process.outcome()
    else:
        process.wait()


def _measure(
    way: Callable[[], object], pool: ThreadPoolExecutor, case: Case
) -> Callable[[], Taken]:
    def in_a_row() -> None:
        for _ in range(case.in_a_row):
            way()

    def all_at_once() -> None:
        futures = [pool.submit(in_a_row) for _ in range(case.threads)]
        for future in futures:
            future.result()

    measure = timed(in_a_row if case.threads == 1 else all_at_once, scale=1e3 / case.in_a_row)

    def after_a_pause() -> Taken:
        time.sleep(PAUSE_SECONDS)
        return measure()

    return after_a_pause


if __name__ == "__main__":
    main()
