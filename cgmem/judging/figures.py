"""How much memory a subprocess used: start, peak and end, gathered sample by sample. Pure.

"Used" is what the level is judged on (`judge.judged_bytes`), so that the figures and the alerts
speak of the same bytes. Source: spec, "Subprocess Statistics Format".
"""

from __future__ import annotations

from cgmem.contract import MB, Counters
from cgmem.shapes import NamedTuple


class Figures(NamedTuple):
    """Bytes so far. Everything is 0 while there was no sample."""

    samples: int = 0
    start_bytes: int = 0
    peak_bytes: int = 0
    end_bytes: int = 0
    peak_charged_bytes: int | None = None
    """memory.peak, page cache included; known at the end."""

    @property
    def start_mb(self) -> float:
        """The first sample after exec; 0.0 if it ended before."""
        return _mb(self.start_bytes)

    @property
    def peak_mb(self) -> float:
        """The most that was seen, or is certain."""
        return _mb(self.peak_bytes)

    @property
    def end_mb(self) -> float:
        """The last sample with a live process."""
        return _mb(self.end_bytes)

    @property
    def peak_charged_mb(self) -> float | None:
        """memory.peak in MB; None where the kernel has none."""
        return None if self.peak_charged_bytes is None else _mb(self.peak_charged_bytes)


def add(figures: Figures, judged_bytes: int, *, alive: bool = True) -> Figures:
    """Take one sample's judged bytes. `alive`: a process was left when it was taken."""
    return figures._replace(
        samples=figures.samples + 1,
        start_bytes=figures.start_bytes if figures.samples or not alive else judged_bytes,
        peak_bytes=max(figures.peak_bytes, judged_bytes),
        end_bytes=judged_bytes if alive else figures.end_bytes,
    )


def finish(
    figures: Figures,
    counters: Counters,
    *,
    limit_reached: int | None = None,
    page_cache_counts: bool = False,
) -> Figures:
    """Take the last read.

    `limit_reached` is the hard limit if an OOM kill happened at it (`verdict.killed_at_own_limit`).
    `page_cache_counts`: `accounting: current`, so memory.peak is the peak as it is.
    """
    certain = limit_reached
    if certain is None:
        certain = counters.peak_bytes if page_cache_counts else _unreclaimed_peak(counters)
    return figures._replace(
        peak_bytes=max(figures.peak_bytes, certain or 0),
        peak_charged_bytes=counters.peak_bytes,
    )


def _unreclaimed_peak(counters: Counters) -> int | None:
    """Return memory.peak without page cache, so that a burst between two ticks counts.

    Only where nothing was ever reclaimed: then all the page cache of the peak is still charged.
    """
    events, peak, reclaimable = counters.events, counters.peak_bytes, counters.reclaimable_bytes
    if events is None or events.high != 0 or events.max != 0:
        return None
    return None if peak is None or reclaimable is None else max(0, peak - reclaimable)


def _mb(count: int) -> float:
    return round(count / MB, 1)
