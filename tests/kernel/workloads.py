"""Programs that fill, read, map, walk or leak memory in known ways, each sized to a budget.

Used by the tests of stalls and of false alarms, and by the recorder, so that all speak of the same
programs. Standard library only; they run where nothing but Python and a shell is installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cgmem.contract import MB, Thresholds
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real

ON_DISK = Path("/var/tmp")
ON_TMPFS = Path("/dev/shm")


class Budget(NamedTuple):
    """How large a case is, and how it is looked at."""

    critical_mb: int
    tick: float
    stall_after: float
    seconds: float
    """How long a case that has no end of its own is watched."""
    patience: float
    """When a case that should have ended is given up."""
    full_size: bool = False

    @property
    def thresholds(self) -> Thresholds:
        """The spec's 1:2:4."""
        return Thresholds(
            self.critical_mb * MB // 2, self.critical_mb * MB, self.critical_mb * MB * 2
        )

    def settings(self) -> dict[str, object]:
        """Return what a supervisor takes for this budget."""
        warning, critical, limit = self.thresholds
        sizes = {"warning": f"{warning}B", "critical": f"{critical}B", "max": f"{limit}B"}
        return {**sizes, "tick": self.tick, "stall_after": self.stall_after}


SHORT = Budget(32, 0.5, 2.0, 5.0, PATIENCE)
FULL = Budget(200, 2.0, 10.0, 36.0, 3000.0, full_size=True)


class Workload(NamedTuple):
    """One program. `command` gets the budget and a path of its own for files."""

    title: str
    command: Callable[[Budget, Path], list[str]]
    place: Path = ON_DISK
    """Where its file or directory goes."""
    swap: str | None = None
    """What of swap it may use, as --swap."""
    file_mb: Callable[[Budget], int] | None = None
    """Size of a file to have ready, uncached, at its path."""


def _leak(budget: Budget, _path: Path) -> list[str]:
    return real.python(real.LEAK, budget.critical_mb * 8)


def _several(budget: Budget, _path: Path) -> list[str]:
    code = "import os\nos.fork(); os.fork()\n" + real.LEAK
    return real.python(code, budget.critical_mb * 8)


def _beside_a_spin(budget: Budget, _path: Path) -> list[str]:
    code = "import os\nif os.fork() == 0:\n    while True: pass\n" + real.LEAK
    return real.python(code, budget.critical_mb * 8)


FILL = """
import sys
block = b"x" * (1 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    for _ in range(int(sys.argv[2])):
        file.write(block)
"""


def _fill(budget: Budget, path: Path) -> list[str]:
    return real.python(FILL, path, budget.critical_mb * 8)


READ = """
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.read(1 << 20):
        pass
"""


def _read(_budget: Budget, path: Path) -> list[str]:
    return real.python(READ, path)


def _file_mb(budget: Budget) -> int:
    return 1024 if budget.full_size else budget.critical_mb * 4


def _write(budget: Budget, path: Path) -> list[str]:
    return real.python(FILL, path, _file_mb(budget))


MAP = """
import mmap, sys, time
ends = time.monotonic() + float(sys.argv[2])
with open(sys.argv[1], "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while time.monotonic() < ends:
    for at in range(0, len(memory), 1 << 20):
        memory[at : at + (1 << 20) : 4096]
"""


def _map(budget: Budget, path: Path) -> list[str]:
    # Long enough to be judged twice once it is at the brake.
    return real.python(MAP, path, budget.seconds + 2 * budget.stall_after)


NEAR = """
import mmap, sys, time
from pathlib import Path
group = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
current = Path("/sys/fs/cgroup" + group, "memory.current")
aim, churn, ends = int(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
def take(size):
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # 2 MB at a time would not stop below
    memory[::4096] = b"x" * len(range(0, size, 4096))
    return memory
held = []
while int(current.read_text()) < aim - churn:
    held.append(take(1 << 19))
while time.monotonic() < ends:
    taken = [take(1 << 19) for _ in range(churn >> 19)]
    sum(number * number for number in range(20000))
    del taken
"""
"""Holds memory.current just below argv[1] bytes, taking and giving back argv[2] of it."""


def _near(budget: Budget, _path: Path) -> list[str]:
    return real.python(NEAR, (budget.critical_mb - 2) * MB, MB, budget.seconds)


def _collected(budget: Budget, _path: Path) -> list[str]:
    high = budget.critical_mb * MB
    return real.python(NEAR, high * 90 // 100, high // 2, budget.seconds)


PROGRESS = """
import mmap, sys
held = []
for number in range(int(sys.argv[1])):
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = number.to_bytes(4, "little") * (1 << 18)
    sum(value * value for value in range(20000))
    held.append(memory)
"""


def _progress(budget: Budget, _path: Path) -> list[str]:
    # 200 MB of swap, and others have some of it: where it is full, this is a leak.
    return real.python(PROGRESS, budget.critical_mb + (120 if budget.full_size else 32))


WALK = """
import os, sys
root, names = sys.argv[1], int(sys.argv[2])
files, links = (names // 50, 50) if names > 100_000 else (names, 1)
for number in range(files):
    if number % 1000 == 0:
        directory = f"{root}/{number // 1000}"
        os.makedirs(directory)
    path = f"{directory}/{number}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    for other in range(1, links):
        os.link(path, f"{path}-{other}")
seen = 0
for directory, _, found in os.walk(root):
    for name in found:
        os.stat(f"{directory}/{name}")
        seen += 1
assert seen == names, seen
"""
"""Makes argv[2] names and walks them. A million: 50 names a file, for lack of inodes."""


def _walk(budget: Budget, path: Path) -> list[str]:
    return real.python(WALK, path, 1_000_000 if budget.full_size else 11_000)


SHARE = """
import mmap, os, sys, time
size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
memory[::4096] = b"x" * len(range(0, size, 4096))
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        break
memory[::4096]
time.sleep(float(sys.argv[3]))
"""


def _share(budget: Budget, _path: Path) -> list[str]:
    processes = 20 if budget.full_size else 3  # each has some 2.5 MB of its own
    return real.python(SHARE, budget.critical_mb // 5, processes, budget.seconds)


BUILD = """
compile() {
    mkdir -p "$1"
    for unit in $(seq "$3"); do
        head -c 32768 "$2" | sort | cksum > "$1/$unit.s"
        cat "$2" "$2" | tee "$1/$unit.d" > "$1/$unit.o"
        (wc -c < "$1/$unit.s") > "$1/$unit.log"
    done
}
for job in 1 2 3 4; do compile "$1/$job" "$0" "$2" & done
wait
cat "$1"/*/*.[do] > "$1/linked"
sleep "$3"
"""
"""Four jobs at a time, eight forks a unit, 1 MB of source; a unit leaves 4 MB, to be looked at."""


def _build(budget: Budget, path: Path) -> list[str]:
    source = path.with_suffix(".source")
    source.write_text("".join(f"{number * 7919 % 100003:031}\n" for number in range(32768)))
    units = 25 if budget.full_size else 1
    return ["/bin/sh", "-c", BUILD, str(source), str(path), str(units), str(3 * budget.tick)]


LEAKS = {
    "leak": Workload("an anonymous leak", _leak),
    "leak-several": Workload("four processes leaking at once", _several),
    "leak-beside-spin": Workload("one leaking beside one that spins", _beside_a_spin),
    "leak-into-swap": Workload("a leak that may use 16 MB of swap", _leak, swap="16M"),
    "tmpfs": Workload("tmpfs filled", _fill, ON_TMPFS),
}
HONEST = {
    "read": Workload("reading a file of 4 x high, 1 GB at full size", _read, file_mb=_file_mb),
    "write": Workload("writing a file of 4 x high, 1 GB at full size", _write),
    "metadata": Workload("a metadata walk, over a million names at full size", _walk),
    "shared": Workload("memory shared by 20 processes (3 at the small size)", _share),
    "build": Workload("a fork-heavy build", _build),
    "near": Workload("computing 2 MB below high", _near),
    "collected": Workload("a garbage collector's saw-tooth below high", _collected),
    "swap-progress": Workload("swap filling while the job progresses", _progress, swap="max"),
}
THRASHING = {
    "mapped": Workload(
        "a mapped file of 1.5 x high, read again and again",
        _map,
        file_mb=lambda budget: budget.critical_mb * 3 // 2,
    ),
}
WORKLOADS = {**LEAKS, **HONEST, **THRASHING}


@contextmanager
def prepared(name: str, budget: Budget) -> Iterator[list[str]]:
    """Give the command, its file ready; remove what it left."""
    workload = WORKLOADS[name]
    path = workload.place / f"cgmem-test-{name}-{os.getpid()}"
    try:
        if workload.file_mb is not None:
            make_file(path, workload.file_mb(budget))
        yield workload.command(budget, path)
    finally:
        subprocess.run(["rm", "-rf", str(path), str(path.with_suffix(".source"))], check=True)


def make_file(path: Path, megabytes: int) -> None:
    """Write a file and leave nothing of it in the page cache: that would be charged to us."""
    source = ["if=/dev/zero", "bs=1M", f"count={megabytes}", "conv=fsync"]
    drop = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0"]  # dd(1): only what is on disk
    for what in (source, drop):
        subprocess.run(["dd", f"of={path}", "status=none", *what], check=True)


def has_psi() -> bool:
    """Whether the kernel was booted with pressure stall information."""
    return Path("/proc/pressure/memory").exists()


def has_swap() -> bool:
    """Whether swap is on."""
    return len(Path("/proc/swaps").read_text().splitlines()) > 1
