"""Signals reach the identified process or nobody, and no fork escapes a kill."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable

import pytest

from cgmem_backends.process_signals import STOP_ROUNDS, Pidfds, Signaller, TreeSignals
from cgmem_backends.process_tree import Identity, Process


class FakeHandles:
    """pidfds in memory: the handle of pid N is N."""

    def __init__(self, *, error: OSError | None = None) -> None:
        self._error = error
        self.sent: list[tuple[int, int]] = []
        self.open_handles: set[int] = set()

    def open(self, pid: int) -> int:
        """Pin, or fail as this kernel does."""
        if self._error is not None:
            raise self._error
        self.open_handles.add(pid)
        return pid

    def send(self, handle: int, signum: int) -> None:
        """Record it."""
        self.sent.append((handle, signum))

    def close(self, handle: int) -> None:
        """Unpin."""
        self.open_handles.remove(handle)


def at(start: int | None, state: str = "R") -> Callable[[int], Process | None]:
    """A process table in which every pid started at `start`, or where there is none."""
    return lambda pid: None if start is None else Process(pid, 1, 1, state, start)


def no_kill(pid: int, signum: int) -> None:
    """A kill(2) that must not be reached."""
    raise AssertionError(f"kill({pid}, {signum})")


def test_the_process_itself_is_signalled_through_its_handle() -> None:
    """With a pidfd the signal goes through it, and it is given back."""
    handles = FakeHandles()

    assert Signaller(at(7), handles, no_kill).send(Identity(5, 7), signal.SIGTERM)
    assert (handles.sent, handles.open_handles) == ([(5, signal.SIGTERM)], set())


@pytest.mark.parametrize("now", [8, None])
@pytest.mark.parametrize("error", [None, OSError(errno.ENOSYS, "no pidfd")])
def test_a_reused_pid_is_not_signalled(now: int | None, error: OSError | None) -> None:
    """A pid whose start time is another one, or that is gone, gets nothing, pidfd or not."""
    handles = FakeHandles(error=error)

    assert not Signaller(at(now), handles, no_kill).send(Identity(5, 7), signal.SIGKILL)
    assert (handles.sent, handles.open_handles) == ([], set())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EMFILE])
def test_without_a_handle_the_checked_pid_is_signalled(number: int) -> None:
    """Old kernels, seccomp filters and a full descriptor table do not stop a kill."""
    sent: list[tuple[int, int]] = []
    signaller = Signaller(
        at(7),
        FakeHandles(error=OSError(number, "x")),
        lambda pid, signum: sent.append((pid, signum)),
    )

    assert signaller.send(Identity(5, 7), signal.SIGKILL)
    assert sent == [(5, signal.SIGKILL)]


def test_an_ended_process_is_no_error() -> None:
    """A process that ends between the look and the signal is a normal end."""

    def ended(_pid: int, _signum: int) -> None:
        raise ProcessLookupError

    assert not Signaller(at(7), FakeHandles(error=ProcessLookupError()), no_kill).send(
        Identity(5, 7), 9
    )
    assert not Signaller(at(7), FakeHandles(error=OSError(errno.ENOSYS, "x")), ended).send(
        Identity(5, 7), 9
    )


def test_a_platform_without_pidfd_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python has no pidfd_open the error is the one of a kernel without it."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    with pytest.raises(OSError, match="not implemented") as caught:
        Pidfds().open(os.getpid())
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux's")
def test_the_kernels_own_handle_reaches_this_process() -> None:
    """Open, send (0 only checks) and close work against the kernel."""
    handles = Pidfds()
    handle = handles.open(os.getpid())
    handles.send(handle, 0)
    handles.close(handle)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


class ForkingTree:
    """Processes that fork at every look while they run, and end when they are killed."""

    def __init__(self, count: int, *, forks: int = 0, refuses: int | None = None) -> None:
        self.states = dict.fromkeys(range(1000, 1000 + count), "R")
        self.forks = forks
        self.refuses = refuses
        self.signals: list[tuple[int, int]] = []

    def look(self) -> list[Process]:
        """Whoever runs forks once more, as long as there are forks left."""
        running = [pid for pid, state in self.states.items() if state == "R"]
        for _ in running[: self.forks]:
            self.states[1000 + len(self.states) + len(self.signals)] = "R"
            self.forks -= 1
        return [Process(pid, 1, 1, state, pid) for pid, state in self.states.items()]

    def process(self, pid: int) -> Process | None:
        """One of them."""
        return Process(pid, 1, 1, self.states[pid], pid) if pid in self.states else None

    def kill(self, pid: int, signum: int) -> None:
        """Act on a signal."""
        self.signals.append((pid, signum))
        if pid == self.refuses:
            raise PermissionError
        if signum == signal.SIGSTOP:
            self.states[pid] = "T"
        elif signum == signal.SIGKILL:
            del self.states[pid]

    def signaller(self) -> TreeSignals:
        """What signals them."""
        without_pidfd = FakeHandles(error=OSError(errno.ENOSYS, "x"))
        return TreeSignals(
            self.look, Signaller(self.process, without_pidfd, self.kill), lambda _seconds: None
        )


def test_kill_stops_all_before_it_kills_the_first() -> None:
    """No SIGKILL goes out before every process has been stopped, forks included."""
    tree = ForkingTree(3, forks=20)

    assert tree.signaller().kill() == set()
    assert tree.states == {}
    numbers = [signum for _, signum in tree.signals]
    assert numbers.index(signal.SIGKILL) > max(
        index for index, signum in enumerate(numbers) if signum == signal.SIGSTOP
    )


def test_kill_is_bounded_for_a_tree_that_never_stops_forking() -> None:
    """A tree that outruns the signals can't hold the caller for ever."""
    tree = ForkingTree(1, forks=10_000)
    tree.signaller().kill()

    assert len(tree.signals) < 100_000


def test_a_process_that_does_not_stop_is_killed_all_the_same() -> None:
    """Uninterruptible sleep delays the stop; the kill comes after a bounded number of rounds."""
    tree = ForkingTree(1)
    stops: list[int] = []

    def kill(pid: int, signum: int) -> None:
        if signum == signal.SIGKILL:
            tree.kill(pid, signum)
        else:
            stops.append(pid)

    signaller = Signaller(tree.process, FakeHandles(error=OSError(errno.ENOSYS, "x")), kill)
    TreeSignals(tree.look, signaller, lambda _seconds: None).kill()

    assert len(stops) == STOP_ROUNDS
    assert tree.states == {}


def test_one_refusal_saves_nobody_else() -> None:
    """A process of another user is reported, and all others are killed."""
    tree = ForkingTree(4, refuses=1002)

    assert tree.signaller().kill() == {Identity(1002, 1002)}
    assert list(tree.states) == [1002]


def test_the_youngest_is_killed_first() -> None:
    """A parent that ends first would make the kernel continue its stopped children."""
    tree = ForkingTree(4)
    tree.signaller().kill()
    killed = [pid for pid, signum in tree.signals if signum == signal.SIGKILL]

    assert killed == [1003, 1002, 1001, 1000]


def test_the_caller_is_never_stopped_and_is_killed_last() -> None:
    """A supervisor inside its own scope must finish the work."""
    tree = ForkingTree(2)
    tree.states[os.getpid()] = "R"
    tree.signaller().kill()

    assert (os.getpid(), signal.SIGSTOP) not in tree.signals
    assert tree.signals[-1] == (os.getpid(), signal.SIGKILL)


def test_other_signals_go_to_each_once() -> None:
    """SIGTERM needs no stop: it is a request."""
    tree = ForkingTree(2)
    tree.signaller().each(signal.SIGTERM)

    assert sorted(tree.signals) == [(1000, signal.SIGTERM), (1001, signal.SIGTERM)]
