"""A group's cgroup in a subtree of ours: made, joined, limited, removed; on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import MB, EffectiveLimits, Group, Headroom, LimitAbove, Limits, ScopeRecord
from cgmem.errors import BackendUnavailable, ConfigurationError
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.group_cgroup import wanted_limit
from cgmem_backends.remains import YOUNG_SECONDS
from tests.unit.fake_cgroupfs import FakeCgroupfs, NoGuard, install

RECORD = ScopeRecord("a", os.getpid(), 1, 1.0)
LIMITS = Limits(max_bytes=32 * MB)
GROUP = "job/cgmem-group-build"

Make = Callable[..., Cgroup2Backend]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """A cgroup of our own."""
    return install(FakeCgroupfs(tmp_path, {"job": {}}), monkeypatch)


@pytest.fixture
def make(fake: FakeCgroupfs) -> Iterator[Make]:
    """Make backends as the selector does, and close them."""
    made: list[Cgroup2Backend] = []

    def one(size: int | None = 64 * MB, name: str = "build", **options: Any) -> Cgroup2Backend:
        backend = Cgroup2Backend(
            proc=fake.proc,
            systemd_runs=False,
            guard=NoGuard(),
            **{"mkdir": fake.mkdir, "rmdir": fake.rmdir, **options},
            group=Group(name, size),
        )
        made.append(backend)
        return backend

    yield one
    for backend in made:
        backend.close()


def opened(backend: Cgroup2Backend, limits: Limits = LIMITS) -> EffectiveLimits:
    """Open a scope and leave it; return what the kernel is said to hold."""
    scope, effective = backend.open_scope(RECORD, limits)
    scope.detach()
    return effective


def test_a_scope_lies_in_its_group(fake: FakeCgroupfs, make: Make) -> None:
    """The group's cgroup has the budget, and the effective limit names the group."""
    effective = opened(make(), Limits(max_bytes=128 * MB))

    assert fake.get(GROUP, "memory.max") == str(64 * MB)
    assert fake.get(f"{GROUP}/cgmem-{os.getpid()}-1", "memory.max") == str(128 * MB)
    assert effective.max_bytes == 128 * MB
    assert effective.effective_max_bytes == 64 * MB
    assert effective.effective_max_source == "group build"


def test_what_a_group_has_left(fake: FakeCgroupfs, make: Make) -> None:
    """It is read whenever a scope opens, also where the own limit is the smaller one."""
    backend = make()
    opened(backend)
    fake.put(GROUP, "memory.current", f"{40 * MB}\n")
    effective = opened(backend)

    above = LimitAbove("group build", 64 * MB)
    assert effective.headroom == Headroom(24 * MB, above, 64 * MB)
    assert effective.effective_max_bytes == LIMITS.max_bytes


def test_several_share_it(fake: FakeCgroupfs, make: Make) -> None:
    """Another supervisor's scope of that name lies beside; one that gives no budget joins."""
    opened(make())
    opened(make(None))

    assert fake.get(GROUP, "memory.max") == str(64 * MB)
    assert len([path for path in fake.at(GROUP).iterdir() if path.is_dir()]) == 2


def test_a_group_that_nobody_gave_a_budget(fake: FakeCgroupfs, make: Make) -> None:
    """There is nothing to join: it says who gives one, and leaves nothing behind."""
    with pytest.raises(ConfigurationError, match="group build has no budget") as caught:
        opened(make(None))

    assert "--group-max" in str(caught.value.hint)
    assert not fake.at(GROUP).exists()


@pytest.mark.parametrize("size", [48 * MB, 96 * MB])
def test_another_budget_is_set_anew(fake: FakeCgroupfs, make: Make, size: int) -> None:
    """Up and down."""
    opened(make())
    opened(make(size))

    assert fake.get(GROUP, "memory.max") == str(size)


def test_a_budget_below_what_is_used_is_refused(fake: FakeCgroupfs, make: Make) -> None:
    """The kernel would kill for it."""
    opened(make())
    fake.put(GROUP, "memory.current", f"{50 * MB}\n")
    with pytest.raises(ConfigurationError, match=r"uses 50\.0 MB already"):
        opened(make(48 * MB))

    assert fake.get(GROUP, "memory.max") == str(64 * MB)


def test_the_same_budget_is_not_written_again(fake: FakeCgroupfs, make: Make) -> None:
    """Sizes are compared as the kernel rounds them, so every use of one file agrees."""
    opened(make(64 * MB + 1))
    fake.written.clear()
    opened(make(64 * MB + 2))

    assert ("memory.max", b"%d" % (64 * MB + 2)) not in fake.written


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_sizes_are_rounded_to_this_machine_s_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """What the kernel rounded down is the budget that was asked for."""
    monkeypatch.setattr(os, "sysconf", lambda _name: page)
    (tmp_path / "memory.max").write_text(f"{1000 * page}\n")

    assert wanted_limit(tmp_path, Group("build", 1001 * page - 1)) is None
    assert wanted_limit(tmp_path, Group("build", 1001 * page)) == 1001 * page


def test_closing_removes_an_empty_group(fake: FakeCgroupfs, make: Make) -> None:
    """The last one out removes it; while a subprocess is inside it stays."""
    first, second = make(), make(None)
    scopes = [backend.open_scope(RECORD, LIMITS)[0] for backend in (first, second)]
    for scope, backend in zip(scopes, (first, second), strict=True):
        assert fake.at(GROUP).exists()
        assert scope.close()
        scope.detach()
        backend.close()

    assert not fake.at(GROUP).exists()


def test_one_that_was_removed_is_made_again(fake: FakeCgroupfs, make: Make) -> None:
    """Also by who only joined it: the budget is known from then."""
    opened(make())
    joined = make(None)
    opened(joined)
    fake.vanish(GROUP)
    opened(joined)

    assert fake.get(GROUP, "memory.max") == str(64 * MB)


def test_a_group_that_can_not_be_made(fake: FakeCgroupfs, make: Make) -> None:
    """The kernel's word is in the reason."""

    def refuse(path: Path) -> None:
        if "group" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fake.mkdir(path)

    with pytest.raises(BackendUnavailable, match=r"build can't be made .* No space left"):
        opened(make(mkdir=refuse))


@pytest.mark.parametrize(("age", "found"), [(0.0, 0), (2 * YOUNG_SECONDS, 1)])
def test_an_empty_group_is_swept(fake: FakeCgroupfs, make: Make, age: float, found: int) -> None:
    """gc removes what killed supervisors left, if it is no group in the making."""
    opened(make())
    fake.rmdir(fake.at(f"{GROUP}/cgmem-{os.getpid()}-1"))
    then = time.time() - age
    os.utime(fake.at(GROUP), (then, then))
    left = list(make(name="other").remains())

    assert [scope.location for scope in left] == ["/" + GROUP] * found
    for scope in left:
        assert scope.sweep()
        scope.detach()


def test_a_group_with_a_scope_is_not_swept(fake: FakeCgroupfs, make: Make) -> None:
    """However old."""
    opened(make())
    os.utime(fake.at(GROUP), (1.0, 1.0))

    assert list(make(name="other").remains()) == []
