"""What watching costs: CPU and memory of the supervisor, by how many it has, idle and busy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from bench.measure import Absent, Metric, Question, Row, Spread, spread
from bench.peers import program

SECONDS = 20
TICK = 2.0
SCENES = ((1, "idle"), (10, "idle"), (100, "idle"), (1000, "idle"), (100, "busy"))
MOST_DUCTS = 10
_NO_ROOM = "not run: it keeps a processor busy, and there is only one"
_RSS = """
import re
print(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
_CPU, _MB = "CPU, %", "MB over a bare interpreter"


def _rows(rounds: int) -> Iterable[Row]:
    for count, kind in SCENES:
        scene = f"{count} {kind}"
        taken: dict[str, list[tuple[float, float]]] = {}
        notes: dict[str, str] = {}
        for _ in range(rounds if count < 1000 else 1):
            for name, found in _measured(count, kind):
                if isinstance(found, str):
                    notes[name] = found
                else:
                    taken.setdefault(name, []).append(found)
        for name in dict.fromkeys([*taken, *notes]):
            yield Row(scene, name, _spreads(taken.get(name, [])), {}, notes.get(name, ""))


def _spreads(found: Sequence[tuple[float, float]]) -> dict[str, Spread]:
    if not found:
        return {}
    return {_CPU: spread([cpu for cpu, _ in found]), _MB: spread([rss for _, rss in found])}


def _measured(count: int, kind: str) -> Iterator[tuple[str, tuple[float, float] | str]]:
    """The same subprocesses are watched by cgmem, by a bare loop beside it, then by psutil."""
    bare = bare_rss()
    with tempfile.TemporaryDirectory() as directory:
        with watcher("cgmem", count, kind, directory) as cgmem:
            found = json.loads(line_of(cgmem))
            watchers = [cgmem]
            with watcher("pread", *found["directories"]) as floor:
                if found["directories"]:
                    line_of(floor)
                    watchers.append(floor)
                results = measured_for(SECONDS, watchers)
            yield f"cgmem ({found['backend']})", _over(results[0], bare)
            if found["directories"]:
                yield "two preads a scope, nothing else", _over(results[1], bare)
            if os.cpu_count() == 1:
                yield "2 s psutil poller", _NO_ROOM
                yield "con-duct", _NO_ROOM
                return
            with watcher("psutil", *found["pids"]) as poller:
                line_of(poller)
                yield "2 s psutil poller", _over(measured_for(SECONDS, [poller])[0], bare)
    yield "con-duct", _ducts(count, kind, bare)


def _over(found: Any, bare: float) -> tuple[float, float]:
    return found["cpu"], found["rss_mb"] - bare


@contextmanager
def watcher(what: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of `bench.watchers`: says when it is ready, measures itself when told to."""
    # Not `-m`: what that imports to find a module is no part of the answer.
    words = [sys.executable, "-c", "from bench.watchers import main; main()", what]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps([str(one) for one in arguments]) + "\n")
        process.stdin.flush()
        yield process  # its stdin is closed next, and it ends


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a watcher says; raises Absent if it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Absent("the measuring process failed")
    return line


def measured_for(seconds: float, watchers: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """What each has used in the same seconds."""
    for process in watchers:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return [json.loads(line_of(process)) for process in watchers]


def _ducts(count: int, kind: str, bare: float) -> tuple[float, float] | str:
    if count > MOST_DUCTS:
        return f"not run: a process for each command, {count} of them"
    with tempfile.TemporaryDirectory() as directory:
        try:
            command = [program("con-duct"), "run", "-l", "NONE", "-c", "none"]
        except Absent as error:
            return str(error)
        ducts = [
            psutil.Popen(
                [*command, "-p", f"{directory}/{number}-", "sleep", "600"],
                stdout=subprocess.DEVNULL,
            )
            for number in range(count)
        ]
        until = time.monotonic() + 120
        while not all(duct.children() for duct in ducts) and time.monotonic() < until:
            time.sleep(0.5)
        before = sum(sum(duct.cpu_times()[:4]) for duct in ducts)
        time.sleep(SECONDS)
        used = sum(sum(duct.cpu_times()[:4]) for duct in ducts) - before
        held = sum(duct.memory_info().rss for duct in ducts) / 2**20
        for duct in ducts:
            for child in duct.children(recursive=True):
                child.kill()
            duct.wait()
    return 100 * used / SECONDS, held - bare


def bare_rss() -> float:
    """RSS of an interpreter that does nothing, MB."""
    command = [sys.executable, "-c", _RSS]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


QUESTION = Question(
    "footprint",
    f"The supervisor at work: {TICK:.0f} s tick, {SECONDS} s",
    (Metric(_CPU, 3), Metric(_MB, 1)),
    _rows,
    rounds=1,
    quick=1,
    about=(
        "CPU of one processor, of the watching process alone (con-duct: of all of them, with the"
        " `ps` that each runs every second). Busy: each takes and gives back 2 MB five times a"
        " second. A bare interpreter is `python3 -c` that prints its own RSS."
    ),
)
