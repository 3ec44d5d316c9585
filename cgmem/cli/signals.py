"""The signals that come to `cgmem run`, one by one, with where they came from.

Until they are blocked, handlers record them, so that none is lost and none ends cgmem while its
child lives. They can't be blocked before the child has started: it would inherit that.
Sources: sigaction(2) (si_code), sigwaitinfo(2), signal(7); credentials of the terminal: termios(3).
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from types import FrameType

from cgmem.shapes import NamedTuple

FORWARDED = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTSTP,
    }
)
"""Passed on to the child when a process sent them to cgmem."""

FROM_KEYBOARD = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
"""The terminal sends these to its whole foreground group: the child has them already."""

_TO_END = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

WAITED_FOR = FORWARDED | {signal.SIGCONT, signal.SIGCHLD}


class Arrival(NamedTuple):
    """One signal."""

    signum: int
    sent: bool
    """A process sent it to us; else the kernel did, and to the child too."""
    sender: int = 0
    """The process's id, 0 where it can't be told."""


class Inbox:
    """The signals of this process, from `open` on. For the main thread."""

    def __init__(self) -> None:
        # What the caller ignores stays ignored, here and in the child (nohup, background jobs of
        # a shell without job control). SIGCHLD can't: the child's end would go unseen.
        self._watched = frozenset(
            signum
            for signum in WAITED_FOR
            if signum == signal.SIGCHLD or signal.getsignal(signum) is not signal.SIG_IGN
        )
        self._recorded: deque[int] = deque()

    def open(self) -> None:
        """Record from now on. Handlers are reset at exec, so the child has the defaults."""
        for signum in self._watched:
            signal.signal(signum, self._record)

    def block(self) -> None:
        """Block them: from now on `wait` takes them as they come."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)

    def wait(self, seconds: float) -> Arrival | None:
        """Return the next signal, None after so many seconds (macOS: only after a signal)."""
        if self._recorded:
            # From the keyboard or not, the child may not have been there yet: better it gets it
            # twice than never.
            return Arrival(self._recorded.popleft(), sent=True)
        if sys.platform == "linux":
            info = signal.sigtimedwait(self._watched, seconds)
            return None if info is None else _arrived(info.si_signo, info.si_code, info.si_pid)
        else:  # noqa: RET505  (mypy knows platforms by if and else)
            if seconds == 0 and not signal.sigpending() & self._watched:
                return None
            return _guessed(signal.sigwait(self._watched))

    def asked_to_end(self) -> bool:
        """Whether a signal that asks to end has come. Takes what has come."""
        while (arrival := self.wait(0)) is not None:
            if arrival.signum in _TO_END:
                return True
        return False

    def stop_by(self, signum: int) -> None:
        """Stop this process as `signum` does by default; returns once it is continued.

        Returns at once in an orphaned process group: the kernel stops nobody there, as no shell
        could continue it (setpgid(2), "orphaned process group").
        """
        before = signal.getsignal(signum)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
        # Stopped here.
        if signum in self._watched:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
        signal.signal(signum, before)
        # As the kernel's SIGCONT drops stop signals that wait: a Ctrl-Z that was recorded before
        # `block` has been obeyed, and passed on now it would stop the child a second time.
        while signal.SIGTSTP in self._recorded:
            self._recorded.remove(signal.SIGTSTP)

    def _record(self, signum: int, _frame: FrameType | None) -> None:
        self._recorded.append(signum)


def _arrived(signum: int, code: int, sender: int) -> Arrival:
    # SI_USER, SI_QUEUE and SI_TKILL are not positive; SI_KERNEL (0x80) and CLD_* are.
    return Arrival(signum, code <= 0 or _hung_up(signum), sender)


def _hung_up(signum: int) -> bool:
    """Whether this is a hang-up of our terminal that only its session leader is told of: us."""
    return signum == signal.SIGHUP and os.getsid(0) == os.getpid()


def _guessed(signum: int) -> Arrival:
    """What can be said without a siginfo."""
    return Arrival(signum, signum not in FROM_KEYBOARD or not _in_foreground())


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
