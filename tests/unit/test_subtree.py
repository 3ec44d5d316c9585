"""Whether the own cgroup is ours to divide, why not, and making it ready; on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import Usability
from cgmem.errors import BackendUnavailable
from cgmem_backends import kernel_files as kf
from cgmem_backends import oom_policy, subtree
from cgmem_backends.hierarchy import find_hierarchy
from cgmem_backends.subtree import RECORD_XATTR, SUPERVISOR_LEAF, Host, OwnCgroup
from tests.helpers.waiting import PATIENCE
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


def test_an_ancestor_that_can_not_be_looked_at(build: Build) -> None:
    """With hidepid=1 the line of ancestors ends at another user's; nothing raises."""
    fake = build()
    (fake.proc / str(SHELL) / "stat").unlink()
    (fake.proc / str(SHELL) / "stat").mkdir()

    assert subtree.family(fake.proc) == {ME, SHELL}


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


def test_hybrid_seen_from_a_container(build: Build) -> None:
    """v2 alone is mounted, but the machine has the memory controller on v1."""
    fake = build()
    (fake.proc / "self/cgroup").write_text("4:cpu,cpuacct:/x\n3:memory:/x\n0::/job\n")
    reason, _ = refused(fake)

    assert "hybrid" in reason


def test_v1(build: Build) -> None:
    """Only v1."""
    reason, fix = refused(build(kind="v1"))

    assert "only cgroup v1" in reason
    assert "systemd.unified_cgroup_hierarchy=1" in fix


def test_v1_by_choice(build: Build) -> None:
    """Who switched v2 off by the kernel command line takes that word out."""
    fake = build(kind="v1")
    (fake.proc / "cmdline").write_text("ro quiet systemd.unified_cgroup_hierarchy=0\n")
    _, fix = refused(fake)

    assert fix.startswith("remove systemd.unified_cgroup_hierarchy=0 from")


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_wsl_2(build: Build, kind: str) -> None:
    """WSL's kernel command line is in a file of Windows."""
    fake = build(kind=kind)
    release = fake.proc / "sys/kernel/osrelease"
    release.parent.mkdir(parents=True)
    release.write_text("5.15.153.1-microsoft-standard-WSL2\n")
    _, fix = refused(fake)

    assert ".wslconfig" in fix
    assert "kernelCommandLine=cgroup_no_v1=all" in fix
    assert "wsl --shutdown" in fix


def test_wsl_1(build: Build) -> None:
    """WSL 1 has no cgroups at all, whatever is mounted."""
    fake = build(kind="none")
    release = fake.proc / "sys/kernel/osrelease"
    release.parent.mkdir(parents=True)
    release.write_text("4.4.0-19041-Microsoft\n")
    reason, fix = refused(fake)

    assert reason == "WSL 1 has no cgroups"
    assert "--set-version" in fix


def test_none(build: Build) -> None:
    """No cgroup file system at all, as in a chroot."""
    reason, fix = refused(build(kind="none"))

    assert "no cgroup2" in reason
    assert fix.startswith("mount -t cgroup2")


def test_no_proc(build: Build) -> None:
    """Without /proc no cgroup can be found, so that is what to mend."""
    fake = build(kind="none")
    (fake.proc / "self/mountinfo").unlink()
    reason, fix = refused(fake)

    assert "is not mounted" in reason
    assert fix.startswith("mount -t proc")


def test_read_only_on_the_host(build: Build) -> None:
    """A remount is enough where the root is the machine's."""
    reason, fix = refused(build(read_only=True))

    assert "read-only" in reason
    assert fix.startswith("mount -o remount,rw")


def test_read_only_in_a_container(build: Build) -> None:
    """As in most containers: it is started otherwise."""
    reason, fix = refused(build(read_only=True, namespaced=True))

    assert "read-only" in reason
    assert "--cgroupns=private" in fix


@pytest.mark.parametrize("own", ["/../outside", "/gone"])
def test_out_of_sight(build: Build, own: str) -> None:
    """The own cgroup lies outside of the namespace, or was removed."""
    reason, _ = refused(build(own=own))

    assert "can't be seen" in reason


@pytest.mark.parametrize(("controllers", "there"), [("cpu pids", "cpu pids"), ("", "none")])
def test_switched_off_in_the_kernel(build: Build, controllers: str, there: str) -> None:
    """Not even the root has it: what is there is named."""
    reason, fix = refused(build(controllers=controllers))

    assert f"(there: {there})" in reason
    assert "switched off" in reason
    assert "add cgroup_enable=memory" in fix


def test_disabled_by_the_kernel_command_line(build: Build) -> None:
    """Who said so takes it back."""
    fake = build(controllers="cpu")
    (fake.proc / "cmdline").write_text("cgroup_disable=memory\n")
    _, fix = refused(fake)

    assert fix.startswith("remove cgroup_disable=memory")


def test_not_given_to_a_container(build: Build) -> None:
    """Its own root lacks it: the host's user needs the delegation."""
    reason, fix = refused(build({}, own="/", namespaced=True, controllers="cpu"))

    assert "this container gets none" in reason
    assert "on the host" in fix


USERS = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("own", "holder", "fix"),
    [
        (
            f"{USERS}/app.slice/x.scope",
            "/user.slice/user-1000.slice",
            "user@.service.d/delegate.conf",
        ),
        ("/system.slice/x.service", "/system.slice", "systemctl set-property x.service Memory"),
        ("/group/one", "/group", "echo +memory > /sys/fs/cgroup/group/cgroup.subtree_control"),
    ],
)
def test_kept_by_a_cgroup_above(build: Build, own: str, holder: str, fix: str) -> None:
    """The one that has the controller and keeps it is named, with the command for its owner."""
    fake = build({own: {}}, own=own)
    for path in (fake.at(own), *fake.at(own).parents):
        if path == fake.at(holder):
            break
        (path / kf.CONTROLLERS).write_text("cpu\n")
    reason, found = refused(fake, systemd=True, euid=1000)

    assert reason.endswith(f": {holder} does not pass it on")
    assert fix in found


def test_processes_of_another_pid_namespace(build: Build) -> None:
    """The container's starter is in its cgroup, where it can be neither seen nor moved."""
    fake = build()
    fake.put("job", kf.PROCS, f"0\n{ME}\n")
    reason, fix = refused(fake)

    assert "can't be seen in this pid namespace" in reason
    assert fix


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
    assert "chown -R 1000" in fix


def test_no_permission_under_systemd(build: Build) -> None:
    """There the systemd backend needs none."""
    fake = build()
    fake.at("job").chmod(0o555)
    _, fix = refused(fake, systemd=True, euid=1000)
    fake.at("job").chmod(0o755)

    assert "--backend systemd" in fix


@pytest.mark.parametrize(
    ("euid", "command"), [(0, "systemd-run --scope -p Delegate=yes"), (1000, "--backend systemd")]
)
def test_not_delegated_under_systemd(build: Build, euid: int, command: str) -> None:
    """systemd's cgroups are systemd's until it says otherwise."""
    reason, fix = refused(build(), systemd=True, euid=euid)

    assert reason.startswith("systemd manages /job, and there is no mark")
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


def test_a_process_that_ends_while_it_is_moved(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESRCH is no failure: whoever has ended is in nobody's way."""
    fake = build()
    fake.enter("job", SHELL, ME)
    move = fake._move

    def ends(pid: int, to: Path) -> None:
        if pid == SHELL:
            move(pid, fake.mount)  # out of the way
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        move(pid, to)

    monkeypatch.setattr(fake, "_move", ends)

    assert subtree.claim(host(fake)) == fake.at("job")
    assert fake.get(f"job/{SUPERVISOR_LEAF}", kf.PROCS) == str(ME)


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


def test_a_program_of_ours_is_no_stranger_to_another_thread(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While systemctl runs in the own cgroup, whoever looks at that cgroup waits."""
    fake = build()
    fake.enter("job", ME)
    asked, answered = threading.Event(), threading.Event()
    own = OwnCgroup(lambda: host(fake))
    noted = OwnCgroup(lambda: host(fake, systemd=True))

    def runs_systemctl(found: Usability, _own_cgroup: str) -> Usability:
        fake.enter("job", STRANGER)
        asked.set()
        answered.wait(PATIENCE)
        fake.put("job", kf.PROCS, f"{ME}\n")
        return found

    monkeypatch.setattr(oom_policy, "with_oom_policy", runs_systemctl)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(noted.with_note, Usability(True, ""))
        assert asked.wait(PATIENCE)
        looks = pool.submit(own.inspect)
        with pytest.raises(TimeoutError):
            looks.result(0.05)
        answered.set()
        assert looks.result(PATIENCE).usable
