"""The main process of a subprocess: whether it has ended, and with which status."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from subprocess import Popen

from cgmem.errors import CgmemError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READABLE = 0x1
"""POLLIN: a pidfd becomes readable when its process ends."""

ASK_SECONDS = 10.0
"""How long a reused process id may pass for the process, where there are no pidfds."""


class MainProcess:
    """Our child (`popen`), or a process that already ran. Not thread-safe.

    `living` names the processes of its scope, which knows one from another that got its id: for
    where there is neither a child nor a pidfd to ask.
    """

    def __init__(
        self,
        pid: int,
        popen: Popen[Any] | None,
        living: Callable[[], Sequence[int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pid: int | None = pid
        self.exit_fd = exit_descriptor(pid)
        """A pidfd, or None where there is none to be had."""
        self._popen = popen
        self._ended = False
        self._living = living
        self._clock = clock
        self._asked_at = float("-inf")

    def has_ended(self) -> bool:
        """Ask the kernel, until the answer is yes."""
        if not self._ended:
            if self._popen is not None:
                self._ended = self._popen.poll() is not None
            elif self.exit_fd is not None:
                self._ended = _readable(self.exit_fd)
            else:
                self._ended = _gone(self.pid or 0) or self._is_another()
        return self._ended

    def _is_another(self) -> bool:
        """Whether somebody else has its id by now, or it is a zombie."""
        now = self._clock()
        # To name the living means to look at every process: not at each look at this one.
        if self._living is None or now < self._asked_at + ASK_SECONDS:
            return False
        self._asked_at = now
        try:
            return self.pid not in self._living()
        except (CgmemError, OSError):  # out of descriptors: the next look will tell
            return False

    def is_over(self) -> bool:
        """The same, also while another thread that waits for it has yet to take its status."""
        return self.has_ended() or (self.exit_fd is not None and _readable(self.exit_fd))

    def send_signal(self, signum: int) -> None:
        """Signal it, unless it has ended. Raises PermissionError (sudo). A reused id is safe."""
        if self.is_over():
            return
        with suppress(ProcessLookupError):
            if sys.platform == "linux" and self.exit_fd is not None:
                signal.pidfd_send_signal(self.exit_fd, signum)
            elif self._popen is not None:
                self._popen.send_signal(signum)

    def known_to_have_ended(self) -> bool:
        """The same without asking."""
        return self._ended or (self._popen is not None and self._popen.returncode is not None)

    def returncode(self) -> int | None:
        """As Popen's; None where nobody could wait for it."""
        # With SIGCHLD ignored the kernel reaps, and Popen makes 0 of a status nobody has.
        if self._popen is None or signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            return None
        return self._popen.returncode

    def close(self) -> None:
        """Give up the descriptor. Nobody may be waiting on it any more."""
        if self.exit_fd is not None:
            os.close(self.exit_fd)
            self.exit_fd = None


class AdoptedProcesses(MainProcess):
    """The processes of a scope that another process has started: over when all have ended."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self.pid = None
        self.exit_fd = None
        self._popen = None
        self._ended = False
        self._pids = pids

    def has_ended(self) -> bool:
        """Ask, until there is none."""
        if not self._ended:
            self._ended = not self._pids()
        return self._ended


def exit_descriptor(pid: int) -> int | None:
    """A pidfd, readable once the process has ended (Linux 5.3); None where none is to be had."""
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except OSError:  # reaped by now, no descriptor left, an old kernel, a seccomp filter
        return None


def _gone(pid: int) -> bool:
    """Whether no process has this id; one that got it anew, or a zombie, passes for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _readable(exit_fd: int) -> bool:
    waiter = select.poll()
    waiter.register(exit_fd, READABLE)
    return bool(waiter.poll(0))
