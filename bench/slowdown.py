"""What the supervised program itself loses: the time of its work, supervised and not."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from bench.measure import Absent, Contender, Metric, Question, Row, Taken, compared
from bench.peers import POLLER, Budget, finished_under, program

BUDGET = 1 << 30
SOURCES, FUNCTIONS = 4, 30
FILES = 4000
_STOPWATCH = 'began=$EPOCHREALTIME; "$@" >/dev/null; echo "$began $EPOCHREALTIME" > "$0"'
"""bash's own clock: the work alone, not what starts and ends around it."""
_CONTENDERS = (
    "none",
    "cgmem run",
    "systemd-run --scope",
    "runexec --no-container",
    POLLER,
    "con-duct",
    "psrecord",
)


def _rows(rounds: int) -> Iterable[Row]:
    for scene, prepare in _WORK.items():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            directory = Path(name)
            try:
                work = prepare(directory)
            except Absent as error:
                yield Row(scene, "none", {}, {}, str(error))
                continue
            budget = Budget(BUDGET, directory)
            contenders = [Contender(one, partial(_timed, one, budget, work)) for one in _CONTENDERS]
            yield from compared(scene, contenders, rounds=rounds, warm_up=1)


def _timed(name: str, budget: Budget, work: list[str]) -> Taken:
    clock = budget.directory / "clock"
    clock.write_text("")
    words = [program("bash"), "-c", _STOPWATCH, str(clock), *work]
    finished_under(name, budget, words)
    times = clock.read_text().split()
    if len(times) != 2:
        raise Absent("the work did not run to its end")
    return {"ms": (float(times[1]) - float(times[0])) * 1e3}


def _compile(directory: Path) -> list[str]:
    make = program("make")
    program("cc")
    for number in range(SOURCES):
        functions = (
            f"int f{number}_{one}(int a) {{ for (int i = 0; i < {one}; i++) a += i; return a; }}"
            for one in range(FUNCTIONS)
        )
        (directory / f"{number}.c").write_text("\n".join(functions))
    objects = " ".join(f"{number}.o" for number in range(SOURCES))
    (directory / "Makefile").write_text(f"all: {objects}\n")
    return [make, "-s", "-B", "-j2", "-C", str(directory), "CFLAGS=-O1"]


def _node(_directory: Path) -> list[str]:
    return [program("node"), "-e", "0"]


def _git(directory: Path) -> list[str]:
    git = program("git")
    repository = directory / "repository"
    stream = ["commit refs/heads/main", "committer bench <bench@localhost> 1700000000 +0000"]
    stream += ["data 4", "many"]
    for number in range(FILES):
        text = f"file {number}\n" * 20
        stream += [f"M 644 inline {number % 100}/{number}", f"data {len(text)}", text]
    here = [git, "-C", str(repository)]
    subprocess.run([git, "init", "-q", "-b", "main", str(repository)], check=True)
    source = "\n".join(stream) + "\n"
    subprocess.run([*here, "fast-import", "--quiet"], input=source, text=True, check=True)
    subprocess.run([*here, "reset", "-q", "--hard"], check=True)
    # Every blob and every file is read, nothing is written.
    check = 'git -C "$0" fsck --full --no-progress && git -C "$0" grep -c nothing-like-it || true'
    return [program("sh"), "-c", check, os.fspath(repository)]


_WORK: dict[str, Callable[[Path], list[str]]] = {
    f"make -j2, {SOURCES} C files": _compile,
    "node -e 0": _node,
    f"git fsck and grep, {FILES} files": _git,
}

QUESTION = Question(
    "slowdown",
    "The supervised program's own time",
    (Metric("ms", 0, ratio=True),),
    _rows,
    rounds=4,
    quick=1,
    about=(
        "Measured inside, from when the work begins to its end; what each peer needs to start and"
        " stop is in the table of whole commands. The ratio is to no supervision."
    ),
)
