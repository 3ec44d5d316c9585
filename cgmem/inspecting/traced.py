"""Which processes lived, for how long, and how large each was: made from events. Pure.

Who is followed: the roots and whatever they fork. Events of everybody else are passed over.
"""

from __future__ import annotations

import heapq
import os
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

_RECENT = 64
"""How many of those that ended last may still be without their figures."""
_WAITING = 4096
"""Ends that were told before the fork was: the two sources are not in step."""
KEPT = 10_000
"""How many of those that ended are kept: of more, the largest. A build may start millions."""


class Traced(NamedTuple):
    """One process."""

    pid: int
    ppid: int
    command: str = ""
    began: float | None = None
    """Seconds on the tracer's clock; None: before the trace."""
    ended: float | None = None
    seconds: float | None = None
    """How long it lived; None while it does, and where nobody counted."""
    status: int | None = None
    """Its wait status."""
    peak_kib: int | None = None
    """The most that was resident; None where it was never seen."""


class Trace:
    """The processes below some roots. `hidden` roots are followed and not shown."""

    def __init__(self, hidden: Iterable[int] = ()) -> None:
        self._hidden = set(hidden)
        self._hidden_living = set(self._hidden)
        self._living: dict[int, Traced] = {}
        self._ended: list[Traced] = []
        self.dropped = 0
        """Small ones that ended and are not kept any more."""
        self._waiting: OrderedDict[int, Mapping[str, Any]] = OrderedDict()

    @property
    def processes(self) -> list[Traced]:
        """All of them, in the order of their ends, then those that live."""
        return [*self._ended, *self._living.values()]

    @property
    def settled(self) -> bool:
        """Every process that was followed has ended, and its figures have been told."""
        if self._living or self._hidden_living:
            return False
        return all(process.seconds is not None for process in self._ended)

    @property
    def hog(self) -> Traced | None:
        """The one that was the largest."""
        sized = [process for process in self.processes if process.peak_kib]
        return max(sized, key=lambda process: process.peak_kib or 0, default=None)

    def seen(self, pid: int, ppid: int, command: str, peak_kib: int | None, name: str = "") -> None:
        """A process of the scope was found alive.

        `command` is empty for one that is ending: it keeps the one it had, else its `name`.
        """
        known = self._living.get(pid) or Traced(pid, ppid)
        if pid not in self._hidden:
            peak = max(known.peak_kib or 0, peak_kib or 0) or None
            self._living[pid] = known._replace(
                command=command or known.command or name, peak_kib=peak
            )

    def gone(self, living: Iterable[int], at: float) -> None:
        """Only these live now: the others ended, unseen."""
        for pid in self._living.keys() - set(living):
            self._end(pid, at)

    def leave_out_all_but(self, main: int | None) -> None:
        """Forget what the hidden roots started beside `main`, their helpers, and all below."""
        out: set[int] = set()
        while more := {one.pid for one in self.processes if self._is_beside(one, main, out)} - out:
            out |= more
        self._ended = [one for one in self._ended if one.pid not in out]
        self._living = {pid: one for pid, one in self._living.items() if pid not in out}

    def _is_beside(self, process: Traced, main: int | None, out: Container[int]) -> bool:
        return process.ppid in out or (process.ppid in self._hidden and process.pid != main)

    def take(self, event: Mapping[str, Any], at: float) -> int | None:
        """Take one event; the pid of a followed process that was begun by fork or exec."""
        what, pid = event.get("event"), event.get("pid")
        if not isinstance(pid, int):
            return None
        if what == "fork" and self._follows(event.get("ppid")):
            return self._begin(pid, event, at)
        if what == "exec" and pid in self._living:
            # Whoever asks too late what it is now has the kernel's name for it at the end.
            self._living[pid] = self._living[pid]._replace(command="")
            return pid
        if what == "exit":
            self._hidden_living.discard(pid)
        if what == "exit" and pid in self._living:
            self._living[pid] = self._living[pid]._replace(status=event.get("status"))
            self._end(pid, at)
        elif what == "memory":
            self._measured(pid, event)
        return None

    def _follows(self, pid: object) -> bool:
        return pid in self._living or pid in self._hidden

    def _begin(self, pid: int, event: Mapping[str, Any], at: float) -> int:
        self._waiting.pop(pid, None)  # of an earlier one with this pid
        parent = self._living.get(event["ppid"])
        command = parent.command if parent is not None else ""
        self._living[pid] = Traced(pid, event["ppid"], command, began=at)
        return pid

    def _measured(self, pid: int, event: Mapping[str, Any]) -> None:
        # Of one that lives, as far as we know, the exec and the exit may still be to come.
        ended = () if pid in self._living else range(len(self._ended) - 1, -1, -1)
        for number in ended[:_RECENT]:
            if self._ended[number].pid == pid and self._ended[number].seconds is None:
                self._ended[number] = _with_figures(self._ended[number], event)
                return
        self._waiting[pid] = event
        while len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)

    def _end(self, pid: int, at: float) -> None:
        process = self._living.pop(pid)._replace(ended=at)
        self._ended.append(_with_figures(process, self._waiting.pop(pid, {})))
        if len(self._ended) >= 2 * KEPT:
            self._drop_small()

    def _drop_small(self) -> None:
        """Keep those that may still get their figures, and the largest."""
        old = self._ended[:-_RECENT]
        largest = set(heapq.nlargest(KEPT, range(len(old)), key=lambda at: old[at].peak_kib or 0))
        kept = [process for at, process in enumerate(old) if at in largest]
        self.dropped += len(old) - len(kept)
        self._ended = [*kept, *self._ended[-_RECENT:]]


def _with_figures(process: Traced, event: Mapping[str, Any]) -> Traced:
    if not event:
        return process
    peak = max(process.peak_kib or 0, int(event.get("peak_kib") or 0)) or None
    return process._replace(
        command=process.command or str(event.get("name") or ""),
        seconds=event.get("seconds"),
        status=event.get("status") if process.status is None else process.status,
        peak_kib=peak,
    )


def lifetime(process: Traced, now: float) -> float | None:
    """How long a process lived, or has lived; None where its beginning was not seen."""
    if process.seconds is not None:
        return process.seconds
    if process.began is None:
        return None
    return (process.ended or now) - process.began


def exit_of(process: Traced) -> tuple[int | None, int | None]:
    """Return the exit code and the signal of its end; None for what there wasn't or wasn't seen."""
    if process.status is None:
        return None, None
    code = os.waitstatus_to_exitcode(process.status & 0xFF7F)  # without WCOREFLAG
    return (code, None) if code >= 0 else (None, -code)
