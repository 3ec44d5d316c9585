"""A group's budget under systemd: one scope unit that every supervisor of this user shares.

Who comes first has it started, who comes later enters it: a process that does nothing in its leaf,
so that it stays as long as anybody needs it. Supervisors themselves sit elsewhere: the group's
limit is not for them. systemd removes it with the last process inside.
See also: group_cgroup.py (the group in a subtree that is ours already).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cgmem.contract import Group, Leave, Usability
from cgmem.errors import BackendUnavailable
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf
from cgmem_backends import systemd_family as family
from cgmem_backends import systemd_held as held
from cgmem_backends.group_cgroup import PREFIX, GroupWithin, no_budget, wanted_limit
from cgmem_backends.subtree import SUPERVISOR_LEAF, Host
from cgmem_backends.subtree_source import Subtree
from cgmem_backends.systemd_bus import Bus, BusError
from cgmem_backends.systemd_manager import Manager, no_answer
from cgmem_backends.systemd_scope_unit import enter_scope, set_memory_max, start_scope

PATIENCE = 5.0
"""Seconds for another supervisor to make the scope ready, and for systemd to write its limit."""

_EXISTS = "org.freedesktop.systemd1.UnitExists"
_MISSING = "org.freedesktop.systemd1.NoSuchUnit"
_NO_ANSWER = frozenset({BusError.NOT_INSTALLED, BusError.NO_REPLY, BusError.DISCONNECTED})


class GroupScope:
    """The scope of a group as the source. Implements `SubtreeSource`."""

    def __init__(
        self,
        leave: Leave,
        group: Group,
        look: Callable[[], Host] | None = None,
    ) -> None:
        self._own = family.FamilyScope(leave, look)
        self._group = group
        self._look = look or family.look_at_host
        self._within: GroupWithin | None = None

    def inspect(self) -> Usability:
        """As without a group, which is what can fail."""
        return self._own.inspect()

    def with_note(self, found: Usability) -> Usability:
        """As without a group."""
        return self._own.with_note(found)

    def claim(self) -> Subtree:
        """Have the group's scope, made or entered, once a process. Also `ConfigurationError`."""
        if self._own.moves():
            # From within, children can be put into the group without systemd's help.
            self._own.claim()
        state = family.state()
        host = self._look()
        if state.family is None and family.inside(host):
            # An earlier supervisor's scope: leaving it would be leaving its budget.
            self._within = self._within or GroupWithin(self._own, self._group, mkdir=host.mkdir)
            return self._within.claim()
        with state.lock:
            known = state.groups.get(self._group.name)
            if known is not None and not known.subtree.base.is_dir():
                state.groups.pop(self._group.name).drop()
                known = None
            if known is None:
                known = state.groups[self._group.name] = self._ask()
            else:
                self._set_limit(known.subtree.base, family.manager_of(host))
            return known.subtree

    def release(self) -> None:
        """Let go of the scope; it stays while anything is inside."""
        if self._within is not None:
            self._within.release()
        state = family.state()
        with state.lock:
            known = state.groups.pop(self._group.name, None)
        if known is not None:
            known.drop()

    @property
    def _unit(self) -> str:
        return f"{PREFIX}{self._group.name}.scope"

    def _ask(self) -> held.Family:
        host = self._look()
        manager = family.manager_of(host)
        holder = held.start_holder()
        try:
            self._enter(host, manager, holder.pid)
            base = held.base_of(host, holder.pid, self._unit)
            # All who are inside by now only hold it, as ours does.
            held.make_ready(host, base, {holder.pid, *cg.own_pids(base)})
            self._set_limit(base, manager)
        except BaseException:
            held.let_go(holder)
            raise
        return held.family_of(manager, self._unit, base, host.hierarchy, holder)

    def _enter(self, host: Host, manager: Manager, pid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Bus(manager.address) as bus:
                    self._start_or_enter(host, bus, pid)
                return
            except BusError as error:
                if error.name == _MISSING and self._group.max_bytes is None:
                    raise no_budget(self._group) from error
                # Its first supervisor has not made the leaf yet, or its last one has just gone.
                if error.name in _NO_ANSWER or time.monotonic() > deadline:
                    found = no_answer(error, manager.address)
                    raise BackendUnavailable(found.reason, hint=found.fix) from error
            time.sleep(0.05)

    def _start_or_enter(self, host: Host, bus: Bus, pid: int) -> None:
        if self._group.max_bytes is not None:
            try:
                start_scope(bus, self._unit, pid, self._limit(host, self._group.max_bytes))
            except BusError as error:
                if error.name != _EXISTS:
                    raise
            else:
                return
        enter_scope(bus, self._unit, SUPERVISOR_LEAF, pid)

    def _limit(self, host: Host, wanted: int) -> int:
        """What holds where this process is holds for the group too."""
        above = family.limit_above(host)
        return wanted if above is None else min(wanted, above)

    def _set_limit(self, base: Path, manager: Manager) -> None:
        wanted = self._group
        if wanted.max_bytes is not None:
            wanted = wanted._replace(max_bytes=self._limit(self._look(), wanted.max_bytes))
        limit = wanted_limit(base, wanted)
        if limit is not None:
            try:
                with Bus(manager.address) as bus:
                    set_memory_max(bus, self._unit, limit)
            except BusError as error:
                raise BackendUnavailable(
                    f"systemd did not set the budget of group {self._group.name}: {error}",
                    hint="cgmem doctor",
                ) from error
            _await_limit(base, wanted)
        known = cg.read_limit(base, kf.MEMORY_MAX)
        self._group = self._group._replace(max_bytes=known)


def _await_limit(base: Path, group: Group) -> None:
    """systemd answers before it has written."""
    deadline = time.monotonic() + PATIENCE
    while wanted_limit(base, group) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
