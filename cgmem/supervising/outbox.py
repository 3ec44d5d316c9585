"""What one subprocess has to tell, on its way out: in order, alerts with their snapshots.

A CRITICAL alert waits for its snapshot, `TIME_LIMIT` at most, and what comes after it waits with
it. Nothing is lost: whoever ends the subprocess hands out the rest first.
"""

from __future__ import annotations

from collections.abc import Callable

from cgmem.contract import Alert, Snapshot
from cgmem.shapes import NamedTuple
from cgmem.supervising.snapshot import TIME_LIMIT, Inspection

Send = Callable[[Snapshot | None], None]


class Taken(NamedTuple):
    """A snapshot and when it was asked for (monotonic seconds)."""

    at: float
    snapshot: Snapshot


class Outbox:
    """Not thread-safe: the supervision's lock is around every call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: list[tuple[Send, bool]] = []  # a deque is 0.6 kB, for every scope
        self._inspection: Inspection | None = None
        self._asked_at = 0.0
        self._last: Taken | None = None

    @property
    def due_at(self) -> float | None:
        """When what waits is to be handed out at the latest; None while nothing waits."""
        return self._asked_at + TIME_LIMIT if self._waiting else None

    @property
    def last(self) -> Taken | None:
        """The last snapshot that shows anything; None if there is none."""
        self._keep()
        return self._last

    def add(self, send: Send, inspect: Callable[[], Inspection | None] | None = None) -> None:
        """Hand out `send`, after what waits; with `inspect` after a snapshot, which it gets.

        `inspect()` begins one, and is called if none is on its way.
        """
        if inspect is not None and (self._inspection is None or self._inspection.done):
            self._keep()
            self._asked_at = self._clock()
            self._inspection = inspect()
        self._waiting.append((send, inspect is not None))
        if len(self._waiting) > 1 or inspect is not None:
            self.hand_out(self._clock())
        else:
            self.hand_out_all()

    def hand_out(self, now: float) -> None:
        """Hand out what waits if its snapshot is there, or late."""
        due = self.due_at
        if due is not None and (now >= due or self._inspection is None or self._inspection.done):
            self.hand_out_all()

    def hand_out_all(self) -> None:
        """Hand out what waits, with what the snapshot has by now."""
        inspection = self._inspection
        while self._waiting:
            send, inspect = self._waiting.pop(0)
            send(inspection.so_far if inspect and inspection is not None else None)

    def _keep(self) -> None:
        """An emptier one is no news: at the end the processes are dead."""
        found = None if self._inspection is None else self._inspection.so_far
        if found is not None and (found.processes or (found.memory_stat and self._last is None)):
            self._last = Taken(self._asked_at, found)


def worth_a_snapshot(alert: Alert, kernel_limits: bool) -> bool:
    """At critical and at a stall. What the kernel has killed shows nothing any more."""
    return alert.level == "CRITICAL" and (
        alert.kind in ("threshold", "stall") or (alert.kind == "kill" and not kernel_limits)
    )
