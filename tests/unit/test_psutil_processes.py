"""The psutil source, as macOS and others use it; psutil itself is real, the footprint a fake."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import Limits, ScopeRecord
from cgmem_backends.footprint import Footprint
from cgmem_backends.process_tree import Process
from cgmem_backends.psutil_backend import PsutilBackend
from cgmem_backends.psutil_processes import PsutilProcesses
from cgmem_backends.run_directory import RunDirectory

GONE = Process(2**22 + 5, 1, 1, "R", 1)


class FakeFootprint(Footprint):
    """Footprints of the test's."""

    def __init__(self, footprints: dict[int, int]) -> None:
        super().__init__()
        self._footprints = footprints

    def read(self, pid: int) -> int | None:
        """None for whoever is not there."""
        return self._footprints.get(pid)


def me(source: PsutilProcesses) -> Process:
    """This process as the source sees it."""
    process = source.process(os.getpid())
    assert process is not None
    return process


def test_this_process_is_seen() -> None:
    """A scan and a single look agree, on the identity too."""
    source = PsutilProcesses()
    scanned = {process.pid: process for process in source.processes()}[os.getpid()]

    assert scanned.identity == me(source).identity
    assert (scanned.ppid, scanned.session) == (os.getppid(), os.getsid(0))
    assert source.owner(os.getpid()) == os.geteuid()
    assert source.usability().usable


def test_a_gone_process_is_nobody() -> None:
    """No question about a process that has ended raises."""
    source = PsutilProcesses()

    assert source.process(GONE.pid) is None
    assert source.owner(GONE.pid) is None
    assert source.marks([GONE]) == {GONE.identity: ()}
    assert source.measure([GONE], None).total_bytes == 0


def test_footprints_are_summed() -> None:
    """Where the platform has phys_footprint that is the metric."""
    source = PsutilProcesses(FakeFootprint({1: 100, 2: 200}))
    members = [GONE._replace(pid=1), GONE._replace(pid=2)]

    assert source.measure(members, None) == (300, "phys_footprint", None)
    assert not source.swap_unbounded()


def test_a_process_without_a_footprint_counts_with_its_rss() -> None:
    """A living process that may not be asked makes the sum an rss; a gone one does not."""
    source = PsutilProcesses(FakeFootprint({1: 100}))
    known = GONE._replace(pid=1)

    assert source.measure([known, GONE], None) == (100, "phys_footprint", None)
    total, metric, _ = source.measure([known, me(source)], None)
    assert metric == "rss"
    assert total > 1 << 20


def test_without_psutil_the_backend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is a reason and a fix, not a traceback."""
    real_import = builtins.__import__

    def no_psutil(name: str, *rest: Any) -> Any:
        if name == "psutil":
            raise ImportError("No module named 'psutil'")
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_psutil)
    usability = PsutilProcesses().usability()

    assert not usability.usable
    assert usability.fix == "pip install psutil"


def test_a_scope_through_psutil(tmp_path: Path) -> None:
    """A tree is found, measured, marked and killed through psutil alone."""
    path = tmp_path / "cgmem"
    backend = PsutilBackend(
        source=PsutilProcesses(), run_directory=RunDirectory(path), directories=lambda: [path]
    )
    record = ScopeRecord("a", os.getpid(), 0, 0.0)
    scope, _ = backend.open_scope(record, Limits())
    program = "import time; print('ready', flush=True); time.sleep(60)"
    child = scope.start([sys.executable, "-c", program], {"stdout": subprocess.PIPE})
    assert child.stdout is not None
    child.stdout.readline()
    sample = scope.sample()
    listed = [found.pids() for found in backend.list_scopes()]
    scope.signal(signal.SIGKILL)
    child.stdout.close()

    assert sample is not None
    assert sample.current_bytes > 1 << 20
    assert listed == [[child.pid]]
    assert child.wait(20) == -signal.SIGKILL
    assert scope.close()
