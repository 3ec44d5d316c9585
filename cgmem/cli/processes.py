"""The processes of a scope for people: pid, memory, command line."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cgmem.contract import MB, Snapshot
from cgmem.text.sizes import mb

PATIENCE_SECONDS = 0.5
"""A command line is read under the target's mmap lock, and a stuck process may hold that."""

_LONGEST_COMMAND = 4096


class Seen(NamedTuple):
    """One process as it is now."""

    pid: int
    rss_mb: float | None
    """Resident memory; None where it isn't to be had."""
    command: str
    ppid: int = 0
    """Its parent; 0 where that isn't known."""
    pss_mb: float | None = None
    """Its share of what it maps (PSS); None where nobody read it."""


def as_tree(processes: Sequence[Seen]) -> list[tuple[int, Seen]]:
    """Order processes as a tree: (depth, process), the one with the most below it first."""
    known = {process.pid for process in processes}
    children = defaultdict[int, list[Seen]](list)
    for process in processes:
        # What lost its parent, or has it outside, stands at the top.
        children[process.ppid if process.ppid in known else 0].append(process)

    def weight(process: Seen) -> float:
        return (process.rss_mb or 0.0) + sum(map(weight, children[process.pid]))

    def below(pid: int, depth: int) -> Iterator[tuple[int, Seen]]:
        for process in sorted(children[pid], key=weight, reverse=True):
            yield depth, process
            yield from below(process.pid, depth + 1)

    return list(below(0, 0))


def with_pss(processes: Sequence[Seen], snapshot: Snapshot) -> list[Seen]:
    """Add what a snapshot knows of each."""
    known = {one.pid: one.memory_bytes for one in snapshot.processes if one.metric == "pss"}
    return [
        seen._replace(pss_mb=mb(known[seen.pid])) if seen.pid in known else seen
        for seen in processes
    ]


def look(pids: Sequence[int]) -> list[Seen]:
    """Look at processes; those that have ended are left out."""
    return _read_proc(pids) if sys.platform == "linux" else _ask_ps(pids)


def status_of(pid: int, errors: str = "surrogateescape") -> dict[str, str]:
    """/proc/PID/status by key (proc_pid_status(5)). Raises `OSError` once it has ended."""
    text = Path(f"/proc/{pid}/status").read_text(errors=errors)
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def command_of(cmdline: bytes, errors: str = "surrogateescape") -> str:
    """The words of /proc/PID/cmdline on one line; empty for a kernel thread and a zombie."""
    words = cmdline.rstrip(b"\0").split(b"\0")
    return " ".join(word.decode(errors=errors) for word in words)


def _read_proc(pids: Sequence[int]) -> list[Seen]:
    commands = _commands(pids)
    found = []
    for pid in pids:
        with suppress(OSError, ValueError):
            fields = status_of(pid)
            rss = fields.get("VmRSS")
            rss_mb = None if rss is None else round(int(rss.split()[0]) * 1024 / MB, 1)
            found.append(
                Seen(pid, rss_mb, commands.get(pid) or f"[{fields['Name']}]", int(fields["PPid"]))
            )
    return found


def _commands(pids: Sequence[int]) -> dict[int, str]:
    """Read command lines in a thread; those that can't be had in time are left out."""
    commands: dict[int, str] = {}

    def read() -> None:
        for pid in pids:
            with suppress(OSError), Path(f"/proc/{pid}/cmdline").open("rb") as file:
                commands[pid] = command_of(file.read(_LONGEST_COMMAND))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(PATIENCE_SECONDS)
    return commands.copy()


def _ask_ps(pids: Sequence[int]) -> list[Seen]:
    try:
        listing = subprocess.run(
            ["ps", "-o", "pid=,ppid=,rss=,args=", "-p", ",".join(map(str, pids))],
            capture_output=True,
            errors="surrogateescape",
            timeout=5,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return [Seen(pid, None, "") for pid in pids]
    found = []
    for line in listing.splitlines():
        pid, ppid, rss, *command = line.split(None, 3)
        found.append(Seen(int(pid), round(int(rss) * 1024 / MB, 1), "".join(command), int(ppid)))
    return found
