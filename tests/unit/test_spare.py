"""A cgroup made ahead of its use, on a fake cgroupfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgmem.contract import Limits, ScopeRecord
from cgmem.errors import CgroupError
from cgmem_backends import kernel_files as kf
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.placement import Placement
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import FakeCgroupfs, NoGuard, install

MB = 1 << 20
RECORD = ScopeRecord("engineer_1", os.getpid(), 2, 3.0, ("make",))
LIMITS = Limits(high_bytes=32 * MB, max_bytes=64 * MB)


class Ahead:
    """A backend on a fake hierarchy, and what lies in it."""

    def __init__(self, fake: FakeCgroupfs) -> None:
        self.fake = fake
        self.backend = Cgroup2Backend(
            proc=fake.proc,
            systemd_runs=False,
            placement=Placement(lambda: "not wanted here"),
            guard=NoGuard(),
            mkdir=fake.mkdir,
            rmdir=fake.rmdir,
        )

    @property
    def cgroups(self) -> list[str]:
        """The directories of scopes, used or spare."""
        return sorted(path.name for path in self.fake.at("job").glob("cgmem-[0-9]*"))


@pytest.fixture
def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """A backend that is ours to try."""
    return Ahead(install(FakeCgroupfs(tmp_path, {"job": {}}), monkeypatch))


def test_the_next_scope_is_the_one_made_ahead(ahead: Ahead) -> None:
    """Opening after `prepare` makes no further cgroup and gives the record and limits asked for."""
    ahead.backend.prepare(LIMITS)
    made = ahead.cgroups

    scope, effective = ahead.backend.open_scope(RECORD, LIMITS)

    assert ahead.cgroups == made
    assert scope.record == RECORD
    assert scope.location.rpartition("/")[2] == made[0]
    assert (effective.high_bytes, effective.max_bytes) == (32 * MB, 64 * MB)
    assert effective.enforced
    scope.detach()


def test_only_one_is_held(ahead: Ahead) -> None:
    """However often the caller is idle, one cgroup is made ahead."""
    for _ in range(3):
        ahead.backend.prepare(LIMITS)

    assert len(ahead.cgroups) == 1


def test_another_budget(ahead: Ahead) -> None:
    """One made for another budget is removed, and the scope has the budget asked for."""
    ahead.backend.prepare(LIMITS)
    before = ahead.cgroups

    scope, effective = ahead.backend.open_scope(RECORD, Limits(max_bytes=128 * MB))

    assert effective.max_bytes == 128 * MB
    assert len(ahead.cgroups) == 1
    assert ahead.cgroups != before
    scope.detach()


def test_removed_by_somebody(ahead: Ahead) -> None:
    """One that was removed meanwhile is no trouble: a new one is made."""
    ahead.backend.prepare(LIMITS)
    for name in ahead.cgroups:
        ahead.fake.rmdir(ahead.fake.at("job") / name)

    scope, effective = ahead.backend.open_scope(RECORD, LIMITS)

    assert effective.max_bytes == 64 * MB
    assert len(ahead.cgroups) == 1
    scope.detach()


def test_a_limit_above_it_that_was_set_meanwhile(ahead: Ahead) -> None:
    """The effective limit is read when the scope is given out, not when it was made."""
    ahead.backend.prepare(LIMITS)
    (ahead.fake.at("job") / kf.MEMORY_MAX).write_text(f"{16 * MB}\n")

    scope, effective = ahead.backend.open_scope(RECORD, LIMITS)

    assert effective.effective_max_bytes == 16 * MB
    scope.detach()


def test_nothing_is_left(ahead: Ahead) -> None:
    """`close` removes what was not used, with its descriptors."""
    scope, _ = ahead.backend.open_scope(RECORD, LIMITS)  # claims the subtree
    before = open_descriptors()
    ahead.backend.prepare(LIMITS)
    ahead.backend.close()

    assert open_descriptors() == before
    assert len(ahead.cgroups) == 1
    scope.detach()


def test_a_forked_child_leaves_it(ahead: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy of a forked child doesn't remove its parent's."""
    ahead.backend.prepare(LIMITS)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    ahead.backend.close()

    assert len(ahead.cgroups) == 1


def test_it_never_raises(ahead: Ahead) -> None:
    """What fails ahead of time is told by the start that needs it."""
    refused = LIMITS._replace(max_bytes=-1)
    ahead.backend.prepare(refused)

    assert ahead.cgroups == []
    with pytest.raises(CgroupError):
        ahead.backend.open_scope(RECORD, refused)
