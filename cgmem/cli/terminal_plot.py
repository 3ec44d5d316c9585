"""A series drawn with characters, by plotext (an extra)."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from cgmem.cli.output import plain
from cgmem.errors import CgmemError
from cgmem.inspecting.recorded import Point, Series

_HEIGHT = 20
_SHOWN_ALERTS = 8


def drawn(series: Series) -> str:
    """The plot, a line for each alert, and the end. Raises `CgmemError` without plotext."""
    plt = _plotext()
    size = shutil.get_terminal_size((80, 24))
    plt.clear_figure()
    plt.theme("clear")
    plt.plotsize(min(size.columns, 120), min(max(size.lines - 6, 10), _HEIGHT))
    times = [point.t for point in series.points]
    top = max(point.judged_mb for point in series.points)
    plt.plot(times, [point.judged_mb for point in series.points], marker="braille")
    for name, height in _thresholds(series.points[-1], top):
        plt.hline(height)
        plt.text(f"{name} {height:g}", x=times[0], y=height, alignment="left")
    for told in series.alerts:
        plt.scatter([told.t], [_at(series, told.t)], marker="!")
    plt.ylim(0, 1.1 * max([top, *(height for _, height in _thresholds(series.points[-1], top))]))
    plt.title(f"{plain(series.name)}: MB that can't be reclaimed")
    plt.xlabel("seconds")
    text = str(plt.build())
    colourless = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    return "\n".join([plt.uncolorize(text) if colourless else text, *_told(series)])


def _thresholds(point: Point, top: float) -> list[tuple[str, float]]:
    """Those that are in sight: the ones passed, and the next."""
    named = (("warning", point.warning_mb), ("critical", point.critical_mb), ("max", point.max_mb))
    known = [(name, size) for name, size in named if size is not None]
    passed = [one for one in known if one[1] <= top]
    return [*passed, *known[len(passed) : len(passed) + 1]]


def _at(series: Series, t: float) -> float:
    return min(series.points, key=lambda point: abs(point.t - t)).judged_mb


def _told(series: Series) -> list[str]:
    lines = [f"  {told.t:7.1f} s  {plain(told.message)}" for told in series.alerts[:_SHOWN_ALERTS]]
    if len(series.alerts) > _SHOWN_ALERTS:
        lines.append(f"  … and {len(series.alerts) - _SHOWN_ALERTS} more")
    return [*lines, *([f"  {plain(series.end)}"] if series.end else [])]


def _plotext() -> Any:
    try:
        import plotext
    except ImportError as error:
        raise CgmemError(
            "drawing in the terminal needs plotext", hint="pip install 'cgmem[plot]', or --json"
        ) from error
    return plotext
