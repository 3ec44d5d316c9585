"""Cgroups made by hand, for the peers that want one ready; in a guest only, as root."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.measure import Absent

_MOUNT = Path("/sys/fs/cgroup")
_BASE = _MOUNT / "cgmem-bench"
_numbers = itertools.count(1)


@contextmanager
def made(limit: int | None) -> Iterator[Path]:
    """Give a cgroup with memory.max = `limit` bytes and no swap; end what is in it, remove it.

    Raises Absent where that can't be done or is nobody's business: a host's cgroups are its own.
    """
    directory = _base() / f"{os.getpid()}-{next(_numbers)}"
    directory.mkdir()
    try:
        if limit is not None:
            (directory / "memory.max").write_text(str(limit))
            (directory / "memory.swap.max").write_text("0")
        yield directory
    finally:
        _remove(directory)


def bare_budget() -> None:
    """What a budget asks of the kernel at the least: mkdir, two limits, two last reads, rmdir."""
    directory = _base() / f"{os.getpid()}-{next(_numbers)}"
    directory.mkdir()
    for name, limit in (("memory.max", b"268435456"), ("memory.swap.max", b"0")):
        file = os.open(f"{directory}/{name}", os.O_WRONLY)
        os.write(file, limit)
        os.close(file)
    for name in ("memory.peak", "memory.events"):
        file = os.open(f"{directory}/{name}", os.O_RDONLY)
        os.read(file, 512)
        os.close(file)
    directory.rmdir()


def _base() -> Path:
    if "CGMEM_IN_GUEST" not in os.environ:
        raise Absent("needs a cgroup made by hand: only in the guest")
    if os.geteuid() != 0:
        raise Absent("needs a cgroup made by hand: only for root")
    if not (_BASE / "memory.max").exists():
        (_MOUNT / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        _BASE.mkdir(exist_ok=True)
        (_BASE / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    return _BASE


def _remove(directory: Path) -> None:
    """rmdir(2) of a tree of cgroups; whoever is still inside is killed."""
    if "populated 1" in (directory / "cgroup.events").read_text():
        (directory / "cgroup.kill").write_text("1")
    for child in [*directory.iterdir()]:
        if child.is_dir():
            _remove(child)
    until = time.monotonic() + 10
    while True:
        try:
            directory.rmdir()
        except OSError:  # the killed are not gone yet
            if time.monotonic() > until:
                raise
            time.sleep(0.002)
        else:
            return


def entering(directory: Path, words: list[str]) -> list[str]:
    """The command that enters a cgroup by a shell and becomes `words`."""
    script = 'echo $$ > "$0"; exec "$@"'
    return ["sh", "-c", script, os.fspath(directory / "cgroup.procs"), *words]


def end_unit(unit: str) -> None:
    """Kill what a unit of systemd's still holds."""
    with suppress(OSError):
        command = ["systemctl", "kill", "-s", "KILL", unit]
        subprocess.run(command, check=False, capture_output=True)
