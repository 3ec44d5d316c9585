"""What is known of a subprocess that has ended, and what its counters say of OOM kills. Pure.

Source: memory.events and memory.events.local (Documentation/admin-guide/cgroup-v2.rst).
memory.events counts the whole subtree; only the local file tells whose limit was hit.
"""

from __future__ import annotations

from collections.abc import Sequence

from cgmem.contract import Counters, Limits, MemoryEvents, SystemMemory
from cgmem.judging.figures import Figures
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

WhatWeDid: TypeAlias = "Literal['hard_limit', 'stall', 'abort', 'timeout']"


class Ended(NamedTuple):
    """What is known of a subprocess that has ended."""

    returncode: int | None
    """Popen's: negative for a signal. None: unknown."""
    counters: Counters
    figures: Figures
    limits: Limits
    baseline: MemoryEvents | None = None
    """memory.events when we took over a scope that had already lived; None for our own."""
    what_we_did: WhatWeDid | None = None
    """What cgmem ended it for, if it did."""
    sigkill_needed: bool = False
    top: Sequence[tuple[int, str, int]] = ()
    """The largest processes last seen: (pid, command, bytes)."""
    kernel_limits: bool = True
    """The kernel held the hard limit."""
    oom_came_first: bool = False
    """When cgmem began to end it, the kernel had OOM-killed something in it."""
    duration_seconds: float | None = None
    started_at: float = 0.0
    """Seconds since the epoch; 0: unknown."""
    timeout_seconds: float | None = None
    system_memory: SystemMemory = SystemMemory(0, 0)
    """As read at its end."""


class Kills(NamedTuple):
    """What rose while the subprocess lived."""

    killed: int
    """`oom_kill`, the whole subtree. Not a number of processes: a group kill counts one twice."""
    at_own_limit: bool
    below: bool
    """The OOM was at a nested scope's limit."""
    unclear: bool = False
    """Of the own limit and those below nothing is known: the scope went before it was asked."""


def kills_of(counters: Counters, baseline: MemoryEvents | None) -> Kills:
    """Compare the last read with what was there before (`baseline`, None: nothing)."""
    events = counters.events or MemoryEvents()
    before = baseline or MemoryEvents()
    killed = _rise(before.oom_kill, events.oom_kill)
    if counters.cached and counters.local_events is None:
        return Kills(killed, at_own_limit=False, below=False, unclear=killed > 0)
    # memory.events.local is younger (5.2) than memory.events and read only after a kill.
    local = counters.local_events or events
    own = killed > 0 and _rise(before.oom, local.oom) > 0
    return Kills(killed, own, not own and _rise(before.oom, events.oom) > 0)


def _rise(before: int | None, after: int | None) -> int:
    return max(0, (after or 0) - (before or 0))
