"""`cgmem trace` with the kernel's own events: nothing lives too shortly to be named."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real

TRACE = (sys.executable, "-m", "cgmem", "trace")
STORM = "i=0; while [ $i -lt 400 ]; do (:); i=$((i+1)); done"

# Has a child that takes 40 MB for 50 ms and ends with 7, and others that take nothing.
FAMILY = """
import subprocess, sys, time
hog = "import mmap, sys, time; m = mmap.mmap(-1, 40 << 20); m[::4096] = bytes(10240);"
hog += "time.sleep(0.05); sys.exit(7)"
for _ in range(3):
    subprocess.run(["true"])
subprocess.run([sys.executable, "-I", "-S", "-c", hog])
sys.exit(3)
"""


def test_a_hog_of_50_ms_is_named(tmp_path: Path) -> None:
    """The child of a moment has its peak, its life, its end and its parent; nothing is missing."""
    real.need_cgroup2()
    real.need_root()
    done = subprocess.run(
        [*TRACE, "--max", "256M", "--json", "--", sys.executable, "-I", "-S", "-c", FAMILY],
        cwd=tmp_path,
        env=real.environment(),
        stdout=subprocess.PIPE,
        timeout=2 * PATIENCE,
        check=False,
    )
    answer = json.loads(done.stdout)
    hog, processes = answer["hog"], answer["processes"]

    assert done.returncode == 3
    assert (answer["complete"], answer["cannot"]) == (True, {})
    assert hog["peak_kib"] > 40 << 10
    assert (hog["exit_code"], hog["signal"]) == (7, None)
    assert hog["seconds"] >= 0.05
    assert "-c" in hog["command"] or hog["command"].startswith("python3")
    (parent,) = (one for one in processes if one["pid"] == hog["ppid"])
    assert parent["exit_code"] == 3
    # One that had ended before its command line was read has its name, in brackets.
    assert [one["command"].strip("[]") for one in processes].count("true") == 3
    # The command, its four children, and nobody of cgmem's own.
    assert len(processes) == 5


def test_the_tracer_stays_small_in_a_storm_of_forks() -> None:
    """What it has not read waits in the kernel, not in its memory: a storm costs it nothing."""
    real.need_root()
    tracer = subprocess.Popen(
        [sys.executable, "-m", "cgmem_backends.process_events"],
        env=real.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tracer.stdin is not None
    assert tracer.stdout is not None
    try:
        assert [json.loads(tracer.stdout.readline())["event"] for _ in (1, 2)] == ["ready"] * 2
        before, told = resident_kib(tracer.pid), list[int]()
        reader = threading.Thread(target=told.extend, args=(map(len, tracer.stdout),))
        reader.start()
        subprocess.run(["sh", "-c", STORM], check=True)
        grown = resident_kib(tracer.pid) - before
    finally:
        tracer.stdin.close()
        tracer.wait(PATIENCE)
    reader.join()
    tracer.stdout.close()

    assert len(told) > 100  # the kernel dropped the others, as it may
    assert grown < 4 << 10


def resident_kib(pid: int) -> int:
    """VmRSS of a process."""
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1])
