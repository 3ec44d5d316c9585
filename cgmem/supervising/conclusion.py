"""From what was seen and done to the outcome. Pure."""

from __future__ import annotations

from cgmem.contract import Counters, MemoryEvents, Metric, ScopeRecord, SystemMemory
from cgmem.judging.ended import Ended, WhatWeDid
from cgmem.judging.figures import Figures, finish
from cgmem.judging.verdict import killed_at_own_limit, verdict
from cgmem.logs.lines import snapshot_mb
from cgmem.shapes import NamedTuple
from cgmem.supervising.outbox import Taken
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMED = 3
"""Processes in a message."""

NAMED_SHARE = 10
"""A process with less than a tenth of the largest one's memory is not named."""


class Seen(NamedTuple):
    """All that is known of a subprocess when it is over."""

    pid: int | None
    returncode: int | None
    duration_seconds: float
    counters: Counters
    figures: Figures
    metric: Metric
    warnings: tuple[str, ...]
    stalls: tuple[dict[str, Any], ...]
    leftovers: tuple[int, ...]
    what_we_did: WhatWeDid | None
    sigkill_needed: bool
    system_memory: SystemMemory
    baseline: MemoryEvents | None = None
    """memory.events when we took over a scope that had already lived."""
    unobserved: bool = False
    snapshot: Taken | None = None
    """The last one that showed anything."""
    started: float = 0.0
    """Monotonic seconds."""
    oom_came_first: bool = False


def conclude(record: ScopeRecord, plan: Plan, seen: Seen) -> Outcome:
    """Say how it ended."""
    counters = seen.counters
    totals = finish(
        seen.figures,
        counters,
        limit_reached=plan.limits.max_bytes
        if killed_at_own_limit(counters, seen.baseline)
        else None,
        page_cache_counts=plan.policy.accounting == "current",
    )
    found = verdict(
        Ended(
            returncode=seen.returncode,
            counters=counters,
            figures=totals,
            limits=plan.limits,
            baseline=seen.baseline,
            what_we_did=seen.what_we_did,
            sigkill_needed=seen.sigkill_needed,
            top=_top(seen.snapshot),
            kernel_limits=plan.policy.kernel_limits,
            oom_came_first=seen.oom_came_first,
            duration_seconds=None if seen.unobserved else seen.duration_seconds,
            started_at=record.started_at,
            timeout_seconds=plan.settings.timeout_seconds,
            system_memory=seen.system_memory,
        )
    )
    return Outcome(
        subprocess_id=record.subprocess_id,
        command=record.command,
        pid=seen.pid,
        backend=plan.backend,
        cause=found.cause,
        exit_code=found.exit_code,
        signal=found.signal,
        message=found.message,
        start_mb=totals.start_mb,
        peak_mb=totals.peak_mb,
        end_mb=totals.end_mb,
        peak_charged_mb=totals.peak_charged_mb,
        duration_seconds=round(seen.duration_seconds, 3),
        warnings=seen.warnings,
        aborted=found.cause in ("hard_limit", "stalled", "aborted", "timeout"),
        enforced=plan.effective.enforced,
        limits=plan.effective,
        events=counters.events or MemoryEvents(),
        counters_cached=counters.cached,
        stalls=seen.stalls,
        leftovers=seen.leftovers,
        kept=bool(seen.leftovers) and plan.keep,
        metric=seen.metric,
        system_memory=seen.system_memory,
        log_dir=record.log_dir,
        sigkill_needed=seen.sigkill_needed,
        unobserved=seen.unobserved,
        agent_type=record.agent_type,
        started_at=record.started_at,
        supervisor_pid=record.supervisor_pid,
        supervisor_start=record.supervisor_start,
        snapshot=_snapshot(seen),
    )


def _snapshot(seen: Seen) -> dict[str, Any] | None:
    if seen.snapshot is None:
        return None
    at = round(seen.snapshot.at - seen.started, 3)
    return {"at": at, **snapshot_mb(seen.snapshot.snapshot)}


def _short(command: tuple[str, ...]) -> str:
    """A message has little room: the program without its directory."""
    return " ".join((command[0].rpartition("/")[2] or command[0], *command[1:])) if command else ""


def _top(taken: Taken | None) -> tuple[tuple[int, str, int], ...]:
    """Whom the message names: the first few, without those that hold next to nothing."""
    processes = () if taken is None else taken.snapshot.processes
    return tuple(
        (process.pid, _short(process.command), process.memory_bytes)
        for process in processes[:NAMED]
        if process.memory_bytes * NAMED_SHARE >= processes[0].memory_bytes > 0
    )
