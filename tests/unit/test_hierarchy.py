"""Which cgroups this process sees, told from /proc/self alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.errors import CgroupError
from cgmem_backends.hierarchy import (
    Hierarchy,
    find_hierarchy,
    parse_mountinfo,
    parse_own_cgroup,
)
from tests.unit.fake_cgroupfs import FakeCgroupfs


def proc(directory: Path, mountinfo: str, cgroup: str = "0::/job\n") -> Path:
    """Write the two files."""
    (directory / "self").mkdir()
    (directory / "self/mountinfo").write_text(mountinfo)
    (directory / "self/cgroup").write_text(cgroup)
    return directory


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
V1_CPU = "32 23 0:28 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu\n"


def test_v2_alone(tmp_path: Path) -> None:
    """cgroup2, and no v1 hierarchy with the memory controller."""
    found = find_hierarchy(proc(tmp_path, V2))

    assert found == Hierarchy("v2", Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/job"))


def test_v2_beside_v1_controllers_other_than_memory(tmp_path: Path) -> None:
    """A v1 cpu hierarchy does not take the memory controller away."""
    assert find_hierarchy(proc(tmp_path, V2 + V1_CPU)).kind == "v2"


def test_hybrid(tmp_path: Path) -> None:
    """cgroup2 without the memory controller, which v1 has."""
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    found = find_hierarchy(proc(tmp_path, V1 + unified, "5:memory:/job\n0::/job\n"))

    assert found.kind == "hybrid"
    assert found.mount == Path("/sys/fs/cgroup/unified")


def test_v1(tmp_path: Path) -> None:
    """No cgroup2 mount, but v1 ones."""
    found = find_hierarchy(proc(tmp_path, V1, "5:memory:/job\n"))

    assert found == Hierarchy("v1", None, None)


@pytest.mark.parametrize("mountinfo", ["", "23 1 8:1 / / rw - ext4 /dev/root rw\n", "garbage\n"])
def test_none(tmp_path: Path, mountinfo: str) -> None:
    """No cgroup mount at all."""
    assert find_hierarchy(proc(tmp_path, mountinfo)).kind == "none"


def test_no_proc(tmp_path: Path) -> None:
    """Missing files mean no cgroups, as on macOS."""
    assert find_hierarchy(tmp_path) == Hierarchy("none", None, None)


def test_no_descriptor_is_not_no_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, it must not look as if the host had no cgroups."""
    proc(tmp_path, V2)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(CgroupError, match="Too many open files") as caught:
            find_hierarchy(tmp_path)

    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    "line",
    [V2.replace("rw,nosuid", "ro,nosuid"), V2.replace("cgroup2 rw", "cgroup2 ro")],
    ids=["bind", "super block"],
)
def test_read_only(tmp_path: Path, line: str) -> None:
    """A read-only bind and a read-only mount are both found out."""
    assert find_hierarchy(proc(tmp_path, line)).read_only
    assert not find_hierarchy(proc_again(tmp_path, V2)).read_only


def proc_again(directory: Path, mountinfo: str) -> Path:
    """Write another mountinfo."""
    (directory / "self/mountinfo").write_text(mountinfo)
    return directory


def test_own_cgroup_below_a_mounted_part(tmp_path: Path) -> None:
    """Where a part of the tree is bind-mounted, the path below its root counts."""
    line = V2.replace(" / /sys", " /machine/one /sys")
    found = find_hierarchy(proc(tmp_path, line, "0::/machine/one/job\n"))

    assert found.own == Path("/sys/fs/cgroup/job")
    assert found.shown(Path("/sys/fs/cgroup/job")) == "/job"


def test_own_cgroup_is_the_mounts_root(tmp_path: Path) -> None:
    """In a cgroup namespace the own cgroup is "/"."""
    found = find_hierarchy(proc(tmp_path, V2, "0::/\n"))

    assert found.own == Path("/sys/fs/cgroup")
    assert found.shown(Path("/sys/fs/cgroup")) == "/"


@pytest.mark.parametrize(
    ("line", "cgroup"),
    [
        (V2, "0::/../outside\n"),
        (V2, "0::/..\n"),
        (V2.replace(" / /sys", " /machine/one /sys"), "0::/machine/one-more/job\n"),
        (V2.replace(" / /sys", " /../.. /sys"), "0::/\n"),
        (V2, ""),
        (V2, "5:memory:/job\n"),
    ],
)
def test_own_cgroup_out_of_sight(tmp_path: Path, line: str, cgroup: str) -> None:
    """Outside of the namespace or of what is mounted, there is a mount and no own cgroup."""
    found = find_hierarchy(proc(tmp_path, line, cgroup))

    assert found.mount == Path("/sys/fs/cgroup")
    assert found.own is None


def test_the_mount_that_shows_the_own_cgroup_is_taken(tmp_path: Path) -> None:
    """Of several cgroup2 mounts, the one through which the own cgroup is visible."""
    other = V2.replace(" / /sys/fs/cgroup", " /other /mnt/other")
    nearer = V2.replace(" / /sys/fs/cgroup", " /job /mnt/job")

    assert find_hierarchy(proc(tmp_path, other + V2)).mount == Path("/sys/fs/cgroup")
    assert find_hierarchy(proc_again(tmp_path, V2 + nearer)).mount == Path("/mnt/job")


def test_the_machines_root_is_told_from_a_namespaces(tmp_path: Path) -> None:
    """Only the machine's own root has no cgroup.type."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    machine = FakeCgroupfs(tmp_path / "a", {"job": {}})
    namespace = FakeCgroupfs(tmp_path / "b", {"job": {}}, namespaced=True)

    assert find_hierarchy(machine.proc).root_is_hosts
    assert not find_hierarchy(namespace.proc).root_is_hosts
    assert not Hierarchy("none", None, None).root_is_hosts


def test_escapes_in_mount_points() -> None:
    """Space, tab, newline and backslash are octal escapes."""
    line = rb"30 23 0:26 / /a\040b\011c\012d\134040e rw - cgroup2 none rw"

    assert [mount.point for mount in parse_mountinfo(line)] == ["/a b\tc\nd\\040e"]


def test_optional_fields_and_missing_options() -> None:
    """Any number of optional fields may stand before the separator, and options may be missing."""
    many = b"30 23 0:26 / /m rw shared:1 master:2 propagate_from:3 - cgroup2 none rw"
    bare = b"30 23 0:26 / /m rw - cgroup2 none"
    torn = b"30 23 0:26 / /m rw - cgroup2"

    assert [mount.point for mount in parse_mountinfo(b"\n".join([many, bare, torn]))] == ["/m"] * 2


@given(st.binary(max_size=300))
def test_mountinfo_of_any_bytes(text: bytes) -> None:
    """Nothing raises."""
    for mount in parse_mountinfo(text + b"\n1 2 3 4 5 6 - 7 8 " + text):
        assert mount.fstype


@given(st.from_regex(r"(/[a-z0-9@:_. \\-]{1,12}){1,4}", fullmatch=True))
def test_mount_points_round_trip(point: str) -> None:
    """What the kernel escapes is undone."""
    escaped = point.replace("\\", "\\134").replace(" ", "\\040")

    found = parse_mountinfo(f"30 23 0:26 / {escaped} rw - cgroup2 none rw".encode())
    assert [mount.point for mount in found] == [point]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"0::/\n", "/"),
        (b"5:memory:/x\n1:name=systemd:/y\n0::/a/b\n", "/a/b"),
        (b"0::/with space:and::colons\n", "/with space:and::colons"),
        (b"0::/gone (deleted)\n", "/gone"),
        (b"0::/\xff\n", os.fsdecode(b"/\xff")),
        (b"5:memory:/x\n", None),
        (b"", None),
    ],
)
def test_own_cgroup_line(text: bytes, path: str | None) -> None:
    """The path of the 0:: line, without the mark of a removed cgroup."""
    assert parse_own_cgroup(text) == path


@given(st.binary(max_size=200))
def test_own_cgroup_of_any_bytes(text: bytes) -> None:
    """Nothing raises."""
    found = parse_own_cgroup(text)
    assert found is None or "\n" not in found
