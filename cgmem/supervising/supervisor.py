"""Starts subprocesses under their budgets and keeps book of those that live.

Joins what the other modules do: settings, starting, the poller, the logs, callbacks, upkeep.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from signal import SIGKILL
from subprocess import Popen, SubprocessError
from weakref import WeakSet

from cgmem import selector
from cgmem.config.settings import Settings, resolve
from cgmem.contract import (
    Alert,
    Backend,
    Cause,
    MemoryEvents,
    Scope,
    ScopeRecord,
    SystemMemory,
)
from cgmem.errors import CgmemError, ConfigurationError, EnforcementError
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.shapes import NamedTuple
from cgmem.supervising.callbacks import Callbacks
from cgmem.supervising.family import Family
from cgmem.supervising.journal import Journal
from cgmem.supervising.memory_check import MemoryCheck
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.plan import Plan, limits_of, observing_plan_of, recorded_plan_of
from cgmem.supervising.poller import Poller
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.registry import Registry
from cgmem.supervising.snapshot import Snapshots
from cgmem.supervising.starting import Started, Starter, discard
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.upkeep import Upkeep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from cgmem.supervising.unsupervised import Unsupervised

MEMORY_FRESH_SECONDS = 0.5
"""How old the machine's numbers may be: hundreds of subprocesses can start in a second."""

OnAlert: TypeAlias = "Callable[[str, Alert], Any]"
"""Called with the subprocess id and the alert."""


class Hooks(NamedTuple):
    """A caller's callbacks for one subprocess."""

    on_alert: OnAlert | None = None
    on_end: Callable[[Outcome], Any] | None = None
    on_abort: Callable[[str, Cause], Any] | None = None
    """Called once with the subprocess id and the cause when it is ended for budget or time."""
    on_start: Callable[[], Any] | None = None
    """Called by `spawn` itself, right after exec and before it is watched. May not raise."""


class Supervisor:
    """Everything that one process supervises. Thread-safe. One poller thread, started on demand.

    `arguments` are settings by key (docs/settings.md) that go before environment and file.
    `own_process`: this process is cgmem's own command, which may be moved to another cgroup and
    says itself what `choice` notes.
    """

    def __init__(
        self,
        arguments: Mapping[str, object] | None = None,
        *,
        resolve_settings: Callable[..., Settings] = resolve,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        own_process: bool = False,
    ) -> None:
        self._own_process = own_process
        self._arguments = dict(arguments or {})
        self._resolve = resolve_settings
        self._tell = warn or _log_warning
        self._clock = clock
        self._journal = Journal(self.system_memory, self._warn)
        self._begun: WeakSet[Supervision | Unsupervised] = WeakSet()
        """All that callers know of, ended or not: none of their locks may outlive a fork."""
        self._begin_empty()
        _supervisors.add(self)

    def _begin_empty(self) -> None:
        self._lock = threading.Lock()
        self._registry = Registry()
        self._family = Family()
        self._hooks: dict[str, Hooks] = {}
        self._starter = Starter(self._warn, own_process=self._own_process)
        self._upkeep = Upkeep(
            self._starter.backends,
            self._registry.live,
            self._journal,
            settings=self._own_settings,
            memory=self.system_memory,
            warn=self._warn,
        )
        self._memory: tuple[float, SystemMemory] | None = None
        self._callbacks = Callbacks(self._warn)
        self._snapshots = Snapshots(self._warn)
        self._poller: Poller | None = None
        self._spawned = 0
        self._identity: dict[str, Any] | None = None
        self._adopted_from: list[Backend] = []

    def after_fork_in_child(self) -> None:
        """Begin anew: what was supervised is the parent process's, and so are the threads."""
        begun, poller = tuple(self._begun), self._poller
        self._begin_empty()
        self._journal.after_fork_in_child()
        for supervision in begun:
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
        return self._starter.choice(settings)

    def spawn(
        self,
        args: Any,
        popen_options: Mapping[str, Any],
        *,
        settings: Settings,
        subprocess_id: str | None = None,
        agent_type: str | None = None,
        hooks: Hooks = Hooks(),  # noqa: B008  (immutable)
        must_fit: bool = False,
    ) -> MonitoredProcess:
        """Start one command under its budget.

        `must_fit`: too little memory refuses the start whatever the enforcement.
        Raises what subprocess.Popen raises, `ConfigurationError`, `InvalidIdError`,
        `InsufficientMemory`, `EnforcementError`, `BackendUnavailable`, `CgroupError`,
        `ScopeVanished`, `CgmemError` where a part of cgmem can't be loaded.
        """
        if settings.disabled:
            self._refuse_disabled(settings)
            subprocess_id = self._registry.take(subprocess_id, agent_type or _program(args))
            self._registry.release(subprocess_id)
            return self._spawn_unsupervised(args, popen_options, settings, subprocess_id, hooks)
        if not isinstance(args, (str, bytes, os.PathLike)):
            args = list(args)  # an iterator can be read but once
        check = MemoryCheck(settings, self.system_memory, self._warn, must_fit=must_fit)
        check.outside()
        chosen = self._starter.choice(settings)
        self.poller()  # what can fail fails before there is a child
        subprocess_id = self._registry.take(subprocess_id, agent_type or _program(args))
        started = None
        try:
            if settings.family_max_bytes is not None:
                self._family.reserve(
                    subprocess_id, settings.max_bytes, settings.family_max_bytes, settings.origins
                )
            record = self._record(subprocess_id, agent_type, args, settings)
            started = self._starter.start(
                chosen, record, settings, args, popen_options, check.inside
            )
            self._spawned += 1
            if hooks.on_start is not None:
                hooks.on_start()
            supervision = self._supervise(started.scope, started.plan, hooks)
        except BaseException:
            if started is not None:
                self._undo(started)
            self._family.release(subprocess_id)
            self._registry.release(subprocess_id)
            raise
        popen = started.popen
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

        Raises `ProcessLookupError`, `ConfigurationError` (also for this process and those that it
        descends from: at the hard limit they would be killed), `InvalidIdError`.
        """
        if pid in selector.own_line():
            raise ConfigurationError(
                f"pid {pid} is this very process, or one that it descends from",
                hint="pass the pid of the subprocess",
            )
        subprocess_id = self._registry.take(subprocess_id, agent_type or "pid")
        try:
            observer = selector.load_observer()
            observer.warn = self._warn
            record = self._record(subprocess_id, agent_type, [f"pid {pid}"], settings)
            scope = observer.observe(record, pid)
            plan = observing_plan_of(settings, observer.name)
        except BaseException:
            self._registry.release(subprocess_id)
            raise
        supervision = self._supervise(scope, plan, hooks)
        try:
            supervision.begin(pid, None)
        except BaseException:  # no thread: not one that seems watched
            supervision.let_go()
            raise
        return supervision

    def adopt(
        self,
        subprocess_id: str,
        *,
        settings: Settings,
        hooks: Hooks = Hooks(),  # noqa: B008  (immutable)
    ) -> Supervision:
        """Take over a live subprocess whose supervisor is gone, with its budget, id and logs.

        Where a budget is no matter (`on_stall`, `tick`, …) `settings` apply. Its end is told when
        its last process has ended; `close` hands it back: limits stay, the brake is lifted.
        Raises `UnknownIdError`, `InvalidIdError` where its supervisor lives, `CgmemError` where
        it can't be taken over, `ScopeVanished`.
        """
        from cgmem.supervising.remains import find_orphan  # those who only start need it not

        backend, scope = find_orphan(subprocess_id)
        backend.warn = self._warn
        try:
            self._registry.take(subprocess_id, subprocess_id)
            try:
                supervision, age_seconds = self._take_over(backend, scope, settings, hooks)
            except BaseException:
                self._registry.release(subprocess_id)
                raise
        except BaseException:
            scope.detach()
            backend.close()
            raise
        self._adopted_from.append(backend)
        try:
            supervision.begin_adopted(age_seconds)
        except BaseException:  # no thread: not one that seems watched
            self.let_go(supervision)
            raise
        return supervision

    def _take_over(
        self, backend: Backend, scope: Scope, settings: Settings, hooks: Hooks
    ) -> tuple[Supervision, float]:
        before = scope.record
        self._journal.logs(before.log_dir)
        record = before._replace(**self._own_identity(), concluded=False)
        backend.take_over(scope, record)
        limits = scope.limits()._replace(high_bytes=record.high_bytes)
        baseline = scope.counters().events
        plan = recorded_plan_of(
            settings,
            record,
            limits,
            scope.set_limits(limits),
            backend.name,
            kernel_limits=backend.capabilities.kernel_limits,
        )
        supervision = self._supervise(scope, plan, hooks, baseline)
        return supervision, max(0.0, time.time() - record.started_at)

    def find(self, subprocess_id: str) -> Supervision | None:
        """The live supervision with this id."""
        return self._registry.find(subprocess_id)

    def aborted_at(self, subprocess_id: str) -> float | None:
        """The last MB of a subprocess that was ended for its memory or its time, of late."""
        return self._registry.aborted_at(subprocess_id)

    def live(self) -> list[Supervision]:
        """Every live supervision of this process, in the order of their starts."""
        return self._registry.live()

    def logs(self, settings: Settings) -> MemoryLogs:
        """The log files of these settings' directory. Raises `ConfigurationError`."""
        return self._journal.logs(settings.log_dir, settings.origins["log_dir"])

    def let_go(self, supervision: Supervision) -> None:
        """Stop supervising a live subprocess: `Supervision.let_go`. Its id is free again."""
        supervision.let_go()
        if self._registry.leave(supervision):
            self._hooks.pop(supervision.subprocess_id, None)

    def close(self, callbacks_timeout: float = 1.0) -> None:
        """End supervision: settle what has ended, let go of what lives, write what waits."""
        for supervision in self.live():
            if not supervision.settle():
                self.let_go(supervision)
            self._registry.leave(supervision)
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        self._snapshots.close()
        self._starter.close()
        while self._adopted_from:
            self._adopted_from.pop().close()
        self._callbacks.close(callbacks_timeout)
        self._journal.close()

    # --- Sinks: what supervisions report

    def alert(self, supervision: Supervision, alert: Alert) -> None:
        """Log an alert and call the caller's `on_alert`."""
        self._journal.alert(
            supervision.scope.record.log_dir,
            supervision.subprocess_id,
            alert,
            supervision.plan.backend,
        )
        hook = self._hooks.get(supervision.subprocess_id, Hooks()).on_alert
        if hook is not None:
            self._callbacks.call(hook, supervision.subprocess_id, alert)

    def aborted(self, supervision: Supervision, cause: Cause) -> None:
        """Call the caller's `on_abort`."""
        hook = self._hooks.get(supervision.subprocess_id, Hooks()).on_abort
        if hook is not None:
            self._callbacks.call(hook, supervision.subprocess_id, cause)

    def concluded(self, _supervision: Supervision, outcome: Outcome) -> None:
        """Log the statistics."""
        self._journal.ended(outcome)

    def ended(self, supervision: Supervision, outcome: Outcome) -> None:
        """Forget the subprocess and call the caller's `on_end`."""
        if not self._registry.leave(supervision):
            return
        self._family.release(supervision.subprocess_id)
        hook = self._hooks.pop(supervision.subprocess_id, Hooks()).on_end
        if hook is not None:
            self._callbacks.call(hook, outcome)

    def idle(self, supervision: Supervision) -> None:
        """Have the next scope made ready, once it is seen that there is more than one to start."""
        if self._spawned > 1:
            self._starter.prepare(supervision.plan.settings, supervision.plan.limits)

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
            except (OSError, CgmemError):  # no descriptor left: old numbers are better
                if self._memory is None:
                    raise
        return self._memory[1]

    # --- starting

    def _spawn_unsupervised(
        self,
        args: Any,
        popen_options: Mapping[str, Any],
        settings: Settings,
        subprocess_id: str,
        hooks: Hooks,
    ) -> MonitoredProcess:
        from cgmem.supervising.unsupervised import Unsupervised  # nearly nobody switches it off

        def aborted(cause: Cause) -> None:
            if hooks.on_abort is not None:
                self._callbacks.call(hooks.on_abort, subprocess_id, cause)

        def ended(outcome: Outcome) -> None:
            if hooks.on_end is not None:
                self._callbacks.call(hooks.on_end, outcome)

        popen = Popen(args, **popen_options)
        if hooks.on_start is not None:
            hooks.on_start()
        grace = settings.grace_seconds
        one = Unsupervised(subprocess_id, _words(args), popen, grace, aborted, ended)
        self._begun.add(one)
        return MonitoredProcess(popen, one)

    def _refuse_disabled(self, settings: Settings) -> None:
        """Monitoring is off: say so where something was asked for that it can't give."""
        if settings.enforcement == "required":
            raise EnforcementError(
                "enforcement required, but memory monitoring is disabled"
                f" ({settings.origins['disabled']})",
                hint="unset CLAUDE_PM_DISABLE_MEMORY_MONITOR",
            )
        if settings.timeout_seconds is not None:
            self._warn("memory monitoring is disabled: the timeout is not watched either")
        if settings.group_name is not None:
            self._warn("memory monitoring is disabled: nothing holds the group's budget")

    def _record(
        self, subprocess_id: str, agent_type: str | None, args: Any, settings: Settings
    ) -> ScopeRecord:
        return ScopeRecord(
            subprocess_id=subprocess_id,
            **self._own_identity(),
            started_at=time.time(),
            command=_words(args),
            agent_type=agent_type,
            warning_bytes=settings.warning_bytes,
            critical_bytes=settings.critical_bytes,
            max_bytes=settings.max_bytes,
            log_dir=str(self.logs(settings).directory),
            high_bytes=limits_of(settings).high_bytes,
        )

    def _supervise(
        self, scope: Scope, plan: Plan, hooks: Hooks, baseline: MemoryEvents | None = None
    ) -> Supervision:
        poller = self.poller()
        poller.tick_at_least_every(plan.settings.tick_seconds)
        supervision = Supervision(
            scope,
            plan,
            self,
            poller,
            snapshots=self._snapshots,
            clock=self._clock,
            baseline=baseline,
        )
        self._begun.add(supervision)
        if hooks != Hooks():
            self._hooks[supervision.subprocess_id] = hooks
        self._registry.enter(supervision)
        return supervision

    def poller(self) -> Poller:
        """The one poller, made when it is first needed."""
        with self._lock:
            if self._poller is None:
                tick = self._own_settings().tick_seconds
                self._poller = Poller(tick, warn=self._warn, after_tick=self._upkeep.after_tick)
            return self._poller

    def _undo(self, started: Started) -> None:
        """Ctrl-C came between exec and the first look: not one that runs unwatched."""
        with suppress(CgmemError, OSError, SubprocessError):
            started.scope.signal(SIGKILL)
            started.popen.wait(timeout=1.0)  # in D state it can take longer: not at Ctrl-C
        discard(started.scope)
        name = started.scope.record.subprocess_id
        self._hooks.pop(name, None)
        entered = self._registry.find(name)
        if entered is not None:
            self._registry.leave(entered)

    # --- the rest

    def _effective_total(self) -> int:
        return self.system_memory().effective_total_bytes

    def _own_settings(self) -> Settings:
        return self._resolve(self._arguments, total_bytes=self._effective_total)

    def _own_identity(self) -> dict[str, Any]:
        """What names this process in a record."""
        pid = os.getpid()
        if self._identity is None or self._identity["supervisor_pid"] != pid:
            self._identity = {
                "supervisor_pid": pid,
                "supervisor_start": selector.process_start(pid) or 0,
                "supervisor_namespace": selector.pid_namespace(),
            }
        return self._identity


def _program(args: Any) -> str:
    words = _words(args)
    # Of a shell's `TOKEN=… program` the name alone: an id is no place for a secret.
    word = words[0].split(" ")[0].partition("=")[0] if words else "subprocess"
    return os.path.basename(word)  # noqa: PTH119  (no path)


def _words(args: Any) -> tuple[str, ...]:
    if isinstance(args, (str, bytes, os.PathLike)):
        args = [args]
    return tuple(os.fsdecode(word) for word in args)


def _log_warning(text: str) -> None:
    import logging

    logging.getLogger("cgmem").warning(text)


_supervisors: WeakSet[Supervisor] = WeakSet()


def _after_fork_in_child() -> None:
    for supervisor in tuple(_supervisors):
        supervisor.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
