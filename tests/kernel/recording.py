"""Running a workload under a supervisor while writing down every sample, seen from beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import cgmem
from cgmem.contract import Scope
from cgmem.errors import CgmemError
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.kernel_files import parse_keyed
from tests.helpers.series import Look, Series
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real
from tests.kernel.workloads import LEAKS, WORKLOADS, Budget, has_psi, has_swap, prepared

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class Recording(NamedTuple):
    """What was seen, and what the supervisor made of it."""

    series: Series
    outcome: Outcome


def record(name: str, budget: Budget, log_dir: Path, on_stall: str = "release") -> Recording:
    """Run a workload until it ends. A leak that is held never does: it is killed in time."""
    settings = {**budget.settings(), "on_stall": on_stall}
    if WORKLOADS[name].swap is not None:
        settings["swap"] = WORKLOADS[name].swap
    held = name in LEAKS and on_stall == "hold"
    seconds = budget.seconds if held else budget.patience
    with prepared(name, budget) as command, real.supervising(log_dir, **settings) as supervisor:
        process = cgmem.spawn(command, supervisor=supervisor, cwd="/")
        looks = watch(process, budget.tick, seconds)
        process.kill()
        outcome = process.outcome(PATIENCE)
    return Recording(_series(name, budget, looks), outcome)


def watch(process: MonitoredProcess, tick: float, seconds: float) -> tuple[Look, ...]:
    """Sample a subprocess with every detail, once a tick, until it ends or time is up."""
    scope = _seen_from_beside(process.subprocess_id)
    stat = real.cgroup_of(process.pid) / "memory.stat"
    looks: list[Look] = []
    began = time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - began < seconds:
            looks.append(_look(scope, stat))
            time.sleep(max(0.0, began + len(looks) * tick - time.monotonic()))
    except (CgmemError, OSError):  # it ended between the two
        pass
    finally:
        scope.detach()
    return tuple(looks)


def _seen_from_beside(subprocess_id: str) -> Scope:
    found = None
    for scope in Cgroup2Backend().list_scopes():
        if scope.record.subprocess_id == subprocess_id:
            found = scope
        else:
            scope.detach()
    assert found is not None
    return found


def _look(scope: Scope, stat: Path) -> Look:
    sample = scope.sample(0)
    assert sample is not None
    return Look(sample, parse_keyed(stat.read_bytes())["inactive_file"])


def _series(name: str, budget: Budget, looks: tuple[Look, ...]) -> Series:
    enabled = HUGE_PAGES.read_text()
    options = {
        "psi": has_psi(),
        "swap": has_swap(),
        "thp": enabled[enabled.index("[") + 1 : enabled.index("]")],
    }
    kernel = os.uname().release
    return Series(name, kernel, options, budget.thresholds, budget.tick, budget.stall_after, looks)
