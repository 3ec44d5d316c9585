"""Every subprocess under a memory budget that the Linux kernel enforces.

>>> import cgmem
>>> outcome = cgmem.run(["make", "-j8"], max="2G")
>>> outcome.cause
'exited'

`run` and `spawn` feel like `subprocess.run` and `subprocess.Popen`; `cgmem.aio` has the asyncio
forms, `cgmem.monitoring` and `cgmem.task_tool` the names of the memory-monitoring spec.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgmem import aio, monitoring, task_tool
    from cgmem.contract import Alert
    from cgmem.errors import (
        BackendUnavailable,
        CgmemError,
        CgroupError,
        ConfigurationError,
        EnforcementError,
        InsufficientMemory,
        InvalidIdError,
    )
    from cgmem.running import run, spawn
    from cgmem.supervising.outcome import Outcome
    from cgmem.supervising.process import MonitoredProcess

__version__ = "0.1.0"

# Loaded at first use: a program that only asks for the version pays for nothing else.
_HOMES = {
    "Alert": "cgmem.contract",
    "BackendUnavailable": "cgmem.errors",
    "CgmemError": "cgmem.errors",
    "CgroupError": "cgmem.errors",
    "ConfigurationError": "cgmem.errors",
    "EnforcementError": "cgmem.errors",
    "InsufficientMemory": "cgmem.errors",
    "InvalidIdError": "cgmem.errors",
    "MonitoredProcess": "cgmem.supervising.process",
    "Outcome": "cgmem.supervising.outcome",
    "run": "cgmem.running",
    "spawn": "cgmem.running",
}

__all__ = [
    "Alert",
    "BackendUnavailable",
    "CgmemError",
    "CgroupError",
    "ConfigurationError",
    "EnforcementError",
    "InsufficientMemory",
    "InvalidIdError",
    "MonitoredProcess",
    "Outcome",
    "__version__",
    "aio",
    "monitoring",
    "run",
    "spawn",
    "task_tool",
]


_MODULES = ("aio", "monitoring", "task_tool")
"""`import cgmem` alone is enough to use these."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"cgmem.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cgmem' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
