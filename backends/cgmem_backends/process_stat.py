"""/proc/PID/stat, taken apart. Source: proc_pid_stat(5)."""

from __future__ import annotations

from pathlib import Path

STATE, PPID, SESSION, THREADS, START, RSS = 0, 1, 3, 17, 19, 21
"""Where a field is among those after the name: the manual's number less 3."""


def split_stat(content: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Pid, name and the fields after it. The name may hold spaces and `) R 1`."""
    pid, _, rest = content.partition(b" (")
    name, _, fields = rest.rpartition(b")")
    return pid, name, fields.split()


def stat_fields(pid: int, proc: Path) -> list[bytes]:
    """The fields after the name; none once the process is gone.

    Raises OSError where that can't be told: no descriptor is left, or it may not be looked at.
    """
    try:
        return split_stat((proc / str(pid) / "stat").read_bytes())[2]
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []
