"""A scope's record as it is kept on disk: JSON in a `user.cgmem` xattr or in a run file.

Whoever reads it must not trust it: another program may have written it.
"""

from __future__ import annotations

import json
from pathlib import Path

from cgmem.contract import ScopeRecord
from cgmem_backends.process_stat import START, STATE, stat_fields

NOBODY = ScopeRecord("", 0, 0, 0.0)
"""The record of a cgroup that no subprocess has."""

MAX_BYTES = 3000
"""An xattr of a cgroup is kernel memory; the command is what gets cut to fit."""


def encode(record: ScopeRecord) -> bytes:
    """Encode in at most `MAX_BYTES` bytes; a long command is cut."""
    text = _dump(record)
    if len(text) > MAX_BYTES:
        command = tuple(word[:80] for word in record.command[:6])
        text = _dump(record._replace(command=(*command, "…")))
    if len(text) > MAX_BYTES:
        text = _dump(record._replace(command=()))
    if len(text) > MAX_BYTES:
        text = _dump(record._replace(command=(), log_dir=None, agent_type=None))
    return text


def decode(text: bytes) -> ScopeRecord | None:
    """Decode; None for anything that is not a record (torn, foreign, of another version)."""
    try:
        found = json.loads(text)
        record = ScopeRecord(**found)._replace(command=tuple(found.get("command", ())))
    except (ValueError, TypeError, RecursionError):
        return None
    return record if _well_formed(record) else None


def process_start(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Start time of a process in clock ticks since boot.

    None once it has ended. Together with the pid it names one process for ever.
    """
    fields = stat_fields(pid, proc)
    if len(fields) <= START or fields[STATE] in (b"Z", b"X"):
        return None  # a zombie waits for its parent, no more
    return int(fields[START]) if fields[START].isdigit() else None


def pid_namespace(proc: Path = Path("/proc")) -> int:
    """Inode of this process's pid namespace (pid_namespaces(7)); 0 where there is none to see."""
    try:
        return (proc / "self/ns/pid").stat().st_ino
    except OSError:
        return 0


def is_supervised(record: ScopeRecord, proc: Path = Path("/proc")) -> bool:
    """Whether somebody lives who will tell the scope's end. True when in doubt."""
    if record.concluded:
        return False
    if record.supervisor_namespace not in (0, pid_namespace(proc)):
        return True  # its pid says nothing here
    start = process_start(record.supervisor_pid, proc)
    return start is not None and record.supervisor_start in (0, start)


def _dump(record: ScopeRecord) -> bytes:
    return json.dumps(record._asdict(), separators=(",", ":")).encode()


def _well_formed(record: ScopeRecord) -> bool:
    sizes = (record.warning_bytes, record.critical_bytes, record.max_bytes, record.high_bytes)
    return (
        isinstance(record.subprocess_id, str)
        and _is_int(record.supervisor_pid)
        and _is_int(record.supervisor_start)
        and _is_int(record.supervisor_namespace)
        and isinstance(record.concluded, bool)
        and isinstance(record.started_at, (int, float))
        and all(isinstance(word, str) for word in record.command)
        and isinstance(record.agent_type, (str, type(None)))
        and isinstance(record.log_dir, (str, type(None)))
        and all(size is None or _is_int(size) for size in sizes)
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
