"""A scope's record as it is kept on disk: JSON in a `user.cgmem` xattr or in a run file.

Whoever reads it must not trust it: another program may have written it. What is taken has values
that a record can have, so that no reader trips over one.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from cgmem.contract import ScopeRecord
from cgmem_backends.process_stat import START, STATE, stat_fields

NOBODY = ScopeRecord("", 0, 0, 0.0)
"""The record of a cgroup that no subprocess has."""

MAX_BYTES = 3000
"""An xattr of a cgroup is kernel memory; the command is what gets cut to fit."""

PIDS = range(2**31)
NUMBERS = range(2**64)
"""Start times and inodes: the kernel's are unsigned and of 64 bits."""

_SIZES = range(2**63)
_LATEST = 1e15
"""Seconds since the epoch: more than any clock shows, and a number to calculate with."""

_ID = r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}"
"""The rule of cgmem.text.ids.check_id. Ids are printed in commands, which people paste."""


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

    None once it has ended. Together with the pid it names one process for ever. Raises OSError
    where that can't be told.
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
    return lives(record.supervisor_pid, record.supervisor_start, proc)


def lives(pid: int, start: int = 0, proc: Path = Path("/proc")) -> bool:
    """Whether this process lives; `start` 0: whoever has the id. True when in doubt."""
    try:
        found = process_start(pid, proc)
        if found is None:
            return not proc.is_dir() and _answers(pid)
    except PermissionError:  # hidepid=1: another user's, so at the most root's lives
        return _owner(proc / str(pid)) in (0, os.geteuid())
    except OSError:  # out of descriptors: nobody has died of that
        return True
    return start in (0, found)


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:
        return None


def _answers(pid: int) -> bool:
    """Whether a process has this id, where there is no /proc to see it in (macOS)."""
    if pid <= 0:  # kill(2) would ask groups
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _dump(record: ScopeRecord) -> bytes:
    return json.dumps(record._asdict(), separators=(",", ":")).encode()


def _well_formed(record: ScopeRecord) -> bool:
    sizes = (record.warning_bytes, record.critical_bytes, record.max_bytes, record.high_bytes)
    return (
        isinstance(record.subprocess_id, str)
        and re.fullmatch(_ID, record.subprocess_id) is not None
        and is_in(PIDS, record.supervisor_pid)
        and is_in(NUMBERS, record.supervisor_start)
        and is_in(NUMBERS, record.supervisor_namespace)
        and isinstance(record.concluded, bool)
        and isinstance(record.started_at, (int, float))
        and 0 <= record.started_at < _LATEST  # NaN is not
        and all(isinstance(word, str) for word in record.command)
        and isinstance(record.agent_type, (str, type(None)))
        and isinstance(record.log_dir, (str, type(None)))
        and all(size is None or is_in(_SIZES, size) for size in sizes)
    )


def is_in(numbers: range, value: object) -> bool:
    """Whether it is an int of this range; True and False are none."""
    return type(value) is int and value in numbers
