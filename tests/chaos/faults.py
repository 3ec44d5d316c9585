"""One round each: a supervisor with its subprocesses, and what is done to them meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.stage import Stage, marked
from tests.chaos.supervisor import FILLER
from tests.helpers.waiting import PATIENCE

Fault = Callable[[Stage, Ledger, str, int, random.Random], None]


def nothing(stage: Stage, ledger: Ledger, seed: str, count: int, draw: random.Random) -> None:
    """Two supervisors side by side, nothing else."""
    both = [stage.supervise(ledger, f"{seed}{name}", count // 2, stage.logs) for name in "ab"]
    for one in both:
        ledger.left(one.finish())


def supervisor_killed(
    stage: Stage, ledger: Ledger, seed: str, count: int, draw: random.Random
) -> None:
    """SIGKILL at a random moment, a second one beside it lives on."""
    killed = stage.supervise(ledger, f"{seed}k", count, stage.logs)
    beside = stage.supervise(ledger, f"{seed}s", 3, stage.logs)
    killed.began.wait(PATIENCE)
    time.sleep(draw.uniform(0.0, 6.0))
    killed.sigkill()
    ledger.check_inside(marked())
    ledger.left(beside.finish())


def disk_full(stage: Stage, ledger: Ledger, seed: str, count: int, draw: random.Random) -> None:
    """The log disk is full for a while."""
    running = stage.supervise(ledger, seed, count, stage.disk)
    filler = stage.disk / FILLER
    running.began.wait(PATIENCE)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    time.sleep(draw.uniform(1.0, 4.0))
    filler.unlink()
    ledger.left(running.finish())


def descriptors_exhausted(
    stage: Stage, ledger: Ledger, seed: str, count: int, draw: random.Random
) -> None:
    """There are hardly any descriptors."""
    limit = str(draw.randrange(20, 45))
    ledger.starved(f"{seed}d")
    ledger.left(stage.supervise(ledger, f"{seed}d", count, stage.logs, limit).finish())


def cgroups_removed(
    stage: Stage, ledger: Ledger, seed: str, count: int, draw: random.Random
) -> None:
    """Somebody kills what is in cgroups and removes them."""
    ledger.vandalised(f"{seed}v")
    running = stage.supervise(ledger, f"{seed}v", count, stage.logs)
    stop = threading.Event()
    vandal = threading.Thread(target=_remove_scopes, args=(stage, draw, stop))
    vandal.start()
    try:
        ledger.left(running.finish())
    finally:
        stop.set()
        vandal.join()


def _remove_scopes(stage: Stage, draw: random.Random, stop: threading.Event) -> None:
    while not stop.wait(draw.uniform(0.1, 0.6)):
        scopes = stage.scopes()
        if scopes:
            _remove(draw.choice(scopes))


def _remove(scope: Path) -> None:
    with suppress(OSError):
        (scope / "cgroup.kill").write_text("1")
        for _ in range(50):
            try:
                scope.rmdir()
                return
            except OSError:
                time.sleep(0.01)


FAULTS: tuple[Fault, ...] = (
    supervisor_killed,
    disk_full,
    cgroups_removed,
    descriptors_exhausted,
    nothing,
)
