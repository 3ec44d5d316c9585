"""Whether a run's statistics line is there already: who was killed may have written it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from cgmem.contract import ScopeRecord
from cgmem.logs.memory_logs import STATS_FILE
from cgmem.logs.reading import open_log, with_rotated

MOST_BYTES = 64 << 20
"""How much of a log is looked through: it is rotated long before."""
SLACK_SECONDS = 3600.0
"""By so much a file's time may lie before its run: file systems take a coarse clock, which can be
set back besides. Older files are passed over."""


def is_told(record: ScopeRecord) -> bool:
    """Whether the log has the line of this run, written by the supervisor that the record names.

    Another supervisor's line of the same run tells no end: it had let go of it, and somebody took
    it over. A log that can't be read has none: a line too many is better than one too few.
    """
    if record.log_dir is None:
        return False
    with ExitStack() as stack:
        # All are open before the first is read: a rotation meanwhile hides no line.
        logs = list(_opened(stack, Path(record.log_dir), record.started_at - SLACK_SECONDS))
        return any(_has_line(_end_of(log), record) for log in reversed(logs))


def _opened(stack: ExitStack, directory: Path, since: float) -> Iterator[IO[bytes]]:
    """The log and what it was rotated to, the oldest first, as far as they can be read."""
    files: list[Path] = []
    with suppress(OSError, ValueError):
        files = with_rotated(directory / STATS_FILE)
    for file in files:
        with suppress(OSError):
            log = stack.enter_context(open_log(file))
            if os.fstat(log.fileno()).st_mtime >= since:
                yield log


def _end_of(log: IO[bytes]) -> bytes:
    try:
        log.seek(max(0, os.fstat(log.fileno()).st_size - MOST_BYTES))
        return log.read(MOST_BYTES)
    except OSError:
        return b""


def _has_line(log: bytes, record: ScopeRecord) -> bool:
    """Only lines that name the run are parsed: there may be ten thousand others."""
    name = json.dumps(record.subprocess_id).encode()
    at = log.find(name)
    while at >= 0:
        end = log.find(b"\n", at)
        end = len(log) if end < 0 else end
        if _is_line(log[log.rfind(b"\n", 0, at) + 1 : end], record):
            return True
        at = log.find(name, end)
    return False


def _is_line(text: bytes, record: ScopeRecord) -> bool:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # torn
        return False
    ours = line.get("cgmem") if isinstance(line, dict) else None
    return (
        isinstance(ours, dict)
        and line.get("subprocess_id") == record.subprocess_id
        and ours.get("started_at") == record.started_at
        and ours.get("supervisor_pid") == record.supervisor_pid
        and ours.get("supervisor_start") == record.supervisor_start
    )
