"""How soon to look again at a scope whose hard limit no kernel holds. Pure.

A poller that looks every 2 s lets a fast leak take gigabytes. So a polled scope is looked at more
often while it grows, or is too young to be known, and a look may never cost more than 2 % of the
time.
"""

from __future__ import annotations

from cgmem.contract import Thresholds
from cgmem.shapes import NamedTuple

SHORTEST_SECONDS = 0.1
COST_FACTOR = 50
"""A look that took 10 ms is not repeated within 500 ms."""
LOOKS_BEFORE_CROSSING = 2
"""A threshold that would be crossed within this many ticks is looked at sooner."""


class Look(NamedTuple):
    """One look at a scope: when (monotonic seconds), how much (bytes), what it cost (seconds)."""

    at: float
    judged_bytes: int
    cost: float


def next_look(
    thresholds: Thresholds, began: float, before: Look | None, now: Look, tick: float
) -> float:
    """Return in how many seconds to look again, at most `tick`.

    `began` is when the subprocess started (monotonic seconds); `before` the look before `now`.
    """
    shortest = max(SHORTEST_SECONDS, COST_FACTOR * now.cost)
    # In its first seconds nothing is known of its growth: look after 0.1, 0.2, 0.4, … seconds.
    wait = min(tick, max(shortest, now.at - began))
    growth = _growth(before, now)
    room = _room(thresholds, now.judged_bytes)
    if growth > 0 and room is not None:
        seconds_left = room / growth
        if seconds_left < LOOKS_BEFORE_CROSSING * tick:
            wait = min(wait, seconds_left / LOOKS_BEFORE_CROSSING)
    return min(tick, max(shortest, wait))


def _growth(before: Look | None, now: Look) -> float:
    if before is None or now.at <= before.at:
        return 0.0
    return (now.judged_bytes - before.judged_bytes) / (now.at - before.at)


def _room(thresholds: Thresholds, judged_bytes: int) -> int | None:
    above = [bound - judged_bytes for bound in thresholds if bound and bound > judged_bytes]
    return min(above, default=None)
