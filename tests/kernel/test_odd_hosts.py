"""Odd hosts and containers, made in namespaces: told apart, and how to mend them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import real_cgroups as real
from tests.kernel.real_systemd import RUNS

PROBE = """
import json
from cgmem import selector
print(json.dumps({name: selector.load(name).probe() for name in ("cgroup2", "systemd")}))
"""

FRESH = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"

# Installs a seccomp filter that answers clone3 with ENOSYS, as container runtimes do.
WITHOUT_CLONE3 = """
import ctypes, os, struct, sys
program = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 435,
                      0x06, 0, 0, 0x00050000 | 38, 0x06, 0, 0, 0x7FFF0000)
filter = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.addressof(filter))), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    real.need_root()
    real.need_cgroup2()


def output(command: list[str], inside: Path, *unshared: str, first: str = "true") -> str:
    """Run a command in a cgroup, in new namespaces, after `first`; return stdout."""
    enter = ["/bin/sh", "-c", 'echo $$ > "$0"; exec "$@"', str(inside / "cgroup.procs")]
    apart = ["unshare", "--mount", *unshared, "/bin/sh", "-c", f'{first} && exec "$@"', "sh"]
    done = subprocess.run(
        [*enter, *apart, *command],
        capture_output=True,
        text=True,
        env=real.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def probed(inside: Path, *unshared: str, first: str = "true") -> dict[str, Any]:
    """Ask both kernel backends from there; (usable, reason, fix, note) by name."""
    found: dict[str, Any] = json.loads(
        output([sys.executable, "-c", PROBE], inside, *unshared, first=first)
    )
    return found


@pytest.mark.parametrize(
    ("first", "reason", "fix"),
    [
        ("mount -o remount,ro,bind /sys/fs/cgroup", "mounted read-only", "mount -o remount,rw"),
        ("umount -l /sys/fs/cgroup", "no cgroup2 file system is mounted", "mount -t cgroup2"),
    ],
    ids=["read-only", "unmounted"],
)
def test_mounts(first: str, reason: str, fix: str) -> None:
    """A mount that is read-only or missing, and how to have a better one."""
    with real.stage() as stage:
        usable, why, how, _ = probed(stage, first=first)["cgroup2"]

    assert not usable
    assert reason in why
    assert how.startswith(fix)


@pytest.mark.long
def test_a_chroot_without_sys() -> None:
    """/proc is there, /sys/fs/cgroup is not."""
    chroot = "mount --rbind / /mnt && umount -R -l /mnt/sys && exec chroot /mnt"
    with real.stage() as stage:
        script = f'{chroot} "$@"'
        command = ["/bin/sh", "-c", script, "sh", sys.executable, "-c", PROBE]
        usable, why, _, _ = json.loads(output(command, stage))["cgroup2"]

    assert not usable
    assert "no cgroup2 file system is mounted" in why


def test_a_container_that_sees_the_hosts_mount() -> None:
    """A cgroup namespace without a mount of its own shows other people's cgroups only."""
    with real.stage() as stage:
        usable, why, how, _ = probed(stage, "--cgroup")["cgroup2"]

    assert not usable
    assert "can't be seen" in why
    assert "mount -t cgroup2" in how
    assert "--cgroupns=private" in how


CONTAINED = """
from cgmem import selector
probed = {name: selector.load(name).probe() for name in ("cgroup2", "systemd")}
supervisor = Supervisor({"log_dir": sys.argv[1], "enforcement": "required", "tick": 30.0,
                         "warning": "100M", "critical": "268431360B", "max": "256M"})
try:
    cgmem.spawn(["true"], supervisor=supervisor)
    refusal = None
except cgmem.InsufficientMemory as error:
    refusal = str(error)
outcome = cgmem.run(sys.argv[2:], supervisor=supervisor, preflight=False)
limits = outcome.limits
say(**probed, refusal=refusal, above=[limits.effective_max_bytes, limits.effective_max_source],
    cause=outcome.cause, message=outcome.message)
supervisor.close()
"""


def test_a_container_with_its_own_cgroups(tmp_path: Path) -> None:
    """A cgroup namespace with a fresh mount is all it takes; the host's systemd is out of reach.

    The limit of the namespace's root is seen, named, and decides on starts. One above it can't be
    seen: what it ends is told as ended from above the container.
    """
    leak = real.python(real.CHOSEN + real.LEAK, 200)
    with real.stage(memory_max="96M", cgroup_subtree_control="+memory") as stage:
        container = stage / "container"
        container.mkdir()
        (container / "memory.max").write_text("128M")
        code = real.PREAMBLE + CONTAINED
        words = [sys.executable, "-c", code, str(tmp_path), *leak]
        said = json.loads(output(words, container, "--cgroup", first=FRESH))

    assert said["cgroup2"][:2] == [True, "own cgroup / is delegated and ours alone"]
    assert not said["systemd"][0]
    if RUNS:
        assert "outside of this container" in said["systemd"][1]
    assert said["above"] == [128 << 20, "/sys/fs/cgroup"]
    assert said["refusal"].endswith(
        "(need at least 256MB): /sys/fs/cgroup, memory.max 128M, leaves no more"
    )
    assert said["cause"] == "unknown"
    assert "killed by a limit above this container, or by the host" in said["message"]


@pytest.mark.long
def test_a_container_whose_starter_is_in_its_cgroup() -> None:
    """A process of the pid namespace outside can't be moved out of the way, nor named."""
    with real.stage() as stage:
        found = probed(stage, "--cgroup", "--pid", "--fork", "--mount-proc", first=FRESH)

    usable, why, how, _ = found["cgroup2"]
    assert not usable
    assert "can't be seen in this pid namespace" in why
    assert how


def test_a_cgroup_that_was_not_given_the_controller() -> None:
    """The cgroup that keeps it is named."""
    with real.stage() as stage:
        inner = stage / "inner"
        inner.mkdir()
        usable, why, how, _ = probed(inner)["cgroup2"]

    assert not usable
    shown = str(stage).removeprefix("/sys/fs/cgroup")
    assert f": {shown} does not pass it on" in why
    assert how


@pytest.mark.long
def test_clone3_refused(tmp_path: Path) -> None:
    """Where a seccomp filter answers clone3 with ENOSYS, the trampoline places, limits hold."""
    words = ["run", "-v", "--no-preflight", "--enforcement", "required", "--backend", "cgroup2"]
    words += ["--max", "32M", "--log-dir", str(tmp_path), "--", "cat", "/proc/self/cgroup"]
    with real.stage() as stage:
        filtered = [sys.executable, "-c", WITHOUT_CLONE3, sys.executable, "-m", "cgmem", *words]
        printed = output(filtered, stage)

    assert "/cgmem-" in printed.splitlines()[-1]
