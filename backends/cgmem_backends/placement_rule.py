"""Whether this process may be moved to a cgroup that systemd gives for its subprocesses. Pure.

Whoever moves is as cheap to start subprocesses as without any of this; who stays may depend on
systemd for each (see systemd_family.py). docs/decisions/021 has the reasons.
"""

from __future__ import annotations

import re

from cgmem.contract import Leave
from cgmem.shapes import NamedTuple

_SESSION = r"session-[^/]+\.scope"
_UNITS = frozenset({"service", "scope"})


class Move(NamedTuple):
    """The answer, and why so, in one clause."""

    allowed: bool
    why: str


def innermost_unit(own_cgroup: str) -> str | None:
    """The service or scope that a cgroup path lies in (units contain units: user@UID.service)."""
    for name in reversed(own_cgroup.split("/")):
        stem, _, kind = name.rpartition(".")
        if stem and kind in _UNITS:
            return name
    return None


def placement_rule(own_cgroup: str, leave: Leave) -> Move:
    """Decide from where the process is (as /proc/self/cgroup shows it) and what was allowed."""
    unit = innermost_unit(own_cgroup)
    if leave.allow_move is not None:
        return Move(leave.allow_move, f"allow_move={str(leave.allow_move).lower()}")
    if unit is None:
        return Move(False, "this process is in no unit that can be told")
    if unit.endswith(".service"):
        return Move(False, f"systemd tracks the processes of {unit}")
    if leave.own_process:
        return Move(True, "the process is cgmem's own")
    if re.fullmatch(_SESSION, unit):
        return Move(True, f"leaving a login session's scope ({unit}) does no harm")
    return Move(False, f"who started {unit} may count on its processes")
