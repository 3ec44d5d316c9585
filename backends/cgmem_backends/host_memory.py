"""The machine's memory: /proc/meminfo on Linux, psutil elsewhere.

Source: Documentation/filesystems/proc.rst, "meminfo"; sysconf(3).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from cgmem.contract import Headroom, SystemMemory

MEMINFO = "/proc/meminfo"
_READ_BYTES = 16384  # the file has about 1.5 kB
_KEYS = ("MemTotal", "MemAvailable", "MemFree", "Buffers", "Cached", "Shmem", "SwapFree")
_STARTS = {key: f"\n{key}:".encode() for key in _KEYS}


def read_system_memory(headroom: Callable[[], Headroom | None] = lambda: None) -> SystemMemory:
    """Look once at the machine's memory, and at what the own cgroup has left.

    Raises what `headroom` raises.
    """
    memory = _linux() if sys.platform == "linux" else _elsewhere()
    return memory._replace(headroom=headroom())


def parse_meminfo(text: bytes) -> dict[str, int]:
    """Parse the "KEY: N kB" lines that matter into bytes. One of another shape is skipped."""
    found: dict[str, int] = {}
    lines = b"\n" + text
    for key, start in _STARTS.items():
        at = lines.find(start)
        value, _, _ = lines[at + len(start) :].partition(b"\n") if at >= 0 else (b"", b"", b"")
        match value.split():
            case [number, b"kB"] if number.isdigit():
                found[key] = int(number) * 1024
    return found


def memory_from_meminfo(meminfo: Mapping[str, int]) -> SystemMemory | None:
    """What parsed /proc/meminfo says; None if it lacks the total or the free memory."""
    total = meminfo.get("MemTotal")
    available = meminfo.get("MemAvailable")  # since 3.14; some emulated kernels lack it
    if available is None:
        available = _estimated_available(meminfo)
    if total is None or available is None:
        return None
    return SystemMemory(
        total_bytes=total,
        available_bytes=min(available, total),
        swap_free_bytes=meminfo.get("SwapFree", 0),
    )


def _estimated_available(meminfo: Mapping[str, int]) -> int | None:
    """Free memory and the page cache, less tmpfs: `Cached` counts it and nobody gives it back."""
    free = meminfo.get("MemFree")
    if free is None:
        return None
    cache = meminfo.get("Buffers", 0) + meminfo.get("Cached", 0) - meminfo.get("Shmem", 0)
    return free + max(0, cache)


def _linux() -> SystemMemory:
    try:
        memory = memory_from_meminfo(parse_meminfo(_read(MEMINFO)))
    except OSError:
        memory = None
    return memory or _from_sysconf()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _from_sysconf() -> SystemMemory:
    """Without /proc (a bare chroot): sysinfo(2), which takes the page cache for used."""
    page = os.sysconf("SC_PAGE_SIZE")
    return SystemMemory(
        total_bytes=page * os.sysconf("SC_PHYS_PAGES"),
        available_bytes=page * os.sysconf("SC_AVPHYS_PAGES"),
    )


def _elsewhere() -> SystemMemory:
    import psutil

    memory = psutil.virtual_memory()
    return SystemMemory(
        total_bytes=memory.total,
        available_bytes=min(memory.available, memory.total),
        swap_free_bytes=psutil.swap_memory().free,
    )
