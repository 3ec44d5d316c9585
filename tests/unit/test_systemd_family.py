"""The family scope: who moves in, who stays, and that there is one a process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgmem.contract import BY_RULE, Leave, ScopeRecord, Usability
from cgmem.errors import BackendUnavailable
from cgmem_backends import scope_record, systemd_family, systemd_held
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.hierarchy import find_hierarchy
from cgmem_backends.subtree import RECORD_XATTR, SUPERVISOR_LEAF, Host
from cgmem_backends.systemd_backend import SystemdBackend
from cgmem_backends.systemd_bus import BusError
from cgmem_backends.systemd_family import FamilyScope
from tests.unit.fake_cgroupfs import FakeCgroupfs, install
from tests.unit.fake_systemd import MANAGER, SESSION, FakeSystemd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


def source(session: FakeCgroupfs, leave: Leave = BY_RULE, *, runs: bool = True) -> FamilyScope:
    """Return the source on this host."""
    return FamilyScope(
        leave, lambda: Host(find_hierarchy(session.proc), session.proc, runs, 1000, session.mkdir)
    )


def test_without_systemd(session: FakeCgroupfs) -> None:
    """A host that systemd does not manage has no scopes to give; claiming says the same."""
    found = source(session, runs=False).inspect()

    assert not found.usable
    assert "systemd does not manage this host" in found.reason
    assert found.fix
    with pytest.raises(BackendUnavailable, match="does not manage"):
        source(session, runs=False).claim()


def test_without_the_memory_controller_on_v2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd on a hybrid hierarchy can't give what the kernel has elsewhere."""
    made = install(FakeCgroupfs(tmp_path, {"job": {}}, kind="hybrid"), monkeypatch)

    assert "hybrid" in source(made).inspect().reason


def test_the_manager_s_refusal_is_passed_on(
    session: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the manager is the reason."""
    refusal = Usability(False, "no user manager", "loginctl enable-linger ada")
    monkeypatch.setattr(systemd_family, "find_manager", lambda *_: refusal)

    assert source(session).inspect() == refusal
    with pytest.raises(BackendUnavailable, match="no user manager") as caught:
        source(session).claim()
    assert caught.value.hint == refusal.fix


def test_a_session_s_process_moves(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """It is asked for with the own pid, and sits in the leaf of a base that can hold budgets."""
    found = source(session).inspect()
    assert found.usable
    assert "moves into it" in found.reason
    assert systemd.started == []
    base, hierarchy, attach = source(session).claim()

    ((unit, pid, limit),) = systemd.started
    assert (pid, limit) == (os.getpid(), None)
    assert unit.startswith(f"cgmem-{os.getpid()}-")
    assert unit.endswith(".scope")
    assert base == session.at(f"{MANAGER}/cgmem.slice/{unit}")
    assert hierarchy.own == base / SUPERVISOR_LEAF
    assert attach is None
    assert session.get_xattr(base, "user.delegate") == b"1"
    assert (base / "cgroup.subtree_control").read_text().split() == ["memory"]


def test_one_scope_a_process(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Claimed again, by whichever backend object, it is the same."""
    first = source(session).claim()

    assert source(session).claim() == first
    assert len(systemd.started) == 1


def test_who_must_stay_has_it_held(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Another process is inside; systemd places the children where this process may not."""
    subtree_found = source(session, Leave(allow_move=False)).claim()

    ((_, pid, _),) = systemd.started
    assert pid != os.getpid()
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/cat\0"
    assert find_hierarchy(session.proc).own == session.at(SESSION)
    assert subtree_found.attach is not None


def test_who_stays_and_may_enter(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Below a cgroup of the own user, children go in without systemd's help."""
    terminal = f"{MANAGER}/app.slice"
    session.mkdir(session.at(terminal))
    session.enter(terminal, os.getpid())

    assert "systemd places" not in source(session, Leave(allow_move=False)).inspect().reason
    assert source(session, Leave(allow_move=False)).claim().attach is None


def test_a_limit_goes_along(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """Whoever leaves a limited cgroup takes its limit into the scope."""
    session.put(SESSION, "memory.max", f"{64 << 20}\n")
    source(session).claim()

    assert systemd.started[0][2] == 64 << 20


def test_a_scope_of_another_cgmem_is_not_left(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """To ask for a scope elsewhere would be to escape the outer budget."""
    session.set_xattr(session.at(SESSION), RECORD_XATTR, b"{}")
    found = source(session).inspect()

    assert not found.usable
    assert "a scope of another cgmem" in found.reason
    with pytest.raises(BackendUnavailable):
        source(session, Leave(allow_move=True)).claim()


def test_inside_a_family_scope_the_own_cgroup_is_divided(
    session: FakeCgroupfs, systemd: FakeSystemd
) -> None:
    """A later cgmem in an earlier one's family scope asks systemd for nothing."""
    source(session).claim()
    systemd_family._state.family = None  # as a process that knows nothing of it
    found = source(session).inspect()

    assert found.usable
    assert "own cgroup" in found.reason
    assert source(session).claim().base.name == systemd.started[0][0]
    assert len(systemd.started) == 1


def test_a_refused_scope_leaves_no_holder(
    session: FakeCgroupfs, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If systemd won't, the error says why and the process that was to hold it ends."""
    holders: list[subprocess.Popen[bytes]] = []
    start_holder = systemd_held.start_holder

    def noted() -> subprocess.Popen[bytes]:
        holders.append(start_holder())
        return holders[-1]

    monkeypatch.setattr(systemd_held, "start_holder", noted)
    systemd.refusal = BusError(BusError.NO_REPLY, "no reply within 5 s")
    with pytest.raises(BackendUnavailable, match="does not answer"):
        source(session, Leave(allow_move=False)).claim()

    assert systemd_family._state.family is None
    assert [holder.poll() for holder in holders] == [0]


def test_without_linger_it_is_noted(
    session: FakeCgroupfs, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user's manager runs ends with the last logout, unless the user lingers."""
    assert source(session).inspect().note is None
    monkeypatch.setattr(systemd_family, "lingers", lambda _euid: False)
    monkeypatch.setattr(systemd_family, "linger_command", lambda _euid: "loginctl enable-linger")
    found = source(session).inspect()

    assert found.usable
    assert found.note
    assert found.note.endswith("and this process and its subprocesses with it")
    assert found.fix == "loginctl enable-linger"


def test_a_forked_child_has_no_family(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """The child begins anew and does not keep the holder alive."""
    source(session, Leave(allow_move=False)).claim()
    holder = systemd_family._state.family.holder if systemd_family._state.family else None
    assert holder is not None
    assert holder.stdin is not None
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        known = systemd_family._state.family is not None
        os.write(write_end, b"%d %d" % (known, holder.stdin.closed))
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read_end, 10) == b"0 1"
    os.close(read_end)
    os.close(write_end)
    assert systemd_family._state.family is not None


def test_the_backend_lists_what_systemd_gave(session: FakeCgroupfs, systemd: FakeSystemd) -> None:
    """A scope is in one backend's list: in a family scope, whoever's, it is this one's."""
    for path in (f"{MANAGER}/cgmem.slice", f"{MANAGER}/cgmem.slice/cgmem-9-1-1.scope"):
        session.mkdir(session.at(path))
    paths = [f"{SESSION}/cgmem-7-1", f"{MANAGER}/cgmem.slice/cgmem-9-1-1.scope/cgmem-9-1"]
    for path in paths:
        (session.at(path).parent / "cgroup.subtree_control").write_text("memory\n")
        session.mkdir(session.at(path))
        record = scope_record.encode(ScopeRecord(session.at(path).name, 1, 1, 1.0))
        session.set_xattr(session.at(path), RECORD_XATTR, record)
    listed = [
        [scope.record.subprocess_id for scope in found.list_scopes()]
        for found in (Cgroup2Backend(proc=session.proc), SystemdBackend(proc=session.proc))
    ]

    assert listed == [["cgmem-7-1"], ["cgmem-9-1"]]


def test_an_own_start_time_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit has a name all the same; what is wrong shows when systemd is asked."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(systemd_family, "process_start", refuse)

    assert systemd_family._own_start() == 0
