"""A subtree from systemd: one delegated scope for this process and all that it starts.

Asked for once, over D-Bus; what is done in it is cgroup2's very code. Either this process moves
in (placement_rule.py decides), or it stays where it is and a process that does nothing holds the
scope. Who stays and may not put its children in by itself has systemd do it for each of them.
The scope goes away by itself with the last process inside.
See also: systemd_scope_unit.py (what is asked for), systemd_manager.py (of whom).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

from cgmem.contract import BY_RULE, Leave, Usability
from cgmem.errors import BackendUnavailable
from cgmem_backends import subtree
from cgmem_backends import systemd_held as held
from cgmem_backends.ancestry import Ancestry
from cgmem_backends.hierarchy import find_hierarchy
from cgmem_backends.linux_calls import get_xattr
from cgmem_backends.placement_rule import Move, placement_rule
from cgmem_backends.scope_record import process_start
from cgmem_backends.subtree import Host, OwnCgroup
from cgmem_backends.subtree_source import Subtree, in_family_scope
from cgmem_backends.systemd_bus import Bus, BusError
from cgmem_backends.systemd_manager import (
    Manager,
    find_manager,
    linger_command,
    lingers,
    may_enter,
    no_answer,
)
from cgmem_backends.systemd_scope_unit import start_scope


class FamilyScope:
    """The scope of this process's family as the source. Implements `SubtreeSource`."""

    def __init__(
        self,
        leave: Leave = BY_RULE,
        look: Callable[[], Host] | None = None,
    ) -> None:
        self._leave = leave
        self._look = look or look_at_host

    def inspect(self) -> Usability:
        """Say whether a manager would give the scope, and whether this process would move."""
        host = self._look()
        if inside(host):
            return OwnCgroup(self._look).inspect()
        found = _manager_for(host)
        return found if isinstance(found, Usability) else _usable(host, found, self._rule(host))

    def with_note(self, found: Usability) -> Usability:
        """See `cgmem.contract.Backend`."""
        if _state.family is not None or not inside(self._look()):
            return found  # what is asked for here has OOMPolicy=continue
        return OwnCgroup(self._look).with_note(found)

    def claim(self) -> Subtree:
        """Have the scope, made when it is first needed, the same for the whole process."""
        with _state.lock:
            family = _state.family
            if family is not None:
                if family.subtree.base.is_dir():
                    return family.subtree
                family.drop()
                _state.family = None
            host = self._look()
            if inside(host):
                return OwnCgroup(self._look).claim()
            _state.family = self._ask(host, manager_of(host))
            return _state.family.subtree

    def release(self) -> None:
        """Nothing: the scope is the whole process's."""

    def moves(self) -> bool:
        """Whether `claim` moves this process, or has."""
        with _state.lock:
            if _state.family is not None:
                return _state.family.holder is None
        return self._rule(self._look()).allowed

    def _rule(self, host: Host) -> Move:
        own = host.hierarchy.own
        return placement_rule(host.hierarchy.shown(own) if own else "", self._leave)

    def _ask(self, host: Host, manager: Manager) -> held.Family:
        holder = None if self._rule(host).allowed else held.start_holder()
        try:
            inside = os.getpid() if holder is None else holder.pid
            unit = f"cgmem-{os.getpid()}-{_own_start()}-{next(_state.numbers)}.scope"
            _start_scope(host, manager, unit, inside)
            base = held.base_of(host, inside, unit)
            held.make_ready(host, base, {inside})
        except BaseException:
            held.let_go(holder)
            raise
        return held.family_of(manager, unit, base, self._look().hierarchy, holder)


class _State:
    """What one process has at most one of."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.family: held.Family | None = None
        self.groups: dict[str, held.Family] = {}
        self.numbers = itertools.count(1)


_state = _State()


def _own_start() -> int:
    try:
        return process_start(os.getpid()) or 0
    except OSError:  # out of descriptors: asking systemd will say so
        return 0


def look_at_host() -> Host:
    """See this process and its host as they are."""
    proc = Path("/proc")
    return Host(find_hierarchy(proc), proc, subtree.systemd_runs(), os.geteuid())


def state() -> _State:
    """What this very process has; a forked child begins anew."""
    return _state


def inside(host: Host) -> bool:
    """This process is in a family scope already: an earlier supervisor's, or a scope in one."""
    own = host.hierarchy.own
    return own is not None and in_family_scope(own)


def manager_of(host: Host) -> Manager:
    """The manager that gives scopes. Raises `BackendUnavailable`."""
    manager = _manager_for(host)
    if isinstance(manager, Usability):
        raise BackendUnavailable(manager.reason, hint=manager.fix)
    return manager


def _manager_for(host: Host) -> Manager | Usability:
    if not host.systemd_runs:
        return Usability(
            False,
            "systemd does not manage this host (there is no /run/systemd/system)",
            "another backend: cgmem doctor says which work here",
        )
    base, refusal = subtree.visible_base(host)
    if base is None:
        return refusal
    outer = _outer_scope(host, base)
    if outer is not None:
        return Usability(
            False,
            f"it would leave {host.hierarchy.shown(outer)}, a scope of another cgmem, and its"
            " budget",
            "start the supervisor in a cgroup of its own there",
        )
    return find_manager(host.hierarchy, host.euid)


def _outer_scope(host: Host, base: Path) -> Path | None:
    for directory in (base, *base.parents):
        if directory == host.hierarchy.mount:
            break
        if get_xattr(directory, subtree.RECORD_XATTR) is not None:
            return directory
    return None


def _usable(host: Host, manager: Manager, move: Move) -> Usability:
    own = host.hierarchy.own
    if move.allowed:
        how = "this process moves into it"
    elif own and may_enter(own, manager.directory):
        how = "this process stays where it is"
    else:
        how = (
            "this process stays where it is, so systemd places each subprocess, which takes longer"
        )
    reason = f"a delegated scope from the {manager.name}; {how}: {move.why}"
    if not manager.address.user or lingers(host.euid):
        return Usability(True, reason)
    ends = "this process and its subprocesses" if move.allowed else "its subprocesses"
    note = f"the user manager ends with your last logout, and {ends} with it"
    return Usability(True, reason, fix=linger_command(host.euid), note=note)


def _start_scope(host: Host, manager: Manager, unit: str, pid: int) -> None:
    try:
        with Bus(manager.address) as bus:
            start_scope(bus, unit, pid, limit_above(host))
    except BusError as error:
        found = no_answer(error, manager.address)
        raise BackendUnavailable(found.reason, hint=found.fix) from error


def limit_above(host: Host) -> int | None:
    """The limit that holds where this process is: who leaves must not escape it."""
    hierarchy = host.hierarchy
    if hierarchy.own is None or hierarchy.mount is None:
        return None
    limits = Ancestry(hierarchy.own, hierarchy.mount).limits()
    return min((limit.max_bytes for limit in limits), default=None)


def _after_fork_in_child() -> None:
    global _state  # noqa: PLW0603  (the one piece of state of this module)
    families = [*_state.groups.values(), *([_state.family] if _state.family else [])]
    for holder in (family.holder for family in families):
        if holder is not None and holder.stdin is not None:
            holder.returncode = 0  # the parent's child
            holder.stdin.close()  # or the holder would wait for us too
    _state = _State()


os.register_at_fork(after_in_child=_after_fork_in_child)
