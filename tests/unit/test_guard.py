"""The guard process, on directories that stand in for cgroups. A real shell, no kernel's part."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgmem_backends.guard import PREFIX, Guard
from cgmem_backends.placement import Placement
from tests.helpers.proc import open_descriptors
from tests.helpers.waiting import PATIENCE, until

SCOPES = "cgmem-7-*"
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@pytest.fixture
def guard() -> Iterator[Guard]:
    """A guard that takes the road of every C library, and is gone at the end."""
    made = a_guard()
    yield made
    made.close()


def a_guard(shell: str = "/bin/sh") -> Guard:
    """Return one whose cgroup can be removed as a cgroup can: with the files in it."""
    return Guard(Placement(lambda: "not wanted here"), shell=shell, rmdir=_rmdir)


def _rmdir(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def a_scope(base: Path, name: str = "cgmem-7-1") -> Path:
    """Make what looks like a scope with brake and freeze set."""
    (base / name).mkdir()
    (base / name / "memory.high").write_text("4096\n")
    (base / name / "memory.max").write_text("8192\n")
    (base / name / "cgroup.freeze").write_text("1\n")
    return base / name


def files(scope: Path) -> tuple[str, str, str]:
    """Return what memory.high, memory.max and cgroup.freeze hold."""
    names = ("memory.high", "memory.max", "cgroup.freeze")
    high, hard, freeze = ((scope / name).read_text().strip() for name in names)
    return high, hard, freeze


def started(guard: Guard, base: Path) -> None:
    """Start it and wait until it stands: for tests of what comes after."""
    guard.start(base, SCOPES)
    starter = guard._starter
    assert starter is not None
    starter.join(PATIENCE)


def pids(base: Path, scopes: str = "cgmem-7-") -> list[int]:
    """Find the guard's process by its command line (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"cgmem-guard" in words and os.fsencode(f"{base}/{scopes}") in words:
            found.append(int(process.name))
    return found


def test_it_lifts_brake_and_freeze(guard: Guard, tmp_path: Path) -> None:
    """Once the other end is gone, memory.high is max and freeze 0; memory.max is left alone."""
    one, two = a_scope(tmp_path), a_scope(tmp_path, "cgmem-7-22")
    started(guard, tmp_path)
    before = files(one)
    guard.abandon()

    assert before == ("4096", "8192", "1")
    assert until(lambda: files(one) == files(two) == ("max", "8192", "0"))


def test_it_touches_no_one_elses(guard: Guard, tmp_path: Path) -> None:
    """Scopes of another supervisor, and cgroups within ours, stay as they are."""
    ours = a_scope(tmp_path)
    others = [a_scope(tmp_path, "cgmem-77-1"), a_scope(tmp_path, "else"), a_scope(ours, "nested")]
    started(guard, tmp_path)
    guard.abandon()

    assert until(lambda: files(ours)[2] == "0")
    assert until(lambda: not pids(tmp_path))  # nothing more is to come
    assert [files(other) for other in others] == [("4096", "8192", "1")] * 3


def test_for_one_scope_alone(guard: Guard, tmp_path: Path) -> None:
    """Without the star it is one name, not the beginning of names."""
    ours, other = a_scope(tmp_path, "cgmem-7-1"), a_scope(tmp_path, "cgmem-7-11")
    guard.start(tmp_path, "cgmem-7-1")
    guard.abandon()

    assert until(lambda: files(ours) == ("max", "8192", "0"))
    assert until(lambda: not pids(tmp_path, "cgmem-7-1"))
    assert files(other) == ("4096", "8192", "1")


def test_an_orderly_end(guard: Guard, tmp_path: Path) -> None:
    """Sent away it lifts nothing, and its cgroup goes."""
    scope = a_scope(tmp_path)
    started(guard, tmp_path)
    made = [path.name for path in tmp_path.glob(f"{PREFIX}*")]
    guard.close()

    assert len(made) == 1
    assert made[0].startswith(f"{PREFIX}{os.getpid()}-")
    assert list(tmp_path.glob(f"{PREFIX}*")) == []
    assert until(lambda: not pids(tmp_path))
    assert files(scope) == ("4096", "8192", "1")


def test_it_is_started_once_until_it_was_closed(guard: Guard, tmp_path: Path) -> None:
    """A second start does nothing; after a close there is another guard."""
    started(guard, tmp_path)
    guard.start(tmp_path, SCOPES)
    once = len(list(tmp_path.glob(f"{PREFIX}*")))
    guard.close()
    started(guard, tmp_path)

    assert once == 1
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1


def test_a_guard_that_nobody_holds_any_more(tmp_path: Path) -> None:
    """Forgotten, it goes and lifts nothing: scopes of a second supervisor here may live."""
    scope = a_scope(tmp_path)
    guard = a_guard()
    started(guard, tmp_path)
    del guard
    gc.collect()

    assert until(lambda: not pids(tmp_path))
    assert files(scope) == ("4096", "8192", "1")


def test_a_guard_that_was_never_started(guard: Guard, tmp_path: Path) -> None:
    """Closing it is nothing."""
    guard.close()
    guard.abandon()

    assert list(tmp_path.iterdir()) == []


def test_it_enters_its_cgroup(guard: Guard, tmp_path: Path) -> None:
    """Without posix_spawn's help it writes itself into its own cgroup."""
    started(guard, tmp_path)
    (leaf,) = tmp_path.glob(f"{PREFIX}*")

    assert (leaf / "cgroup.procs").read_text() == "0\n"


@NEEDS_PROC
def test_it_is_no_child_of_ours(guard: Guard, tmp_path: Path) -> None:
    """Whoever waits for any child does not meet it."""
    started(guard, tmp_path)
    (pid,) = pids(tmp_path)

    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@NEEDS_PROC
def test_what_it_holds(guard: Guard, tmp_path: Path) -> None:
    """Nothing of ours but the pipe: no output, no working directory, no session."""
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    started(guard, tmp_path)
    (pid,) = pids(tmp_path)
    held = {path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()}
    os.close(read_fd)
    os.close(write_fd)

    assert {str(path).partition(":")[0] for path in held} == {"/dev/null", "pipe"}
    assert len(held) == 2
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)


@NEEDS_PROC
def test_signals_do_not_end_it(guard: Guard, tmp_path: Path) -> None:
    """What ends a foreground job or a unit (all but SIGKILL) leaves it at its post."""
    scope = a_scope(tmp_path)
    started(guard, tmp_path)
    (pid,) = pids(tmp_path)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        os.kill(pid, signum)
    still = pids(tmp_path)
    guard.abandon()

    assert still == [pid]
    assert until(lambda: files(scope)[0] == "max")


def test_a_forked_child_does_not_hold_it(guard: Guard, tmp_path: Path) -> None:
    """A child of this process that lives on is not this process living on."""
    scope = a_scope(tmp_path)
    started(guard, tmp_path)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_fd)
        os.read(read_fd, 1)
        os._exit(0)
    guard.abandon()
    lifted = until(lambda: files(scope)[0] == "max")
    os.close(write_fd)
    os.close(read_fd)
    os.waitpid(pid, 0)

    assert lifted


@NEEDS_PROC
def test_a_killed_guard(guard: Guard, tmp_path: Path) -> None:
    """Sending away what somebody has killed is no trouble, SIGPIPE least of all."""
    started(guard, tmp_path)
    (pid,) = pids(tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: pids(tmp_path) == [])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    guard.close()
    pending = signal.sigpending()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert list(tmp_path.glob(f"{PREFIX}*")) == []
    assert signal.SIGPIPE not in pending


def test_no_shell(tmp_path: Path) -> None:
    """Where it can't be started that is said once, nothing is left, and work goes on."""
    told: list[str] = []
    guard = a_guard("/nonexistent/sh")
    guard.warn = told.append
    started(guard, tmp_path)
    guard.start(tmp_path, SCOPES)
    guard.close()

    assert len(told) == 1
    assert "/nonexistent/sh" in told[0]
    assert "memory.high" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_a_shell_that_fails(tmp_path: Path) -> None:
    """A shell that can't fork, say, is a failure too."""
    told: list[str] = []
    guard = a_guard("/bin/false" if Path("/bin/false").exists() else "/usr/bin/false")
    guard.warn = told.append
    started(guard, tmp_path)
    guard.close()

    assert len(told) == 1
    assert "status 1" in told[0]


def test_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no thread to be had the same is said, and the pipe is given back."""
    told: list[str] = []
    guard = a_guard()
    guard.warn = told.append

    def refuse(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    before = open_descriptors()
    guard.start(tmp_path, SCOPES)

    assert len(told) == 1
    assert open_descriptors() == before


def test_the_end_of_its_process(tmp_path: Path) -> None:
    """SIGKILL of the process that started it is what it waits for."""
    scope = a_scope(tmp_path)
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.unit.test_guard import a_guard, started
guard = a_guard()
started(guard, Path({str(tmp_path)!r}))
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        # End of file: the guard holds none of its output.
        assert process.stdout.read() == b""

    assert until(lambda: files(scope) == ("max", "8192", "0"))
