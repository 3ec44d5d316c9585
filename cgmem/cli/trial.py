"""`doctor`'s trial: a small program that takes more than its budget, on one backend."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

from cgmem.config.settings import resolve
from cgmem.contract import MB, EffectiveLimits
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Supervisor
from cgmem.text.sizes import mb

LIMIT_BYTES = 32 * MB
SECONDS = 20.0
"""After this the program has not been stopped."""
LAUNCHES = 5

# Waits to be told, takes 4 times the limit, then holds it for a backend that has to look.
_HOG = f"""
import sys, time
sys.stdin.readline()
taken = [b"x" * {MB} for _ in range({4 * LIMIT_BYTES // MB})]
time.sleep({SECONDS})
"""


class Trial(NamedTuple):
    """What came of it."""

    passed: bool
    """The program was ended at its hard limit."""
    message: str
    limit_mb: float
    read_back_mb: float | None
    enforced: bool
    soft: bool
    """Swap would get around it: this kernel can't limit it."""
    launch_ms: float
    """The quickest of a few starts (to the end of /bin/true)."""
    popen_ms: float
    """The same with plain subprocess.Popen."""
    placement: str | None
    """How a child gets into its scope before its first instruction, and why so."""
    guard: str | None
    """Whether a brake is lifted when its supervisor dies; None where there is no brake."""


@runtime_checkable
class PlacesChildren(Protocol):
    """A backend that can say how it places children."""

    def placement(self) -> tuple[str, str]:
        """(method, why that one)."""


@runtime_checkable
class HasGuard(Protocol):
    """A backend with a guard that can be tried."""

    def try_guard(self) -> str | None:
        """None if the guard works, else why not."""


def try_backend(name: str) -> Trial:
    """Run the trial. Raises what `Supervisor.spawn` raises."""
    with tempfile.TemporaryDirectory(prefix="cgmem-doctor-") as log_dir:
        supervisor = Supervisor(
            {
                "backend": name,
                "warning": "16M",
                "critical": "24M",
                "max": f"{LIMIT_BYTES // MB}M",
                "tick": 0.1,
                "timeout": SECONDS,
                "grace": 0,
                "log_dir": log_dir,
                "preflight": False,
            },
            # What this user configured is not what is tried.
            resolve_settings=partial(resolve, environ={}, cwd="/"),
            warn=lambda _text: None,
            own_process=True,
        )
        try:
            return _run(supervisor)
        finally:
            supervisor.close()


def _run(supervisor: Supervisor) -> Trial:
    settings = supervisor.settings()

    def spawn(words: list[str], **options: Any) -> MonitoredProcess:
        return supervisor.spawn(words, options, settings=settings)

    hog = spawn([sys.executable, "-I", "-S", "-c", _HOG], stdin=subprocess.PIPE)
    effective = _without_brake(hog)
    hog.communicate(b"\n")
    outcome = hog.outcome()
    backend = supervisor.choice(settings).backend
    return Trial(
        passed=outcome.cause == "hard_limit",
        message=outcome.message,
        limit_mb=mb(LIMIT_BYTES),
        read_back_mb=None if effective.max_bytes is None else mb(effective.max_bytes),
        enforced=effective.enforced,
        soft=effective.enforced and effective.soft,
        launch_ms=_quickest(spawn),
        popen_ms=_quickest(subprocess.Popen),
        placement=": ".join(backend.placement()) if isinstance(backend, PlacesChildren) else None,
        guard=_guard(backend) if isinstance(backend, HasGuard) else None,
    )


def _guard(backend: HasGuard) -> str:
    why_not = backend.try_guard()
    if why_not is None:
        return "works: a brake is lifted when its supervisor dies"
    return f"DOES NOT WORK: {why_not}"


def _without_brake(process: MonitoredProcess) -> EffectiveLimits:
    """Lift memory.high, as the trial is of the hard limit; return what the kernel then holds."""
    supervision = process.supervision
    if not isinstance(supervision, Supervision):
        raise AssertionError("nothing here disables monitoring")
    return supervision.set_limits(supervision.plan.limits._replace(high_bytes=None))


def _quickest(start: Callable[[list[str]], Any]) -> float:
    """Return the shortest time of a few starts of a program that ends at once, in ms."""

    def once() -> float:
        began = time.perf_counter()
        start(["/bin/true" if sys.platform == "linux" else "/usr/bin/true"]).wait()
        return time.perf_counter() - began

    return round(1000 * min(once() for _ in range(LAUNCHES)), 1)
