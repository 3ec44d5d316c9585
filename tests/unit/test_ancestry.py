"""Limits and OOMs above a scope, read from a path of cgroups."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import Headroom, LimitAbove
from cgmem.errors import CgroupError
from cgmem_backends import ancestry
from cgmem_backends.ancestry import AncestorLimit, Ancestry, headroom, own_headroom
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import FakeCgroupfs, install

OOM_ONCE = "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """Three levels; the middle one is the tightest."""
    tree: dict[str, dict[str, str | None]] = {
        "a": {"memory.max": "900000\n", "memory.current": "100000\n"},
        "a/b": {"memory.max": "500000\n", "memory.current": "450000\n"},
        "a/b/c": {"memory.max": "max\n", "memory.current": "400000\n"},
    }
    return install(FakeCgroupfs(tmp_path, tree, own="/a/b/c"), monkeypatch)


def of(fake: FakeCgroupfs, path: str) -> Ancestry:
    """Take the path up from a cgroup."""
    return Ancestry(fake.at(path), fake.mount)


def test_the_limits(fake: FakeCgroupfs) -> None:
    """Each on the path, the base included, with whose it is and what it leaves."""
    limits = of(fake, "a/b/c").limits()

    assert limits == [
        AncestorLimit(500000, fake.at("a/b"), 50000),
        AncestorLimit(900000, fake.at("a"), 800000),
    ]
    assert min(limits).directory == fake.at("a/b")
    assert of(fake, "a").limits() == limits[1:]


def test_no_limit_anywhere(fake: FakeCgroupfs) -> None:
    """With "max" all along, and in the root, which has no file, there is none."""
    fake.put("a", "memory.max", "max\n")
    fake.put("a/b", "memory.max", "max\n")

    assert of(fake, "a/b/c").limits() == []
    assert of(fake, "").limits() == []
    assert headroom([]) is None


def test_limits_are_read_anew(fake: FakeCgroupfs) -> None:
    """A limit that changes later is seen."""
    path = of(fake, "a/b/c")
    fake.put("a/b/c", "memory.max", "4096\n")

    assert min(path.limits()).max_bytes == 4096


def test_the_headroom(fake: FakeCgroupfs) -> None:
    """Limit minus usage, not below 0; a usage that can't be read counts as nothing used."""

    def left() -> Headroom | None:
        return headroom(of(fake, "a/b/c").limits())

    middle = LimitAbove(str(fake.at("a/b")), 500000)
    assert left() == Headroom(50000, middle, 500000)

    fake.put("a/b", "memory.current", "600000\n")
    assert left() == Headroom(0, middle, 500000)

    fake.put("a/b", "memory.current", None)
    assert left() == Headroom(500000, middle, 500000)

    # Not the one with the smallest limit.
    fake.put("a", "memory.current", "700000\n")
    above = LimitAbove(str(fake.at("a")), 900000)
    assert left() == Headroom(200000, above, 500000)


@pytest.mark.parametrize("text", ["", "garbage\n", "-5\n", "4k\n"])
def test_malformed_limits(fake: FakeCgroupfs, text: str) -> None:
    """What can't be read as a limit limits nothing."""
    fake.put("a/b", "memory.max", text)

    assert [limit.directory for limit in of(fake, "a/b/c").limits()] == [fake.at("a")]


def test_ooms(fake: FakeCgroupfs) -> None:
    """The `oom` of each local file, 0 where it has no such key; no file (before 5.2), no entry."""
    fake.put("a/b", "memory.events.local", OOM_ONCE)
    fake.put("a/b/c", "memory.events.local", "low 0\n")
    fake.put("a", "memory.events.local", None)

    assert of(fake, "a/b/c").ooms() == {fake.at("a/b"): 1, fake.at("a/b/c"): 0}


def test_removed_ancestors(fake: FakeCgroupfs) -> None:
    """A removed cgroup limits nothing and counts nothing; the others still do."""
    path = of(fake, "a/b/c")
    fake.vanish("a/b")

    assert [limit.directory for limit in path.limits()] == [fake.at("a")]
    assert list(path.ooms()) == [fake.at("a")]


def test_a_base_outside_of_the_mount(fake: FakeCgroupfs, tmp_path: Path) -> None:
    """Then it is looked at alone, not the whole file system above it."""
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone/memory.max").write_text("4096\n")

    assert Ancestry(tmp_path / "lone", fake.mount).limits() == [
        AncestorLimit(4096, tmp_path / "lone", 4096)
    ]


def test_close_gives_the_descriptors_up(fake: FakeCgroupfs) -> None:
    """After close nothing is held, and nothing more is known; twice is harmless."""
    before = open_descriptors()
    path = of(fake, "a/b/c")
    held = open_descriptors() - before
    path.close()
    path.close()

    assert len(held) == 9
    assert open_descriptors() == before
    assert path.limits() == []
    assert path.ooms() == {}


@pytest.mark.parametrize("allowed", range(9))
def test_no_descriptor_left(
    fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """Out of descriptors is an error, never a path without limits; what was opened is closed."""
    opened: list[int] = []

    def limited(path: Any, flags: int) -> int:
        if len(opened) == allowed:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(os.open(path, flags))
        return opened[-1]

    monkeypatch.setattr(fake, "open", limited, raising=False)
    before = open_descriptors()
    with pytest.raises(CgroupError, match="Too many open files"):
        of(fake, "a/b/c")

    assert open_descriptors() == before


def test_own_headroom(fake: FakeCgroupfs) -> None:
    """This process's own path, from /proc."""
    own = LimitAbove(str(fake.at("a/b")), 500000)
    assert own_headroom(fake.proc) == Headroom(50000, own, 500000)


def test_own_headroom_after_a_move(fake: FakeCgroupfs) -> None:
    """The path is looked for again once this process is in another cgroup, and limits each time."""
    own_headroom(fake.proc)
    fake.put("a", "memory.max", "800000\n")
    (fake.proc / "self/cgroup").write_text("0::/a\n")

    own = LimitAbove(str(fake.at("a")), 800000)
    assert own_headroom(fake.proc) == Headroom(700000, own, 800000)


def test_own_headroom_holds_nothing(fake: FakeCgroupfs) -> None:
    """No descriptor stays open."""
    before = open_descriptors()
    own_headroom(fake.proc)

    assert open_descriptors() == before


def test_own_headroom_without_a_limit(fake: FakeCgroupfs) -> None:
    """None without a limit, and without cgroups."""
    fake.put("a", "memory.max", "max\n")
    fake.put("a/b", "memory.max", "max\n")

    assert own_headroom(fake.proc) is None
    assert own_headroom(fake.mount) is None


def test_the_module_reads_only(fake: FakeCgroupfs) -> None:
    """Nothing is ever written to an ancestor."""
    of(fake, "a/b/c").limits()
    ancestry.own_headroom(fake.proc)

    assert fake.written == []
