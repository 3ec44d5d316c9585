"""The `systemd` backend: cgroup2's work, in a subtree that systemd gives."""

from __future__ import annotations

from cgmem.contract import BY_RULE, Leave
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.systemd_family import FamilyScope, in_family_scope


class SystemdBackend(Cgroup2Backend):
    """Scopes in a delegated scope of the user's or the system's manager."""

    name = "systemd"

    def __init__(self, leave: Leave = BY_RULE) -> None:
        super().__init__(source=FamilyScope(leave))

    def _lists(self, location: str) -> bool:
        return in_family_scope(location)
