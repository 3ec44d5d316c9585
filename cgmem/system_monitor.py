"""The machine's memory: its status for the spec's debug command, and memory-monitor.log."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from cgmem.contract import SystemMemory
from cgmem.errors import CgmemError
from cgmem.judging.preflight import LOW_BYTES, NEED_BYTES, available_bytes, low_memory_message
from cgmem.logs.lines import monitor_line, system_memory_mb
from cgmem.shapes import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

LINE_EVERY = 60.0
"""Seconds between two lines at one level."""

SystemLevel: TypeAlias = "Literal['OK', 'WARNING', 'CRITICAL']"

_SEVERITY: dict[SystemLevel, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2}


def level_of(available: int) -> SystemLevel:
    """The machine's level at so many available bytes; the bounds are those of the pre-flight."""
    if available < NEED_BYTES:
        return "CRITICAL"
    return "WARNING" if available < LOW_BYTES else "OK"


def settled_level(previous: SystemLevel | None, available: int) -> SystemLevel:
    """The level with 5 % hysteresis on the way back, so that it doesn't flap at a bound."""
    level = level_of(available)
    if previous is None or _SEVERITY[level] >= _SEVERITY[previous]:
        return level
    return level_of(available * 100 // 105)


class MonitorLog(Protocol):
    """The part of `cgmem.logs.memory_logs.MemoryLogs` that is needed here."""

    def monitor(self, line: Mapping[str, Any]) -> None:
        """Add a line to memory-monitor.log."""


class MemoryMonitor:
    """The spec's MemoryMonitor: system-wide, beside the monitors of single subprocesses.

    `read_memory` says what the machine has; `may_write` whether this process is the one that
    writes memory-monitor.log (`WriterLock.held`); `wall_clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        read_memory: Callable[[], SystemMemory],
        *,
        logs: MonitorLog | None = None,
        may_write: Callable[[], bool] = lambda: True,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._read_memory = read_memory
        self._logs = logs
        self._may_write = may_write
        self._wall_clock = wall_clock
        self._level: SystemLevel | None = None
        self._written_at = 0.0

    def get_memory_status(self) -> dict[str, Any]:
        """Return `timestamp, level, status, alerts` as logged, then `system_memory` and `cgmem`.

        Raises what `read_memory` raises.
        """
        memory = self._read_memory()
        line = self._line(memory, level_of(available_bytes(memory)))
        own = line.pop("cgmem")
        return {**line, "system_memory": system_memory_mb(memory), "cgmem": own}

    def tick(self, now: float) -> None:
        """Log a line if the level has changed or a minute has passed. `now`: monotonic seconds."""
        if self._logs is None or not self._may_write():
            return
        try:
            memory = self._read_memory()
        except (OSError, CgmemError):  # the numbers are missed for one tick, nothing else
            return
        level = settled_level(self._level, available_bytes(memory))
        if level == self._level and now - self._written_at < LINE_EVERY:
            return
        self._level, self._written_at = level, now
        self._logs.monitor(self._line(memory, level))

    def _line(self, memory: SystemMemory, level: SystemLevel) -> dict[str, Any]:
        message = low_memory_message(level, available_bytes(memory))
        alerts = [] if level == "OK" else [{"level": level, "message": message}]
        return monitor_line(
            now=self._wall_clock(), level=level, system_memory=memory, alerts=alerts
        )


_locks: WeakSet[WriterLock] = WeakSet()


class WriterLock:
    """A lock file that one process of a user holds for as long as it lives (flock(2)).

    It is in a directory of this user's alone. Where it can't be made there everybody may write:
    lines twice are better than none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._fd: int | None = None
        self._held = False
        _locks.add(self)

    def held(self) -> bool:
        """Whether this process holds the lock; takes it if nobody does. Never waits."""
        if self._held:
            return True
        try:
            if self._fd is None:
                self._fd = self._open()
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._held = True
        return True

    def release(self) -> None:
        """Let another process write."""
        if self._fd is not None and self._held:
            # A forked child may hold a copy of the descriptor: closing would not unlock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Drop the descriptor. A forked child does: the lock is its parent's."""
        # Also close(2) that fails gives the number back, and another file may get it.
        descriptor, self._fd, self._held = self._fd, None, False
        if descriptor is not None:
            with suppress(OSError):  # nothing was written to it
                os.close(descriptor)

    def _open(self) -> int:
        with suppress(FileExistsError):
            self._path.parent.mkdir(mode=0o700)
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | flags)
        try:
            found = os.fstat(directory)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise PermissionError(f"{self._path.parent} is not ours alone")
            flags |= os.O_RDWR | os.O_CREAT
            return os.open(self._path.name, flags, 0o600, dir_fd=directory)
        finally:
            os.close(directory)


def _after_fork_in_child() -> None:
    for lock in tuple(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
