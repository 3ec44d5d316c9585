"""On a real kernel: a child is inside its cgroup before its first instruction."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem.errors import CgroupError, ScopeVanished
from cgmem_backends.placement import Placement, load_library
from tests.helpers.proc import children, open_descriptors
from tests.helpers.waiting import until

Start = Callable[..., "subprocess.Popen[Any]"]

MOUNT = Path("/sys/fs/cgroup")

# Installs a seccomp filter that answers clone3 (435 everywhere) with an errno, as container
# runtimes do, then places a child.
UNDER_A_FILTER = """
import ctypes, os, struct, subprocess, sys
from cgmem_backends.placement import Placement
error, path = int(sys.argv[1]), sys.argv[2]
program = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 435,
                      0x06, 0, 0, 0x00050000 | error, 0x06, 0, 0, 0x7FFF0000)
filter = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
whole = Program(4, ctypes.addressof(filter))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(whole), 0, 0) == 0
placement = Placement()
directory = os.open(path, getattr(os, "O_PATH", 0) | os.O_DIRECTORY)
child = placement.start(["cat", "/proc/self/cgroup"], {"stdout": subprocess.PIPE},
                        cgroup_path=path, cgroup_fd=directory)
print(child.communicate()[0].decode().split("0::")[1].splitlines()[0])
print(placement.method)
print(placement.reason)
"""


def _own() -> str:
    line = Path("/proc/self/cgroup").read_text().split("0::")[1].splitlines()[0]
    return line.rstrip("/")


class Cgroup:
    """A cgroup of our own, below ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = f"/{path.relative_to(MOUNT)}"
        self.descriptor = os.open(path, getattr(os, "O_PATH", 0) | os.O_DIRECTORY)

    def where(self) -> dict[str, Any]:
        """Return the arguments that name it."""
        return {"cgroup_path": str(self.path), "cgroup_fd": self.descriptor}


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """Return an empty cgroup, without controllers."""
    made = Cgroup(Path(tempfile.mkdtemp(prefix="placed-", dir=f"{MOUNT}{_own()}")))
    yield made
    os.close(made.descriptor)
    if made.path.exists():
        # A grandchild that nobody waits for may still be on its way out.
        assert until(lambda: "populated 0" in (made.path / "cgroup.events").read_text())
        made.path.rmdir()


@pytest.fixture(params=["chosen", "trampoline"])
def placement(request: pytest.FixtureRequest) -> Placement:
    """Return what this host would choose, and the trampoline in any case."""
    return Placement() if request.param == "chosen" else Placement(load=lambda: "asked for")


def _seen(process: subprocess.Popen[Any]) -> str:
    output = process.communicate(timeout=60)[0].decode()
    return str(output.split("0::")[1].splitlines()[0])


def test_the_best_road_of_this_c_library_is_taken(cgroup: Cgroup) -> None:
    """Where glibc has the call, a probe child proves it and posix_spawn is the method."""
    chosen = Placement()
    chosen.probe(**cgroup.where())

    assert chosen.method == ("trampoline" if isinstance(load_library(), str) else "posix_spawn")
    assert ("probe child was inside" in chosen.reason) == (chosen.method == "posix_spawn")


def test_a_child_is_inside(placement: Placement, cgroup: Cgroup) -> None:
    """The first thing that a child can look at shows it in the cgroup."""
    process = placement.start(
        ["cat", "/proc/self/cgroup"], {"stdout": subprocess.PIPE}, **cgroup.where()
    )

    assert _seen(process) == cgroup.line
    assert process.returncode == 0


def test_descendants_are_inside(placement: Placement, cgroup: Cgroup) -> None:
    """What a child starts is inside too, in a new session and after a double fork."""
    line = "(setsid sh -c 'cat /proc/self/cgroup' &) ; wait"
    process = placement.start(line, {"shell": True, "stdout": subprocess.PIPE}, **cgroup.where())

    assert _seen(process) == cgroup.line


def test_the_starter_stays_where_it_is(placement: Placement, cgroup: Cgroup) -> None:
    """Nobody but the child moves."""
    before = _own()

    with placement.start(["true"], {}, **cgroup.where()):
        pass

    assert _own() == before


def test_a_placed_command_is_popen_s_in_its_failures(placement: Placement, cgroup: Cgroup) -> None:
    """A missing command is told from a missing cgroup, and leaves nothing inside."""
    with pytest.raises(FileNotFoundError) as caught:
        placement.start(["/nonesuch"], {}, **cgroup.where())

    assert caught.value.filename == "/nonesuch"
    assert (cgroup.path / "cgroup.procs").read_text() == ""


def test_a_removed_cgroup(placement: Placement, cgroup: Cgroup) -> None:
    """A cgroup that somebody removed is ScopeVanished, whatever else is wrong."""
    placement.probe(**cgroup.where())
    cgroup.path.rmdir()

    with pytest.raises(ScopeVanished):
        placement.start(["true"], {}, **cgroup.where())
    with pytest.raises(ScopeVanished):
        placement.start(["/nonesuch"], {"cwd": "/nonesuch"}, **cgroup.where())


def test_a_cgroup_made_anew_is_another(placement: Placement, cgroup: Cgroup) -> None:
    """A new cgroup of the same name is not the one that was opened."""
    placement.probe(**cgroup.where())
    cgroup.path.rmdir()
    cgroup.path.mkdir()

    with pytest.raises(ScopeVanished):
        placement.start(["true"], {}, **cgroup.where())


def test_a_cgroup_that_takes_no_process(placement: Placement, cgroup: Cgroup) -> None:
    """A cgroup that is `domain invalid` is refused with the kernel's errno and a hint."""
    threaded, invalid = cgroup.path / "threaded", cgroup.path / "invalid"
    placement.probe(**cgroup.where())
    threaded.mkdir()
    (threaded / "cgroup.type").write_text("threaded")
    invalid.mkdir()
    refusing = Cgroup(invalid)

    try:
        with pytest.raises(CgroupError) as caught:
            placement.start(["true"], {}, **refusing.where())
    finally:
        os.close(refusing.descriptor)
        invalid.rmdir()
        threaded.rmdir()

    assert caught.value.errno == errno.EOPNOTSUPP
    assert caught.value.filename == f"{invalid}/cgroup.procs"
    assert caught.value.hint


def test_a_cgroup_that_is_not_ours(placement: Placement, cgroup: Cgroup) -> None:
    """Without permission on the cgroup the error says what to do about it."""
    placement.probe(**cgroup.where())
    root = os.open(MOUNT, getattr(os, "O_PATH", 0) | os.O_DIRECTORY)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)
    try:
        with pytest.raises(CgroupError) as caught:
            placement.start(["true"], {}, cgroup_path=str(MOUNT), cgroup_fd=root)
    finally:
        if privileged:
            os.seteuid(0)
        os.close(root)

    assert caught.value.errno == errno.EACCES
    assert "--backend systemd" in (caught.value.hint or "")


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
def test_under_a_seccomp_filter(cgroup: Cgroup, error: int) -> None:
    """Where clone3 is forbidden the child is inside all the same, by trampoline."""
    command = [sys.executable, "-c", UNDER_A_FILTER, str(error), str(cgroup.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert result.stderr == ""
    seen, method, reason = result.stdout.splitlines()
    assert (seen, method) == (cgroup.line, "trampoline")
    assert isinstance(load_library(), str) or "clone3 into a cgroup failed" in reason


def test_with_sigchld_ignored(cgroup: Cgroup) -> None:
    """A parent that lets the kernel reap its children can still be probed."""
    script = (
        "import os, signal, sys\n"
        "from cgmem_backends.placement import Placement\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "path = sys.argv[1]\n"
        "placement = Placement()\n"
        "directory = os.open(path, os.O_PATH | os.O_DIRECTORY)\n"
        "placement.probe(cgroup_path=path, cgroup_fd=directory)\n"
        "print(placement.method)\n"
    )
    command = [sys.executable, "-c", script, str(cgroup.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    expected = "trampoline" if isinstance(load_library(), str) else "posix_spawn"
    assert (result.stdout, result.stderr) == (f"{expected}\n", "")


def test_many_threads_at_once(placement: Placement, cgroup: Cgroup) -> None:
    """Every child of every thread is inside; no descriptor and no zombie is left."""
    seen: list[str] = []
    before, living = open_descriptors(), children()

    def start() -> None:
        for _ in range(2):
            options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL}
            seen.append(_seen(placement.start(["cat", "/proc/self/cgroup"], options, **where)))

    where = cgroup.where()
    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [cgroup.line] * 16
    assert open_descriptors() == before
    assert children() <= living
