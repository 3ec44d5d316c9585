"""Interleaved rounds, medians and ratios: what every measurement here is made of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
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


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3
) -> dict[str, Measured]:
    """Time every contender once a round, so that a slow minute of the machine hits them all."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if number >= warm_up:
                times[name].append(time.perf_counter() - began)
    return {name: _measured(name, taken) for name, taken in times.items()}


def _measured(name: str, taken: list[float]) -> Measured:
    low, median, high = statistics.quantiles(taken, n=4)
    return Measured(name, median, low, high)
