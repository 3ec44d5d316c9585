"""May a subprocess be started with the memory that there is? Pure (spec, "Pre-flight Checks")."""

from __future__ import annotations

from cgmem.contract import MB, SystemMemory
from cgmem.judging import messages

GB = 1024 * MB
NEED_BYTES = GB
"""Spec, "Subprocess Creation": at least 1 GB must be available."""
LOW_BYTES = 2 * GB
"""Below this a start is allowed with a warning."""


def available_bytes(memory: SystemMemory) -> int:
    """What a new subprocess can take: host-wide, or less if the own cgroup has less left."""
    if memory.headroom is None:
        return memory.available_bytes
    return min(memory.available_bytes, memory.headroom.left_bytes)


def needed_bytes(max_bytes: int | None) -> int:
    """What must be available to start a subprocess with this hard limit (None: no limit)."""
    return NEED_BYTES if max_bytes is None else min(NEED_BYTES, max_bytes)


def can_create(memory: SystemMemory, need_bytes: int = NEED_BYTES) -> tuple[bool, str]:
    """Whether a subprocess may be started, and the spec's message that says so.

    Where it is a cgroup's limit that leaves too little, its name and size follow.
    """
    available = available_bytes(memory)
    if available < need_bytes:
        return False, (
            f"Insufficient memory: only {floor_mb(available)}MB available"
            f" (need at least {_size(need_bytes)}){_whose_limit(memory, available)}"
        )
    if available < LOW_BYTES:
        return True, low_memory_message("WARNING", available)
    return True, "OK"


def low_memory_message(level: str, available: int) -> str:
    """The spec's warning about memory that runs low; `available` in bytes."""
    return f"{level}: Low memory - only {floor_mb(available)}MB available"


def floor_mb(size_bytes: int) -> float:
    """Bytes as MB, one decimal, rounded down: "only 1024.0MB" must not fall short of 1 GB."""
    return size_bytes * 10 // MB / 10


def _whose_limit(memory: SystemMemory, available: int) -> str:
    if memory.headroom is None or memory.headroom.left_bytes > available:
        return ""
    return f": {messages.limit_above(memory.headroom.limit)} leaves no more"


def _size(size_bytes: int) -> str:
    if size_bytes % GB == 0:
        return f"{size_bytes // GB}GB"
    return f"{size_bytes // MB}MB" if size_bytes % MB == 0 else f"{size_bytes / MB:.1f}MB"
