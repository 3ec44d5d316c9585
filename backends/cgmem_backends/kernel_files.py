"""The kernel's cgroup v2 files: their names, and parsers for their four formats.

Source: Documentation/admin-guide/cgroup-v2.rst, "Interface Files";
Documentation/accounting/psi.rst.
A key that this kernel lacks is absent from the result, never 0. "max" is `None`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cgmem.contract import MemoryEvents, MemoryStat

CONTROLLERS = "cgroup.controllers"
EVENTS = "cgroup.events"
FREEZE = "cgroup.freeze"  # since 5.2
KILL = "cgroup.kill"  # since 5.14
PROCS = "cgroup.procs"
SUBTREE_CONTROL = "cgroup.subtree_control"
TYPE = "cgroup.type"  # absent in the hierarchy's root only
CPU_STAT = "cpu.stat"
MEMORY_CURRENT = "memory.current"
MEMORY_EVENTS = "memory.events"
MEMORY_EVENTS_LOCAL = "memory.events.local"  # since 5.2
MEMORY_HIGH = "memory.high"
MEMORY_MAX = "memory.max"
MEMORY_OOM_GROUP = "memory.oom.group"  # since 4.19
MEMORY_PEAK = "memory.peak"  # since 5.19
MEMORY_RECLAIM = "memory.reclaim"  # since 5.19
MEMORY_PRESSURE = "memory.pressure"  # absent when booted with psi=0
MEMORY_STAT = "memory.stat"
MEMORY_SWAP_CURRENT = "memory.swap.current"
MEMORY_SWAP_MAX = "memory.swap.max"  # absent without swap accounting

RECLAIMABLE = (b"inactive_file", b"active_file", b"slab_reclaimable")
"""What reclaim can take back. tmpfs is in `file` but on the anon lists, so it stays counted."""


_PAIR = rb"(?m)^(\S+) ([0-9]+)$"
_EVENTS = tuple(key.encode() for key in MemoryEvents._fields)
_BREAKDOWN = tuple(key.encode() for key in MemoryStat._fields)


def parse_limit(text: bytes) -> int | None:
    """Parse a single value, bytes; `None` for "max". Raises ValueError on anything else."""
    word = text.strip()
    return None if word == b"max" else _count(word)


def parse_keyed(text: bytes) -> dict[str, int]:
    """Parse a flat keyed file ("KEY VALUE" lines). A line of another shape is skipped."""
    return {key.decode("ascii", "replace"): int(value) for key, value in re.findall(_PAIR, text)}


@lru_cache(maxsize=64)  # a scope where nothing happened yet reads as the one before it
def parse_events(text: bytes) -> MemoryEvents:
    """Parse memory.events or memory.events.local."""
    return MemoryEvents(*pick(text, _EVENTS))


def pick(text: bytes, keys: tuple[bytes, ...]) -> list[int | None]:
    """Take some values of a flat keyed file, in the order of `keys`; the rest costs little."""
    lines = b"\n" + text
    return [_value_after(lines, b"\n" + key + b" ") for key in keys]


def _value_after(lines: bytes, start: bytes) -> int | None:
    at = lines.find(start)
    if at < 0:
        return None
    at += len(start)
    end = lines.find(b"\n", at)
    word = lines[at:] if end < 0 else lines[at:end]
    return int(word) if word.isdigit() else None


def parse_pressure(text: bytes) -> dict[str, float]:
    """Parse a pressure file into {"some": seconds, "full": seconds} of stalled time in total."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(b" ")
        _, found, total = rest.rpartition(b"total=")
        if found and total.isdigit():
            totals[kind.decode("ascii", "replace")] = int(total) / 1e6
    return totals


def parse_pids(text: bytes) -> list[int]:
    """Parse cgroup.procs. Pid 0, a process outside our pid namespace, is left out."""
    return [int(word) for word in text.split() if word.isdigit() and int(word) > 0]


def reclaimable_bytes(stat: bytes) -> int | None:
    """Bytes that the kernel can take back, of the text of memory.stat; None if it tells none."""
    known = [value for value in pick(stat, RECLAIMABLE) if value is not None]
    return sum(known) if known else None


def parse_memory_stat(text: bytes) -> MemoryStat:
    """Take what a snapshot shows of memory.stat."""
    return MemoryStat(*pick(text, _BREAKDOWN))


def limit_text(limit: int | None) -> bytes:
    """Write a limit as the kernel reads it."""
    return b"max" if limit is None else b"%d" % limit


def _count(word: bytes) -> int:
    if not word.isdigit():
        raise ValueError(f"not a number of bytes: {word!r}")
    return int(word)
