"""What is run in the chaos test: subprocesses that misbehave, drawn from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

MARK = "CGMEM_CHAOS"
"""An environment variable by which every process of the test is known, wherever it went."""

TICK = 0.5


class Job(NamedTuple):
    """One subprocess to start."""

    kind: str
    command: tuple[str, ...]
    settings: dict[str, Any]


def _sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def _small(draw: random.Random, **more: Any) -> dict[str, Any]:
    limit = draw.choice((16, 24, 32))
    return {"max": f"{limit}M", "timeout": 20, "grace": 0.5, **more}


def _exit(draw: random.Random) -> Job:
    return Job("exit", _sh(f"exit {draw.randrange(4)}"), _small(draw))


def _leak(draw: random.Random) -> Job:
    # No room between brake and limit: the kernel kills at once.
    return Job("leak", _sh("exec tail /dev/zero"), _small(draw, critical="16777215B", max="16M"))


def _stall(draw: random.Random) -> Job:
    policy = draw.choice(("release", "abort", "freeze", "hold"))
    settings = _small(draw, max="64M", critical="16M", on_stall=policy, stall_after=3, timeout=8)
    return Job(f"stall-{policy}", _sh("exec tail /dev/zero"), settings)


def _fork(draw: random.Random) -> Job:
    script = (
        f"for i in 1 2 3 4; do sleep {draw.randrange(1, 30)} & done; sleep 0.{draw.randrange(9)}"
    )
    return Job("fork", _sh(script), _small(draw))


def _double_fork(draw: random.Random) -> Job:
    script = "(setsid sh -c 'setsid sleep 60 & exec sleep 50' >/dev/null 2>&1 &); sleep 0.2"
    return Job("double-fork", _sh(script), _small(draw))


def _deaf(draw: random.Random) -> Job:
    script = "trap '' TERM INT HUP; while :; do sleep 0.2; done"
    return Job("ignores-sigterm", _sh(script), _small(draw, timeout=draw.choice((1, 2))))


def _stopped(draw: random.Random) -> Job:
    return Job("stops-itself", _sh("kill -STOP $$; sleep 60"), _small(draw, timeout=2))


def _holder(draw: random.Random) -> Job:
    script = "head -c 6000000 /dev/zero | tail | sleep 2"
    return Job("holds", _sh(script), _small(draw))


def _many_forks(draw: random.Random) -> Job:
    script = "i=0; while [ $i -lt 40 ]; do /bin/true & i=$((i+1)); done; wait"
    return Job("fork-heavy", _sh(script), _small(draw))


_KINDS: tuple[tuple[Callable[[random.Random], Job], int], ...] = (
    (_exit, 4),
    (_leak, 3),
    (_stall, 2),
    (_fork, 2),
    (_double_fork, 2),
    (_deaf, 1),
    (_stopped, 1),
    (_holder, 1),
    (_many_forks, 1),
)


def job(draw: random.Random) -> Job:
    """Draw the next subprocess."""
    makers = [maker for maker, weight in _KINDS for _ in range(weight)]
    return draw.choice(makers)(draw)
