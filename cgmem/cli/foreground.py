"""The foreground job: cgmem and its child side by side in one process group, as one job.

Covers: waiting for the child, forwarding signals, stopping and continuing together. The terminal
is the child's: cgmem never reads it and never changes its modes. See also: signals.py.

cgmem stops when its child has stopped, not before: a program that catches Ctrl-Z first gives the
terminal its old modes back, and one that ignores Ctrl-Z goes on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from cgmem.cli.signals import FORWARDED, Arrival, Inbox
from cgmem.shapes import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

LOOK_SECONDS = 1.0
"""How long to wait at most for a signal before looking at the child again."""

PASSING_SECONDS = 0.5
"""How long a stop by SIGSTOP, which no key sends, may last before cgmem stops as well."""

FAR_SECONDS = 1e8
"""How far a timer is moved while the child is stopped: three years, exact to 20 ns."""

_STOP_SIGNALS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Child(Protocol):
    """What is needed of subprocess.Popen or MonitoredProcess."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""

    def wait(self) -> int:
        """Wait for the end."""

    def send_signal(self, signum: int) -> None:
        """Signal it, unless it has ended."""


class ForegroundJob:
    """One child in the foreground (or background) of a shell, from its start to its end.

    `move_timers(seconds)` delays every timer; `ending()` says whether cgmem itself is ending the
    child and may have stopped it for that; `before_stop()` is called before this process stops.
    """

    def __init__(
        self,
        child: Child,
        inbox: Inbox,
        *,
        move_timers: Callable[[float], None] = lambda _seconds: None,
        ending: Callable[[], bool] = lambda: False,
        before_stop: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._child = child
        self._inbox = inbox
        self._move_timers = move_timers
        self._ending = ending
        self._before_stop = before_stop
        self._clock = clock
        self._stopped_at: float | None = None

    def wait(self) -> int:
        """Wait for the child's end, being a good job meanwhile. Returns Popen's status."""
        while not self._ended():
            arrival = self._inbox.wait(LOOK_SECONDS)
            if arrival is not None:
                self.take(arrival)
        return self._child.wait()

    def take(self, arrival: Arrival) -> None:
        """Do what a signal asks for."""
        if arrival.signum == signal.SIGCHLD:
            self._follow_child()
        elif arrival.signum == signal.SIGCONT:
            self._continue_child()
        elif arrival.sent and arrival.signum in FORWARDED:
            # `kill 0` in the child reaches it by itself.
            if arrival.sender != self._child.pid:
                self._send(arrival.signum)
        elif arrival.signum == signal.SIGTSTP and not _SEES_STOPS:
            self._stop(signal.SIGTSTP)

    def _follow_child(self) -> None:
        change, signum = _change(self._child.pid)
        if change == "stopped" and not self._ending() and self._stays_stopped(signum):
            self._stop(signum)
        elif change == "continued":
            self._run_timers()

    def _stays_stopped(self, signum: int) -> bool:
        """False where `cgmem kill` stops all for a moment: nobody would continue us after it."""
        until = self._clock() + PASSING_SECONDS
        while signum == signal.SIGSTOP and self._clock() < until:
            if _change(self._child.pid)[0] == "continued" or _has_ended(self._child.pid):
                return False
            time.sleep(PASSING_SECONDS / 20)
        return True

    def _stop(self, signum: int) -> None:
        self._hold_timers()
        self._before_stop()
        self._inbox.stop_by(signum if signum in _STOP_SIGNALS else signal.SIGTSTP)
        if not _SEES_STOPS:
            self._run_timers()

    def _continue_child(self) -> None:
        """A shell's `fg` continues the whole group; `kill -CONT` only us."""
        if self._stopped_at is None:
            return
        if _change(self._child.pid)[0] == "continued":
            self._run_timers()
        else:
            # Its own SIGCHLD says when it runs again.
            self._send(signal.SIGCONT)

    def _hold_timers(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = self._clock()
            self._move_timers(FAR_SECONDS)

    def _run_timers(self) -> None:
        if self._stopped_at is not None:
            stopped = self._clock() - self._stopped_at
            self._stopped_at = None
            self._move_timers(stopped - FAR_SECONDS)

    def _send(self, signum: int) -> None:
        with suppress(OSError):  # another user's by now (sudo): it can't be helped
            self._child.send_signal(signum)

    def _ended(self) -> bool:
        # Not poll(): while the poller's thread is asking, Popen doesn't know yet.
        if not _SEES_STOPS:
            return self._child.poll() is not None
        return _has_ended(self._child.pid)


_SEES_STOPS = sys.platform == "linux"
"""waitid(2) tells of stops without taking the exit status from Popen (macOS: Python 3.13)."""


def _change(pid: int) -> tuple[Literal["stopped", "continued"] | None, int]:
    """Take the last change of a child that has not been taken: ("stopped", by which signal)."""
    if sys.platform == "linux":
        with suppress(ChildProcessError):
            info = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if info is not None:
                stopped = info.si_code == os.CLD_STOPPED
                return ("stopped" if stopped else "continued"), info.si_status
    return None, 0


def _has_ended(pid: int) -> bool:
    if sys.platform == "linux":
        try:
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # the poller's thread has it
            return True
    raise AssertionError("asked only where waitid is")
