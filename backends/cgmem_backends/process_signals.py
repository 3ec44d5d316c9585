"""Signals to processes that are known by pid and start time, and to nothing else.

A pid that was reused is never signalled: pidfd_open(2) (since 5.3) pins the process, and its start
time is checked after that. Where there is no pidfd it is checked right before kill(2).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence

from cgmem.shapes import Protocol
from cgmem_backends.process_tree import Identity, Process

STOP_ROUNDS = 50
"""Bound on stop-and-look-again: a process in uninterruptible sleep may not stop for long."""

KILL_ROUNDS = 200
"""Bound on kill-and-look-again, so that a tree that outruns us can't hold the caller."""

ROUND_PAUSE = 0.002
"""Seconds between two rounds."""


class PidHandles(Protocol):
    """pidfd_open and pidfd_send_signal; a test's own."""

    def open(self, pid: int) -> int:
        """Pin the process that has this pid now. Raises OSError."""

    def send(self, handle: int, signum: int) -> None:
        """Signal the pinned process. Raises OSError."""

    def close(self, handle: int) -> None:
        """Give the handle back."""


class Pidfds:
    """The kernel's own. Raises OSError with ENOSYS where a platform has none."""

    def open(self, pid: int) -> int:
        """pidfd_open(2)."""
        pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
        if pidfd_open is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return pidfd_open(pid)

    def send(self, handle: int, signum: int) -> None:
        """pidfd_send_signal(2)."""
        send: Callable[[int, int], None] = getattr(signal, "pidfd_send_signal")  # noqa: B009  (not in every platform's stubs)
        send(handle, signum)

    def close(self, handle: int) -> None:
        """close(2)."""
        os.close(handle)


class Signaller:
    """Sends signals to identified processes."""

    def __init__(
        self,
        process: Callable[[int], Process | None],
        handles: PidHandles | None = None,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._process = process
        self._handles = handles or Pidfds()
        self._kill = kill

    def send(self, identity: Identity, signum: int) -> bool:
        """Signal it; False when it is gone. Raises PermissionError."""
        try:
            handle = self._handles.open(identity.pid)
        except ProcessLookupError:
            return False
        except OSError:
            # ENOSYS, a seccomp filter's EPERM, or no descriptor left: the check alone must do.
            return self._send(identity, lambda: self._kill(identity.pid, signum))
        try:
            return self._send(identity, lambda: self._handles.send(handle, signum))
        finally:
            self._handles.close(handle)

    def _send(self, identity: Identity, deliver: Callable[[], None]) -> bool:
        process = self._process(identity.pid)
        if process is None or process.start != identity.start:
            return False
        try:
            deliver()
        except ProcessLookupError:
            return False
        return True


class TreeSignals:
    """Signals to every process of a tree that may fork meanwhile.

    `look` returns the tree's living processes as of now. The calling process, if it is inside, is
    never stopped (it could not go on) and is killed last. Every method returns the processes that
    refused the signal (another user's).
    """

    def __init__(
        self,
        look: Callable[[], Sequence[Process]],
        signaller: Signaller,
        pause: Callable[[float], None],
    ) -> None:
        self._look = look
        self._signaller = signaller
        self._pause = pause

    def each(self, signum: int) -> set[Identity]:
        """Once to every process that is there now."""
        return self._send_all(self._look(), signum)

    def stop(self) -> set[Identity]:
        """SIGSTOP until every process is stopped and no new one appears.

        "Is stopped", not "was signalled": a fork that was under way when the signal came is
        finished first, and its child is seen only after that.
        """
        refused: set[Identity] = set()
        for _ in range(STOP_ROUNDS):
            running = [
                process
                for process in self._look()
                if not process.stopped
                and process.identity not in refused
                and process.pid != os.getpid()
            ]
            if not running:
                break
            refused |= self._send_all(running, signal.SIGSTOP)
            self._pause(ROUND_PAUSE)
        return refused

    def kill(self) -> set[Identity]:
        """SIGSTOP them all, then SIGKILL until nobody is left who has not got it.

        Looks again after the kill: the end of a stopped group's parent sends the group SIGCONT
        (POSIX, orphaned process groups), and it may fork once more.
        """
        refused = self.stop()
        killed: set[Identity] = set()
        for _ in range(KILL_ROUNDS):
            left = [process for process in self._look() if process.identity not in killed]
            if not left:
                break
            refused |= self._send_all(left, signal.SIGKILL)
            killed |= {process.identity for process in left}
        return refused & killed

    def _send_all(self, processes: Sequence[Process], signum: int) -> set[Identity]:
        refused = set()
        # Youngest first: a parent's end then finds no stopped child to continue; ourselves last.
        order = sorted(
            (process.identity for process in processes),
            key=lambda identity: (identity.pid == os.getpid(), -identity.start, -identity.pid),
        )
        for identity in order:
            try:
                self._signaller.send(identity, signum)
            except PermissionError:
                refused.add(identity)
        return refused
