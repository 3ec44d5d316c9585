"""Start, peak and end of a subprocess's memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgmem.contract import MB, Counters, MemoryEvents
from cgmem.judging.figures import Figures, add, finish

QUIET = MemoryEvents(high=0, max=0, oom=0, oom_kill=0)


def gathered(*judged_mb: int) -> Figures:
    """Take samples of so many MB."""
    figures = Figures()
    for amount in judged_mb:
        figures = add(figures, amount * MB)
    return figures


def test_start_peak_and_end_are_first_highest_and_last() -> None:
    """Three figures, three samples."""
    figures = gathered(10, 300, 20)

    assert (figures.start_mb, figures.peak_mb, figures.end_mb) == (10.0, 300.0, 20.0)


def test_without_a_sample_all_figures_are_zero() -> None:
    """A subprocess that ended before the first sample started and ended at 0.0."""
    figures = finish(Figures(), Counters())

    assert (figures.start_mb, figures.peak_mb, figures.end_mb) == (0.0, 0.0, 0.0)
    assert figures.peak_charged_mb is None


def test_end_is_the_last_sample_with_a_live_process() -> None:
    """What is charged after the last process's end is not its end figure."""
    figures = add(gathered(10, 50), 2 * MB, alive=False)

    assert figures.end_mb == 50.0


def test_a_first_sample_after_the_end_is_no_start() -> None:
    """If it ended before the first look, start_mb stays 0.0."""
    assert add(Figures(), 2 * MB, alive=False).start_mb == 0.0


def test_a_burst_between_ticks_counts_where_nothing_was_reclaimed() -> None:
    """memory.peak minus the page cache still charged is certain when high and max are 0."""
    counters = Counters(QUIET, peak_bytes=500 * MB, reclaimable_bytes=100 * MB)

    figures = finish(gathered(10), counters)

    assert figures.peak_mb == 400.0
    assert figures.peak_charged_mb == 500.0


@pytest.mark.parametrize(
    "events",
    [QUIET._replace(high=1), QUIET._replace(max=1), MemoryEvents(high=0), None],
)
def test_memory_peak_is_not_trusted_after_a_reclaim(events: MemoryEvents | None) -> None:
    """Once page cache was reclaimed, or nobody knows, only samples count."""
    counters = Counters(events, peak_bytes=500 * MB, reclaimable_bytes=0)

    assert finish(gathered(10), counters).peak_mb == 10.0


def test_memory_peak_needs_the_reclaimable_bytes() -> None:
    """Without knowing the page cache in it, memory.peak is no peak of ours."""
    assert finish(gathered(10), Counters(QUIET, peak_bytes=500 * MB)).peak_mb == 10.0


def test_an_oom_kill_at_the_limit_proves_the_limit_as_peak() -> None:
    """Who died at the limit had reached it, whatever the samples saw."""
    counters = Counters(QUIET._replace(max=30, oom=1, oom_kill=1), peak_bytes=400 * MB)

    assert finish(gathered(10), counters, limit_reached=400 * MB).peak_mb == 400.0


def test_where_page_cache_counts_memory_peak_is_the_peak() -> None:
    """`accounting: current` judges on what memory.peak measures, reclaimed or not."""
    counters = Counters(QUIET._replace(high=9), peak_bytes=500 * MB, reclaimable_bytes=90 * MB)

    assert finish(gathered(10), counters, page_cache_counts=True).peak_mb == 500.0


def test_mb_have_one_decimal() -> None:
    """The spec's figures have one decimal."""
    assert add(Figures(), 1234567).start_mb == 1.2


amounts = st.integers(0, 1 << 45)


@settings(deadline=None)
@given(
    samples=st.lists(st.tuples(amounts, st.booleans())),
    high=st.none() | st.integers(0, 3),
    peak=st.none() | amounts,
    reclaimable=st.none() | amounts,
    limit=st.none() | amounts,
    page_cache_counts=st.booleans(),
)
def test_the_peak_is_never_below_a_sample(
    samples: list[tuple[int, bool]],
    high: int | None,
    peak: int | None,
    reclaimable: int | None,
    limit: int | None,
    page_cache_counts: bool,
) -> None:
    """The peak only grows, and bounds start, end and every sample, also at the end."""
    figures, peaks = Figures(), [0]
    for judged, alive in samples:
        figures = add(figures, judged, alive=alive)
        peaks.append(figures.peak_bytes)
    counters = Counters(
        MemoryEvents(high=high, max=0), peak_bytes=peak, reclaimable_bytes=reclaimable
    )
    final = finish(figures, counters, limit_reached=limit, page_cache_counts=page_cache_counts)

    assert peaks == sorted(peaks)
    assert final.peak_bytes >= max((judged for judged, _ in samples), default=0)
    assert final.peak_bytes >= max(final.start_bytes, final.end_bytes, limit or 0)
