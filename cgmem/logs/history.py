"""What the log lines say: alerts and runs, their figures, and thresholds that would fit. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeGuard

from cgmem.contract import MB
from cgmem.text.sizes import format_size

STEP_BYTES = 16 * MB
"""Suggested thresholds are multiples of this: no number pretends to be exact."""

_LEVELS = ("WARNING", "CRITICAL")


class Run(NamedTuple):
    """One line of subprocess-stats.jsonl."""

    subprocess_id: str
    agent_type: str
    at: float
    """Its end, seconds since the epoch."""
    cause: str
    peak_mb: float
    duration_seconds: float
    aborted: bool
    seen: bool
    """At least one look was taken while it lived."""


class Summary(NamedTuple):
    """What many runs have in common."""

    runs: int
    aborted: int
    causes: Mapping[str, int]
    peak_mb: tuple[float, float, float]
    """Median, 95th percentile and the most."""
    duration_seconds: tuple[float, float, float]
    unseen: int
    """Ended before the first look."""
    cut_short: int
    """Ended at a limit: their peak is the limit's, they wanted more."""


class Suggestion(NamedTuple):
    """Thresholds in bytes."""

    warning: int
    critical: int
    maximum: int


def is_alert(line: Mapping[str, Any]) -> bool:
    """Whether this is a line of memory-alerts.log."""
    return (
        line.get("level") in _LEVELS
        and isinstance(line.get("subprocess_id"), str)
        and isinstance(line.get("message"), str)
        and time_of(line) is not None
    )


def at_least(level: str, line: Mapping[str, Any]) -> bool:
    """Whether an alert is of this level or above."""
    return _LEVELS.index(line["level"]) >= _LEVELS.index(level)


def is_run(line: Mapping[str, Any]) -> bool:
    """Whether this is a line of subprocess-stats.jsonl."""
    stats = line.get("memory_stats")
    if not isinstance(stats, dict) or not isinstance(line.get("subprocess_id"), str):
        return False
    numbers = ("start_mb", "peak_mb", "end_mb", "duration_seconds")
    return all(is_number(stats.get(key)) for key in numbers) and time_of(line) is not None


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a figure that can be reckoned with: no bool, not NaN, not absurdly large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def run_of(line: Mapping[str, Any]) -> Run:
    """Read a line that `is_run`. Who else wrote it may have left out what is ours."""
    stats, ours = line["memory_stats"], line.get("cgmem")
    ours = ours if isinstance(ours, dict) else {}
    aborted = bool(stats.get("aborted"))
    name = line["subprocess_id"]
    agent_type = ours.get("agent_type")
    return Run(
        subprocess_id=name,
        # The spec's ids are TYPE_RANDOM.
        agent_type=agent_type if isinstance(agent_type, str) else name.rpartition("_")[0] or name,
        at=time_of(line) or 0.0,
        cause=str(ours.get("cause") or ("aborted" if aborted else "exited")),
        peak_mb=float(stats["peak_mb"]),
        duration_seconds=float(stats["duration_seconds"]),
        aborted=aborted,
        seen=stats["start_mb"] > 0,
    )


def time_of(line: Mapping[str, Any]) -> float | None:
    """When a line was written, seconds since the epoch; None where it doesn't say."""
    ours = line.get("cgmem")
    written = ours.get("time") if isinstance(ours, dict) else None
    try:
        # The documented timestamp is local and naive, ours is UTC.
        return datetime.fromisoformat(str(written or line.get("timestamp"))).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def summarise(runs: Sequence[Run]) -> Summary:
    """Summarise at least one run."""
    return Summary(
        runs=len(runs),
        aborted=sum(run.aborted for run in runs),
        causes=dict(Counter(run.cause for run in runs).most_common()),
        peak_mb=_spread([run.peak_mb for run in runs]),
        duration_seconds=_spread([run.duration_seconds for run in runs]),
        unseen=sum(not run.seen for run in runs),
        cut_short=sum(run.cause in ("hard_limit", "stalled", "parent_limit") for run in runs),
    )


def suggest(summary: Summary, margin: float) -> Suggestion:
    """Thresholds with which 95 % of these runs would raise no alert, and all would end well.

    The warning is the 95th percentile of the peaks plus `margin` (0.25 is a quarter); the hard
    limit twice that, or the largest peak plus the margin if that is more; critical halfway.
    """
    _, p95, most = summary.peak_mb
    warning = _step(p95 * (1 + margin))
    maximum = max(2 * warning, _step(most * (1 + margin)))
    return Suggestion(warning, (warning + maximum) // 2, maximum)


def as_yaml(suggestion: Suggestion, agent_type: str | None = None) -> list[str]:
    """The suggestion as lines for cgmem.yaml; those of an agent type go below `agent_types:`."""
    names = zip(("warning", "critical", "max"), map(format_size, suggestion), strict=True)
    lines = [f"{name}: {size}" for name, size in names]
    if agent_type is None:
        return lines
    quoted = '"' + agent_type.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return [f"  {quoted}:", *(f"    {line}" for line in lines)]


def _step(megabytes: float) -> int:
    return max(1, math.ceil(megabytes * MB / STEP_BYTES)) * STEP_BYTES


def _spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, 95th percentile (both by nearest rank) and the most."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return rank(0.5), rank(0.95), ordered[-1]
