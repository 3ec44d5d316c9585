"""A host's processes through psutil: macOS, and whatever else is not Linux.

psutil is imported at first use. Start times are microseconds since the epoch here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from cgmem.contract import Metric, ProcessMemory, Snapshot, Usability
from cgmem_backends.footprint import Footprint
from cgmem_backends.process_tree import (
    MARK,
    MARK_SEPARATOR,
    Identity,
    Measurement,
    Process,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import psutil


def session_of(pid: int) -> int:
    """getsid(2); 0, which nobody leads, where it may not be asked."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


class PsutilProcesses:
    """Reads through psutil; `footprint` where the platform has phys_footprint."""

    def __init__(self, footprint: Footprint | None = None) -> None:
        if footprint is None and sys.platform == "darwin":
            footprint = Footprint()
        self._footprint = footprint
        self.metric: Metric = "rss" if footprint is None else "phys_footprint"

    def usability(self) -> Usability:
        """psutil must import."""
        try:
            import psutil
        except ImportError as err:
            return Usability(
                usable=False, reason=f"psutil can't be imported: {err}", fix="pip install psutil"
            )
        return Usability(
            usable=True, reason=f"polls the process tree through psutil {psutil.__version__}"
        )

    def table_id(self) -> str:
        """There is one table, and start times tell boots apart."""
        return ""

    def processes(self) -> Iterator[Process]:
        """Every process that psutil shows."""
        import psutil

        for candidate in psutil.process_iter():
            process = self._look(candidate)
            if process is not None:
                yield process

    def process(self, pid: int) -> Process | None:
        """Look at one process."""
        import psutil

        try:
            return self._look(psutil.Process(pid))
        except psutil.Error:
            return None

    def _look(self, candidate: psutil.Process) -> Process | None:
        import psutil

        try:
            with candidate.oneshot():
                status = candidate.status()
                return Process(
                    pid=candidate.pid,
                    ppid=candidate.ppid(),
                    session=session_of(candidate.pid),
                    state="T" if status == psutil.STATUS_STOPPED else "R",
                    start=round(candidate.create_time() * 1e6),
                    ended=status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD),
                )
        except psutil.Error:
            return None

    def marks(self, candidates: Sequence[Process]) -> Mapping[Identity, tuple[str, ...]]:
        """Read each environment; of processes that may not be asked, none."""
        return {process.identity: self._marks_of(process.pid) for process in candidates}

    def _marks_of(self, pid: int) -> tuple[str, ...]:
        import psutil

        try:
            value = psutil.Process(pid).environ().get(MARK, "")
        except (psutil.Error, OSError):
            return ()
        return tuple(token for token in value.split(MARK_SEPARATOR) if token)

    def measure(self, members: Sequence[Process], detail_above: int | None) -> Measurement:
        """phys_footprint; where one can't be read its RSS stands in, and `metric` says `rss`."""
        total, metric = 0, self.metric
        for process in members:
            size, measured = self._size(process.pid)
            # 0: the process has just ended, so nothing is missing.
            if size and measured == "rss":
                metric = "rss"
            total += size
        return Measurement(total, metric)

    def largest(self, members: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """By phys_footprint, else RSS. What has ended since is left out."""
        sizes = {process.pid: self._size(process.pid) for process in members}
        largest = sorted(sizes, key=lambda pid: sizes[pid][0], reverse=True)[:most]
        processes = tuple(
            ProcessMemory(pid, command, *sizes[pid])
            for pid in largest
            if (command := self._command(pid))
        )
        yield Snapshot(processes=processes, partial=False)

    def _size(self, pid: int) -> tuple[int, Metric]:
        footprint = None if self._footprint is None else self._footprint.read(pid)
        return (self._rss(pid), "rss") if footprint is None else (footprint, self.metric)

    def _command(self, pid: int) -> tuple[str, ...]:
        """Its command line, or its name where that may not be asked for; empty once it is gone."""
        import psutil

        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            with suppress(psutil.AccessDenied):
                if words := process.cmdline():
                    return tuple(words)
            return (process.name(),)
        return ()

    def _rss(self, pid: int) -> int:
        import psutil

        try:
            return psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return 0

    def owner(self, pid: int) -> int | None:
        """Effective uid."""
        import psutil

        try:
            return psutil.Process(pid).uids().effective
        except psutil.Error:
            return None

    def swap_unbounded(self) -> bool:
        """phys_footprint holds compressed and swapped pages; RSS does not."""
        import psutil

        return self._footprint is None and psutil.swap_memory().total > 0
