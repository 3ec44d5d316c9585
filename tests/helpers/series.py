"""A recorded series of samples: as JSON lines, judged again, and by simpler rules beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cgmem.contract import Alert, Level, MemoryEvents, Sample, StallPolicy, Thresholds
from cgmem.judging.judge import Action, History, Policy, detail_above, judge


class Look(NamedTuple):
    """One sample with every detail, and the one number that only kubelet's formula needs."""

    sample: Sample
    inactive_file_bytes: int


class Series(NamedTuple):
    """What one program did under one budget."""

    case: str
    kernel: str
    options: dict[str, Any]
    """How the guest was booted: psi, swap, huge pages."""
    thresholds: Thresholds
    tick: float
    stall_after: float
    looks: tuple[Look, ...]

    def dump(self, path: Path) -> None:
        """Write a line that says what it is, and a line a sample."""
        head = self._asdict() | {"thresholds": list(self.thresholds), "columns": COLUMNS}
        del head["looks"]
        began = self.looks[0].sample.at
        lines = [json.dumps(head), *(json.dumps(_row(look, began)) for look in self.looks)]
        path.write_text("\n".join(lines) + "\n")


COLUMNS = (
    "at", "current", "reclaimable", "inactive_file", "swap",
    "high", "max", "oom", "oom_kill", "some", "full", "user", "refaults",
)  # fmt: skip


def load(path: Path) -> Series:
    """Read what `Series.dump` wrote."""
    first, *rest = path.read_text().splitlines()
    head = json.loads(first)
    assert tuple(head.pop("columns")) == COLUMNS
    looks = tuple(_look(dict(zip(COLUMNS, json.loads(line), strict=True))) for line in rest)
    return Series(**head | {"thresholds": Thresholds(*head["thresholds"]), "looks": looks})


def _row(look: Look, began: float) -> list[float | int | None]:
    one = look.sample
    assert one.events is not None
    return [
        round(one.at - began, 3), one.current_bytes, one.reclaimable_bytes,
        look.inactive_file_bytes, one.swap_bytes, one.events.high, one.events.max, one.events.oom,
        one.events.oom_kill, one.some_seconds, one.full_seconds, one.user_seconds, one.refaults,
    ]  # fmt: skip


def _look(row: dict[str, Any]) -> Look:
    events = MemoryEvents(row["high"], row["max"], row["oom"], row["oom_kill"])
    sample = Sample(
        row["at"], row["current"], "cgroup", events, row["reclaimable"], row["swap"],
        row["some"], row["full"], row["user"], row["refaults"],
    )  # fmt: skip
    return Look(sample, row["inactive_file"])


class Judged(NamedTuple):
    """What the judge said of a series."""

    alerts: tuple[Alert, ...]
    actions: tuple[tuple[float, Action], ...]
    """When, in seconds since the first sample, and what."""
    level: Level
    """The highest."""

    def kinds(self) -> set[str]:
        """Return which kinds of alert came."""
        return {alert.kind for alert in self.alerts}


RANKS: tuple[Level, ...] = ("OK", "WARNING", "CRITICAL", "ABORTED")


def judged(series: Series, on_stall: StallPolicy = "release") -> Judged:
    """Judge a series as the poller would: details unread below the thresholds.

    Ends at the first release, abort or freeze: what would have come then was not recorded.
    """
    policy = Policy(
        on_stall=on_stall,
        stall_after_seconds=series.stall_after,
        high_bytes=series.thresholds.critical_bytes,
        tick_seconds=series.tick,
    )
    bound = detail_above(series.thresholds, policy)
    history, rank = History.start(), 0
    alerts: list[Alert] = []
    for look in series.looks:
        found = judge(series.thresholds, policy, history, _as_read(look.sample, bound))
        history = found.history
        alerts += found.alerts
        rank = max(rank, RANKS.index(found.level))
        if found.actions:
            at = look.sample.at - series.looks[0].sample.at
            return Judged(tuple(alerts), ((at, found.actions[0]),), RANKS[rank])
    return Judged(tuple(alerts), (), RANKS[rank])


def _as_read(sample: Sample, bound: int | None) -> Sample:
    if bound is not None and sample.current_bytes > bound:
        return sample
    return Sample(sample.at, sample.current_bytes, sample.metric, sample.events)


def level_of(thresholds: Thresholds, numbers: Iterable[int]) -> Level:
    """Return the highest level that `number > threshold` gives."""
    peak = max(numbers, default=0)
    passed = [bound for bound in thresholds if bound is not None and peak > bound]
    return RANKS[len(passed)]


def naive(series: Series) -> Level:
    """Judge by memory.current > threshold."""
    return level_of(series.thresholds, (look.sample.current_bytes for look in series.looks))


def kubelet(series: Series) -> Level:
    """Judge by kubelet's working set, memory.current - inactive_file, > threshold."""
    sets = (max(0, one.sample.current_bytes - one.inactive_file_bytes) for one in series.looks)
    return level_of(series.thresholds, sets)


class Figures(NamedTuple):
    """What the rules look at, while the group was at the brake. Shares of 1; None: unmeasured."""

    seconds: float
    current: float
    """The lowest memory.current / memory.high."""
    held: float
    """The lowest share of memory.high that can't be reclaimed."""
    held_most: float
    some: float | None
    full: float | None
    user: float | None
    refaults_per_second: float
    progress_per_second: float
    """Growth of what can't be reclaimed and of swap, in bytes."""


def figures(series: Series) -> Figures:
    """Measure a series from the first to the last look at 98 % of memory.high; else all of it."""
    high = series.thresholds.critical_bytes or 1
    near = [i for i, one in enumerate(series.looks) if one.sample.current_bytes >= 0.98 * high]
    first, last = (near[0], near[-1]) if len(near) > 1 else (0, len(series.looks) - 1)
    looks = series.looks[first : last + 1]
    begin, end = looks[0].sample, looks[-1].sample
    seconds = end.at - begin.at
    held = [held_bytes(look.sample) for look in looks]
    swapped = (end.swap_bytes or 0) - (begin.swap_bytes or 0)
    return Figures(
        seconds,
        min(look.sample.current_bytes for look in looks) / high,
        min(held) / high,
        max(held) / high,
        _rate(begin.some_seconds, end.some_seconds, seconds),
        _rate(begin.full_seconds, end.full_seconds, seconds),
        _rate(begin.user_seconds, end.user_seconds, seconds),
        _rate(begin.refaults, end.refaults, seconds) or 0.0,
        (held[-1] - held[0] + swapped) / seconds,
    )


def held_bytes(sample: Sample) -> int:
    """Return what can't be reclaimed, every detail being known."""
    return sample.current_bytes - (sample.reclaimable_bytes or 0)


def _rate(before: float | None, after: float | None, seconds: float) -> float | None:
    return None if before is None or after is None else (after - before) / seconds


def measurements(all_series: dict[str, Series]) -> str:
    """Return docs/stalls.md's table: what was measured, and what the judge says of it."""
    lines = [
        "| recording | at high, s | current / high | non-reclaimable / high | `some` | `full`"
        " | user CPU | refaults/s | progress, MB/s | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_measured(name, series) for name, series in all_series.items()]
    return "\n".join(lines) + "\n"


def _measured(name: str, series: Series) -> str:
    got = figures(series)
    found = judged(series)
    cells = [
        name,
        f"{got.seconds:.0f}",
        f"{got.current:.2f}",
        f"{got.held:.2f} to {got.held_most:.2f}",
        *(_percent(share) for share in (got.some, got.full, got.user)),
        f"{got.refaults_per_second:.0f}",
        f"{got.progress_per_second / 2**20:.2f}",
        verdict(found),
    ]
    return f"| {' | '.join(cells)} |"


def verdict(found: Judged) -> str:
    """Return the highest level, and what else was told."""
    told = [f"{action} at {at:.0f} s" for at, action in found.actions]
    return ", ".join([found.level, *told, *(found.kinds() & {"thrashing"})])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
