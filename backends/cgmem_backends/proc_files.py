"""Parsers for the /proc/PID files that tell of a process's memory. Source: proc(5).

Documentation/filesystems/proc.rst for smaps_rollup.
"""

from __future__ import annotations

import os

from cgmem.shapes import NamedTuple
from cgmem_backends import process_stat
from cgmem_backends.process_tree import Process

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class Rollup(NamedTuple):
    """smaps_rollup (since 4.14): shared pages divided by the number of their users."""

    pss_bytes: int
    swap_pss_bytes: int


def parse_stat(content: bytes) -> Process | None:
    """Parse /proc/PID/stat; None when it is not one."""
    pid, name, fields = process_stat.split_stat(content)
    # One more than is used, so that the last number is not a torn one.
    if len(fields) <= process_stat.RSS + 1:
        return None
    try:
        state = fields[process_stat.STATE].decode("ascii")
        threads, rss_pages = int(fields[process_stat.THREADS]), int(fields[process_stat.RSS])
        return Process(
            pid=int(pid),
            ppid=int(fields[process_stat.PPID]),
            session=int(fields[process_stat.SESSION]),
            state=state,
            start=int(fields[process_stat.START]),
            rss_bytes=max(0, rss_pages) * PAGE_SIZE,
            # A leader that called pthread_exit is a Z whose other threads run on.
            ended=state in ("Z", "X", "x") and threads <= 1,
            name=os.fsdecode(name),
        )
    except ValueError:
        return None


def parse_smaps_rollup(content: bytes) -> Rollup | None:
    """Parse the sums of /proc/PID/smaps_rollup; None when `Pss` is not there."""
    sums: dict[bytes, int] = {}
    for line in content.splitlines():
        key, colon, value = line.partition(b":")
        words = value.split()
        if colon and len(words) == 2 and words[1] == b"kB" and words[0].isdigit():
            sums[key] = int(words[0]) * 1024
    if b"Pss" not in sums:
        return None
    return Rollup(sums[b"Pss"], sums.get(b"SwapPss", 0))
