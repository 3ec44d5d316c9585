"""Whether the own cgroup is ours to divide, why not, and making it ready; on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgmem.errors import BackendUnavailable
from cgmem_backends import kernel_files as kf
from cgmem_backends import subtree
from cgmem_backends.hierarchy import find_hierarchy
from cgmem_backends.subtree import RECORD_XATTR, SUPERVISOR_LEAF, Host
from tests.unit.fake_cgroupfs import FakeCgroupfs, install

ME = os.getpid()
SHELL = os.getppid()
STRANGER = 4_999_999

Build = Callable[..., FakeCgroupfs]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build a hierarchy and put it under the module."""

    def made(tree: dict[str, dict[str, str | None]] | None = None, **options: Any) -> FakeCgroupfs:
        return install(FakeCgroupfs(tmp_path, tree or {"job": {}}, **options), monkeypatch)

    return made


def host(fake: FakeCgroupfs, *, systemd: bool = False, euid: int = 0) -> Host:
    """Describe the machine."""
    return Host(find_hierarchy(fake.proc), fake.proc, systemd, euid, fake.mkdir)


def refused(fake: FakeCgroupfs, **about: Any) -> tuple[str, str]:
    """Ask; a refusal has a reason and a fix, changes nothing, and is what `claim` raises."""
    fake.written.clear()
    found = subtree.inspect(host(fake, **about))
    assert not found.usable
    assert found.fix
    with pytest.raises(BackendUnavailable) as caught:
        subtree.claim(host(fake, **about))
    assert str(caught.value) == found.reason
    assert caught.value.hint == found.fix
    assert fake.written == []
    return found.reason, found.fix


def test_alone_in_the_own_cgroup(build: Build) -> None:
    """Without systemd, a cgroup with ourselves alone is ours; asking changes nothing."""
    fake = build()
    found = subtree.inspect(host(fake))

    assert found.usable
    assert "/job" in found.reason
    assert fake.written == []


def test_claiming_moves_us_to_a_leaf(build: Build) -> None:
    """The kernel's rule: a cgroup that passes controllers on holds no process."""
    fake = build()
    fake.enter("job", SHELL, ME)
    base = subtree.claim(host(fake))

    assert base == fake.at("job")
    assert fake.get("job", kf.SUBTREE_CONTROL) == "memory"
    assert set(fake.get(f"job/{SUPERVISOR_LEAF}", kf.PROCS).split()) == {str(ME), str(SHELL)}
    assert fake.get("job", kf.PROCS) == ""


def test_claiming_again_from_the_leaf(build: Build) -> None:
    """The next supervisor of the family sits in the leaf; its scopes lie beside the leaf."""
    fake = build()
    first = subtree.claim(host(fake))
    fake.written.clear()

    assert subtree.inspect(host(fake)).usable
    assert subtree.claim(host(fake)) == first
    assert fake.written == []


def test_no_move_where_nobody_is_inside(build: Build) -> None:
    """A delegated base whose processes sit elsewhere only gets the controller."""
    fake = build({f"job/{SUPERVISOR_LEAF}": {}}, own=f"/job/{SUPERVISOR_LEAF}")
    subtree.claim(host(fake))

    assert fake.written == [(kf.SUBTREE_CONTROL, b"+memory")]


def test_the_machines_root_without_systemd(build: Build) -> None:
    """In the real root strangers don't matter, and nobody needs to move."""
    fake = build({}, own="/")
    fake.enter("", STRANGER)
    base = subtree.claim(host(fake))

    assert base == fake.mount
    assert fake.written == [(kf.SUBTREE_CONTROL, b"+memory")]


def test_a_namespaces_root(build: Build) -> None:
    """In a container's own root, systemd on the host has no say, but the leaf rule holds."""
    fake = build({}, own="/", namespaced=True)
    base = subtree.claim(host(fake, systemd=True))

    assert base == fake.mount
    assert fake.get(SUPERVISOR_LEAF, kf.PROCS) == str(ME)


def test_hybrid(build: Build) -> None:
    """The memory controller is on v1: the kernel's boot option is the fix."""
    reason, fix = refused(build(kind="hybrid"))

    assert "hybrid" in reason
    assert "systemd.unified_cgroup_hierarchy=1" in fix


def test_v1(build: Build) -> None:
    """Only v1."""
    reason, fix = refused(build(kind="v1"))

    assert "only cgroup v1" in reason
    assert "systemd.unified_cgroup_hierarchy=1" in fix


def test_none(build: Build) -> None:
    """No cgroup file system at all."""
    reason, fix = refused(build(kind="none"))

    assert "no cgroup2" in reason
    assert fix.startswith("mount -t cgroup2")


def test_read_only(build: Build) -> None:
    """As in most containers."""
    reason, fix = refused(build(read_only=True))

    assert "read-only" in reason
    assert "container" in fix


@pytest.mark.parametrize("own", ["/../outside", "/gone"])
def test_out_of_sight(build: Build, own: str) -> None:
    """The own cgroup lies outside of the namespace, or was removed."""
    reason, _ = refused(build(own=own))

    assert "can't be seen" in reason


@pytest.mark.parametrize(("controllers", "there"), [("cpu pids", "cpu pids"), ("", "none")])
def test_no_memory_controller(build: Build, controllers: str, there: str) -> None:
    """Not delegated to us: what is there is named."""
    reason, fix = refused(build(controllers=controllers))

    assert f"(there: {there})" in reason
    assert "Delegate=memory" in fix
    assert "cgroup_enable=memory" in fix


def test_no_controllers_file(build: Build) -> None:
    """A directory that is no cgroup."""
    reason, _ = refused(build({"job": {kf.CONTROLLERS: None}}))

    assert "no memory controller" in reason


@pytest.mark.parametrize("name", ["", kf.PROCS, kf.SUBTREE_CONTROL])
def test_no_permission(build: Build, name: str) -> None:
    """An ordinary user in a cgroup of root's: the path is named."""
    fake = build()
    path = fake.at("job") / name
    path.chmod(path.stat().st_mode & ~0o222)
    reason, fix = refused(fake, euid=1000)
    path.chmod(path.stat().st_mode | 0o200)

    assert reason == f"no permission to write {path}"
    assert "systemd-run --user --scope -p Delegate=yes" in fix


@pytest.mark.parametrize(
    ("euid", "command"), [(0, "systemd-run --scope"), (1000, "--user --scope")]
)
def test_not_delegated_under_systemd(build: Build, euid: int, command: str) -> None:
    """systemd's cgroups are systemd's until it says otherwise."""
    reason, fix = refused(build(), systemd=True, euid=euid)

    assert reason == "systemd manages /job and has not delegated it"
    assert command in fix


@pytest.mark.parametrize("name", ["user.delegate", "trusted.delegate"])
def test_delegated_by_systemd(build: Build, name: str) -> None:
    """Delegate=yes shows in an extended attribute."""
    fake = build()
    fake.set_xattr(fake.at("job"), name, b"1")

    assert subtree.inspect(host(fake, systemd=True)).usable


def test_taken_back_by_systemd(build: Build) -> None:
    """Another value than 1 is no delegation."""
    fake = build()
    fake.set_xattr(fake.at("job"), "user.delegate", b"0")

    refused(fake, systemd=True)


def test_within_a_scope_of_cgmems(build: Build) -> None:
    """Whoever runs inside a budget may divide it."""
    fake = build()
    fake.set_xattr(fake.at("job"), RECORD_XATTR, b"{}")

    assert subtree.inspect(host(fake, systemd=True)).usable


def test_strangers_are_named(build: Build) -> None:
    """Up to three of the processes that are in the way, with their names made printable."""
    fake = build()
    fake.enter("job", *range(STRANGER, STRANGER + 5))
    fake.process(STRANGER, 1, "bash\x1b[31m")
    reason, fix = refused(fake)

    assert f"{STRANGER} (bash?[31m), {STRANGER + 1} (ended), {STRANGER + 2} (ended)" in reason
    assert str(STRANGER + 3) not in reason
    assert "of its own" in fix


def test_strangers_do_not_matter_once_divided(build: Build) -> None:
    """Where the controller is passed on already nobody needs to move."""
    fake = build({"job": {kf.SUBTREE_CONTROL: "cpu memory\n"}})
    fake.enter("job", STRANGER)

    assert subtree.inspect(host(fake)).usable
    assert subtree.claim(host(fake)) == fake.at("job")
    assert fake.written == []


def test_descendants_are_strangers(build: Build) -> None:
    """Only ourselves and our ancestors move; a child of ours may be anybody's business."""
    fake = build()
    fake.process(STRANGER, ME, "worker")
    fake.enter("job", STRANGER)
    reason, _ = refused(fake)

    assert f"{STRANGER} (worker)" in reason


def test_a_loop_of_parents_ends(build: Build) -> None:
    """A /proc that makes no sense does not hang us."""
    fake = build()
    fake.process(SHELL, ME)

    assert subtree.inspect(host(fake)).usable


@pytest.mark.parametrize("text", ["", "garbage", "7 (x) S", "7 (x) S -1 2"])
def test_a_torn_stat_file(build: Build, text: str) -> None:
    """Ancestors that can't be read end the search."""
    fake = build()
    (fake.proc / str(ME) / "stat").write_text(text)
    fake.enter("job", SHELL)
    reason, _ = refused(fake)

    assert f"{SHELL} (sh)" in reason


def test_somebody_keeps_entering(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries it gives up and says so."""
    fake = build()
    move = fake._move

    def and_another(pid: int, to: Path) -> None:
        move(pid, to)
        move(STRANGER, fake.at("job"))

    monkeypatch.setattr(fake, "_move", and_another)
    with pytest.raises(BackendUnavailable, match="others keep entering"):
        subtree.claim(host(fake))


def test_a_stranger_that_enters_late_is_not_moved(build: Build) -> None:
    """Who comes in after the check is in the way, and not ours to move."""
    fake = build()

    def while_somebody_enters(path: Path) -> None:
        fake.mkdir(path)
        fake.enter("job", STRANGER)

    with pytest.raises(BackendUnavailable, match="others keep entering"):
        subtree.claim(host(fake)._replace(mkdir=while_somebody_enters))

    assert fake.get("job", kf.PROCS) == str(STRANGER)


def test_a_process_that_ends_while_it_is_moved(build: Build) -> None:
    """ESRCH is no failure."""
    fake = build()
    fake.refused[kf.PROCS] = errno.ESRCH
    with pytest.raises(BackendUnavailable, match="others keep entering"):
        subtree.claim(host(fake))


@pytest.mark.parametrize(
    ("name", "number"), [(kf.SUBTREE_CONTROL, errno.ENOENT), (kf.PROCS, errno.EACCES)]
)
def test_the_kernel_refuses(build: Build, name: str, number: int) -> None:
    """The reason names the step and the kernel's word."""
    fake = build()
    fake.refused[name] = number
    with pytest.raises(BackendUnavailable) as caught:
        subtree.claim(host(fake))

    assert "memory controller can't be enabled below /job" in str(caught.value)
    assert os.strerror(number) in str(caught.value)


def test_the_leaf_can_not_be_made(build: Build) -> None:
    """A refused mkdir is told as such."""
    fake = build()

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(BackendUnavailable, match="making: Permission denied"):
        subtree.claim(host(fake)._replace(mkdir=refuse))
