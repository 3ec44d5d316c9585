"""One transient scope unit, asked of a manager: delegated, so that its inside is ours alone.

Source: org.freedesktop.systemd1(5) StartTransientUnit(), systemd.scope(5),
systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION/.
"""

from __future__ import annotations

from cgmem_backends.subtree_source import SLICE
from cgmem_backends.systemd_bus import Bus, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

_NO_LIMIT = 2**64 - 1

Properties: TypeAlias = "list[tuple[str, tuple[str, Any]]]"


def start_scope(bus: Bus, unit: str, pid: int, memory_max: int | None) -> None:
    """Start a scope around a process; returns once the process is inside. Raises `BusError`."""
    asked = properties(pid, memory_max)
    try:
        result = _start(bus, unit, asked)
    except BusError as error:
        # Before v253 scopes have no OOMPolicy (and nothing ends them after an OOM kill).
        if "OOMPolicy" not in str(error):
            raise
        result = _start(bus, unit, [each for each in asked if each[0] != "OOMPolicy"])
    if result != "done":
        raise BusError("job-failed", f"the job to start {unit} ended as {result!r}")


def set_memory_max(bus: Bus, unit: str, memory_max: int) -> None:
    """Set a running scope's budget until it ends. Raises `BusError`."""
    asked = [("MemoryMax", ("t", memory_max))]
    bus.manager("SetUnitProperties", "sba(sv)", unit, True, asked)


def enter_scope(bus: Bus, unit: str, leaf: str, pid: int) -> None:
    """Have a process put into a cgroup of a running scope. Raises `BusError`."""
    bus.manager("AttachProcessesToUnit", "ssau", unit, f"/{leaf}", [pid])


def properties(pid: int, memory_max: int | None) -> Properties:
    """What the scope shall be. Nothing in it comes from the environment or a command line."""
    asked: Properties = [
        ("Description", ("s", f"Subprocesses with memory budgets, started by process {pid}")),
        ("Slice", ("s", SLICE)),
        ("Delegate", ("b", True)),
        # A scope that failed is gone too, rather than shown until somebody resets it.
        ("CollectMode", ("s", "inactive-or-failed")),
        # One subprocess at its limit must not end the others; they have memory.oom.group.
        ("OOMPolicy", ("s", "continue")),
        # A budget of memory is no reason for a smaller number of processes than without it.
        ("TasksMax", ("t", _NO_LIMIT)),
        ("PIDs", ("au", [pid])),
    ]
    if memory_max is not None:
        asked.append(("MemoryMax", ("t", memory_max)))
    return asked


def _start(bus: Bus, unit: str, asked: Properties) -> str:
    return bus.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", asked, [])
