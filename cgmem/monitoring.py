"""The names of the memory-monitoring spec: thresholds, monitors and their getters.

Source: the spec's "Configuration", "Integration with Task Tool" and "Debug Commands".
`start_monitoring` watches; what is started through `cgmem.spawn` is also limited.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakSet

from cgmem import selector
from cgmem.config.settings import Settings
from cgmem.config.thresholds import MemoryThresholds
from cgmem.contract import MB, Level, SystemMemory
from cgmem.errors import ConfigurationError, InvalidIdError
from cgmem.inspecting.live_scopes import LiveScope, live_scopes
from cgmem.judging import preflight
from cgmem.logs.lines import stats_line, system_memory_mb
from cgmem.running import default_supervisor
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Supervisor
from cgmem.supervising.unsupervised import Unsupervised
from cgmem.system_monitor import MemoryMonitor
from cgmem.text.ids import check_id
from cgmem.text.sizes import mb
from cgmem.text.words import shown

__all__ = [
    "MemoryMonitor",
    "MemoryThresholds",
    "SubprocessMemoryMonitor",
    "SubprocessMemoryStats",
    "get_memory_monitor",
    "get_subprocess_memory_monitor",
]


REMEMBERED = 1000
"""Of so many stopped subprocesses `should_abort` still knows the answer."""


class SubprocessMemoryStats(NamedTuple):
    """The spec's `memory_stats` of one subprocess. MB are 2**20 bytes."""

    start_mb: float = 0.0
    peak_mb: float = 0.0
    end_mb: float = 0.0
    duration_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    aborted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As in subprocess-stats.jsonl."""
        return {**self._asdict(), "warnings": list(self.warnings)}


class _Entry(NamedTuple):
    """What `start_monitoring` was told."""

    info: Mapping[str, Any]
    began: float
    began_monotonic: float
    supervision: Supervision | Unsupervised | None
    disabled: bool


class SubprocessMemoryMonitor:
    """Watches subprocesses by id. Thread-safe. No method waits for a process, so asyncio may call
    it too; `get_all_subprocess_stats` reads /proc and the cgroups: milliseconds on a busy host.

    `thresholds` go before environment and configuration file, `log_dir` too.
    """

    def __init__(
        self,
        thresholds: MemoryThresholds | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._arguments: dict[str, object] = {}
        if thresholds is not None:
            self._arguments.update(_checked(thresholds).as_arguments())
        if log_dir is not None:
            self._arguments["log_dir"] = log_dir
        self._supervisor = supervisor or default_supervisor()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._ended: dict[str, Outcome] = {}
        settings = self._supervisor.settings(self._arguments)
        self.thresholds = thresholds_of(settings)
        self.log_dir = self._supervisor.logs(settings).directory
        _all_monitors.add(self)

    def after_fork_in_child(self) -> None:
        """A thread that is not here may have held the lock; what was watched is the parent's."""
        self._lock = threading.Lock()
        self._entries = {}

    @property
    def active_monitors(self) -> dict[str, dict[str, Any]]:
        """What `start_monitoring` was told, by id."""
        with self._lock:
            return {name: dict(entry.info) for name, entry in self._entries.items()}

    def start_monitoring(
        self,
        subprocess_id: str,
        process_info: Mapping[str, Any] | MonitoredProcess | int | None = None,
    ) -> None:
        """Begin to watch under this id.

        `process_info` may be or carry (key `pid` or `process`) a pid or a `MonitoredProcess`. A
        process that already runs is polled, and killed at the hard limit; the kernel holds nothing,
        since charges don't move. A `MonitoredProcess` keeps the budget that it was started with.
        With neither, id and time are recorded and nothing is measured. Raises `InvalidIdError`,
        `ProcessLookupError`, `ConfigurationError`.
        """
        info, target = _target(process_info)
        check_id(subprocess_id, source="subprocess_id")
        with self._lock:
            if subprocess_id in self._entries:
                raise InvalidIdError(
                    f"subprocess id {subprocess_id!r} is monitored already",
                    hint="stop_monitoring it first, or choose another id",
                )
        disabled = self._supervisor.settings(self._arguments).disabled
        supervision = self._follow(subprocess_id, info, target)
        entry = _Entry(info, time.time(), time.monotonic(), supervision, disabled)
        with self._lock:
            self._ended.pop(subprocess_id, None)
            self._entries[subprocess_id] = entry
        if supervision is None and not disabled:
            self._supervisor.warn(
                f"subprocess {subprocess_id}: no process was named, so none is measured; start it "
                "through cgmem.spawn, or pass its pid"
            )

    def check_memory(self, subprocess_id: str) -> tuple[float, Level]:
        """Look now: (MB, status).

        (0.0, "OK") without a process; NOT_MONITORED without an id, or where monitoring is disabled.
        """
        supervision = self._supervision(subprocess_id)
        if supervision is not None:
            return supervision.check()
        entry = self._entries.get(subprocess_id)
        if entry is not None:
            return 0.0, "NOT_MONITORED" if entry.disabled else "OK"
        aborted_at = self._supervisor.aborted_at(subprocess_id)
        return (0.0, "NOT_MONITORED") if aborted_at is None else (aborted_at, "ABORTED")

    def should_abort(self, subprocess_id: str) -> bool:
        """Whether the subprocess passed its hard limit, or was ended for its memory or its time."""
        supervision = self._supervision(subprocess_id)
        if supervision is not None:
            return supervision.check()[1] == "ABORTED" or supervision.limit_passed
        ended = self._ended.get(subprocess_id)
        if ended is not None:
            return ended.aborted
        if subprocess_id in self._entries:
            return False
        return self._supervisor.aborted_at(subprocess_id) is not None

    def stop_monitoring(self, subprocess_id: str) -> dict[str, Any]:
        """Stop watching; write and return the statistics (spec, "Subprocess Statistics Format").

        A process that still lives goes on, with its hard limit and without a brake. An id that is
        not monitored gives an empty dict.
        """
        with self._lock:
            entry = self._entries.pop(subprocess_id, None)
        supervision = entry.supervision if entry else self._supervisor.find(subprocess_id)
        if supervision is None:
            return self._stop_unmeasured(subprocess_id, entry) if entry else {}
        if not supervision.settle() and isinstance(supervision, Supervision):
            self._supervisor.let_go(supervision)
        outcome = supervision.outcome
        if outcome is None:  # disabled, and still running
            return {}
        with self._lock:
            self._ended[subprocess_id] = outcome
            while len(self._ended) > REMEMBERED:
                del self._ended[next(iter(self._ended))]
        return _stats(subprocess_id, outcome)

    def can_create_subprocess(self) -> tuple[bool, str]:
        """The spec's pre-flight check: (allowed, message)."""
        return preflight.can_create(self._fresh_memory())

    def get_system_memory(self) -> dict[str, float]:
        """The machine's memory: total_mb, available_mb, used_mb, percent."""
        return system_memory_mb(self._fresh_memory())

    def get_all_subprocess_stats(self) -> dict[str, dict[str, Any]]:
        """Every live subprocess of this user by id, whichever process started it.

        Each has `memory_mb`, `status` and `agent_type`; where it is measured, `backend` and
        `enforced`; of this process's own also `warnings`; of what `cgmem ps` lists also `pids` and
        `supervisor_pid`.
        """
        found = {live.record.subprocess_id: _seen(live) for live in live_scopes()}
        for supervision in self._supervisor.live():
            memory_mb, level = supervision.check()
            found[supervision.subprocess_id] = {
                **found.get(supervision.subprocess_id, {}),
                "memory_mb": memory_mb,
                "status": level,
                "warnings": list(supervision.warnings),
                "backend": supervision.plan.backend,
                "enforced": supervision.plan.effective.enforced,
            }
        for name, entry in tuple(self._entries.items()):
            if name not in found:
                memory_mb, level = self.check_memory(name)
                found[name] = {"memory_mb": memory_mb, "status": level}
            found[name].setdefault("agent_type", entry.info.get("agent_type"))
        return found

    def _follow(
        self, subprocess_id: str, info: Mapping[str, Any], target: MonitoredProcess | int | None
    ) -> Supervision | Unsupervised | None:
        if isinstance(target, MonitoredProcess):
            return target.supervision
        if target is None:
            return self._supervisor.find(subprocess_id)
        known = self._supervisor.find(subprocess_id)
        if known is not None and known.pid == target:
            return known
        agent_type = info.get("agent_type")
        settings = self._supervisor.settings(self._arguments, agent_type)
        if settings.disabled:
            return None
        return self._supervisor.observe(
            target, settings=settings, subprocess_id=subprocess_id, agent_type=agent_type
        )

    def _supervision(self, subprocess_id: str) -> Supervision | Unsupervised | None:
        entry = self._entries.get(subprocess_id)
        return entry.supervision if entry else self._supervisor.find(subprocess_id)

    def _stop_unmeasured(self, subprocess_id: str, entry: _Entry) -> dict[str, Any]:
        line = stats_line(
            subprocess_id,
            now=time.time(),
            start_mb=0.0,
            peak_mb=0.0,
            end_mb=0.0,
            duration_seconds=time.monotonic() - entry.began_monotonic,
            warnings=(),
            aborted=False,
            outcome={"enforced": False, "note": "no process was named, none was measured"},
        )
        settings = self._supervisor.settings(self._arguments)
        if not settings.disabled:
            self._supervisor.logs(settings).stats(line)
        return _returned(subprocess_id, line["memory_stats"])

    def _fresh_memory(self) -> SystemMemory:
        return selector.system_memory()


def get_subprocess_memory_monitor(
    thresholds: MemoryThresholds | None = None,
    log_dir: str | os.PathLike[str] | None = None,
) -> SubprocessMemoryMonitor:
    """The process's monitor. One for each (thresholds, log_dir) that is asked for."""
    budget = {} if thresholds is None else _checked(thresholds).as_arguments()
    key = (tuple(budget.items()), str(log_dir or ""))
    with _lock:
        if key not in _monitors:
            _monitors[key] = SubprocessMemoryMonitor(thresholds, log_dir)
        return _monitors[key]


def _after_fork_in_child() -> None:
    # A thread that is not here may have held them.
    global _lock  # noqa: PLW0603  (as in cgmem.running)
    _lock = threading.Lock()
    for monitor in tuple(_all_monitors):
        monitor.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def get_memory_monitor() -> MemoryMonitor:
    """The machine's monitor: `get_memory_status()`."""
    return MemoryMonitor(selector.system_memory)


_MonitorKey: TypeAlias = "tuple[tuple[tuple[str, str], ...], str]"
"""The thresholds that were given, and the log directory."""

_lock = threading.Lock()
_all_monitors: WeakSet[SubprocessMemoryMonitor] = WeakSet()
_monitors: dict[_MonitorKey, SubprocessMemoryMonitor] = {}


def _checked(thresholds: object) -> MemoryThresholds:
    if isinstance(thresholds, MemoryThresholds):
        return thresholds
    raise ConfigurationError(
        f"thresholds: {shown(thresholds)} is no MemoryThresholds",
        hint="write MemoryThresholds(max_mb=512)",
    )


def _target(
    process_info: Mapping[str, Any] | MonitoredProcess | int | None,
) -> tuple[Mapping[str, Any], MonitoredProcess | int | None]:
    if isinstance(process_info, MonitoredProcess):
        return {"pid": process_info.pid}, process_info
    if process_info is None or isinstance(process_info, Mapping):
        info = process_info or {}
        found = info.get("process") or info.get("pid")
    else:
        info, found = {"pid": process_info}, process_info
    if found is None or isinstance(found, MonitoredProcess):
        return info, found
    if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
        raise ConfigurationError(f"process_info: pid {found!r} is not a process id")
    return info, found


def _seen(live: LiveScope) -> dict[str, Any]:
    return {
        "memory_mb": mb(live.judged_bytes),
        "status": live.level,
        "agent_type": live.record.agent_type,
        "backend": live.backend,
        "enforced": live.held.enforced,
        "pids": list(live.pids),
        "supervisor_pid": live.record.supervisor_pid,
    }


def _stats(subprocess_id: str, outcome: Outcome) -> dict[str, Any]:
    figures = SubprocessMemoryStats(
        outcome.start_mb,
        outcome.peak_mb,
        outcome.end_mb,
        outcome.duration_seconds,
        outcome.warnings,
        outcome.aborted,
    )
    return _returned(subprocess_id, figures.to_dict())


def _returned(subprocess_id: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures, and once more under `memory_stats`, where the spec's log format has them."""
    return {"subprocess_id": subprocess_id, **figures, "memory_stats": figures}


def thresholds_of(settings: Settings) -> MemoryThresholds:
    """Return the three thresholds of resolved settings."""
    return MemoryThresholds(
        settings.warning_bytes / MB,
        settings.critical_bytes / MB,
        float("inf") if settings.max_bytes is None else settings.max_bytes / MB,
    )
