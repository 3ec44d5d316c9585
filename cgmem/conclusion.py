"""From what was seen and done to the outcome. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from cgmem.contract import Counters, MemoryEvents, Metric, ScopeRecord, SystemMemory
from cgmem.figures import Figures, finish
from cgmem.outcome import Outcome
from cgmem.plan import Plan
from cgmem.verdict import Ended, WhatWeDid, killed_at_own_limit, verdict


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
            swap_free_bytes=seen.system_memory.swap_free_bytes,
            kernel_limits=plan.policy.kernel_limits,
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
        kept=bool(seen.leftovers) and plan.settings.keep,
        metric=seen.metric,
        system_memory=seen.system_memory,
        log_dir=record.log_dir,
        sigkill_needed=seen.sigkill_needed,
        unobserved=seen.unobserved,
    )
