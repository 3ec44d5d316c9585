"""Live scopes as a table: its columns, what gives way where there is no room, order and filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from cgmem.cli.output import age, plain
from cgmem.inspecting.live_scopes import LiveScope, live_scopes
from cgmem.inspecting.trend import Trend, bar
from cgmem.text.sizes import format_size

_BAR_WIDTH = 6
_SEVERITY = {"OK": 0, "NOT_MONITORED": 0, "WARNING": 1, "CRITICAL": 2, "ABORTED": 3}


class Row(NamedTuple):
    """One live scope and how it moves."""

    live: LiveScope
    growth: float | None = None
    """Bytes a minute; None where it was seen but once."""


class Column(NamedTuple):
    """One column. The one with the highest `gives_way` goes first; 0 stays."""

    heading: str
    cell: Callable[[Row], str]
    right: bool = True
    gives_way: int = 0


def _percent(row: Row) -> str:
    percent = row.live.percent
    return "-" if percent is None else f"{percent:.0f}"


def _bar(row: Row) -> str:
    percent = row.live.percent
    return "-" if percent is None else f"{bar(percent / 100, _BAR_WIDTH)}{percent:4.0f}"


def _share(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"


def _growth(row: Row) -> str:
    if row.growth is None:
        return "-"
    sign = "-" if row.growth < 0 else "+"
    return sign + format_size(abs(round(row.growth)))


def _size(size: int | None) -> str:
    return "-" if size is None else format_size(size)


def _level(row: Row) -> str:
    return "FROZEN" if row.live.sample.frozen else row.live.level


COLUMNS = (
    Column("ID", lambda row: plain(row.live.record.subprocess_id), right=False),
    Column("LEVEL", _level, right=False),
    Column("USED", lambda row: format_size(row.live.judged_bytes)),
    Column("RAW", lambda row: format_size(row.live.sample.current_bytes), gives_way=4),
    Column("PEAK", lambda row: _size(row.live.peak_bytes), gives_way=5),
    Column("MAX", lambda row: format_size(row.live.record.max_bytes)),
    Column("%", _percent),
    Column("FULL", lambda row: _share(row.live.full_percent), gives_way=3),
    Column("/MIN", _growth, gives_way=2),
    Column("PIDS", lambda row: str(len(row.live.pids)), gives_way=6),
    Column("AGE", lambda row: age(row.live.age_seconds), gives_way=1),
    Column("BACKEND", lambda row: row.live.backend, right=False, gives_way=7),
    Column("BY", lambda row: _by(row.live), right=False, gives_way=8),
)
_WITH_BAR = Column("%", _bar)
HEADINGS_OF_NUMBERS = tuple(column.heading for column in COLUMNS if column.right)


def _by(live: LiveScope) -> str:
    return f"{live.record.supervisor_pid}{'' if live.supervised else ' gone'}"


SORTS: dict[str, Callable[[Row], tuple[float, ...]]] = {
    "age": lambda row: (row.live.record.started_at,),
    "level": lambda row: (-_SEVERITY[row.live.level], -(row.live.percent or 0)),
    "used": lambda row: (-row.live.judged_bytes,),
    "raw": lambda row: (-row.live.sample.current_bytes,),
    "peak": lambda row: (-(row.live.peak_bytes or 0),),
    "percent": lambda row: (-(row.live.percent or 0),),
    "full": lambda row: (-(row.live.full_percent or 0),),
    "growth": lambda row: (-(row.growth or 0),),
    "pids": lambda row: (-len(row.live.pids),),
}
"""The largest (worst, oldest) first."""


class Filter(NamedTuple):
    """Which scopes are shown; None: whichever."""

    level: str | None = None
    """This level or worse."""
    agent_type: str | None = None
    backend: str | None = None
    name: str | None = None
    """The id, or a pattern as in a shell."""

    def takes(self, live: LiveScope) -> bool:
        """Whether this one is shown."""
        if self.level is not None and _SEVERITY[live.level] < _SEVERITY[self.level]:
            return False
        return (
            self.agent_type in (None, live.record.agent_type)
            and self.backend in (None, live.backend)
            and (self.name is None or fnmatchcase(live.record.subprocess_id, self.name))
        )


def look(trend: Trend, wanted: Filter) -> list[Row]:
    """Look at every live scope and note it in the trend; the wanted ones."""
    found = live_scopes()
    trend.note(time.monotonic(), ((live.location, live.judged_bytes) for live in found))
    return [Row(live, trend.per_minute(live.location)) for live in filter(wanted.takes, found)]


def as_json_values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What `--json` prints of one look."""
    return [row.live.as_json() for row in rows]


def rendered(
    rows: Sequence[Row],
    *,
    room: int | None,
    without: Sequence[str] = (),
    gap: int = 1,
    bars: bool = False,
) -> tuple[list[str], list[list[str]]]:
    """The headings and cells of the columns that fit into `room` characters (None: all).

    `without` names headings to leave out; `gap` is the space between two columns;
    `bars` draws the share of the limit too.
    """
    columns = [column for column in COLUMNS if column.heading not in without]
    if bars:
        columns = [_WITH_BAR if column.heading == "%" else column for column in columns]
    while True:
        headings = [column.heading for column in columns]
        cells = [[column.cell(row) for column in columns] for row in rows]
        if room is None or _width([headings, *cells], gap) <= room:
            return headings, cells
        least = max(columns, key=lambda column: column.gives_way)
        if least.gives_way == 0:
            return headings, cells
        columns.remove(least)


def _width(lines: Sequence[Sequence[str]], gap: int) -> int:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    # The id may be cut short rather than a column be missing.
    widths[0] = min(widths[0], 20)
    return sum(widths) + gap * (len(widths) - 1)
