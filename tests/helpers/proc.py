"""What proc(5) tells about processes, this one among them."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil


def state(pid: int) -> str:
    """Return a process's state letter from proc_pid_stat(5); empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def running(pid: int) -> bool:
    """Whether a process is there and has not ended: an orphan may wait for its reaper."""
    return state(pid) not in ("", "Z", "X")


def open_descriptors() -> set[str]:
    """Name this process's descriptors, without those of what nobody holds any more."""
    gc.collect()
    found = set()
    for entry in Path("/dev/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}".removesuffix(" (deleted)"))
        except FileNotFoundError:  # that of the listing itself
            continue
        except OSError:  # macOS has no links there
            found.add(entry.name)
    return found


def children() -> set[int]:
    """Pids of this process's children, zombies too, also those that another test has left."""
    return {child.pid for child in psutil.Process().children()}
