"""Rounds of contenders in turn, and the medians, ratios and spread that come of them."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

Taken = Mapping[str, float | str]
"""One round of one contender: a number for each metric, and a word under `SAID`, if any."""
SAID = "said"
FAILURES = (OSError, subprocess.SubprocessError)


class Absent(Exception):  # noqa: N818  # no error: it is the contender's row
    """A contender can't run here; the text says why."""


class Contender(NamedTuple):
    """One way to do it. `measure` does it once."""

    name: str
    measure: Callable[[], Taken]


class Metric(NamedTuple):
    """What is measured: a column, and with `ratio` another one beside it."""

    name: str
    digits: int = 1
    ratio: bool = False


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """One contender's answer in one scene."""

    scene: str
    name: str
    values: Mapping[str, Spread]
    ratios: Mapping[str, Spread]
    """To the scene's first contender, round by round."""
    note: str = ""
    """What it said last, or why there is no answer."""


class Question(NamedTuple):
    """One table."""

    key: str
    title: str
    metrics: Sequence[Metric]
    rows: Callable[[int], Iterable[Row]]
    """Measure that many rounds."""
    rounds: int
    quick: int
    about: str = ""
    """What is measured how, and what is scaled to the machine."""


def timed(do: Callable[[], object], key: str = "ms", scale: float = 1e3) -> Callable[[], Taken]:
    """A `measure` that takes the time of `do`, `scale` to the second."""

    def measure() -> Taken:
        began = time.perf_counter()
        do()
        return {key: (time.perf_counter() - began) * scale}

    return measure


def compared(
    scene: str, contenders: Sequence[Contender], *, rounds: int, warm_up: int = 0
) -> list[Row]:
    """Measure every contender once a round, so that a slow minute of the machine hits them all.

    The order is drawn anew in each round: whoever comes after a heavy one finds cold caches. One
    that can't run is a row that says why. The first contender is the base of the ratios.
    """
    taken: dict[str, list[Taken]] = {one.name: [] for one in contenders}
    why: dict[str, str] = {}
    order, draw = list(contenders), random.Random(1)
    for number in range(warm_up + rounds):
        draw.shuffle(order)
        for one in [each for each in order if each.name not in why]:
            try:
                found = one.measure()
            except (Absent, *FAILURES) as error:
                why[one.name] = str(error) if isinstance(error, Absent) else f"failed: {error}"
                continue
            if number >= warm_up:
                taken[one.name].append(found)
    base = taken[contenders[0].name]
    return [
        Row(scene, one.name, {}, {}, why[one.name])
        if one.name in why
        else _row(scene, one.name, taken[one.name], base)
        for one in contenders
    ]


def _row(scene: str, name: str, taken: Sequence[Taken], base: Sequence[Taken]) -> Row:
    keys = [key for key in taken[0] if key != SAID]
    values = {key: spread([_number(one, key) for one in taken]) for key in keys}
    ratios = {}
    for key in keys:
        pairs = [
            (_number(one, key), _number(other, key))
            for one, other in zip(taken, base, strict=False)
            if key in other
        ]
        if pairs and all(below > 0 for _, below in pairs):
            ratios[key] = spread([above / below for above, below in pairs])
    return Row(scene, name, values, ratios, str(taken[-1].get(SAID, "")))


def _number(taken: Taken, key: str) -> float:
    return float(taken[key])


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of fewer than four values the extremes."""
    middle = statistics.median(values)
    if len(values) < 4:
        return Spread(middle, min(values), max(values))
    low, _, high = statistics.quantiles(values, n=4)
    return Spread(middle, low, high)
