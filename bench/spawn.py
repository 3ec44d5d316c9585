"""Spawn + wait of /bin/true under a budget, from small and large parents, one thread and eight."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measure import Metric, Question, Row, Spread

LARGE_MB = 1024
WORKER = "bench.spawn_worker"


class Case(NamedTuple):
    """One process that spawns, told as JSON."""

    scene: str
    ways: Sequence[str]
    """Of `bench.spawn_worker.WAYS`, the base first."""
    rounds: int
    parent_mb: int = 0
    threads: int = 1
    in_a_row: int = 1
    """How many follow each other at once."""


_POPEN = "subprocess.Popen(…).wait()"
_OURS = (_POPEN, "cgmem.spawn(…).wait(), cgroup2", "cgmem.spawn(…).outcome(), cgroup2")
_TRAMPOLINE = "cgmem.spawn(…, umask=0o22).wait(), cgroup2"
_PSUTIL = "cgmem.spawn(…).wait(), psutil"
_SYSTEMD = "cgmem.spawn(…).wait(), systemd"
_PLACED = "the same, each placed by systemd (allow_move=False)"
_PEERS = ("sh: echo $$ > cgroup.procs", "cgexec", "systemd-run --scope")
_SLOW_PEERS = ("runexec --no-container", "runexec")
"""Whole interpreters: by one thread only, and seldom."""


def _rows(rounds: int) -> Iterable[Row]:
    few = max(3, rounds // 8)
    for parent, megabytes in (("small parent", 0), (f"{LARGE_MB} MB parent", LARGE_MB)):
        for threads in (1, 8):
            scene = f"{parent}, {threads} thread{'s' * (threads > 1)}"
            some = max(3, rounds // threads)
            # The peers start shells and interpreters, and whoever follows one finds cold caches:
            # they get rounds of their own, with the same base.
            ours = Case(scene, (*_OURS, _PSUTIL), some, megabytes, threads)
            peers = Case(scene, (_POPEN, _TRAMPOLINE, *_PEERS), few, megabytes, threads)
            slow = Case(scene, (_POPEN, *_SLOW_PEERS), 3, megabytes)
            # Who moves into systemd's scope can't go back: a process for each.
            moved = Case(scene, (_POPEN, _SYSTEMD), some, megabytes, threads)
            yield from _asked(ours)
            yield from _asked(moved)[1:]
            yield from _asked(peers)[1:]
            if threads == 1:
                yield from _asked(slow)[1:]
    yield from _asked(Case("20 in a row, each", _OURS, few, in_a_row=20))
    yield from _as_a_user(rounds, few)


def _as_a_user(rounds: int, few: int) -> Iterable[Row]:
    scene = "ordinary user, small parent, 1 thread"
    if not Path("/run/systemd/system").is_dir() or os.geteuid() != 0:
        return
    user = next((one.pw_name for one in pwd.getpwall() if _lingers(one)), None)
    if user is None:
        return
    moved = Case(scene, (_POPEN, _SYSTEMD), rounds)
    placed = Case(scene, (_POPEN, _PLACED), few)
    peer = Case(scene, (_POPEN, "systemd-run --scope"), few)
    yield from _asked(moved, user)
    yield from _asked(placed, user)[1:]
    yield from _asked(peer, user)[1:]


def _lingers(user: pwd.struct_passwd) -> bool:
    return user.pw_uid >= 1000 and Path("/var/lib/systemd/linger", user.pw_name).exists()


def _asked(case: Case, user: str | None = None) -> list[Row]:
    """Have a case measured by a process of its own; a user's, in a login session of its own."""
    words = [sys.executable, "-m", WORKER, json.dumps(case._asdict())]
    if user is not None:
        kept = [f"--setenv={key}={os.environ[key]}" for key in _KEPT if key in os.environ]
        session = ["systemd-run", "-q", "--pipe", "--wait", f"--uid={user}", "-p", "PAMName=login"]
        words = [*session, *kept, f"--working-directory={Path.cwd()}", "--", *words]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        why = f"failed: the measuring process ended with {done.returncode}"
        return [Row(case.scene, way, {}, {}, why) for way in case.ways]
    return [_row(found) for found in json.loads(done.stdout.splitlines()[-1])]


_KEPT = ("PATH", "PYTHONPATH", "CGMEM_IN_GUEST")


def _row(found: Sequence[object]) -> Row:
    scene, name, values, ratios, note = found
    assert isinstance(values, dict)
    assert isinstance(ratios, dict)
    return Row(
        str(scene),
        str(name),
        {key: Spread(*one) for key, one in values.items()},
        {key: Spread(*one) for key, one in ratios.items()},
        str(note),
    )


QUESTION = Question(
    "spawn",
    "Spawn + wait of /bin/true under a budget",
    (Metric("ms", 1, ratio=True),),
    _rows,
    rounds=40,
    quick=4,
    about=(
        "The ratio is to Popen in the same process. Eight threads: until each has started one and"
        " waited for it. cgmem prepares the next cgroup while it waits for this subprocess, and"
        " removes this one's a moment later; with `outcome()` it is paid for in full, and the"
        " statistics are logged. A tenth of a second lies between two measurements, so that what"
        " one left to do is not the next one's; in a row, it is. `umask` is what posix_spawn can't"
        " do: such a child enters its cgroup through an interpreter, the trampoline, as each does"
        " where glibc is older than 2.39 or clone3 is filtered (Docker)."
    ),
)
