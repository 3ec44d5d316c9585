"""A signal for a whole group: who gets it where the group can't be signalled as one."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from cgmem.errors import CgroupError
from cgmem.supervising.main_process import MainProcess
from cgmem.supervising.termination import send
from tests.unit.fakes import FakeClock, FakeScope


class FakeMain(MainProcess):
    """A main process inside the scope that writes down its signals."""

    def __init__(self, pid: int, exit_fd: int | None) -> None:
        self.pid = pid
        self.exit_fd = exit_fd
        self.sent: list[int] = []

    def send_signal(self, signum: int) -> None:
        """Note it."""
        self.sent.append(signum)


@pytest.mark.parametrize(
    ("number", "exit_fd", "signum", "gets_it"),
    [
        (errno.EPERM, 9, signal.SIGTERM, False),  # one refuses (sudo), the others have theirs
        (errno.EPERM, None, signal.SIGTERM, True),  # pidfds are refused: nobody has it
        (errno.EMFILE, 9, signal.SIGTERM, True),
        (errno.EIO, 9, signal.SIGTERM, True),
        (errno.EPERM, 9, signal.SIGKILL, True),
    ],
)
def test_where_the_group_cannot_be_signalled(
    number: int, exit_fd: int | None, signum: int, gets_it: bool
) -> None:
    """The main process gets its signal, once: not where it must have had it already."""
    scope = FakeScope(FakeClock())
    scope.errors["signal"] = CgroupError(OSError(number, os.strerror(number)), "to", "41")
    main = FakeMain(scope.popen.pid, exit_fd)
    with pytest.raises(CgroupError):
        send(scope, main, signum)

    assert main.sent == [signum] * gets_it
