"""Hand-written stand-ins for what a supervision works with. None starts a process or a thread.

`FakeScope` and `FakeBackend` keep to the Protocols of `cgmem.contract`, `FakeSinks` to that of
`supervising.supervision`; `_is_a_…` at the end lets mypy hold them to it.
"""

# ruff: noqa: D102  (what a method stands in for is documented where the real one is)

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from subprocess import Popen
from typing import Any, cast

from cgmem.config.settings import resolve
from cgmem.contract import (
    MB,
    Alert,
    Backend,
    Capabilities,
    Cause,
    Counters,
    EffectiveLimits,
    Limits,
    MemoryEvents,
    Sample,
    Scope,
    ScopeRecord,
    Snapshot,
    SystemMemory,
    Thresholds,
    Usability,
)
from cgmem.errors import ScopeVanished
from cgmem.judging.judge import Policy
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.plan import Plan
from cgmem.supervising.poller import Poller
from cgmem.supervising.supervision import Sinks, Supervision
from cgmem.supervising.wakeups import Wakeups

NOBODY = 2**22 + 7
"""A process id above the highest that Linux gives (proc(5), pid_max): nobody's."""


class FakeClock:
    """Monotonic seconds that pass when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakePopen:
    """The part of subprocess.Popen that a supervision uses; it ends when told to."""

    def __init__(self, pid: int = NOBODY) -> None:
        self.pid = pid
        self.args = ["fake"]
        self.returncode: int | None = None
        self.status: int | None = None
        self.sent: list[int] = []

    def end(self, status: int = 0) -> None:
        """Be a zombie with this status."""
        self.status = status

    def poll(self) -> int | None:
        self.returncode = self.status
        return self.returncode

    def send_signal(self, signum: int) -> None:
        self.sent.append(signum)

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            raise AssertionError("a test would wait for ever")
        return cast(int, self.returncode)

    def as_popen(self) -> Popen[Any]:
        """Itself, under the real one's type."""
        return cast("Popen[Any]", self)


class FakeScope:
    """A scope that does what its attributes say, and writes down what it was asked.

    `errors` are raised by the method of that name, each time.
    """

    def __init__(
        self, clock: FakeClock, record: ScopeRecord | None = None, popen: FakePopen | None = None
    ) -> None:
        self.record = record or a_record()
        self.location = "fake"
        self.wake_descriptors: Sequence[tuple[int, int]] = ()
        self.emptied_descriptor: tuple[int, int] | None = None
        self.popen = popen or FakePopen()
        self.living = [self.popen.pid]
        self.late: list[int] = []
        """Who is put into it once it was seen empty."""
        self.current_bytes = MB
        self.pictures: Sequence[Snapshot] = [Snapshot(partial=False)]
        self.next_counters = Counters(MemoryEvents(0, 0, 0, 0, 0), peak_bytes=MB)
        self.term_obeyed = True
        self.budget = Limits(None, 400 * MB)
        self.swept_by_us = True
        self.errors: dict[str, BaseException] = {}
        self.calls: list[tuple[str, Any]] = []
        self.detached = 0
        self.rewritten: ScopeRecord | None = None
        self._clock = clock
        self._last_bytes: int | None = None

    def end(self, status: int = 0, *, leftovers: Sequence[int] = ()) -> None:
        """The main process ends; `leftovers` live on in the scope."""
        self.popen.end(status)
        self.living = list(leftovers)

    def vanish(self) -> None:
        """Somebody removes the scope; nothing in it can be reached any more."""
        gone = ScopeVanished("fake was removed")
        names = ("sample", "counters", "set_limits", "freeze", "signal", "close", "start")
        self.errors.update(dict.fromkeys(names, gone))
        self.living = []

    def start(self, args: Any, options: Mapping[str, Any]) -> Popen[Any]:
        self._called("start", args)
        return self.popen.as_popen()

    def unchanged(self) -> bool:
        return "sample" not in self.errors and self.current_bytes == self._last_bytes

    def sample(self, detail_above: int | None = None, *, if_changed: bool = False) -> Sample | None:
        self._called("sample", detail_above)
        if if_changed and self.current_bytes == self._last_bytes:
            return None
        self._last_bytes = self.current_bytes
        return Sample(self._clock(), self.current_bytes, "cgroup", self.next_counters.events)

    def inspect(self, most: int) -> Iterator[Snapshot]:
        self._called("inspect", most)
        yield from self.pictures

    def counters(self) -> Counters:
        self._called("counters", None)
        return self.next_counters

    def set_limits(self, limits: Limits) -> EffectiveLimits:
        self._called("set_limits", limits)
        return taken(limits)

    def limits(self) -> Limits:
        self._called("limits", None)
        return self.budget

    def held(self) -> EffectiveLimits:
        self._called("held", None)
        return taken(self.budget)

    def reclaim(self, size: int) -> None:
        self._called("reclaim", size)

    def rewrite(self, record: ScopeRecord) -> None:
        self._called("rewrite", record)
        self.record = self.rewritten = record

    def written(self) -> ScopeRecord | None:
        return self.rewritten

    def sweep(self) -> bool:
        self._called("sweep", None)
        return self.swept_by_us

    def freeze(self, frozen: bool) -> None:
        self._called("freeze", frozen)

    def signal(self, signum: int) -> None:
        self._called("signal", signum)
        ends = signum == signal.SIGKILL or (signum == signal.SIGTERM and self.term_obeyed)
        if ends and self.popen.status is None and self.popen.pid in self.living:
            self.popen.end(-signum)
        if ends:
            self.living = []

    def pids(self) -> list[int]:
        self._called("pids", None)
        return list(self.living)

    def close(self, before: Callable[[], object] | None = None) -> bool:
        self._called("close", None)
        if before is not None and not self.living:
            before()
            self.living = self.late
        return not self.living

    def detach(self) -> None:
        self.detached += 1
        self._called("detach", None)

    def asked(self, name: str) -> list[Any]:
        """The arguments of every call of this method, in order."""
        return [argument for called, argument in self.calls if called == name]

    def _called(self, name: str, argument: Any) -> None:
        self.calls.append((name, argument))
        if name in self.errors:
            raise self.errors[name]


class FakeBackend:
    """Opens the scopes that it was given, then fresh ones."""

    def __init__(self, clock: FakeClock, scopes: Sequence[FakeScope] = ()) -> None:
        self.prepared: list[Limits] = []
        self.warn: Callable[[str], None] = lambda _text: None
        self.name = "fake"
        self.capabilities = Capabilities(
            kernel_limits=True,
            brake=True,
            placed_before_exec=True,
            every_descendant=True,
            metric="cgroup",
        )
        self.scopes = list(scopes)
        self.opened: list[FakeScope] = []
        self.limits: list[Limits] = []
        self.effective: Callable[[Limits], EffectiveLimits] = taken
        self.usability = Usability(True, "it is a fake")
        self.open_error: Exception | None = None
        self.take_over_error: Exception | None = None
        self.left: list[FakeScope] = []
        self.looked_nearby: list[bool] = []
        self.bell = False
        self._clock = clock

    def with_note(self, found: Usability) -> Usability:
        """See `cgmem.contract.Backend`."""
        return found

    def probe(self) -> Usability:
        return self.usability

    def open_scope(self, record: ScopeRecord, limits: Limits) -> tuple[Scope, EffectiveLimits]:
        if self.open_error is not None:
            raise self.open_error
        scope = self.scopes.pop(0) if self.scopes else FakeScope(self._clock)
        scope.record = record
        self.opened.append(scope)
        self.limits.append(limits)
        return scope, self.effective(limits)

    def prepare(self, limits: Limits) -> None:
        self.prepared.append(limits)

    def close(self) -> None:
        self.prepared.clear()

    def rung(self) -> bool:
        rung, self.bell = self.bell, False
        return rung

    def list_scopes(self) -> list[Scope]:
        return list(self.opened)

    def remains(self, *, nearby: bool = False) -> Iterator[Scope]:
        self.looked_nearby.append(nearby)
        yield from self.left

    def take_over(self, scope: Scope, record: ScopeRecord) -> None:
        if self.take_over_error is not None:
            raise self.take_over_error
        scope.rewrite(record)


class FakeSinks:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.outcomes: list[Outcome] = []
        self.aborts: list[Cause] = []
        self.warnings: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.order: list[str] = []
        """What was told, in its order."""

    def alert(self, supervision: Supervision, alert: Alert) -> None:
        self.alerts.append(alert)
        self._fail("alert")

    def aborted(self, supervision: Supervision, cause: Cause) -> None:
        self.aborts.append(cause)
        self._fail("aborted")

    def concluded(self, supervision: Supervision, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._fail("concluded")

    def ended(self, supervision: Supervision, outcome: Outcome) -> None:
        self._fail("ended")

    def idle(self, supervision: Supervision) -> None:
        """Nothing to do ahead."""

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._fail("warn")

    def system_memory(self) -> SystemMemory:
        self._fail("system_memory")
        return SystemMemory(8192 * MB, 4096 * MB)

    def _fail(self, name: str) -> None:
        self.order.append(name)
        if name in self.errors:
            raise self.errors[name]


class DrivenPoller(Poller):
    """The real poller without its thread: time passes, and is looked at, when `advance` is called.

    Descriptors are the kernel's: what is ready is seen at the next step.
    """

    def __init__(
        self,
        clock: FakeClock,
        tick_seconds: float = 2.0,
        *,
        after_tick: Callable[[float], None] = lambda _now: None,
    ) -> None:
        self.clock = clock
        self.told: list[str] = []
        super().__init__(tick_seconds, warn=self.told.append, after_tick=after_tick, clock=clock)
        self.steps = 0

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, stopping wherever the thread would have woken."""
        end = self.clock.now + seconds
        while True:
            timeout = self._timeout()
            ready = self._wakeups.wait(0)
            if not ready:
                if timeout is None or self.clock.now + timeout > end:
                    break
                self.clock.now += timeout
            self.steps += 1
            self._asleep = False
            self._handle(ready)
        self.clock.now = end

    @property
    def wakeups(self) -> Wakeups:
        """What it waits on."""
        return self._wakeups

    @property
    def starts(self) -> int:
        """How often a thread was asked for."""
        return self._starts

    _starts = 0

    def _start(self) -> None:
        self._starts += 1
        self._thread = threading.current_thread()

    def stop(self) -> None:
        """Give up the descriptors."""
        self._wakeups.close()


def a_record(subprocess_id: str = "engineer_1") -> ScopeRecord:
    """A record of nobody in particular."""
    return ScopeRecord(subprocess_id, NOBODY, 0, 1_700_000_000.0, ("fake", "--leak"))


def taken(limits: Limits) -> EffectiveLimits:
    """What a kernel that takes everything holds."""
    return EffectiveLimits(
        limits.high_bytes,
        limits.max_bytes,
        limits.swap_max_bytes,
        limits.max_bytes,
        "fake" if limits.max_bytes is not None else None,
        enforced=limits.max_bytes is not None,
    )


def a_plan(*, kernel_limits: bool = True, **arguments: object) -> Plan:
    """A plan under a budget of 100/200/400 MB; `arguments` are settings by key."""
    given: dict[str, object] = {"warning": "100M", "critical": "200M", "max": "400M"}
    settings = resolve({**given, **arguments}, environ={}, cwd="/")
    thresholds = Thresholds(settings.warning_bytes, settings.critical_bytes, settings.max_bytes)
    limits = Limits(settings.critical_bytes, settings.max_bytes)
    policy = Policy(
        on_stall=settings.on_stall,
        kernel_limits=kernel_limits,
        high_bytes=limits.high_bytes if kernel_limits else None,
        enforcement=settings.enforcement,
        tick_seconds=settings.tick_seconds,
    )
    return Plan(settings, thresholds, limits, taken(limits), policy, "fake")


def _is_a_scope(scope: FakeScope) -> Scope:
    return scope


def _is_a_backend(backend: FakeBackend) -> Backend:
    return backend


def _are_sinks(sinks: FakeSinks) -> Sinks:
    return sinks
