"""Growth and sparklines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB
from cgmem.inspecting.trend import KEPT_SECONDS, Trend, bar, sparkline


def test_growth_is_that_of_the_last_minute() -> None:
    """What came before counts no more; one look tells nothing."""
    trend = Trend()
    trend.note(0.0, [("a", 0)])
    first = trend.per_minute("a")
    for second in range(1, 121):
        trend.note(float(second), [("a", max(0, second - 60) * MB)])

    assert first is None
    assert trend.per_minute("a") == pytest.approx(60 * MB)
    assert trend.per_minute("b") is None


def test_what_is_missing_is_forgotten() -> None:
    """A scope that ended leaves nothing, and nothing older than the window is kept."""
    trend = Trend()
    for second in range(0, 1000, 10):
        trend.note(float(second), [("a", 1), *([("b", 1)] if second < 500 else [])])

    assert trend.sizes("b") == []
    assert len(trend.sizes("a")) == KEPT_SECONDS // 10 + 1


def test_two_looks_at_one_moment() -> None:
    """No time has passed: no growth, no division by zero."""
    trend = Trend()
    trend.note(1.0, [("a", 1)])
    trend.note(1.0, [("a", 2)])

    assert trend.per_minute("a") is None


@given(sizes=st.lists(st.integers(0, 1 << 50)), width=st.integers(1, 40))
def test_a_sparkline_fits_and_shows_the_peak(sizes: list[int], width: int) -> None:
    """Never wider than asked for; the largest size is the highest block, however short it was."""
    drawn = sparkline(sizes, width)

    assert len(drawn) == min(width, len(sizes))
    assert ("█" in drawn) == any(sizes)


@given(share=st.floats(-1, 5), width=st.integers(1, 20))
def test_a_bar_is_as_wide_as_asked_for(share: float, width: int) -> None:
    """Also when it is more than full."""
    assert len(bar(share, width)) == width
    assert (bar(share, width) == "█" * width) == (round(share * width * 8) >= width * 8)
