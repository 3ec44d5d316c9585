"""A group as one scope unit of systemd's: started by the first, entered by the others."""

from __future__ import annotations

import os
import sys

import pytest

from cgmem.contract import MB, Group, Leave
from cgmem.errors import BackendUnavailable, ConfigurationError
from cgmem_backends import systemd_family, systemd_group
from cgmem_backends.hierarchy import find_hierarchy
from cgmem_backends.subtree import SUPERVISOR_LEAF, Host
from cgmem_backends.systemd_bus import BusError
from cgmem_backends.systemd_group import GroupScope
from tests.unit.fake_cgroupfs import FakeCgroupfs
from tests.unit.fake_systemd import SESSION, FakeSystemd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

UNIT = "cgmem-group-build.scope"


def source(
    session: FakeCgroupfs, size: int | None = 64 * MB, *, allow_move: bool = True
) -> GroupScope:
    """Return the group as a source on this host."""
    return GroupScope(
        Leave(allow_move),
        Group("build", size),
        lambda: Host(find_hierarchy(session.proc), session.proc, True, 1000, session.mkdir),
    )


def as_another_process(systemd: FakeSystemd) -> None:
    """Forget the group, as a supervisor that knows nothing of it; its holder stays."""
    systemd.others += systemd_family._state.groups.values()
    systemd_family._state.groups.clear()


def test_the_first_starts_it(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Its own family scope takes this process, the group's one that does nothing."""
    base, _, attach = source(session).claim()

    family, group = systemd.started
    assert family[1] == os.getpid()
    assert (group[0], group[2]) == (UNIT, 64 * MB)
    assert group[1] != os.getpid()
    assert base == systemd.where(UNIT)
    assert str(group[1]) in (base / SUPERVISOR_LEAF / "cgroup.procs").read_text().split()
    assert (base / "cgroup.subtree_control").read_text().split() == ["memory"]
    assert attach is None


def test_who_stays_has_systemd_place(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """A process that must not move asks for no scope of its own, and may not enter this one."""
    subtree = source(session, allow_move=False).claim()

    assert [unit for unit, _, _ in systemd.started] == [UNIT]
    assert find_hierarchy(session.proc).own == session.at(SESSION)
    assert subtree.attach is not None


def test_it_is_claimed_once_a_process(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """By whichever backend object; another budget is set on it."""
    first = source(session).claim()

    assert source(session, None).claim() == first
    assert source(session, 96 * MB).claim() == first
    assert len(systemd.started) == 2
    assert systemd.limited == [(UNIT, 96 * MB)]


@pytest.mark.parametrize("size", [None, 64 * MB])
def test_another_supervisor_enters_it(
    session: FakeCgroupfs, systemd: FakeSystemd, size: int | None
) -> None:
    """With a process of its own, so that it stays as long as either needs it."""
    source(session).claim()
    as_another_process(systemd)
    base = source(session, size).claim().base

    assert base == systemd.where(UNIT)
    assert len(systemd.started) == 2
    ((unit, pid),) = systemd.entered
    assert unit == UNIT
    assert str(pid) in (base / SUPERVISOR_LEAF / "cgroup.procs").read_text().split()
    assert systemd.limited == []


def test_nothing_to_join(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Who gives no budget where there is no group is told who gives one."""
    with pytest.raises(ConfigurationError, match="group build has no budget here yet"):
        source(session, None).claim()

    assert systemd_family._state.groups == {}


def test_a_limit_goes_along(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """What holds where this process is holds for its group too."""
    session.put(SESSION, "memory.max", f"{32 * MB}\n")
    source(session, allow_move=False).claim()

    assert systemd.started[0][2] == 32 * MB
    assert systemd.limited == []


def test_one_that_was_stopped_is_started_again(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """By the same source, with the budget that it knew."""
    group = source(session)
    base = group.claim().base
    session.vanish(str(base.relative_to(session.mount)))

    assert group.claim().base == base
    assert [unit for unit, _, _ in systemd.started].count(UNIT) == 2


def test_releasing_lets_the_holder_go(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """systemd removes a scope with its last process."""
    group = source(session)
    group.claim()
    holder = systemd_family._state.groups["build"].holder
    assert holder is not None
    group.release()

    assert holder.poll() is not None
    assert systemd_family._state.groups == {}


def test_inside_another_family_scope_it_is_a_cgroup_there(
    session: FakeCgroupfs, systemd: FakeSystemd
) -> None:
    """Below an earlier cgmem, a group stays below its budget."""
    source(session).claim()
    family = systemd.started[0][0]
    systemd_family._state.family = None  # as a process that knows nothing of it
    as_another_process(systemd)
    base = source(session).claim().base

    assert base == systemd.where(family) / "cgmem-group-build"
    assert len(systemd.started) == 2


def test_a_leaf_that_never_comes(
    session: FakeCgroupfs, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope of that name that can't be entered is given up, with systemd's own word."""
    source(session).claim()
    as_another_process(systemd)

    def refuse(*_: object) -> None:
        raise BusError("org.freedesktop.DBus.Error.Failed", "No such file or directory")

    monkeypatch.setattr(systemd_group, "enter_scope", refuse)
    monkeypatch.setattr(systemd_group, "PATIENCE", 0.1)
    with pytest.raises(BackendUnavailable, match="No such file or directory"):
        source(session).claim()
