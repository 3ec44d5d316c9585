"""Interleaved rounds, medians and ratios, and tables of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple


class Measured(NamedTuple):
    """Times of one contender, seconds."""

    name: str
    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""

    def ratio(self, base: Measured) -> float:
        """How many times the base's median."""
        return self.median / base.median


class Table(NamedTuple):
    """One question's answer."""

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def as_markdown(self) -> str:
        """The table for people and for bench/results."""
        lines = [f"### {self.title}", "", _line(self.columns), _line("---" for _ in self.columns)]
        return "\n".join([*lines, *(_line(row) for row in self.rows), ""])


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3
) -> dict[str, Measured]:
    """Time every contender once a round, so that a slow minute of the machine hits them all.

    The order is drawn anew in each round: whoever comes after a heavy one finds cold caches.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order, draw = list(contenders), random.Random(1)
    for number in range(warm_up + rounds):
        draw.shuffle(order)
        for name in order:
            began = time.perf_counter()
            contenders[name]()
            if number >= warm_up:
                times[name].append(time.perf_counter() - began)
    return {name: _measured(name, taken) for name, taken in times.items()}


def _measured(name: str, taken: list[float]) -> Measured:
    low, median, high = statistics.quantiles(taken, n=4)
    return Measured(name, median, low, high)


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
