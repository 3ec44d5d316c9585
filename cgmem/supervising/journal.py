"""Where alerts and statistics are written, the machine's level with them.

One set of files for each log directory. Nothing here raises for a file's sake.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cgmem import selector
from cgmem.contract import Alert, SystemMemory
from cgmem.errors import CgmemError
from cgmem.logs.directory import ENVIRONMENT_VARIABLE, resolve_log_dir
from cgmem.logs.lines import alert_line, stats_line
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.supervising.outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgmem.system_monitor import MemoryMonitor, WriterLock

MONITOR_SECONDS = 10.0
"""How often the machine's level is looked at. Reading /proc/meminfo costs as much as ten scopes."""
REST_SECONDS = 60.0
"""How long files of a directory without a line stay open, at the most twice that; a tick closes."""
MOST_USED = 64
"""Where so many directories are in use files are closed at each tick."""
MOST_DIRECTORIES = 256
"""So many are remembered, and any more in which lines wait or that were used of late."""


class Journal:
    """The log files of one supervisor. Thread-safe."""

    def __init__(
        self, read_memory: Callable[[], SystemMemory], warn: Callable[[str], None]
    ) -> None:
        self._read_memory = read_memory
        self._warn = warn
        self._lock = threading.Lock()
        self._logs: dict[str, MemoryLogs] = {}
        self._directories: dict[tuple[str | None, str | None, str], str] = {}
        self._used: set[str] = set()
        """Directories of `_logs` that were asked for since the last look for those at rest."""
        self._forgotten: set[str] = set()
        """Were made once: where somebody has removed one since, it does not come back."""
        self._rest_at = 0.0
        self._waiting = False
        """Some file may have lines that are not written yet."""
        self._monitor: MemoryMonitor | None = None
        self._monitor_at = 0.0
        self._writer_lock: WriterLock | None = None

    def logs(self, log_dir: str | None, source: str = "log_dir") -> MemoryLogs:
        """The files of the directory that this setting leads to.

        Raises `ConfigurationError`, which names `source`.
        """
        key = log_dir, os.environ.get(ENVIRONMENT_VARIABLE), _cwd()
        with self._lock:
            directory = self._directories.get(key)
            if directory is None:
                found = resolve_log_dir(log_dir, source=source, environ=os.environ, cwd=key[2])
                directory = self._directories[key] = str(found)
                if len(self._directories) > MOST_DIRECTORIES:
                    del self._directories[next(iter(self._directories))]
            return self._in(directory)

    def alert(self, directory: str | None, subprocess_id: str, alert: Alert, backend: str) -> None:
        """Write an alert."""
        self._write(
            directory,
            lambda logs: logs.alert(
                alert_line(
                    alert,
                    now=time.time(),
                    subprocess_id=subprocess_id,
                    system_memory=self._read_memory(),
                    backend=backend,
                )
            ),
        )

    def ended(self, outcome: Outcome) -> None:
        """Write the statistics of a subprocess that has ended."""
        self._write(outcome.log_dir, lambda logs: logs.stats(_stats(outcome)))

    def found(self, outcome: Outcome) -> None:
        """Write the statistics of one that another process has started, in its own directory."""
        try:
            self.logs(outcome.log_dir)
        except CgmemError as error:
            self._warn(f"subprocess {outcome.subprocess_id}: {error}")
        else:
            self.ended(outcome)

    def tick(self, now: float) -> None:
        """Write what waits, and look at the machine from time to time. `now` is monotonic."""
        if now >= self._monitor_at and self._logs:
            self._monitor_at = now + MONITOR_SECONDS
            self._machine_monitor().tick(now)
            self._waiting = True
        if self._waiting:
            self._waiting = False  # before the flush: a line may come meanwhile
            if sum(logs.flush() for logs in tuple(self._logs.values())):
                self._waiting = True
        if now >= self._rest_at or len(self._used) > MOST_USED:
            self._rest_at = now + REST_SECONDS
            self._rest()

    def close(self) -> None:
        """Write what waits and give up descriptors and the writer's lock."""
        for logs in tuple(self._logs.values()):
            logs.close()
        if self._writer_lock is not None:
            self._writer_lock.release()
            self._writer_lock = self._monitor = None

    def after_fork_in_child(self) -> None:
        """The lock may have been held by a thread that is not here; the files see to themselves."""
        self._lock = threading.Lock()
        self._writer_lock = self._monitor = None

    def _machine_monitor(self) -> MemoryMonitor:
        if self._monitor is None:
            from cgmem.system_monitor import MemoryMonitor, WriterLock  # a short run has none

            self._writer_lock = WriterLock(f"{selector.lock_directory()}/monitor")
            self._monitor = MemoryMonitor(
                self._read_memory,
                logs=next(iter(self._logs.values())),
                may_write=self._writer_lock.held,
            )
        return self._monitor

    def _write(self, directory: str | None, write: Callable[[MemoryLogs], None]) -> None:
        if directory is None:
            return
        with self._lock:
            logs = self._in(directory)
        try:
            write(logs)
        except (CgmemError, OSError, ValueError) as error:
            self._warn(f"log in {directory}: {error}")
        self._waiting = True
        if self._logs.get(directory) is not logs:  # forgotten meanwhile: nobody else flushes it
            logs.close()

    def _in(self, directory: str) -> MemoryLogs:
        """The files in a directory, anew where they were forgotten. The lock is held."""
        self._used.add(directory)
        logs = self._logs.get(directory)
        if logs is None:
            logs = self._logs[directory] = MemoryLogs(
                Path(directory), self._warn, made=directory in self._forgotten
            )
        return logs

    def _rest(self) -> None:
        """Close the files that are not in use, and forget the oldest of many.

        Whoever starts each subprocess in a directory of its own would run out of descriptors.
        """
        with self._lock:
            idle = {
                directory: logs
                for directory, logs in self._logs.items()
                if directory not in self._used
            }
            self._used.clear()
        # Not under the lock: what they warn of may start another.
        resting = [directory for directory, logs in idle.items() if logs.rest()]
        with self._lock:
            first = next(iter(self._logs), None)  # the machine's lines go there
            for directory in resting:
                if len(self._logs) <= MOST_DIRECTORIES:
                    break
                if directory != first and directory not in self._used:
                    self._forgotten.add(directory)
                    del self._logs[directory]


def _stats(outcome: Outcome) -> dict[str, Any]:
    ours = outcome.as_json()
    ours["command"] = _masked(outcome.command)
    for key in ("subprocess_id", "start_mb", "peak_mb", "end_mb", "duration_seconds"):
        del ours[key]
    return stats_line(
        outcome.subprocess_id,
        now=time.time(),
        start_mb=outcome.start_mb,
        peak_mb=outcome.peak_mb,
        end_mb=outcome.end_mb,
        duration_seconds=outcome.duration_seconds,
        warnings=ours.pop("warnings"),
        aborted=ours.pop("aborted"),
        outcome=ours,
    )


def _masked(command: Sequence[str]) -> list[str]:
    try:
        from cgmem.text.secrets import masked  # a log line is what needs it first
    except ImportError:  # no descriptor is left to read it by: the program alone is no secret
        return list(command[:1])
    return list(masked(command))


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  (a Path is not needed)
    except FileNotFoundError:  # it was removed; "/" would collect everybody's lines
        return os.path.expanduser("~")  # noqa: PTH111  (a Path is not needed)
