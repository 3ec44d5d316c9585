"""How soon a polled scope is looked at again: properties that hold for every input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB, Thresholds
from cgmem.judging.pace import COST_FACTOR, SHORTEST_SECONDS, Look, next_look

GIB = 1 << 30
sizes = st.integers(0, 64 * GIB)
seconds = st.floats(0, 1e7, allow_nan=False)
costs = st.floats(0, 10, allow_nan=False)
ticks = st.floats(SHORTEST_SECONDS, 60)
bounds = st.none() | st.integers(4096, 64 * GIB)
thresholds = st.builds(Thresholds, bounds, bounds, bounds)
looks = st.builds(Look, seconds, sizes, costs)

BUDGET = Thresholds(100 * MB, 200 * MB, 400 * MB)


@given(thresholds, seconds, st.none() | looks, looks, ticks)
def test_between_the_shortest_and_a_tick(
    bound: Thresholds, began: float, before: Look | None, now: Look, tick: float
) -> None:
    """Whatever the history, even with a clock that jumps, it is within [shortest, tick]."""
    assert SHORTEST_SECONDS <= next_look(bound, began, before, now, tick) <= tick


@given(thresholds, seconds, st.none() | looks, looks, ticks)
def test_cost_bound(
    bound: Thresholds, began: float, before: Look | None, now: Look, tick: float
) -> None:
    """A look never takes more than 2 % of the time, as far as the tick allows."""
    wait = next_look(bound, began, before, now, tick)

    assert wait >= min(tick, COST_FACTOR * now.cost)


@given(st.integers(0, 399 * MB), st.integers(0, 100 * MB), st.integers(0, 100 * MB), ticks)
def test_faster_growth_is_looked_at_no_later(
    judged: int, slow: int, growth_more: int, tick: float
) -> None:
    """Of two scopes at the same size, the one that grows faster is not looked at later."""
    fast = slow + growth_more
    now = Look(100.0, judged + fast, 0.0)

    def wait(growth: int) -> float:
        return next_look(BUDGET, 0.0, Look(99.0, now.judged_bytes - growth, 0.0), now, tick)

    assert wait(fast) <= wait(slow)


@given(st.integers(1, 1 * GIB), st.integers(0, 399 * MB), st.floats(0.5, 60))
def test_sees_a_crossing_before_it_happens(growth: int, judged: int, tick: float) -> None:
    """At steady growth the next look comes before the next threshold, or at the shortest time."""
    now = Look(100.0, judged, 0.0)
    wait = next_look(BUDGET, 0.0, Look(99.0, judged - growth, 0.0), now, tick)
    room = min(bound - judged for bound in BUDGET if bound and bound > judged)

    assert wait <= max(SHORTEST_SECONDS, room / growth) + 1e-9


def test_young_ones_are_looked_at_sooner() -> None:
    """In its first seconds a scope is looked at after 0.1, 0.1, 0.2, 0.4, … seconds."""
    at, waits = 0.0, []
    for _ in range(7):
        wait = next_look(BUDGET, 0.0, None, Look(at, MB, 0.0), 2.0)
        waits.append(round(wait, 3))
        at += wait

    assert waits == [0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]


def test_idle_ones_cost_a_tick() -> None:
    """A scope that is old and does not grow is looked at once a tick."""
    now = Look(1000.0, 50 * MB, 0.0001)

    assert next_look(BUDGET, 0.0, Look(998.0, 50 * MB, 0.0001), now, 2.0) == 2.0


def test_without_thresholds() -> None:
    """Nothing to cross: growth alone shortens nothing."""
    none = Thresholds(None, None, None)
    now = Look(1000.0, GIB, 0.0)

    assert next_look(none, 0.0, Look(999.0, 0, 0.0), now, 2.0) == 2.0
