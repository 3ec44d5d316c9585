"""The lines of the three log files, as the spec has them ("Log Files and Monitoring"). Pure.

The documented keys stand first, in the documented order; everything else is under `cgmem`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cgmem.contract import Alert, Level, Snapshot, SystemMemory
from cgmem.judging.messages import printable
from cgmem.text.sizes import mb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COMMAND_CHARS = 160
"""Of a process in a snapshot; five of them make a line, not a page."""


def alert_line(
    alert: Alert,
    *,
    now: float,
    subprocess_id: str,
    system_memory: SystemMemory,
    backend: str,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A line of memory-alerts.log. `now` is seconds since the epoch; `extra` goes under `cgmem`."""
    return {
        "timestamp": local_timestamp(now),
        "level": alert.level,
        "subprocess_id": subprocess_id,
        "message": alert.message,
        "system_memory": system_memory_mb(system_memory),
        "cgmem": {
            "time": utc_time(now),
            "backend": backend,
            "kind": alert.kind,
            "judged_mb": mb(alert.judged_bytes),
            "current_mb": mb(alert.current_bytes),
            **headroom_mb(system_memory),
            **({} if alert.snapshot is None else {"snapshot": snapshot_mb(alert.snapshot)}),
            **(extra or {}),
        },
    }


def stats_line(
    subprocess_id: str,
    *,
    now: float,
    start_mb: float,
    peak_mb: float,
    end_mb: float,
    duration_seconds: float,
    warnings: Sequence[str],
    aborted: bool,
    outcome: Mapping[str, Any],
) -> dict[str, Any]:
    """A line of subprocess-stats.jsonl. `now` is seconds since the epoch.

    Everything in `outcome` goes under `cgmem`.
    """
    return {
        "subprocess_id": subprocess_id,
        "memory_stats": {
            "start_mb": round(float(start_mb), 1),
            "peak_mb": round(float(peak_mb), 1),
            "end_mb": round(float(end_mb), 1),
            "duration_seconds": round(float(duration_seconds), 3),
            "warnings": list(warnings),
            "aborted": bool(aborted),
        },
        "timestamp": local_timestamp(now),
        "cgmem": {"time": utc_time(now), **outcome},
    }


def monitor_line(
    *,
    now: float,
    level: Level,
    system_memory: SystemMemory,
    alerts: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """A line of memory-monitor.log. `alerts` are `{"level": …, "message": …}`."""
    return {
        "timestamp": local_timestamp(now),
        "level": level,
        "status": {"system_memory": system_memory_mb(system_memory)},
        "alerts": [dict(alert) for alert in alerts],
        "cgmem": {
            "time": utc_time(now),
            "swap_free_mb": mb(system_memory.swap_free_bytes),
            **headroom_mb(system_memory),
        },
    }


def system_memory_mb(memory: SystemMemory) -> dict[str, float]:
    """The spec's `system_memory`: host-wide, MB of 2**20 bytes and percent, one decimal."""
    total_mb, available_mb = mb(memory.total_bytes), mb(memory.available_bytes)
    used_bytes = memory.total_bytes - memory.available_bytes
    return {
        "total_mb": total_mb,
        "available_mb": available_mb,
        # From the rounded numbers: who adds them up gets the total, to the digit.
        "used_mb": round(total_mb - available_mb, 1),
        "percent": round(100 * used_bytes / memory.total_bytes, 1) if memory.total_bytes else 0.0,
    }


def snapshot_mb(snapshot: Snapshot) -> dict[str, Any]:
    """What filled the memory, the commands made safe to print and cut short."""
    stat = snapshot.memory_stat
    return {
        "partial": snapshot.partial,
        "memory_stat": None
        if stat is None
        else {
            f"{key}_mb": None if count is None else mb(count)
            for key, count in stat._asdict().items()
        },
        "processes": [
            {
                "pid": process.pid,
                "command": printable(" ".join(process.command), COMMAND_CHARS),
                "memory_mb": mb(process.memory_bytes),
                "metric": process.metric,
            }
            for process in snapshot.processes
        ],
    }


def headroom_mb(memory: SystemMemory) -> dict[str, Any]:
    """What is left for the supervisor's own cgroup, and what limits it; empty without a limit."""
    if memory.headroom is None:
        return {}
    return {
        "headroom_mb": mb(memory.headroom.left_bytes),
        "headroom_source": memory.headroom.limit.name,
    }


def local_timestamp(now: float) -> str:
    """Seconds since the epoch as local naive ISO 8601 time with microseconds, the spec's format."""
    seconds, microseconds = _split(now)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(seconds))}.{microseconds:06d}"


def utc_time(now: float) -> str:
    """Seconds since the epoch as UTC ISO 8601 time with microseconds and Z."""
    seconds, microseconds = _split(now)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"


def _split(now: float) -> tuple[int, int]:
    return divmod(round(now * 1_000_000), 1_000_000)
