"""The cgroup2 backend's book-keeping, on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import Backend, Limits, ScopeRecord
from cgmem.errors import BackendUnavailable, CgroupError
from cgmem_backends import kernel_files as kf
from cgmem_backends import scope_record
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.placement import Placement
from cgmem_backends.subtree import RECORD_XATTR, SUPERVISOR_LEAF
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import FakeCgroupfs, NoGuard, install

MB = 1 << 20
RECORD = ScopeRecord("engineer_1", os.getpid(), 2, 3.0, ("make",), "engineer", 1, 2, 3, "/var/log")

Build = Callable[..., tuple[FakeCgroupfs, Cgroup2Backend]]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build a hierarchy and a backend on it."""

    def made(
        tree: dict[str, dict[str, str | None]] | None = None, **options: Any
    ) -> tuple[FakeCgroupfs, Cgroup2Backend]:
        fake = install(FakeCgroupfs(tmp_path, tree or {"job": {}}, **options), monkeypatch)
        return fake, on(fake)

    return made


def on(fake: FakeCgroupfs, guard: NoGuard | None = None) -> Cgroup2Backend:
    """Return another backend on the same hierarchy."""
    return Cgroup2Backend(
        proc=fake.proc,
        systemd_runs=False,
        placement=Placement(lambda: "not wanted here"),
        guard=guard or NoGuard(),
        mkdir=fake.mkdir,
        rmdir=fake.rmdir,
    )


def scopes(fake: FakeCgroupfs, path: str = "job") -> list[str]:
    """Name the scopes' directories."""
    return sorted(x.name for x in fake.at(path).glob("cgmem-*") if x.name != SUPERVISOR_LEAF)


def test_it_is_a_backend(build: Build) -> None:
    """It fits the Protocol and promises what the kernel holds."""
    _, made = build()
    backend: Backend = made

    assert backend.name == "cgroup2"
    assert backend.capabilities.kernel_limits
    assert backend.capabilities.metric == "cgroup"
    assert made.placement() == ("trampoline", "not wanted here")


def test_nothing_is_touched_before_it_is_asked(build: Build) -> None:
    """Neither making the backend nor probing writes anything."""
    fake, backend = build()

    assert backend.probe().usable
    assert fake.written == []
    assert backend.list_scopes() == []
    assert fake.written == []


def test_a_host_without_cgroups(build: Build) -> None:
    """A probe says why; opening raises the same; listing finds nothing."""
    _, backend = build(kind="none")

    assert not backend.probe().usable
    with pytest.raises(BackendUnavailable, match="no cgroup2"):
        backend.open_scope(RECORD, Limits())
    assert backend.list_scopes() == []


def test_open_scope(build: Build) -> None:
    """A cgroup of our own name beside the leaf, with its limits and its record."""
    fake, backend = build()
    scope, effective = backend.open_scope(RECORD, Limits(max_bytes=64 * MB))
    name = f"cgmem-{os.getpid()}-1"

    assert scopes(fake) == [name]
    assert scope.location == f"/job/{name}"
    assert fake.get(f"job/{name}", kf.MEMORY_MAX) == str(64 * MB)
    assert effective.max_bytes == 64 * MB
    assert scope_record.decode(fake.xattrs[fake.at(f"job/{name}"), RECORD_XATTR]) == RECORD
    assert scope.close()
    scope.detach()
    assert scopes(fake) == []


def test_an_id_never_becomes_a_path(build: Build) -> None:
    """Whatever the subprocess is called, the directory's name is ours."""
    fake, backend = build()
    scope, _ = backend.open_scope(RECORD._replace(subprocess_id="../../etc"), Limits())

    assert scopes(fake) == [f"cgmem-{os.getpid()}-1"]
    scope.detach()


def test_the_effective_limit_counts_the_own_cgroups(build: Build) -> None:
    """The limit of the cgroup that is divided is above every scope."""
    fake, backend = build({"job": {kf.MEMORY_MAX: "4096\n"}})
    scope, effective = backend.open_scope(RECORD, Limits(max_bytes=64 * MB))

    assert effective.effective_max_bytes == 4096
    assert effective.effective_max_source == str(fake.at("job"))
    scope.detach()


def test_a_name_that_is_taken(build: Build) -> None:
    """A cgroup left by an earlier process with our pid is passed over."""
    left = f"cgmem-{os.getpid()}-1"
    fake, backend = build({"job": {}, f"job/{left}": {}})
    scope, _ = backend.open_scope(RECORD, Limits())

    assert scope.location == f"/job/cgmem-{os.getpid()}-2"
    assert scopes(fake) == [left, f"cgmem-{os.getpid()}-2"]
    scope.detach()


def test_the_subtree_is_claimed_once(build: Build) -> None:
    """From the second scope on only the scope's own files are written."""
    fake, backend = build()
    first, _ = backend.open_scope(RECORD, Limits())
    fake.written.clear()
    second, _ = backend.open_scope(RECORD, Limits())

    assert {name for name, _ in fake.written} == {
        kf.MEMORY_HIGH,
        kf.MEMORY_MAX,
        kf.MEMORY_SWAP_MAX,
        kf.MEMORY_OOM_GROUP,
    }
    first.detach()
    second.detach()


def test_a_claim_that_failed_is_tried_again(build: Build) -> None:
    """What was in the way may have gone."""
    fake, backend = build()
    fake.refused[kf.SUBTREE_CONTROL] = errno.EACCES
    with pytest.raises(BackendUnavailable):
        backend.open_scope(RECORD, Limits())
    fake.refused.clear()
    scope, _ = backend.open_scope(RECORD, Limits())

    assert scopes(fake) == [f"cgmem-{os.getpid()}-1"]
    scope.detach()


@pytest.mark.parametrize("name", [kf.MEMORY_HIGH, kf.MEMORY_MAX, kf.MEMORY_OOM_GROUP])
def test_a_refused_limit_leaves_nothing(build: Build, name: str) -> None:
    """The error names the file; the cgroup is removed and every descriptor closed."""
    fake, backend = build()
    keep, _ = backend.open_scope(RECORD, Limits())
    before = open_descriptors()
    fake.refused[name] = errno.EINVAL
    with pytest.raises(CgroupError, match=name.replace(".", r"\.")):
        backend.open_scope(RECORD, Limits(max_bytes=64 * MB))

    assert scopes(fake) == [f"cgmem-{os.getpid()}-1"]
    assert open_descriptors() == before
    keep.detach()


@pytest.mark.parametrize("allowed", range(3))
def test_out_of_descriptors_leaves_nothing(
    build: Build, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """At whichever open it happens: a clear error, no cgroup, no descriptor."""
    fake, backend = build()
    keep, _ = backend.open_scope(RECORD, Limits())
    before = open_descriptors()
    count = [0]
    real_open = fake.open

    def limited(path: Any, flags: int, *rest: Any) -> int:
        count[0] += 1
        if count[0] > allowed:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real_open(path, flags, *rest)

    monkeypatch.setattr(fake, "open", limited)
    with pytest.raises(CgroupError, match="Too many open files"):
        backend.open_scope(RECORD, Limits())

    assert scopes(fake) == [f"cgmem-{os.getpid()}-1"]
    assert open_descriptors() == before
    keep.detach()


def test_a_scope_that_comes_to_nothing_leaves_nothing(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits set, and then refused all the same: the cgroup goes, and the error is the first."""
    fake, backend = build()
    keep, _ = backend.open_scope(RECORD, Limits())
    before = open_descriptors()

    def refuse(*_: object) -> None:
        raise CgroupError(OSError(errno.EIO, os.strerror(errno.EIO)), "reading", "memory.events")

    monkeypatch.setattr("cgmem_backends.cgroup_scope.CgroupScope.renew", refuse)
    with pytest.raises(CgroupError, match=r"reading: .*memory\.events"):
        backend.open_scope(RECORD, Limits(max_bytes=64 * MB))

    assert scopes(fake) == [f"cgmem-{os.getpid()}-1"]
    assert open_descriptors() == before
    keep.detach()


def test_mkdir_refused(build: Build) -> None:
    """EAGAIN, from cgroup.max.descendants, is an error with the path."""
    fake, backend = build()
    kept, _ = backend.open_scope(RECORD, Limits())

    def refuse(path: Path) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    backend._mkdir = refuse
    with pytest.raises(CgroupError, match=r"making: .*cgmem-") as caught:
        backend.open_scope(RECORD, Limits())

    assert caught.value.errno == errno.EAGAIN
    assert len(scopes(fake)) == 1
    kept.detach()


def test_a_record_that_can_not_be_written(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xattrs (before 5.7) the budget holds all the same."""
    fake, backend = build()

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("cgmem_backends.cgroup2.set_xattr", refuse)
    scope, effective = backend.open_scope(RECORD, Limits(max_bytes=64 * MB))

    assert effective.enforced
    assert len(scopes(fake)) == 1
    assert backend.list_scopes() == []
    scope.detach()


def test_list_scopes(build: Build) -> None:
    """Another backend finds every scope with a record, nested ones too, and nothing else."""
    fake, backend = build({"job": {}, "job/cgmem-7-1": {}, "job/strange": {}})
    outer, _ = backend.open_scope(RECORD, Limits())
    inner = fake.at(outer.location) / "cgmem-8-1"
    fake.mkdir(inner)
    for name in (kf.MEMORY_CURRENT, kf.MEMORY_EVENTS):
        (inner / name).write_text("0\n")
    fake.set_xattr(inner, RECORD_XATTR, scope_record.encode(RECORD._replace(subprocess_id="in")))
    fake.set_xattr(fake.at("job/cgmem-7-1"), RECORD_XATTR, b"garbage")
    fake.set_xattr(fake.at("job/strange"), RECORD_XATTR, scope_record.encode(RECORD))
    found = {scope.location: scope for scope in on(fake).list_scopes()}

    assert set(found) == {outer.location, f"{outer.location}/cgmem-8-1"}
    assert found[outer.location].record == RECORD
    assert found[f"{outer.location}/cgmem-8-1"].record.subprocess_id == "in"
    for scope in (*found.values(), outer):
        scope.detach()


def test_a_scope_without_the_memory_controller_is_not_listed(build: Build) -> None:
    """What has no budget, since the controller was taken from it, is left out."""
    fake, backend = build()
    scope, _ = backend.open_scope(RECORD, Limits())
    fake.put(scope.location, kf.MEMORY_EVENTS, None)

    assert on(fake).list_scopes() == []
    scope.detach()


def test_a_scope_that_vanishes_while_listed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out, the others are listed."""
    fake, backend = build()
    (kept, _), (gone, _) = (backend.open_scope(RECORD, Limits()) for _ in range(2))
    really_open, current = fake.open, fake.at(gone.location) / kf.MEMORY_CURRENT

    def open_too_late(path: Any, flags: int, *rest: Any) -> int:
        if Path(path) == current:
            fake.vanish(gone.location)
        return really_open(path, flags, *rest)

    monkeypatch.setattr(fake, "open", open_too_late)
    found = on(fake).list_scopes()

    assert not current.exists()
    assert [scope.location for scope in found] == [kept.location]
    for scope in (*found, kept, gone):
        scope.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize(("euid", "seen"), [(0, True), (1000, True), (1001, False)])
def test_an_ordinary_user_lists_its_own(
    build: Build, monkeypatch: pytest.MonkeyPatch, euid: int, seen: bool
) -> None:
    """Root sees everybody's scopes, others what they own."""
    fake, backend = build()
    scope, _ = backend.open_scope(RECORD, Limits())
    os.chown(fake.at(scope.location), 1000, 1000)
    monkeypatch.setattr(fake, "geteuid", lambda: euid, raising=False)
    found = on(fake).list_scopes()

    assert [one.location for one in found] == ([scope.location] if seen else [])
    for one in (*found, scope):
        one.detach()


def test_opened_from_several_threads(build: Build) -> None:
    """One claim, and a directory for each."""
    fake, backend = build()
    locations: list[str] = []

    def work() -> None:
        for _ in range(5):
            scope, _ = backend.open_scope(RECORD, Limits())
            locations.append(scope.location)
            scope.detach()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(locations)) == 20
    # Refused at first, with ourselves inside; granted once we had moved.
    assert fake.written.count((kf.SUBTREE_CONTROL, b"+memory")) == 2
    assert sum(name == kf.PROCS for name, _ in fake.written) == 1


def test_the_next_supervisor_shares_the_subtree(build: Build) -> None:
    """A second backend of the same process family opens its scopes beside the first's."""
    fake, backend = build()
    first, _ = backend.open_scope(RECORD, Limits())
    second, _ = on(fake).open_scope(RECORD, Limits())

    assert Path(first.location).parent == Path(second.location).parent
    assert first.location != second.location
    first.detach()
    second.detach()


def test_a_brake_is_guarded(build: Build) -> None:
    """The first memory.high, also one set later, starts a guard for this process's scopes."""
    fake, _ = build()
    guard = NoGuard()
    backend = on(fake, guard)
    scope, _ = backend.open_scope(RECORD, Limits(max_bytes=64 * MB))
    before = list(guard.starts)
    scope.set_limits(Limits(high_bytes=32 * MB, max_bytes=64 * MB))

    assert before == []
    assert guard.starts == [f"{fake.at('job')}/cgmem-{os.getpid()}-*"]
    scope.detach()
    backend.close()
    assert guard.closed == 1


def test_a_guard_is_no_scope(build: Build) -> None:
    """The guard's cgroup is not listed."""
    fake, backend = build()
    fake.mkdir(fake.at(f"job/cgmem-guard-{os.getpid()}-1"))

    assert backend.list_scopes() == []


def test_trouble_with_the_guard_is_passed_on(build: Build) -> None:
    """What the guard has to say goes where the backend's owner wants it."""
    _, backend = build()
    told: list[str] = []
    backend.warn = told.append
    backend.warn("no guard")

    assert told == ["no guard"]
