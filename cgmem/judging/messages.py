"""The sentences that cgmem logs and shows: the spec's, word for word, and our own. Pure text.

Bytes come in as `int`; MB is 2**20 bytes. Levels and rules live in `judging.judge`, `judging.stall`
and `judging.verdict`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from cgmem.contract import MB, LimitAbove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

GB = 1024 * MB
COMMAND_CHARS = 40


def mb(count: int) -> str:
    """Return a measured amount as the spec prints it: `1156.3MB`."""
    return f"{count / MB:.1f}MB"


def threshold_mb(count: int) -> str:
    """Return a threshold as the spec prints it: `1024MB`, or `12.5MB` if it isn't whole."""
    return f"{count // MB}MB" if count % MB == 0 else mb(count)


def size(count: int | None) -> str:
    """Return a limit as the kernel and our flags spell it: `400M`, `4G`, `12.5M`, `max`."""
    if count is None:
        return "max"
    if count and count % GB == 0:
        return f"{count // GB}G"
    return threshold_mb(count).removesuffix("B")


def limit_above(above: LimitAbove) -> str:
    """Return whose limit it is and how large: `group build, memory.max 8G,`."""
    if above.max_bytes is None:
        return above.name
    return f"{above.name}, memory.max {size(above.max_bytes)},"


def duration(seconds: float) -> str:
    """Return a time span to read: `12.3 s`, `5 min 20 s`, `2 h 3 min`."""
    if seconds < 120:
        return f"{round(seconds, 1):g} s"
    minutes = int(seconds) // 60
    if minutes < 120:
        return f"{minutes} min {int(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"


def wall_clock(at: float) -> str:
    """Return a local time (seconds since the epoch) as the logs' readers know it, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def exceeded(
    level: Literal["WARNING", "CRITICAL"], threshold: int, judged: int, *, limit: bool = False
) -> str:
    """Return the spec's alert text (section "Alert Log Format"); `limit`: the hard limit's."""
    noun = " limit" if limit else ""
    return f"{level}: Memory exceeded {threshold_mb(threshold)}{noun} at {mb(judged)}"


def killed_from_outside(judged: int, max_bytes: int | None) -> str:
    """Return the alert for an OOM kill that this budget's own limit did not cause."""
    own = "no hard limit" if max_bytes is None else f"hard limit {threshold_mb(max_bytes)}"
    return (
        f"CRITICAL: The kernel's OOM killer struck, but not at this budget's limit"
        f" ({mb(judged)} now, {own}): look at a limit above or below it, and at the host's memory"
    )


def stalled(
    high: int, non_reclaimable: int, seconds: float, pressure: float | None, outcome: str
) -> str:
    """Return the alert for a stall; `pressure` is the share of time some task waited for memory."""
    waiting = "hardly any CPU used" if pressure is None else f"waiting {min(pressure, 1):.0%}"
    return (
        f"CRITICAL: Stalled at memory.high {threshold_mb(high)} for {seconds:.0f} s"
        f" ({mb(non_reclaimable)} can't be reclaimed, {waiting}): {outcome}"
    )


def released(max_bytes: int | None, *, for_good: bool) -> str:
    """Return what a release means for the task."""
    again = " for good" if for_good else ""
    if max_bytes is None:
        return f"brake released{again}, the task goes on; there is no hard limit"
    return f"brake released{again}, the task goes on; hard limit {threshold_mb(max_bytes)} decides"


ABORTED = "ending it (on_stall: abort); raise --critical or --max, or make it use less memory"
FROZEN = (
    "frozen, its memory kept for a look (on_stall: freeze);"
    " cgmem thaw lets it go on, cgmem kill ends it"
)
HELD = "it stays held; cgmem set --critical gives it room, cgmem kill ends it"
PARTLY_STALLED = (
    "left alone, as part of it still makes progress;"
    " cgmem set --critical gives it room, cgmem kill ends it"
)


def thrashing(high: int, refaults_per_second: float, pressure: float) -> str:
    """Return the warning for page cache that is read again and again."""
    return (
        f"WARNING: Thrashing at memory.high {threshold_mb(high)}: {refaults_per_second:.0f}"
        f" evicted file pages a second read again, waiting {min(pressure, 1):.0%};"
        " its files don't fit in the budget, raise --critical"
    )


def brake_returned(warning: int, critical: int, seconds: float) -> str:
    """Return the note that memory.high is set again after a release."""
    return (
        f"WARNING: Memory below {threshold_mb(warning)} for {seconds:.0f} s:"
        f" brake set again, memory.high {threshold_mb(critical)}"
    )


def printable(command: str, longest: int) -> str:
    """Make a command line safe to print: it is the subprocess's own text, escapes and all."""
    text = "".join(char if char.isprintable() else "?" for char in command).strip() or "?"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def largest(processes: Sequence[tuple[int, str, int]]) -> str:
    """Return `Largest when last seen: python3[12] 380.1MB, …`; empty for none.

    `processes` are (pid, command, bytes).
    """
    if not processes:
        return ""
    named = ", ".join(
        f"{printable(name, COMMAND_CHARS)}[{pid}] {mb(count)}" for pid, name, count in processes
    )
    return f"Largest when last seen: {named}."
