"""What dead supervisors left: the dead is swept and its end told, the live can be taken over.

Covers: which of it is told and how. Does not cover: what is left (a backend's `remains`), whose
supervisor lives (`selector.is_supervised`), where lines go (the caller's journal).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from cgmem import selector
from cgmem.config.settings import Settings
from cgmem.contract import (
    Backend,
    EffectiveLimits,
    Scope,
    ScopeRecord,
    SystemMemory,
)
from cgmem.errors import CgmemError, InvalidIdError, ScopeVanished
from cgmem.judging.figures import Figures
from cgmem.shapes import NamedTuple
from cgmem.supervising.conclusion import Seen, conclude
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.plan import recorded_plan_of
from cgmem.supervising.scopes import listed, unknown

STEP_SECONDS = 0.05
"""How much of a tick goes to sweeping."""


class Swept(NamedTuple):
    """One thing that was removed, or would be."""

    backend: str
    location: str
    record: ScopeRecord
    outcome: Outcome | None
    """None where there is no end to tell: it was told, or nothing had run in it."""


def sweep(
    backend: Backend,
    settings: Settings,
    memory: SystemMemory,
    *,
    nearby: bool = False,
    dry_run: bool = False,
) -> Iterator[Swept | CgmemError]:
    """Remove a backend's remains one by one; what can't be removed is given out as its error.

    Of several callers at once one gets each. `settings` say what a record doesn't. Raises
    `CgroupError` where there are no descriptors to look with.
    """
    for scope in backend.remains(nearby=nearby):
        try:
            found = _swept(backend, scope, settings, memory)
            if dry_run or scope.sweep():
                yield found
        except ScopeVanished:
            continue
        except CgmemError as error:
            yield error
        finally:
            scope.detach()


class Sweeper:
    """Sweeps a little at a time, for who has other things to do. Not thread-safe."""

    def __init__(
        self,
        found: Iterator[Swept | CgmemError],
        *,
        tell: Callable[[Outcome], None],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._found = found
        self._tell = tell
        self._warn = warn
        self._clock = clock

    def step(self) -> bool:
        """Go on for `STEP_SECONDS`; False once nothing is left to do."""
        until = self._clock() + STEP_SECONDS
        while self._clock() < until:
            found = next(self._found, None)
            if found is None:
                return False
            if isinstance(found, CgmemError):
                self._warn(f"clean-up after another process: {found}")
            elif found.outcome is not None:
                self._tell(found.outcome)
        return True


def find_orphan(
    subprocess_id: str, backends: Iterable[Backend] | None = None
) -> tuple[Backend, Scope]:
    """Find a live subprocess whose supervisor is gone; the oldest, if several have this id.

    Raises `UnknownIdError`, `InvalidIdError` where its supervisor lives, and `CgroupError` where
    there are no descriptors to look with.
    """
    orphans: list[tuple[Backend, Scope]] = []
    supervised: list[ScopeRecord] = []
    for backend in backends or map(selector.load, selector.NAMES):
        for scope in listed(backend):
            record = scope.record
            if record.subprocess_id != subprocess_id or not scope.pids():
                scope.detach()
            elif selector.is_supervised(record):
                supervised.append(record)
                scope.detach()
            else:
                orphans.append((backend, scope))
    if orphans:
        orphans.sort(key=lambda found: found[1].record.started_at)
        for _, scope in orphans[1:]:
            scope.detach()
        return orphans[0]
    if supervised:
        pid = supervised[0].supervisor_pid
        raise InvalidIdError(
            f"subprocess {subprocess_id} is supervised by process {pid}, which lives",
            hint=f"cgmem show {subprocess_id}",
        )
    raise unknown(subprocess_id, [])


def _swept(backend: Backend, scope: Scope, settings: Settings, memory: SystemMemory) -> Swept:
    record = scope.record
    told = record.concluded or not record.subprocess_id or _was_told(record)
    outcome = None if told else _unobserved_end(backend, scope, settings, memory)
    return Swept(backend.name, scope.location, record, outcome)


def _was_told(record: ScopeRecord) -> bool:
    """Its supervisor was killed after it had written the line, before it removed the scope."""
    from cgmem.logs.told import is_told  # what sweeps at every start seldom finds anything

    return is_told(record)


def _unobserved_end(
    backend: Backend, scope: Scope, settings: Settings, memory: SystemMemory
) -> Outcome:
    record, limits = scope.record, scope.limits()
    kernel_limits = backend.capabilities.kernel_limits
    enforced = kernel_limits and limits.max_bytes is not None
    effective = EffectiveLimits(
        *limits[:3], limits.max_bytes, scope.location if enforced else None, enforced=enforced
    )
    plan = recorded_plan_of(
        settings, record, limits, effective, backend.name, kernel_limits=kernel_limits
    )
    return conclude(
        record,
        plan,
        Seen(
            pid=None,
            returncode=None,
            duration_seconds=max(0.0, time.time() - record.started_at),
            counters=scope.counters(),
            figures=Figures(),
            metric=backend.capabilities.metric,
            warnings=(),
            stalls=(),
            leftovers=(),
            what_we_did=None,
            sigkill_needed=False,
            system_memory=memory,
            unobserved=True,
        ),
    )
