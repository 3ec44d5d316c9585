"""Limits and OOMs above a scope, read from a path of cgroups."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cgmem.errors import CgroupError
from cgmem_backends import ancestry
from cgmem_backends.ancestry import AncestorLimit, Ancestry, own_headroom
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


def test_the_smallest_limit(fake: FakeCgroupfs) -> None:
    """The smallest on the path, the base included, with whose it is."""
    assert of(fake, "a/b/c").smallest_limit() == AncestorLimit(500000, fake.at("a/b"))
    assert of(fake, "a").smallest_limit() == AncestorLimit(900000, fake.at("a"))


def test_no_limit_anywhere(fake: FakeCgroupfs) -> None:
    """With "max" all along, and in the root, which has no file, there is none."""
    fake.put("a", "memory.max", "max\n")
    fake.put("a/b", "memory.max", "max\n")

    assert of(fake, "a/b/c").smallest_limit() is None
    assert of(fake, "a/b/c").smallest_headroom() is None
    assert of(fake, "").smallest_limit() is None


def test_limits_are_read_anew(fake: FakeCgroupfs) -> None:
    """A limit that changes later is seen."""
    path = of(fake, "a/b/c")
    fake.put("a/b/c", "memory.max", "4096\n")

    assert path.smallest_limit() == AncestorLimit(4096, fake.at("a/b/c"))


def test_the_smallest_headroom(fake: FakeCgroupfs) -> None:
    """Limit minus usage, not below 0; a usage that can't be read counts as nothing used."""
    assert of(fake, "a/b/c").smallest_headroom() == AncestorLimit(50000, fake.at("a/b"))

    fake.put("a/b", "memory.current", "600000\n")
    assert of(fake, "a/b/c").smallest_headroom() == AncestorLimit(0, fake.at("a/b"))

    fake.put("a/b", "memory.current", None)
    assert of(fake, "a/b/c").smallest_headroom() == AncestorLimit(500000, fake.at("a/b"))


@pytest.mark.parametrize("text", ["", "garbage\n", "-5\n", "4k\n"])
def test_malformed_limits(fake: FakeCgroupfs, text: str) -> None:
    """What can't be read as a limit limits nothing."""
    fake.put("a/b", "memory.max", text)

    assert of(fake, "a/b/c").smallest_limit() == AncestorLimit(900000, fake.at("a"))


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

    assert path.smallest_limit() == AncestorLimit(900000, fake.at("a"))
    assert list(path.ooms()) == [fake.at("a")]


def test_a_base_outside_of_the_mount(fake: FakeCgroupfs, tmp_path: Path) -> None:
    """Then it is looked at alone, not the whole file system above it."""
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone/memory.max").write_text("4096\n")

    assert Ancestry(tmp_path / "lone", fake.mount).smallest_limit() == AncestorLimit(
        4096, tmp_path / "lone"
    )


def test_close_gives_the_descriptors_up(fake: FakeCgroupfs) -> None:
    """After close nothing is held, and nothing more is known; twice is harmless."""
    before = open_descriptors()
    path = of(fake, "a/b/c")
    held = open_descriptors() - before
    path.close()
    path.close()

    assert len(held) == 9
    assert open_descriptors() == before
    assert path.smallest_limit() is None
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
    assert own_headroom(fake.proc) == (50000, str(fake.at("a/b")))


def test_own_headroom_without_a_limit(fake: FakeCgroupfs) -> None:
    """None without a limit, and without cgroups."""
    fake.put("a", "memory.max", "max\n")
    fake.put("a/b", "memory.max", "max\n")

    assert own_headroom(fake.proc) is None
    assert own_headroom(fake.mount) is None


def test_the_module_reads_only(fake: FakeCgroupfs) -> None:
    """Nothing is ever written to an ancestor."""
    of(fake, "a/b/c").smallest_headroom()
    ancestry.own_headroom(fake.proc)

    assert fake.written == []
