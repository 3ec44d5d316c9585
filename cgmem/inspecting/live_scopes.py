"""Live scopes of this user (root: of everybody), whichever process started them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, NamedTuple

from cgmem import selector
from cgmem.contract import (
    Backend,
    EffectiveLimits,
    Level,
    Sample,
    Scope,
    ScopeRecord,
    Snapshot,
    Thresholds,
)
from cgmem.errors import CgmemError, out_of_descriptors
from cgmem.judging import judge
from cgmem.supervising.scopes import each_scope
from cgmem.text.sizes import mb

INSPECT_SECONDS = 1.0
"""A person waits for it; what can't be read by then (a stuck process) is left out."""


class LiveScope(NamedTuple):
    """One live scope, looked at once."""

    backend: str
    kernel_limits: bool
    record: ScopeRecord
    location: str
    level: Level
    judged_bytes: int
    sample: Sample
    pids: tuple[int, ...]
    supervised: bool
    """The process that started it still lives."""
    peak_bytes: int | None
    """memory.peak, page cache included; None where nobody keeps it."""
    held: EffectiveLimits
    """What the kernel holds now."""

    @property
    def thresholds(self) -> Thresholds:
        """The budget that was written down at the start."""
        return self.record.thresholds

    @property
    def percent(self) -> float | None:
        """The judged bytes as a share of the hard limit; None without one."""
        limit = self.record.max_bytes
        return round(100 * self.judged_bytes / limit, 1) if limit else None

    @property
    def full_percent(self) -> float | None:
        """Share of its life in which every process waited for memory (PSI full)."""
        full = self.sample.full_seconds
        return None if full is None else min(100.0, 100 * full / max(self.age_seconds, 0.1))

    @property
    def age_seconds(self) -> float:
        """How long ago it was started."""
        return max(0.0, time.time() - self.record.started_at)

    def as_json(self) -> dict[str, Any]:
        """Return what `ps --json` prints of it."""
        record, limits = self.record, self.thresholds
        return {
            "subprocess_id": record.subprocess_id,
            "agent_type": record.agent_type,
            "command": list(record.command),
            "level": self.level,
            "memory_mb": mb(self.judged_bytes),
            "current_mb": mb(self.sample.current_bytes),
            "peak_mb": None if self.peak_bytes is None else mb(self.peak_bytes),
            "metric": self.sample.metric,
            "percent": self.percent,
            "limits": limits._asdict(),
            "pids": list(self.pids),
            "started_at": record.started_at,
            "age_seconds": round(self.age_seconds, 1),
            "backend": self.backend,
            "enforced": self.held.enforced,
            "location": self.location,
            "supervisor": {"pid": record.supervisor_pid, "alive": self.supervised},
            "log_dir": record.log_dir,
        }


def live_scopes() -> list[LiveScope]:
    """Look at every live scope, oldest first. What ends meanwhile is left out."""
    return sorted(_look_at_all(), key=lambda live: live.record.started_at)


def _look_at_all() -> Iterator[LiveScope]:
    for backend, scope in each_scope():
        try:
            live = look(backend, scope)
        except (CgmemError, OSError) as error:
            if out_of_descriptors(error):
                raise
            continue  # it ended meanwhile
        if live is not None:
            yield live


def look(backend: Backend, scope: Scope) -> LiveScope | None:
    """Look at one scope; None when no process is in it any more.

    Raises what `Scope.sample` does.
    """
    # Below 0 bytes is no sample: every detail is read.
    sample = scope.sample(-1)
    pids = tuple(scope.pids())
    if sample is None or not pids:
        return None
    record = scope.record
    kernel_limits = backend.capabilities.kernel_limits
    # Counters that rose before we looked are no news.
    history = judge.History.start(sample.events)
    policy = judge.Policy(kernel_limits=kernel_limits)
    return LiveScope(
        backend=backend.name,
        kernel_limits=kernel_limits,
        record=record,
        location=scope.location,
        level=judge.judge(record.thresholds, policy, history, sample).level,
        judged_bytes=judge.judged_bytes(sample),
        sample=sample,
        pids=pids,
        supervised=selector.is_supervised(record),
        peak_bytes=scope.counters().peak_bytes if kernel_limits else None,
        held=scope.held(),
    )


def inspected(live: LiveScope, most: int) -> Snapshot:
    """Look for what fills it, with its `most` largest processes, for INSPECT_SECONDS.

    Empty once it is gone.
    """
    found, until = Snapshot(), time.monotonic() + INSPECT_SECONDS
    with suppress(CgmemError, OSError), closing(each_scope()) as scopes:
        for _, scope in scopes:
            if scope.location == live.location:
                scope.sample()  # the fallback's processes are those of its last look
                for found in scope.inspect(most):  # noqa: B007  (the last one counts)
                    if time.monotonic() >= until:
                        break
                break
    return found
