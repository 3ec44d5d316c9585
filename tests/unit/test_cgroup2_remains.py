"""What dead supervisors left on a fake cgroupfs: found, swept once, taken over once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cgmem.contract import Limits, ScopeRecord
from cgmem.errors import CgmemError
from cgmem_backends import scope_record
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.placement import Placement
from cgmem_backends.remains import YOUNG_SECONDS
from cgmem_backends.subtree import RECORD_XATTR
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import FakeCgroupfs, NoGuard, install

MB = 1 << 20
OURS = ScopeRecord("engineer_1", os.getpid(), 4242, 3.0, ("make",), log_dir="/var/log")
DEAD = OURS._replace(supervisor_pid=7)
LIMITS = Limits(high_bytes=32 * MB, max_bytes=64 * MB)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """A hierarchy with this process in /job."""
    return install(FakeCgroupfs(tmp_path, {"job": {}, "other": {}}), monkeypatch)


def on(fake: FakeCgroupfs) -> Cgroup2Backend:
    """Return a backend on it."""
    return Cgroup2Backend(
        proc=fake.proc,
        systemd_runs=False,
        placement=Placement(lambda: "not wanted here"),
        guard=NoGuard(),
        mkdir=fake.mkdir,
        rmdir=fake.rmdir,
    )


def left(
    fake: FakeCgroupfs, name: str, record: ScopeRecord | bytes | None = DEAD, *, age: float = 0.0
) -> Path:
    """Make a cgroup in /job or elsewhere, as an earlier supervisor left it."""
    path = name if "/" in name else f"job/{name}"
    parent, _, _ = path.rpartition("/")
    fake.put(parent, "cgroup.subtree_control", "memory\n")
    directory = fake.at(path)
    fake.mkdir(directory)
    if record is not None:
        text = record if isinstance(record, bytes) else scope_record.encode(record)
        fake.set_xattr(directory, RECORD_XATTR, text)
    then = time.time() - age
    os.utime(directory, (then, then))
    return directory


def found(backend: Cgroup2Backend, *, nearby: bool = False) -> list[str]:
    """Name the remains."""
    names = []
    for scope in backend.remains(nearby=nearby):
        names.append(scope.location.rpartition("/")[2])
        scope.detach()
    return sorted(names)


def test_remains(fake: FakeCgroupfs) -> None:
    """Empty scopes of dead supervisors, wherever they are; not those of living ones."""
    left(fake, "cgmem-7-1")
    left(fake, "other/cgmem-7-2")
    left(fake, "cgmem-7-3")
    fake.put("job/cgmem-7-3", "cgroup.events", "populated 1\nfrozen 0\n")
    left(fake, "cgmem-7-4", OURS)
    left(fake, "cgmem-7-5", OURS._replace(supervisor_start=1))
    left(fake, "cgmem-7-6", OURS._replace(concluded=True))
    left(fake, "cgmem-7-7", b"of another version")
    left(fake, "strange")
    before = open_descriptors()

    assert found(on(fake)) == ["cgmem-7-1", "cgmem-7-2", "cgmem-7-5", "cgmem-7-6"]
    assert open_descriptors() == before


def test_what_never_had_a_record(fake: FakeCgroupfs) -> None:
    """Spares and guards' cgroups go by the pid in their names, once they are not new."""
    old = 2 * YOUNG_SECONDS
    left(fake, "cgmem-7-1", None, age=old)
    left(fake, "cgmem-guard-7-1", None, age=old)
    left(fake, "cgmem-7-2", None)
    left(fake, f"cgmem-{os.getpid()}-1", None, age=old)
    left(fake, f"cgmem-guard-{os.getpid()}-1", None, age=old)
    left(fake, "cgmem-supervisor", None, age=old)
    left(fake, "cgmem-x-1", None, age=old)

    assert found(on(fake)) == ["cgmem-7-1", "cgmem-guard-7-1"]


def test_what_may_have_a_supervisor(fake: FakeCgroupfs) -> None:
    """Where nobody can tell whether it lives, nothing of it is removed."""
    (fake.proc / "7/stat").mkdir(parents=True)
    left(fake, "cgmem-7-1")
    left(fake, "cgmem-7-2", None, age=2 * YOUNG_SECONDS)

    assert found(on(fake)) == []


def test_nearby(fake: FakeCgroupfs) -> None:
    """Beside the own scopes, and nothing before there are any."""
    left(fake, "cgmem-7-1")
    left(fake, "other/cgmem-7-2")
    backend = on(fake)
    before = found(backend, nearby=True)
    scope, _ = backend.open_scope(OURS, Limits())

    assert before == []
    assert found(backend, nearby=True) == ["cgmem-7-1"]
    scope.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_leaves_others_remains_alone(fake: FakeCgroupfs) -> None:
    """A record names a directory to write to: root takes no other user's word for it."""
    os.chown(left(fake, "cgmem-7-1"), 4242, 4242)

    assert found(on(fake)) == []


def test_sweeping(fake: FakeCgroupfs) -> None:
    """Of two who found it, one has removed it; a process that came meanwhile keeps it."""
    directory = left(fake, "cgmem-7-1")
    (one,), (two,) = on(fake).remains(), on(fake).remains()
    fake.enter("job/cgmem-7-1", 99)
    busy = one.sweep()
    fake.put("job/cgmem-7-1", "cgroup.procs", "")

    assert not busy
    assert [one.sweep(), two.sweep()] == [True, False]
    assert not directory.exists()
    one.detach()
    two.detach()


def test_what_it_still_tells(fake: FakeCgroupfs) -> None:
    """Its record, limits and counters."""
    left(fake, "cgmem-7-1")
    fake.put("job/cgmem-7-1", "memory.max", "4096\n")
    fake.put("job/cgmem-7-1", "memory.events", "high 0\nmax 9\noom 1\noom_kill 2\n")
    (scope,) = on(fake).remains()
    counters = scope.counters()

    assert scope.record == DEAD
    assert scope.limits().max_bytes == 4096
    assert counters.events is not None
    assert counters.events.oom_kill == 2
    assert counters.local_events is not None
    scope.detach()


def orphan(fake: FakeCgroupfs) -> None:
    """Let a subprocess live without its supervisor."""
    left(fake, "cgmem-7-1")
    fake.enter("job/cgmem-7-1", 99)


def test_taking_over(fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is the new one's, and a brake gets a guard for this scope alone."""
    started: list[tuple[Path, str]] = []
    monkeypatch.setattr(
        "cgmem_backends.guard.Guard.start", lambda _, base, name: started.append((base, name))
    )
    orphan(fake)
    backend = on(fake)
    (scope,) = backend.list_scopes()
    backend.take_over(scope, OURS)
    scope.set_limits(LIMITS)
    (again,) = on(fake).list_scopes()

    assert again.record == scope.record == OURS
    assert started == [(fake.at("job"), "cgmem-7-1")]
    backend.close()
    scope.detach()
    again.detach()


def test_only_one_takes_over(fake: FakeCgroupfs) -> None:
    """Of two that found the same orphan, the second is told so; after the first it is free."""
    orphan(fake)
    backend = on(fake)
    (one,), (two,) = backend.list_scopes(), on(fake).list_scopes()
    backend.take_over(one, DEAD._replace(supervisor_pid=8))
    with pytest.raises(CgmemError, match="taken over by another process"):
        backend.take_over(two, OURS)
    (three,) = backend.list_scopes()
    backend.take_over(three, OURS)

    assert three.record == OURS
    for scope in (one, two, three):
        scope.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_does_not_take_over_for_others(fake: FakeCgroupfs) -> None:
    """Another user's orphan is that user's."""
    orphan(fake)
    os.chown(fake.at("job/cgmem-7-1"), 4242, 4242)
    backend = on(fake)
    (scope,) = backend.list_scopes()

    with pytest.raises(CgmemError, match="another user"):
        backend.take_over(scope, OURS)
    scope.detach()


def test_a_scope_of_another_backend(fake: FakeCgroupfs) -> None:
    """It is a mistake of the caller's."""
    from tests.unit.fakes import FakeClock, FakeScope

    with pytest.raises(TypeError):
        on(fake).take_over(FakeScope(FakeClock()), OURS)
