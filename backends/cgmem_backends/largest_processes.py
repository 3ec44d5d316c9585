"""The largest of some processes, by PSS where it can be read.

smaps_rollup and cmdline are read under the target's mmap lock, which a stalled multi-threaded
process can hold for long; stat (RSS and the name) takes no lock. So all are ranked by RSS first,
and only the first few are asked for more. Source: proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cgmem.contract import ProcessMemory, Snapshot
from cgmem_backends.patient_reader import PatientReader, read_whole
from cgmem_backends.proc_files import parse_smaps_rollup, parse_stat
from cgmem_backends.process_tree import Process

LONGEST_COMMAND = 4096
"""Bytes of a command line."""

CANDIDATES = 2
"""PSS is asked for of so many times more than are wanted: RSS counts shared pages in full."""

_AT_ONCE = 256
"""Processes to rank between two pictures: a group may hold thousands."""

_ONE_FOR_ALL = PatientReader()


class LargestProcesses:
    """Reads /proc. `proc` is another directory in tests; `reader` one that is never stuck."""

    def __init__(self, proc: str = "/proc", reader: PatientReader = _ONE_FOR_ALL) -> None:
        self._proc = proc
        self._reader = reader

    def of(self, pids: Iterable[int], most: int) -> Iterator[Snapshot]:
        """Yield the `most` largest, ever more precisely. `partial` until all was read."""
        found: list[Process] = []
        for count, pid in enumerate(pids, 1):
            process = self._stat(pid)
            if process is not None:
                found.append(process)
            if count % _AT_ONCE == 0:
                yield Snapshot(processes=_first(map(_by_rss, found), most))
        yield from self.among(found, most)

    def among(self, processes: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """The same for processes whose RSS is known; they may have ended since."""
        ranked = sorted(processes, key=lambda process: process.rss_bytes or 0, reverse=True)
        candidates = ranked[: CANDIDATES * most]
        known = [_by_rss(process) for process in candidates]
        yield Snapshot(processes=_first(known, most), partial=bool(known))
        paths = [
            f"{self._proc}/{process.pid}/{name}"
            for process in candidates
            for name in ("cmdline", "smaps_rollup")
        ]
        for contents, done in self._reader.progress(paths, LONGEST_COMMAND) if paths else ():
            detailed = [self._detailed(process, contents) for process in candidates]
            yield Snapshot(processes=_first(detailed, most), partial=not done)

    def _detailed(self, process: Process, contents: Mapping[str, bytes | None]) -> ProcessMemory:
        """What could be read of it, of it alone: its pid may be another's by now."""
        plain = _by_rss(process)
        path = f"{self._proc}/{process.pid}"
        command = parse_cmdline(contents.get(f"{path}/cmdline") or b"")
        rollup = parse_smaps_rollup(contents.get(f"{path}/smaps_rollup") or b"")
        if not command and rollup is None:
            return plain
        now = self._stat(process.pid)
        if now is None or now.start != process.start:
            return plain
        if rollup is not None:
            plain = plain._replace(memory_bytes=rollup.pss_bytes, metric="pss")
        return plain._replace(command=command or plain.command)

    def _stat(self, pid: int) -> Process | None:
        content = read_whole(f"{self._proc}/{pid}/stat", LONGEST_COMMAND)
        return parse_stat(content) if content else None


def parse_cmdline(content: bytes) -> tuple[str, ...]:
    """The words of /proc/PID/cmdline. One that did not fit is left out: half a word misleads."""
    words = content.rstrip(b"\0").split(b"\0") if content else []
    if len(content) >= LONGEST_COMMAND and not content.endswith(b"\0"):
        words.pop()
    return tuple(os.fsdecode(word) for word in words)


def _by_rss(process: Process) -> ProcessMemory:
    return ProcessMemory(process.pid, (process.name,), process.rss_bytes or 0, "rss")


def _first(processes: Iterable[ProcessMemory], most: int) -> tuple[ProcessMemory, ...]:
    largest = sorted(processes, key=lambda process: process.memory_bytes, reverse=True)
    return tuple(largest[:most])
