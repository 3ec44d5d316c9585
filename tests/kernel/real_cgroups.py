"""What the kernel tests share: a supervisor, a delegated stage to act on, waiting, child programs.

Everything here needs a real cgroup v2. Where there is none, the tests skip on a host and fail in
a guest, which is meant to have one.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cgmem
import cgmem_backends
from cgmem.contract import MB, Limits, ScopeRecord
from cgmem.supervising.supervisor import Supervisor
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.linux_calls import set_xattr
from tests.helpers.waiting import PATIENCE, until

IN_GUEST = "CGMEM_IN_GUEST" in os.environ
"""In a guest, which is meant to have what the tests need: what it lacks is a failure there."""
LONG_TICK = 3600.0
"""A tick that can't be what made something known: nobody waits so long (see PATIENCE)."""

ROOTS = (Path(cgmem.__file__).parents[1], Path(cgmem_backends.__file__).parents[1])

LEAK = """
import mmap, sys
held = []
for _ in range(int(sys.argv[1]) // 4):
    held.append(mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    held[-1][::4096] = b"x" * 1024
print("done", flush=True)
"""
"""Takes argv[1] MB as fast as it can, touches every page, says "done"."""

AWAY = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec(sys.argv[2])
    os._exit(0)
os.wait()
import time
time.sleep(600)
"""
"""Runs argv[2] in a grandchild that left the session and lost its parent, and stays."""

CHOSEN = """
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")
"""
"""Makes itself the first choice of whoever kills for memory."""

PREY = (
    CHOSEN
    + """
import sys, time
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
print("ready", flush=True)
time.sleep(600)
"""
)
"""Holds argv[1] MB and says "ready"."""

_stages = itertools.count(1)


def need_cgroup2() -> None:
    """Skip, or fail in a guest, where this process's cgroup can't be divided."""
    found = Cgroup2Backend().probe()
    if found.usable:
        return
    if IN_GUEST:
        pytest.fail(f"a guest must have cgroup v2: {found.reason}")
    pytest.skip(found.reason)


def need_root() -> None:
    """Skip, or fail in a guest, where we are an ordinary user."""
    if os.geteuid() == 0:
        return
    if IN_GUEST:
        pytest.fail("a guest's kernel tests run as root")
    pytest.skip("only root can do this")


def python(code: str, *arguments: object) -> list[str]:
    """Return a command that runs `code`, without what makes Python slow to start."""
    return [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]


def a_record(subprocess_id: str = "kernel_test") -> ScopeRecord:
    """Return a record whose supervisor is this process."""
    return ScopeRecord(subprocess_id, os.getpid(), 0, time.time(), ("test",))


def just_below(megabytes: int) -> str:
    """Return a size a page below: a memory.high there brakes nothing before memory.max."""
    return f"{megabytes * MB - 4096}B"


def budget(megabytes: int) -> dict[str, str]:
    """Return thresholds whose brake is as good as none, so that the hard limit decides at once."""
    return {
        "warning": f"{megabytes // 2}M",
        "critical": just_below(megabytes),
        "max": f"{megabytes}M",
    }


def read(directory: Path, name: str) -> str:
    """Read a kernel file."""
    return (directory / name).read_text().strip()


def events(directory: Path, name: str = "memory.events") -> dict[str, int]:
    """Read a flat keyed file."""
    return {key: int(value) for key, value in map(str.split, read(directory, name).splitlines())}


def cgroup_of(pid: int) -> Path:
    """Return a process's cgroup directory, found without the code under test."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line[3:] for line in lines if line.startswith("0::"))
    return Path("/sys/fs/cgroup") / path.lstrip("/")


@contextmanager
def supervising(tmp_path: Path, **settings: object) -> Iterator[Supervisor]:
    """Give a supervisor on kernel limits alone; what still lives at the end is killed."""
    trouble: list[str] = []
    fixed = {"log_dir": str(tmp_path / "logs"), "preflight": False, "enforcement": "required"}
    supervisor = Supervisor({**fixed, **settings}, warn=trouble.append)
    try:
        yield supervisor
    finally:
        for supervision in supervisor.live():
            supervision.kill("abort")
            supervision.ended.wait(PATIENCE)
        supervisor.close()
    assert trouble == []


def scopes_below(directory: Path) -> list[str]:
    """Name the scopes that are there."""
    return sorted(path.name for path in directory.glob("cgmem-[0-9]*"))


def base() -> Path:
    """Return the directory of this process's scopes, ready for use."""
    scope, _ = Cgroup2Backend().open_scope(a_record(), Limits())
    directory = Path("/sys/fs/cgroup") / scope.location.lstrip("/")
    scope.close()
    scope.detach()
    return directory.parent


@contextmanager
def stage(**files: str) -> Iterator[Path]:
    """Give a delegated cgroup beside the scopes; `memory_max="64M"` sets its memory.max.

    It has no swap: what is swapped out of a supervisor inside can't come back at the limit, and one
    was seen to die of it without a word.
    """
    above = base()
    directory = above / f"stage-{os.getpid()}-{next(_stages)}"
    directory.mkdir()
    try:
        # What systemd sets for Delegate=yes.
        set_xattr(directory, "user.delegate", b"1")
        for name, value in files.items():
            (directory / name.replace("_", ".", 1)).write_text(value)
        with suppress(FileNotFoundError):  # the kernel was told not to count swap
            (directory / "memory.swap.max").write_text("0")
        yield directory
    finally:
        (directory / "cgroup.kill").write_text("1")
        assert until(lambda: events(directory, "cgroup.events")["populated"] == 0)
        for path in sorted(directory.glob("**/"), key=lambda found: -len(found.parts)):
            path.rmdir()


def clear(above: Path, supervisor: int) -> None:
    """Remove everything that a supervisor that was killed has left in a directory."""
    for name in ("cgmem", "cgmem-guard"):
        for directory in above.glob(f"{name}-{supervisor}-*"):
            (directory / "cgroup.kill").write_text("1")
            assert until(partial(_is_empty, directory))
            directory.rmdir()


def _is_empty(directory: Path) -> bool:
    return not read(directory, "cgroup.procs")


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a script finds cgmem."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*ROOTS, *sys.path[1:]))), **more}


PREAMBLE = """
import json, os, signal, sys, time
from pathlib import Path
import cgmem
from cgmem.supervising.supervisor import Supervisor
def say(**what):
    print(json.dumps(what), flush=True)
"""


class Script:
    """A supervisor in a process and, if asked for, a cgroup of its own; it speaks JSON lines."""

    def __init__(self, code: str, *arguments: object, inside: Path | None = None) -> None:
        command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
        if inside is not None:
            # $0 is the file; exec keeps the pid, so the script is alone in there.
            enter = 'echo $$ > "$0"; exec "$@"'
            command = ["/bin/sh", "-c", enter, str(inside / "cgroup.procs"), *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with self.process:
            pass

    def heard(self) -> dict[str, Any]:
        """Return the next thing it says; its error output if it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said_at_last = self.process.communicate()[1]
            pytest.fail(f"the script ended with {self.process.returncode}: {said_at_last}")
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self) -> None:
        """Let it go on, where it waits for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def note(text: str) -> None:
    """Leave a line for a reader of the report."""
    sys.stdout.write(f"{text}\n")


def kill_quietly(pid: int) -> None:
    """SIGKILL a process that may have gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
