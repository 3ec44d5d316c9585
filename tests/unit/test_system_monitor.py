"""MemoryMonitor: the status that people print, and who writes memory-monitor.log when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB, Headroom, LimitAbove, SystemMemory
from cgmem.errors import ScopeVanished
from cgmem.system_monitor import MemoryMonitor, WriterLock, level_of, settled_level


class Machine:
    """A machine whose memory the test sets, in MB."""

    def __init__(self) -> None:
        self.available: float = 8000.0
        self.headroom: float | None = None
        self.failure: Exception | None = None

    def __call__(self) -> SystemMemory:
        """Answer as a reader of the machine's memory."""
        if self.failure is not None:
            raise self.failure
        left = None
        if self.headroom is not None:
            left = Headroom(int(self.headroom * MB), LimitAbove("/a", 512 * MB))
        return SystemMemory(16384 * MB, int(self.available * MB), left)


class Log:
    """Takes lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def monitor(self, line: Mapping[str, Any]) -> None:
        """Keep the line."""
        self.lines.append(dict(line))

    @property
    def levels(self) -> list[str]:
        """The levels of the lines so far."""
        return [line["level"] for line in self.lines]


@pytest.fixture
def machine() -> Machine:
    """A machine with plenty of memory."""
    return Machine()


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


def monitor_of(machine: Machine, log: Log, **more: Any) -> MemoryMonitor:
    """A monitor on the fakes, at a fixed time of day."""
    return MemoryMonitor(machine, logs=log, wall_clock=lambda: 1_000_000.25, **more)


def test_status_is_what_the_debug_command_prints(machine: Machine) -> None:
    """The logged keys first, then system_memory with its four numbers; all JSON."""
    machine.available = 1500.0
    status = MemoryMonitor(machine, wall_clock=lambda: 0.0).get_memory_status()

    assert list(status) == ["timestamp", "level", "status", "alerts", "system_memory", "cgmem"]
    assert status["level"] == "WARNING"
    assert status["alerts"] == [
        {"level": "WARNING", "message": "WARNING: Low memory - only 1500.0MB available"}
    ]
    assert status["system_memory"] == {
        "total_mb": 16384.0, "available_mb": 1500.0, "used_mb": 14884.0, "percent": 90.8,
    }  # fmt: skip
    assert json.loads(json.dumps(status)) == status


def test_the_own_cgroups_limit_counts(machine: Machine) -> None:
    """A full container on an idle host is CRITICAL, and the line says whose limit it is."""
    machine.headroom = 100.0
    status = MemoryMonitor(machine).get_memory_status()

    assert status["level"] == "CRITICAL"
    assert status["alerts"][0]["message"] == "CRITICAL: Low memory - only 100.0MB available"
    assert status["system_memory"]["available_mb"] == 8000.0
    assert status["cgmem"]["headroom_mb"] == 100.0
    assert status["cgmem"]["headroom_source"] == "/a"


@pytest.mark.parametrize(
    ("available", "level"),
    [(0, "CRITICAL"), (1023.9, "CRITICAL"), (1024, "WARNING"), (2047.9, "WARNING"), (2048, "OK")],
)
def test_levels(available: float, level: str) -> None:
    """The bounds of the system's levels are those of the pre-flight check."""
    assert level_of(int(available * MB)) == level


def test_a_line_a_minute(machine: Machine, log: Log) -> None:
    """At one level there is a line at once and then one each minute, however often it ticks."""
    monitor = monitor_of(machine, log)

    for second in range(0, 181, 2):
        monitor.tick(5000.0 + second)

    assert log.levels == ["OK"] * 4


def test_a_line_at_each_change_of_level(machine: Machine, log: Log) -> None:
    """A change of level is logged in its own tick, in both directions."""
    monitor = monitor_of(machine, log)
    for now, available in enumerate((8000, 1500, 500, 500, 1500, 8000)):
        machine.available = available
        monitor.tick(float(now))

    assert log.levels == ["OK", "WARNING", "CRITICAL", "WARNING", "OK"]
    assert [len(line["alerts"]) for line in log.lines] == [0, 1, 1, 1, 0]


def test_the_level_does_not_flap_at_a_bound(machine: Machine, log: Log) -> None:
    """Within 5 % above a bound the worse level stays."""
    monitor = monitor_of(machine, log)
    for now in range(20):
        machine.available = 2040 + 20 * (now % 2)
        monitor.tick(float(now))

    assert log.levels == ["WARNING"]


@given(st.sampled_from(["OK", "WARNING", "CRITICAL"]), st.integers(0, 4096 * MB))
def test_hysteresis_only_delays_the_way_back(previous: Any, available: int) -> None:
    """The settled level is never better than the momentary one, and never worse than both."""
    order = ("OK", "WARNING", "CRITICAL")
    momentary = order.index(level_of(available))
    settled = order.index(settled_level(previous, available))

    assert momentary <= settled <= max(momentary, order.index(previous))
    assert settled_level(None, available) == level_of(available)


def test_only_the_writer_writes(machine: Machine, log: Log) -> None:
    """Who may not write stays silent, and takes over in the first tick in which it may."""
    may: list[bool] = [False, False, True]
    monitor = monitor_of(machine, log, may_write=lambda: may.pop(0))
    for now in range(3):
        monitor.tick(float(now))
        assert len(log.lines) == (now == 2)


@pytest.mark.parametrize("failure", [OSError(5, "I/O error"), ScopeVanished("gone")])
def test_a_failing_read_costs_one_tick(machine: Machine, log: Log, failure: Exception) -> None:
    """The poller never sees an error of a read; the next tick goes on."""
    monitor = monitor_of(machine, log)
    machine.failure = failure
    monitor.tick(0.0)
    machine.failure = None
    monitor.tick(2.0)

    assert log.levels == ["OK"]


def test_without_logs_a_tick_does_nothing(machine: Machine) -> None:
    """A monitor that only answers questions does not look at the machine in the poller."""
    machine.failure = AssertionError("looked")

    MemoryMonitor(machine).tick(0.0)


HOLD = """
import sys
from cgmem.system_monitor import WriterLock
lock = WriterLock(sys.argv[1])
print(lock.held(), flush=True)
sys.stdin.read()
"""


def test_one_writer_among_processes(tmp_path: Path) -> None:
    """One process holds the lock; when it dies another takes over, with no help from it."""
    path = tmp_path / "run" / "monitor.lock"
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lock = WriterLock(path)
        assert not lock.held()
        holder.kill()
        holder.wait()

        assert lock.held()
    lock.release()


def test_a_failing_close_closes_no_strangers_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close(2) gives the number back also where it fails: it is not closed once more."""
    lock = WriterLock(tmp_path / "lock")
    assert lock.held()
    close = os.close

    def failing(descriptor: int) -> None:
        close(descriptor)
        raise OSError(5, "I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", failing)
        lock.release()
    with (tmp_path / "strangers").open("w") as stranger:  # it gets the free number
        lock.release()
        os.fstat(stranger.fileno())


def test_lock_can_be_given_up_in_one_process(tmp_path: Path) -> None:
    """Two locks of one process exclude each other too, and a released one is free."""
    first, second = WriterLock(tmp_path / "lock"), WriterLock(tmp_path / "lock")
    assert first.held()
    assert first.held()
    assert not second.held()
    first.release()

    assert second.held()
    second.release()


FORK_AND_DIE = """
import os, sys
from cgmem.system_monitor import WriterLock
lock = WriterLock(sys.argv[1])
assert lock.held()
if os.fork() == 0:
    print("child", flush=True)
    sys.stdin.read()
os._exit(0)
"""


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child that outlives its supervisor without exec does not hold the lock for ever."""
    argv = [sys.executable, "-c", FORK_AND_DIE, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "child\n"
        holder.wait()
        lock = WriterLock(tmp_path / "lock")

        assert lock.held()
    lock.release()


def test_without_a_lock_file_everybody_writes(tmp_path: Path) -> None:
    """Where the run directory can't be made the log is written rather than lost."""
    (tmp_path / "file").write_text("")

    assert WriterLock(tmp_path / "file" / "lock").held()


def test_a_planted_symlink_is_not_opened(tmp_path: Path) -> None:
    """The lock file is never opened through a symbolic link, be it that of its directory."""
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    (tmp_path / "own").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "own")

    assert WriterLock(tmp_path / "lock").held()
    assert not (tmp_path / "target").exists()
    assert WriterLock(tmp_path / "run" / "lock").held()
    assert not list((tmp_path / "own").iterdir())


def test_a_directory_of_others_takes_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that others may write to, or that is another user's, is not for our file."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "run").mkdir(mode=0o700)

    assert WriterLock(tmp_path / "open" / "lock").held()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert WriterLock(tmp_path / "run" / "lock").held()
    assert not [*(tmp_path / "open").iterdir(), *(tmp_path / "run").iterdir()]
