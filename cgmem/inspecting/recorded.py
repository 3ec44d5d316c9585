"""What `run --record` wrote, as a series to draw. Pure.

A line that is torn or foreign is counted and skipped; a recording that was cut short has no end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cgmem.logs.history import is_number


class Point(NamedTuple):
    """One look. MB are 2**20 bytes; a threshold that there isn't is None."""

    t: float
    """Seconds after the start."""
    judged_mb: float
    current_mb: float
    warning_mb: float | None
    critical_mb: float | None
    max_mb: float | None


class Told(NamedTuple):
    """One alert."""

    t: float
    level: str
    message: str


class Series(NamedTuple):
    """One subprocess's life as far as it was recorded."""

    name: str
    points: tuple[Point, ...]
    alerts: tuple[Told, ...]
    end: str | None
    """How it ended; None while it runs, or where the recording was cut short."""
    skipped: int


def parse(lines: Iterable[str]) -> Series:
    """Parse the lines of a recording."""
    name, end, skipped = "", None, 0
    points: list[Point] = []
    alerts: list[Told] = []
    for text in lines:
        line = _line(text)
        if line is None:
            skipped += 1
        elif "subprocess_id" in line:
            name = str(line["subprocess_id"])
        elif "alert" in line:
            alerts.append(Told(line["t"], str(line["alert"]), str(line.get("message"))))
        elif "cause" in line:
            end = str(line.get("message"))
        elif (point := _point(line)) is not None:
            points.append(point)
        else:
            skipped += 1
    return Series(name, tuple(points), tuple(alerts), end, skipped)


def _line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    return line if "subprocess_id" in line or _number(line, "t") is not None else None


def _point(line: Mapping[str, Any]) -> Point | None:
    judged, current = _number(line, "judged_mb"), _number(line, "current_mb")
    if judged is None or current is None:
        return None
    budget = (_number(line, key) for key in ("warning_mb", "critical_mb", "max_mb"))
    return Point(line["t"], judged, current, *budget)


def _number(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if is_number(value) else None
