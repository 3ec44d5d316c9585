"""What a user would pick instead, each as a command around a command.

A peer that is not there, or can't work here, raises Absent with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import cgroups
from bench.measure import Absent


class Budget(NamedTuple):
    """What a command may have, and a directory for the peer's own files."""

    limit: int
    directory: Path


Words = Sequence[str]
Peer = Callable[[Budget, Words], AbstractContextManager[list[str]]]
"""Gives the whole command; what it needs is there until the context ends."""

HUNG_SECONDS = 180.0
"""When a command is given up; nothing here takes half of it, emulated on a busy host."""
POLLER = "2 s psutil poller"
SYSTEMD = "systemd-run --scope"


def program(name: str) -> str:
    """The path of a program, as a virtual environment or PATH has it. Raises Absent."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise Absent(f"no {name} here")
    return found


def cgmem_command() -> list[str]:
    """`cgmem`, as installed."""
    try:
        return [program("cgmem")]
    except Absent:
        return [sys.executable, "-m", "cgmem"]


def _cgmem(*options: str) -> Peer:
    @contextmanager
    def wrapped(budget: Budget, words: Words) -> Iterator[list[str]]:
        limit, logs = f"{budget.limit}B", str(budget.directory)
        yield [
            *(*cgmem_command(), "run", "-q", "--max", limit, "--log-dir", logs, "--no-preflight"),
            *(*options, "--", *words),
        ]

    return wrapped


@contextmanager
def _nothing(_budget: Budget, words: Words) -> Iterator[list[str]]:
    yield [*words]


@contextmanager
def _poller(budget: Budget, words: Words) -> Iterator[list[str]]:
    yield [sys.executable, "-m", "bench.poller", "--max", str(budget.limit), "--", *words]


@contextmanager
def _scope(budget: Budget, words: Words) -> Iterator[list[str]]:
    if not Path("/run/systemd/system").is_dir():
        raise Absent("systemd does not manage this host")
    manager = [] if os.geteuid() == 0 else ["--user"]
    limits = ["-p", f"MemoryMax={budget.limit}", "-p", "MemorySwapMax=0"]
    unit = f"cgmem-bench-{time.monotonic_ns()}.scope"
    command = [program("systemd-run"), *manager, "--quiet", "--scope", "--unit", unit, *limits]
    try:
        yield [*command, "--", *words]
    finally:
        if Path(f"/sys/fs/cgroup/system.slice/{unit}").exists():  # it left processes behind
            cgroups.end_unit(unit)


@contextmanager
def _shell(budget: Budget, words: Words) -> Iterator[list[str]]:
    with cgroups.made(budget.limit) as directory:
        yield cgroups.entering(directory, [*words])


@contextmanager
def _cgexec(budget: Budget, words: Words) -> Iterator[list[str]]:
    command = program("cgexec")
    with cgroups.made(budget.limit) as directory:
        yield [command, "-g", f"memory:{directory.relative_to('/sys/fs/cgroup')}", *words]


@contextmanager
def _runexec(budget: Budget, words: Words) -> Iterator[list[str]]:
    """In a cgroup of its own, as its manual asks for; in its default container mode."""
    command = program("runexec")
    output = str(budget.directory / "runexec.out")
    own = ["--quiet", "--read-only-dir", "/", "--full-access-dir", str(budget.directory)]
    with cgroups.made(None) as directory:
        limit = ["--memlimit", str(budget.limit), "--output", output]
        yield cgroups.entering(directory, [command, *own, *limit, "--", *words])


@contextmanager
def _runexec_bare(budget: Budget, words: Words) -> Iterator[list[str]]:
    command = program("runexec")
    output = str(budget.directory / "runexec.out")
    with cgroups.made(None) as directory:
        limit = ["--memlimit", str(budget.limit), "--output", output]
        words = [command, "--quiet", "--no-container", *limit, "--", *words]
        yield cgroups.entering(directory, words)


@contextmanager
def _duct(budget: Budget, words: Words) -> Iterator[list[str]]:
    prefix = str(budget.directory / f"duct-{time.monotonic_ns()}-")
    yield [program("con-duct"), "run", "-l", "NONE", "-c", "none", "-p", prefix, *words]


@contextmanager
def _psrecord(budget: Budget, words: Words) -> Iterator[list[str]]:
    log = str(budget.directory / "psrecord.log")
    own = ["--include-children", "--interval", "1", "--log", log]
    yield [program("psrecord"), shlex.join(words), *own]


@contextmanager
def _time(_budget: Budget, words: Words) -> Iterator[list[str]]:
    yield [program("/usr/bin/time"), "-v", *words]


@contextmanager
def _earlyoom(budget: Budget, words: Words) -> Iterator[list[str]]:
    """For the whole machine: it may use as much as now and the budget."""
    available = _available_kib() - budget.limit // 1024
    command = [program("earlyoom"), "-r", "0", "-M", f"{available},{available}", "-s", "100,100"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as daemon:
        patience = threading.Timer(HUNG_SECONDS, daemon.kill)
        patience.start()
        try:
            assert daemon.stdout is not None
            if not any("SIGKILL when" in line for line in daemon.stdout):
                raise Absent("it did not say its thresholds")
            patience.cancel()
            yield [*words]
        finally:
            patience.cancel()
            daemon.kill()


def _available_kib() -> int:
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    if found is None:
        raise Absent("no MemAvailable here")
    return int(found[1])


PEERS: dict[str, Peer] = {
    "none": _nothing,
    "cgmem run": _cgmem(),
    "cgmem run --backend psutil": _cgmem("--backend", "psutil"),
    POLLER: _poller,
    SYSTEMD: _scope,
    "sh: echo $$ > cgroup.procs": _shell,
    "cgexec": _cgexec,
    "runexec": _runexec,
    "runexec --no-container": _runexec_bare,
    "con-duct": _duct,
    "psrecord": _psrecord,
    "/usr/bin/time -v": _time,
    "earlyoom": _earlyoom,
}


def finished(words: Words) -> str:
    """Run a command to its end and return what it said. Raises Absent where it fails or hangs."""
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=HUNG_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"not done after {HUNG_SECONDS:.0f} s") from None
    if done.returncode:
        raise Absent(f"failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout + done.stderr


def finished_under(name: str, budget: Budget, words: Words) -> None:
    """Run a command under a peer to its end. Raises Absent where that fails."""
    with PEERS[name](budget, words) as command:
        finished(command)
