"""A burst that is over before a poller looks: who has seen it."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from bench.measure import Absent, Contender, Metric, Question, Row, Taken, compared
from bench.peers import cgmem_command, finished, program

BURST_MB = 300
HELD_SECONDS = 0.05
_BURST = """
import mmap, os, sys, time
time.sleep(float(sys.argv[1]))
if os.fork() == 0:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    held = mmap.mmap(-1, int(sys.argv[2]) << 20, flags=flags)
    time.sleep(float(sys.argv[3]))
    os._exit(0)
os.wait()
time.sleep(3 - float(sys.argv[1]))
"""
_LIMIT = f"{4 * BURST_MB}M"


def _rows(rounds: int) -> Iterable[Row]:
    contenders = [Contender(name, partial(_run, way)) for name, way in _WAYS.items()]
    return compared("", contenders, rounds=rounds)


def _run(way: Callable[[Sequence[str], Path], float]) -> Taken:
    # When in the poller's period the burst comes is chance.
    after = random.uniform(0.3, 2.5)
    numbers = (after, BURST_MB, HELD_SECONDS)
    words = [sys.executable, "-I", "-S", "-c", _BURST, *map(str, numbers)]
    with tempfile.TemporaryDirectory() as directory:
        seen = way(words, Path(directory)) / 2**20
    return {"peak seen, MB": seen, "missed": float(seen < BURST_MB * 0.9)}


def _cgmem(words: Sequence[str], directory: Path, *options: str) -> float:
    report = directory / "report"
    own = ["run", "-q", "--max", _LIMIT, "--log-dir", str(directory), "--report", str(report)]
    finished([*cgmem_command(), *own, *options, "--", *words])
    return float(json.loads(report.read_text())["peak_mb"]) * 2**20


def _by_psutil(words: Sequence[str], directory: Path) -> float:
    return _cgmem(words, directory, "--backend", "psutil")


def _poller(words: Sequence[str], directory: Path) -> float:
    peak = directory / "peak"
    finished([sys.executable, "-m", "bench.poller", "--peak", str(peak), "--", *words])
    return float(peak.read_text())


def _psrecord(words: Sequence[str], directory: Path) -> float:
    log = directory / "log"
    own = ["--include-children", "--interval", "1", "--log", str(log)]
    finished([program("psrecord"), shlex.join(words), *own])
    rows = [line.split() for line in log.read_text().splitlines() if line[:1] != "#"]
    return max(float(row[2]) for row in rows) * 2**20


def _duct(words: Sequence[str], directory: Path) -> float:
    prefix = f"{directory}/duct-"
    finished([program("con-duct"), "run", "-l", "NONE", "-p", prefix, *words])
    return float(
        json.loads(Path(prefix + "info.json").read_text())["execution_summary"]["peak_rss"]
    )


def _time(words: Sequence[str], _directory: Path) -> float:
    said = finished([program("/usr/bin/time"), "-v", *words])
    found = re.search(r"Maximum resident set size \(kbytes\): (\d+)", said)
    return float(found[1]) * 1024 if found else 0.0


def _systemd(words: Sequence[str], _directory: Path) -> float:
    if not Path("/run/systemd/system").is_dir():
        raise Absent("systemd does not manage this host")
    said = finished(["systemd-run", "--wait", "--collect", "--pipe", *words])
    found = re.search(r"Memory peak: ([\d.]+)([KMG])", said)
    if found is None:
        raise Absent("this systemd-run does not print a peak")
    return float(found[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[found[2]]


_WAYS = {
    "cgmem run": _cgmem,
    "cgmem run --backend psutil": _by_psutil,
    "2 s psutil poller": _poller,
    "psrecord --interval 1": _psrecord,
    "con-duct": _duct,
    "/usr/bin/time -v": _time,
    "systemd-run --wait (memory.peak)": _systemd,
}

QUESTION = Question(
    "peaks",
    f"A child holds {BURST_MB} MB for {HELD_SECONDS * 1000:.0f} ms: the peak that is told",
    (Metric("peak seen, MB", 0), Metric("missed", 1)),
    _rows,
    rounds=4,
    quick=1,
    about=(
        "At a moment drawn anew each time; filling takes some time more. `missed` is 1 in a round"
        " whose peak was less than 90 % of it. `time` tells the largest process, not the sum."
    ),
)
