"""The agent subprocesses that one Task Tool helper has started, by id."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from cgmem.errors import UnknownIdError
from cgmem.supervising.outcome import Outcome
from cgmem.tasks.agent_record import AgentRecord
from cgmem.text.words import shown

REMEMBERED = 1000
"""With so many in the book, the oldest that has ended makes room for a new one."""


class AgentBook:
    """Thread-safe."""

    def __init__(self) -> None:
        self._begin_empty()
        _books.add(self)

    def _begin_empty(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, AgentRecord] = {}

    def after_fork_in_child(self) -> None:
        """Begin anew: the agents are the parent process's."""
        self._begin_empty()

    def enter(self, record: AgentRecord) -> None:
        """It has started."""
        with self._lock:
            self._records[record.subprocess_id] = record
            if len(self._records) > REMEMBERED:
                oldest = next((one for one in self._records.values() if one.has_ended()), None)
                if oldest is not None:
                    self._records.pop(oldest.subprocess_id).close()

    def find(self, subprocess_id: str) -> AgentRecord | None:
        """The record with this id, if there is one."""
        return self._records.get(subprocess_id)

    def record(self, subprocess_id: str) -> AgentRecord:
        """The record with this id. Raises `UnknownIdError`."""
        record = self.find(subprocess_id)
        if record is None:
            raise UnknownIdError(
                f"this helper has started no subprocess {shown(subprocess_id)}",
                hint="use the subprocess_id that create_agent_subprocess returned",
            )
        return record

    def records(self) -> list[AgentRecord]:
        """Every record, in the order of the starts."""
        return list(self._records.values())

    def completed(
        self, record: AgentRecord, outcome: Outcome, results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Collect its output, once, and say how it ended."""
        with self._lock:
            return record.completed(outcome, results)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            for record in self._records.values():
                record.close()
            self._records.clear()


_books: WeakSet[AgentBook] = WeakSet()


def _after_fork_in_child() -> None:
    for book in tuple(_books):
        book.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
