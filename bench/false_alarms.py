"""Honest work under a budget: how often is an alarm raised that nobody needs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from bench.cgroups import entering, made
from bench.measure import Contender, Metric, Question, Row, Taken, compared
from bench.peers import cgmem_command
from bench.poller import summed_rss

WARNING_MB, CRITICAL_MB, MAX_MB = 64, 128, 256
FILE_MB = 1024
_LOOK_SECONDS = 0.25

_READ = f"""
import os, sys
for _ in range(2):
    with open(sys.argv[1], "wb") as file:
        file.truncate({FILE_MB} << 20)
    with open(sys.argv[1], "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
"""
"""A file of holes fills the page cache as any other. Each is read once: what is read again and
does not fit is thrashing, and a word about that is not false."""
_WRITE = f"""
import sys
block = b"x" * (1 << 20)
for _ in range(2):
    with open(sys.argv[1], "wb", buffering=0) as file:
        for _ in range({FILE_MB} // 2):
            file.write(block)
"""
_TMPFS = """
import os, sys
block = b"x" * (1 << 20)
for number in range(25):
    path = f"/dev/shm/cgmem-bench-{os.getpid()}"
    with open(path, "wb", buffering=0) as file:
        for _ in range(40):
            file.write(block)
    os.unlink(path)
"""
_SHARED = """
import mmap, os, time
memory = mmap.mmap(-1, 40 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
memory[::4096] = b"x" * (len(memory) // 4096)
for _ in range(7):
    if os.fork() == 0:
        break
memory[::4096]
time.sleep(5)
"""
_BUILD = """
mkdir "$0.d" && cd "$0.d" || exit 1
head -c 1000000 /dev/urandom > source
compile() {
    for unit in $(seq 12); do
        head -c 32768 source | sort | cksum > "$1.$unit.s"
        cat source source source | tee "$1.$unit.d" > "$1.$unit.o"
    done
}
for job in 1 2 3 4; do compile $job & done
wait
cat *.o > linked
"""
_SPEAKING_OF = {
    f"reading {2 * FILE_MB} MB of files": ("python", _READ),
    f"writing {FILE_MB} MB of files": ("python", _WRITE),
    "1000 MB through tmpfs, 40 at a time": ("python", _TMPFS),
    "8 processes that share 40 MB": ("python", _SHARED),
    "a fork-heavy build": ("sh", _BUILD),
}


def _rows(rounds: int) -> Iterable[Row]:
    for scene, (language, code) in _SPEAKING_OF.items():
        contenders = [
            Contender(name, partial(_run, way, language, code)) for name, way in _WAYS.items()
        ]
        yield from compared(scene, contenders, rounds=rounds)


def _run(way: Callable[[Sequence[str], Path], Taken], language: str, code: str) -> Taken:
    interpreter = [sys.executable, "-I", "-S"] if language == "python" else ["sh"]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # /tmp may be a tmpfs
        return way([*interpreter, "-c", code, f"{directory}/file"], Path(directory))


def _cgmem(words: Sequence[str], directory: Path) -> Taken:
    report = directory / "report"
    sizes = {"--warning": WARNING_MB, "--critical": CRITICAL_MB, "--max": MAX_MB}
    given = [word for flag, size in sizes.items() for word in (flag, f"{size}M")]
    own = ["run", "-q", *given, "--log-dir", str(directory), "--report", str(report)]
    done = subprocess.run([*cgmem_command(), *own, "--", *words], check=False, capture_output=True)
    found = json.loads(report.read_text())
    return {
        "alarms": float(len(found["warnings"])),
        "highest seen, MB": float(found["peak_mb"]),
        "ended by it": float(done.returncode != 0),
        "said": "; ".join(found["warnings"])[:200],
    }


def _current(words: Sequence[str], _directory: Path) -> Taken:
    with made(MAX_MB << 20) as directory:
        current = directory / "memory.current"
        with subprocess.Popen(entering(directory, [*words]), stdout=subprocess.DEVNULL) as process:
            return _watched(process, lambda: int(current.read_text()))


def _rss(words: Sequence[str], _directory: Path) -> Taken:
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        return _watched(process, lambda: summed_rss(root)[0])


def _watched(process: subprocess.Popen[bytes], read: Callable[[], int]) -> Taken:
    """Count how often a number gets past each threshold; what acts on it kills at the last."""
    alarms, highest, before = 0, 0.0, 0.0
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        with suppress(OSError):
            now = read() / 2**20
            alarms += sum(before < limit <= now for limit in (WARNING_MB, CRITICAL_MB, MAX_MB))
            highest, before = max(highest, now), now
    return {
        "alarms": float(alarms),
        "highest seen, MB": highest,
        "ended by it": float(highest >= MAX_MB),
    }


_WAYS = {
    "cgmem run": _cgmem,
    "memory.current > threshold": _current,
    "summed RSS > threshold": _rss,
}

QUESTION = Question(
    "false_alarms",
    "Honest work: alarms, all of them false",
    (Metric("alarms", 0), Metric("highest seen, MB", 0), Metric("ended by it", 0)),
    _rows,
    rounds=1,
    quick=1,
    about=(
        f"Warning {WARNING_MB}, critical {CRITICAL_MB}, hard limit {MAX_MB} MB, scaled to the guest"
        " (page cache does not care how much passes through it). None of it holds more than 45 MB"
        " that the kernel can't take back. The other two look four times a second and would act at"
        " the hard limit (`ended by it`); memory.current is under that limit alone."
    ),
)
