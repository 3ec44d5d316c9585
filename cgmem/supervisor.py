"""Starts subprocesses under their budgets and keeps book of those that live.

Joins what the other modules do: settings, the backend, the poller, the logs, callbacks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from subprocess import Popen
from typing import Any, NamedTuple
from weakref import WeakSet

from cgmem import preflight, selector
from cgmem.callbacks import Callbacks
from cgmem.contract import (
    Alert,
    EffectiveLimits,
    Limits,
    Scope,
    ScopeRecord,
    SystemMemory,
    Thresholds,
)
from cgmem.errors import (
    CgmemError,
    EnforcementError,
    InsufficientMemory,
    InvalidIdError,
    ScopeVanished,
)
from cgmem.ids import check_id, new_id
from cgmem.judge import Policy
from cgmem.logs.directory import ENVIRONMENT_VARIABLE as LOG_DIR_VARIABLE
from cgmem.logs.directory import resolve_log_dir
from cgmem.logs.lines import alert_line, stats_line
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.outcome import Outcome
from cgmem.poller import Poller
from cgmem.process import MonitoredProcess
from cgmem.settings import Settings, resolve
from cgmem.supervision import Plan, Supervision
from cgmem.system_monitor import MemoryMonitor, WriterLock
from cgmem.unsupervised import Unsupervised

MEMORY_FRESH_SECONDS = 0.5
"""How old the machine's numbers may be: hundreds of subprocesses can start in a second."""

MONITOR_SECONDS = 10.0
"""How often the machine's level is looked at. Reading /proc/meminfo costs as much as ten scopes."""

OnAlert = Callable[[str, Alert], Any]
"""Called with the subprocess id and the alert."""


class Hooks(NamedTuple):
    """A caller's callbacks for one subprocess."""

    on_alert: OnAlert | None = None
    on_end: Callable[[Outcome], Any] | None = None
    on_start: Callable[[], Any] | None = None
    """Called by `spawn` itself, right after exec and before it is watched. May not raise."""


class Supervisor:
    """Everything that one process supervises. Thread-safe. One poller thread, started on demand.

    `arguments` are settings by key (docs/settings.md) that go before environment and file.
    """

    def __init__(
        self,
        arguments: Mapping[str, object] | None = None,
        *,
        resolve_settings: Callable[..., Settings] = resolve,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arguments = dict(arguments or {})
        self._resolve = resolve_settings
        self._tell = warn or _log_warning
        self._clock = clock
        self._begin_empty()
        _supervisors.add(self)

    def _begin_empty(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Supervision] = {}
        self._starting: set[str] = set()
        self._hooks: dict[str, Hooks] = {}
        self._logs: dict[str, MemoryLogs] = {}
        self._log_dirs: dict[tuple[str | None, str | None, str], str] = {}
        self._choices: dict[tuple[str, bool], selector.Choice] = {}
        self._memory: tuple[float, SystemMemory] | None = None
        self._monitor: MemoryMonitor | None = None
        self._monitor_at = 0.0
        self._writer_lock: WriterLock | None = None
        self._callbacks = Callbacks(self._warn)
        self._poller: Poller | None = None
        self._start_ticks: tuple[int, int] | None = None

    def after_fork_in_child(self) -> None:
        """Begin anew: what was supervised is the parent process's, and so are the threads."""
        live, poller, logs = self._live, self._poller, self._logs
        self._begin_empty()
        self._logs = logs  # they know themselves what to do after a fork
        for supervision in tuple(live.values()):
            supervision.after_fork_in_child()
        if poller is not None:
            poller.after_fork_in_child()

    # --- what callers ask for

    def settings(
        self, arguments: Mapping[str, object] | None = None, agent_type: str | None = None
    ) -> Settings:
        """Resolve the settings of one subprocess. Raises `ConfigurationError`."""
        return self._resolve(
            {**self._arguments, **(arguments or {})},
            agent_type=agent_type,
            total_bytes=self._effective_total,
        )

    def choice(self, settings: Settings) -> selector.Choice:
        """The backend that these settings lead to, and why. Raises what `selector.choose` does."""
        key = settings.backend, settings.enforcement == "required"
        with self._lock:
            if key not in self._choices:
                self._choices[key] = selector.choose(key[0], kernel_limits_required=key[1])
            return self._choices[key]

    def spawn(
        self,
        args: Any,
        popen_options: Mapping[str, Any],
        *,
        settings: Settings,
        subprocess_id: str | None = None,
        agent_type: str | None = None,
        hooks: Hooks = Hooks(),  # noqa: B008  (immutable)
    ) -> MonitoredProcess:
        """Start one command under its budget.

        Raises what subprocess.Popen raises, `ConfigurationError`, `InvalidIdError`,
        `InsufficientMemory`, `EnforcementError`, `BackendUnavailable`, `CgroupError`.
        """
        if settings.disabled:
            return self._spawn_unsupervised(args, popen_options, subprocess_id, agent_type)
        if not isinstance(args, (str, bytes, os.PathLike)):
            args = list(args)  # an iterator can be read but once
        self._check_memory(settings)
        chosen = self.choice(settings)
        self.poller()  # what can fail fails before there is a child
        subprocess_id = self._take_id(subprocess_id, agent_type or _program(args))
        try:
            record = self._record(subprocess_id, agent_type, args, settings)
            scope, popen, plan = self._start(chosen, record, settings, args, popen_options)
        except BaseException:
            self._release_id(subprocess_id)
            raise
        if hooks.on_start is not None:
            hooks.on_start()
        supervision = self._supervise(scope, plan, hooks)
        try:
            supervision.begin(popen.pid, popen)
        except BaseException:  # no thread, no memory: not one that runs unwatched
            supervision.kill("abort")
            popen.wait()
            supervision.settle()
            raise
        return MonitoredProcess(popen, supervision)

    def observe(
        self,
        pid: int,
        *,
        settings: Settings,
        subprocess_id: str | None = None,
        agent_type: str | None = None,
        hooks: Hooks = Hooks(),  # noqa: B008  (immutable)
    ) -> Supervision:
        """Watch a process that already runs. Charges don't move, so it gets no kernel budget.

        Raises `ProcessLookupError`, `ConfigurationError`, `InvalidIdError`.
        """
        subprocess_id = self._take_id(subprocess_id, agent_type or "pid")
        try:
            observer = selector.load_observer()
            record = self._record(subprocess_id, agent_type, [f"pid {pid}"], settings)
            scope = observer.observe(record, pid)
            # What it leaves behind was not started under a budget of ours: it stays.
            settings = settings._replace(keep=True)
            limits = Limits(max_bytes=_limits(settings).max_bytes, swap_max_bytes=None)
            plan = _plan(settings, limits, _nothing_enforced(settings), observer.name, False)
        except BaseException:
            self._release_id(subprocess_id)
            raise
        supervision = self._supervise(scope, plan, hooks)
        supervision.begin(pid, None)
        return supervision

    def find(self, subprocess_id: str) -> Supervision | None:
        """The live supervision with this id."""
        return self._live.get(subprocess_id)

    def live(self) -> list[Supervision]:
        """Every live supervision of this process, in the order of their starts."""
        return list(self._live.values())

    def may_start(self, need_bytes: int = preflight.NEED_BYTES) -> tuple[bool, str]:
        """The pre-flight check (spec, "Pre-flight Checks")."""
        return preflight.can_create(self.system_memory(), need_bytes)

    def logs(self, settings: Settings) -> MemoryLogs:
        """The log files of these settings' directory."""
        key = settings.log_dir, os.environ.get(LOG_DIR_VARIABLE), _cwd()
        with self._lock:
            directory = self._log_dirs.get(key)
            if directory is None:
                found = resolve_log_dir(settings.log_dir, environ=os.environ, cwd=key[2])
                directory = self._log_dirs[key] = str(found)
                self._logs.setdefault(directory, MemoryLogs(found, self._warn))
            return self._logs[directory]

    def close(self, callbacks_timeout: float = 1.0) -> None:
        """End supervision: settle what has ended, let go of what lives, write what waits."""
        for supervision in self.live():
            if not supervision.settle():
                supervision.let_go()
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        self._callbacks.close(callbacks_timeout)
        for logs in tuple(self._logs.values()):
            logs.close()
        if self._writer_lock is not None:
            self._writer_lock.release()
            self._writer_lock = self._monitor = None

    # --- Sinks: what supervisions report

    def alert(self, supervision: Supervision, alert: Alert) -> None:
        """Log an alert and call the caller's `on_alert`."""
        self._log(
            supervision,
            lambda logs: logs.alert(
                alert_line(
                    alert,
                    now=time.time(),
                    subprocess_id=supervision.subprocess_id,
                    system_memory=self.system_memory(),
                    backend=supervision.plan.backend,
                )
            ),
        )
        hook = self._hooks.get(supervision.subprocess_id, Hooks()).on_alert
        if hook is not None:
            self._callbacks.call(hook, supervision.subprocess_id, alert)

    def ended(self, supervision: Supervision, outcome: Outcome) -> None:
        """Log the statistics, forget the subprocess and call the caller's `on_end`."""
        self._log(supervision, lambda logs: logs.stats(_stats(outcome)))
        with self._lock:
            self._live.pop(supervision.subprocess_id, None)
            hook = self._hooks.pop(supervision.subprocess_id, Hooks()).on_end
        if hook is not None:
            self._callbacks.call(hook, outcome)

    def warn(self, text: str) -> None:
        """Pass on a word about trouble of our own."""
        self._warn(text)

    def _warn(self, text: str) -> None:
        with suppress(Exception):  # the caller's code: it hurts no subprocess and no thread
            self._tell(text)

    def system_memory(self) -> SystemMemory:
        """The machine's memory, at most `MEMORY_FRESH_SECONDS` old."""
        now = self._clock()
        if self._memory is None or now - self._memory[0] > MEMORY_FRESH_SECONDS:
            try:
                self._memory = now, selector.system_memory()
            except OSError:  # no descriptor left: older numbers are better than none
                if self._memory is None:
                    raise
        return self._memory[1]

    # --- starting

    def _spawn_unsupervised(
        self,
        args: Any,
        popen_options: Mapping[str, Any],
        subprocess_id: str | None,
        agent_type: str | None,
    ) -> MonitoredProcess:
        subprocess_id = self._take_id(subprocess_id, agent_type or _program(args))
        self._release_id(subprocess_id)
        popen = Popen(args, **popen_options)
        return MonitoredProcess(popen, Unsupervised(subprocess_id, _words(args), popen))

    def _check_memory(self, settings: Settings) -> None:
        if not settings.preflight:
            return
        allowed, message = self.may_start(preflight.needed_bytes(settings.max_bytes))
        if allowed:
            return
        if settings.enforcement == "required":
            raise InsufficientMemory(message, hint="free memory, lower --max, or --no-preflight")
        self._warn(message)

    def _take_id(self, subprocess_id: str | None, prefix: str) -> str:
        if subprocess_id is None:
            subprocess_id = new_id(prefix)
        else:
            check_id(subprocess_id, source="subprocess_id")
            before = self._live.get(subprocess_id)
            if before is not None:  # it may have ended without the poller knowing yet
                before.settle()
        with self._lock:
            if subprocess_id in self._live or subprocess_id in self._starting:
                raise InvalidIdError(
                    f"subprocess id {subprocess_id!r} belongs to a live subprocess",
                    hint="choose another id, or none to get a fresh one",
                )
            self._starting.add(subprocess_id)
            return subprocess_id

    def _release_id(self, subprocess_id: str) -> None:
        with self._lock:
            self._starting.discard(subprocess_id)

    def _record(
        self, subprocess_id: str, agent_type: str | None, args: Any, settings: Settings
    ) -> ScopeRecord:
        return ScopeRecord(
            subprocess_id=subprocess_id,
            supervisor_pid=os.getpid(),
            supervisor_start=self._own_start(),
            started_at=time.time(),
            command=_words(args),
            agent_type=agent_type,
            warning_bytes=settings.warning_bytes,
            critical_bytes=settings.critical_bytes,
            max_bytes=settings.max_bytes,
            log_dir=str(self.logs(settings).directory),
        )

    def _start(
        self,
        chosen: selector.Choice,
        record: ScopeRecord,
        settings: Settings,
        args: Any,
        popen_options: Mapping[str, Any],
    ) -> tuple[Scope, Any, Plan]:
        limits = _limits(settings)
        for attempt in (1, 2):
            scope, effective = chosen.backend.open_scope(record, limits)
            try:
                self._check_enforced(settings, limits, effective)
                popen = scope.start(args, popen_options)
            except ScopeVanished:
                # Somebody removed the empty cgroup: once is an accident, twice is not ours.
                scope.detach()
                if attempt == 2:
                    raise
                continue
            except BaseException:
                _discard(scope)
                raise
            break
        kernel = chosen.backend.capabilities.kernel_limits
        if kernel and limits.max_bytes is not None and not effective.enforced:
            self._warn(
                f"subprocess {record.subprocess_id}: the kernel did not take the hard limit"
                f" {limits.max_bytes} bytes (it has {effective.max_bytes}): polled instead"
            )
            kernel = False
        return scope, popen, _plan(settings, limits, effective, chosen.backend.name, kernel)

    def _check_enforced(
        self, settings: Settings, limits: Limits, effective: EffectiveLimits
    ) -> None:
        if limits.max_bytes is None or settings.enforcement == "off" or effective.enforced:
            return
        if settings.enforcement == "required":
            raise EnforcementError(
                f"the kernel did not take the hard limit {limits.max_bytes} bytes "
                f"(it has {effective.max_bytes})",
                hint="cgmem doctor",
            )

    def _supervise(self, scope: Scope, plan: Plan, hooks: Hooks) -> Supervision:
        supervision = Supervision(scope, plan, self, self.poller(), clock=self._clock)
        with self._lock:
            self._starting.discard(supervision.subprocess_id)
            self._live[supervision.subprocess_id] = supervision
            if hooks != Hooks():
                self._hooks[supervision.subprocess_id] = hooks
        return supervision

    def poller(self) -> Poller:
        """The one poller, made when it is first needed."""
        with self._lock:
            if self._poller is None:
                tick = self._resolve(self._arguments, total_bytes=self._effective_total)
                self._poller = Poller(
                    tick.tick_seconds, warn=self._warn, after_tick=self._after_tick
                )
            return self._poller

    # --- the rest

    def _after_tick(self, now: float) -> None:
        for logs in tuple(self._logs.values()):
            logs.flush()
        if self._monitor is None and self._logs:
            self._writer_lock = WriterLock(_monitor_lock())
            self._monitor = MemoryMonitor(
                self.system_memory,
                logs=next(iter(self._logs.values())),
                may_write=self._writer_lock.held,
            )
        if self._monitor is not None and now >= self._monitor_at:
            self._monitor_at = now + MONITOR_SECONDS
            self._monitor.tick(now)

    def _log(self, supervision: Supervision, write: Callable[[MemoryLogs], None]) -> None:
        logs = self._logs.get(supervision.scope.record.log_dir or "")
        if logs is not None:
            try:
                write(logs)
            except (CgmemError, OSError, ValueError) as error:
                self._warn(f"{supervision}: log: {error}")

    def _effective_total(self) -> int:
        memory = self.system_memory()
        return memory.total_bytes

    def _own_start(self) -> int:
        pid = os.getpid()
        if self._start_ticks is None or self._start_ticks[0] != pid:
            self._start_ticks = pid, selector.process_start(pid) or 0
        return self._start_ticks[1]


def _limits(settings: Settings) -> Limits:
    if settings.enforcement == "off":
        return Limits(swap_max_bytes=None, oom_group=False)
    return Limits(
        high_bytes=settings.critical_bytes,
        max_bytes=settings.max_bytes if settings.abort_on_memory_limit else None,
        swap_max_bytes=settings.swap_max_bytes,
        oom_group=settings.oom_group,
    )


def _plan(
    settings: Settings,
    limits: Limits,
    effective: EffectiveLimits,
    backend: str,
    kernel_limits: bool,
) -> Plan:
    return Plan(
        settings=settings,
        thresholds=Thresholds(settings.warning_bytes, settings.critical_bytes, settings.max_bytes),
        limits=limits,
        effective=effective,
        policy=Policy(
            accounting=settings.accounting,
            on_stall=settings.on_stall,
            stall_after_seconds=settings.stall_after_seconds,
            kernel_limits=kernel_limits,
            high_bytes=limits.high_bytes if kernel_limits else None,
            enforcement=settings.enforcement,
            abort_on_memory_limit=settings.abort_on_memory_limit,
            tick_seconds=settings.tick_seconds,
        ),
        backend=backend,
    )


def _nothing_enforced(settings: Settings) -> EffectiveLimits:
    return EffectiveLimits(None, None, None, settings.max_bytes, "observed", enforced=False)


def _stats(outcome: Outcome) -> dict[str, Any]:
    ours = outcome.as_json()
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


def _discard(scope: Scope) -> None:
    with suppress(CgmemError, OSError):  # the start's own error is the one to show
        if not scope.close():  # interrupted with a child inside
            scope.signal(SIGKILL)
            scope.close()
    with suppress(CgmemError, OSError):
        scope.detach()


def _program(args: Any) -> str:
    words = _words(args)
    return os.path.basename(words[0].split(" ")[0]) if words else "subprocess"  # noqa: PTH119  (no path)


def _words(args: Any) -> tuple[str, ...]:
    if isinstance(args, (str, bytes, os.PathLike)):
        args = [args]
    return tuple(os.fsdecode(word) for word in args)


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  (a Path is not needed)
    except FileNotFoundError:
        return "/"


def _monitor_lock() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # No directory between: one that is made on the way would be open to others.
    directory = f"{runtime}/cgmem" if runtime else f"/tmp/cgmem-{os.geteuid()}"  # noqa: S108  (0700)
    return Path(directory, "monitor")


def _log_warning(text: str) -> None:
    import logging

    logging.getLogger("cgmem").warning(text)


_supervisors: WeakSet[Supervisor] = WeakSet()


def _after_fork_in_child() -> None:
    for supervisor in tuple(_supervisors):
        supervisor.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
