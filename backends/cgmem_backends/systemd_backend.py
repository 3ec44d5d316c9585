"""The `systemd` backend: cgroup2's work, in a subtree that systemd gives."""

from __future__ import annotations

from pathlib import Path

from cgmem.contract import BY_RULE, Group, Leave
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.subtree_source import SubtreeSource
from cgmem_backends.systemd_family import FamilyScope


class SystemdBackend(Cgroup2Backend):
    """Scopes in a delegated scope of the user's or the system's manager."""

    name = "systemd"
    in_family_scopes = True

    def __init__(
        self,
        leave: Leave = BY_RULE,
        *,
        proc: Path = Path("/proc"),
        group: Group | None = None,
    ) -> None:
        source: SubtreeSource = FamilyScope(leave)
        if group is not None:
            from cgmem_backends.systemd_group import GroupScope

            source = GroupScope(leave, group)
        super().__init__(proc=proc, source=source)
