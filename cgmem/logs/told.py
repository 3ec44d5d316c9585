"""Whether a run's statistics line is there already: who was killed may have written it."""

from __future__ import annotations

import json
from pathlib import Path
from stat import S_ISREG

from cgmem.logs.memory_logs import STATS_FILE
from cgmem.logs.reading import with_rotated

MOST_BYTES = 64 << 20
"""How much of a log is looked through: it is rotated long before."""


def is_told(directory: Path, subprocess_id: str, started_at: float) -> bool:
    """Whether a log directory has the line of this run, started then (seconds since the epoch).

    A log that can't be read has none: a line too many is better than one too few.
    """
    try:
        return any(
            _has_line(_end_of(file, found.st_size), subprocess_id, started_at)
            for file in with_rotated(directory / STATS_FILE)
            if S_ISREG((found := file.stat()).st_mode)
            and found.st_mtime >= started_at  # its line is no older than the run
        )
    except (OSError, ValueError):
        return False


def _end_of(file: Path, size: int) -> bytes:
    with file.open("rb") as log:
        log.seek(max(0, size - MOST_BYTES))
        return log.read(MOST_BYTES)


def _has_line(log: bytes, subprocess_id: str, started_at: float) -> bool:
    """Only lines that name the run are parsed: there may be ten thousand others."""
    name = json.dumps(subprocess_id).encode()
    at = log.find(name)
    while at >= 0:
        end = log.find(b"\n", at)
        end = len(log) if end < 0 else end
        if _is_line(log[log.rfind(b"\n", 0, at) + 1 : end], subprocess_id, started_at):
            return True
        at = log.find(name, end)
    return False


def _is_line(text: bytes, subprocess_id: str, started_at: float) -> bool:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # torn
        return False
    ours = line.get("cgmem") if isinstance(line, dict) else None
    return (
        isinstance(ours, dict)
        and line.get("subprocess_id") == subprocess_id
        and ours.get("started_at") == started_at
    )
