"""The constants of stall detection. docs/stalls.md has the measurements they come from."""

from __future__ import annotations

from cgmem.shapes import NamedTuple


class StallRules(NamedTuple):
    """Every constant of the detection."""

    near_high: float = 0.98
    """Share of memory.high charged. Reclaim brings a group that gives memory back below this."""
    held: float = 0.85
    """Share of memory.high that can't be reclaimed. Below, more reclaim would help: thrashing."""
    pressure: float = 0.70
    """Share of one task's time that is waiting; of all tasks' (`full`) for abort and freeze."""
    own_pressure: float = 0.20
    """PSI `some` share below which the group as a whole works, whatever one task of it does: many
    busy tasks that are each slowed down a little must not add up to a stall."""
    user_cpu: float = 0.05
    """User CPU share that stands in for PSI where the kernel has none. Throttled tasks sleep."""
    hopeless: float = 6.0
    """Times stall_after to the hard limit. Nearer than that, the limit itself settles it soon."""
    span_seconds: float = 1.9
    """Shortest time judged. The kernel lets a throttled task sleep for up to 2 s, and wake-ups
    would cut a tick into pieces in which no counter can rise; 1.9 lets a 2 s tick jitter."""
    gap_ticks: float = 3.0
    """Ticks without a sample that mean a suspended machine or a stopped supervisor."""
    calm_seconds: float = 30.0
    """Time below the warning threshold before the brake returns: longer than a GC cycle."""
    releases: int = 2
    """Releases in a life: a second stall shows that the memory is needed."""
    thrashing_pressure: float = 0.10
    """PSI `some` share of time lost to thrashing that is worth a word. A fast disk makes it small:
    20-35 % was measured with a mapped file of 1.5 times memory.high."""
    refaults_per_second: float = 100.0
    """Refaulted pages a second. A file that is streamed once evicts pages nobody wants back."""
    rereads: float = 3.0
    """Times memory.high read again until it is thrashing, unless tasks wait most of the time: a
    linker that reads once what the compilers wrote was measured at 18 % and 5000 refaults/s."""
    page_bytes: int = 4096
    """What a refault counts at least; where pages are larger, thrashing is told later."""
    again_seconds: float = 30.0
    """Between two alerts on a stall that only flickers, as for levels."""
    thrashing_again_seconds: float = 300.0
    """Between two thrashing alerts: nothing is done about it, so it's said rarely."""


RULES = StallRules()
