"""What is told of one subprocess: alerts with their snapshots, its abort, trouble of our own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from cgmem.contract import Alert, Cause, Snapshot
from cgmem.shapes import NamedTuple
from cgmem.supervising.outbox import Outbox, Taken
from cgmem.supervising.snapshot import Inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MOST_TOLD = 100
"""Of more alerts the outcome has the first and the last half: its line must not grow for ever."""


class Listeners(NamedTuple):
    """Who hears it."""

    alert: Callable[[Alert], None]
    aborted: Callable[[Cause], None]
    warn: Callable[[str], None]


class Telling:
    """Not thread-safe: the supervision's lock is around every call.

    No listener's failure goes further than here: whatever becomes of a log line or a callback,
    the subprocess is still supervised.
    """

    def __init__(self, name: str, listeners: Listeners, clock: Callable[[], float]) -> None:
        self.warnings: list[str] = []
        """The messages of its alerts so far; of many the first and the last."""
        self.stalls: list[dict[str, Any]] = []
        self._name = name
        self._listeners = listeners
        self._outbox = Outbox(clock)
        self._abort_told = False
        self._unmeasured = False
        self._warned: set[str] = set()

    @property
    def due_at(self) -> float | None:
        """When what waits for a snapshot is to be told at the latest; None while nothing waits."""
        return self._outbox.due_at

    @property
    def last_snapshot(self) -> Taken | None:
        """The last snapshot that shows anything."""
        return self._outbox.last

    def alert(self, alert: Alert, inspect: Callable[[], Inspection | None] | None) -> None:
        """Tell an alert; where `inspect` is given, with the snapshot that it begins."""
        _append(self.warnings, alert.message)
        self._outbox.add(partial(self._send, alert), inspect)

    def stall(self, at: float, seconds: float, action: str) -> None:
        """Note a stall for the outcome: seconds since the start, how long it took, what we did."""
        _append(self.stalls, {"at": round(at, 3), "seconds": seconds, "action": action})

    def aborted(self, cause: Cause) -> None:
        """Tell, once, that it is being ended for its budget or its time."""
        if not self._abort_told:
            self._abort_told = True
            self._outbox.add(lambda _: self.safely(partial(self._listeners.aborted, cause)))

    def hand_out(self, now: float) -> None:
        """Tell what waits, if its snapshot is there or late."""
        self._outbox.hand_out(now)

    def hand_out_all(self) -> None:
        """Tell what waits, with what its snapshot has by now."""
        self._outbox.hand_out_all()

    def warn(self, text: str) -> None:
        """Tell of trouble, once: what is tried again fails in the same way."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def measured(self) -> None:
        """A look went well: the next that fails is news again."""
        self._unmeasured = False

    def unmeasured(self, error: Exception) -> None:
        """A look failed."""
        if not self._unmeasured:
            self._unmeasured = True
            self._warn(f"can't be measured: {error}")

    def safely(self, tell: Callable[[], None]) -> None:
        """Call a listener."""
        try:
            tell()
        except Exception as error:  # noqa: BLE001  (a listener may lead to the caller's code)
            with suppress(Exception):
                self._listeners.warn(f"{self._name}: {type(error).__name__}: {error}")

    def _send(self, alert: Alert, snapshot: Snapshot | None) -> None:
        told = alert._replace(snapshot=snapshot)
        self.safely(partial(self._listeners.alert, told))

    def _warn(self, text: str) -> None:
        self.safely(partial(self._listeners.warn, f"{self._name}: {text}"))


def _append(told: list[Any], one: object) -> None:
    told.append(one)
    if len(told) > MOST_TOLD:
        del told[MOST_TOLD // 2]
