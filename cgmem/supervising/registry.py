"""The ids in use and the supervisions behind them."""

from __future__ import annotations

import threading

from cgmem.errors import InvalidIdError
from cgmem.text.ids import check_id, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgmem.supervising.supervision import Supervision

REMEMBERED = 1000
"""Of so many subprocesses that were aborted it is known afterwards."""


class Registry:
    """Live supervisions by id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Supervision] = {}
        self._starting: set[str] = set()
        self._aborted: dict[str, float] = {}

    def take(self, subprocess_id: str | None, prefix: str) -> str:
        """Reserve an id, or a fresh one. Raises `InvalidIdError`."""
        if subprocess_id is None:
            subprocess_id = new_id(prefix)
        else:
            check_id(subprocess_id, source="subprocess_id")
            before = self._live.get(subprocess_id)
            if before is not None:  # it may have ended without the poller knowing yet
                before.settle()
        with self._lock:
            if subprocess_id in self._live or subprocess_id in self._starting:
                raise InvalidIdError(
                    f"subprocess id {subprocess_id!r} belongs to a live subprocess",
                    hint="choose another id, or none to get a fresh one",
                )
            self._starting.add(subprocess_id)
            return subprocess_id

    def release(self, subprocess_id: str) -> None:
        """Give back an id whose subprocess did not start."""
        with self._lock:
            self._starting.discard(subprocess_id)

    def enter(self, supervision: Supervision) -> None:
        """The subprocess has started."""
        with self._lock:
            self._starting.discard(supervision.subprocess_id)
            self._aborted.pop(supervision.subprocess_id, None)
            self._live[supervision.subprocess_id] = supervision

    def leave(self, supervision: Supervision) -> bool:
        """The subprocess has ended. False if it had left before: its id may be another's now."""
        with self._lock:
            if self._live.get(supervision.subprocess_id) is not supervision:
                return False
            del self._live[supervision.subprocess_id]
            outcome = supervision.outcome
            if outcome is not None and outcome.aborted:
                self._aborted[supervision.subprocess_id] = outcome.end_mb
                if len(self._aborted) > REMEMBERED:
                    del self._aborted[next(iter(self._aborted))]
            return True

    def find(self, subprocess_id: str) -> Supervision | None:
        """The live supervision with this id."""
        return self._live.get(subprocess_id)

    def aborted_at(self, subprocess_id: str) -> float | None:
        """The last MB of a subprocess that has ended and was aborted; None for any other."""
        return self._aborted.get(subprocess_id)

    def live(self) -> list[Supervision]:
        """Every live supervision, in the order of their starts."""
        return list(self._live.values())
