"""Ending a group: SIGTERM so that every process can obey it, SIGKILL so that none gets away.

Nothing is remembered here; when each is due, and why, is `supervising.supervision`'s.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable

from cgmem.contract import Scope
from cgmem.errors import CgmemError, ScopeVanished
from cgmem.supervising.main_process import MainProcess


def ask_to_end(scope: Scope, main: MainProcess | None, warn: Callable[[str], None]) -> None:
    """SIGTERM to every process. What fails costs a warning: the other steps don't depend on it.

    Frozen meanwhile, so that nobody forks a child past the signal. A process that was stopped or
    frozen before gets its signal as it runs again.
    """
    try:
        attempt(lambda: scope.freeze(True), warn)
        attempt(lambda: send(scope, main, signal.SIGTERM), warn)
        attempt(lambda: send(scope, main, signal.SIGCONT), warn)
    finally:
        attempt(lambda: scope.freeze(False), warn)


def send(scope: Scope, main: MainProcess | None, signum: int) -> None:
    """Signal every process of the scope, and the main process also where it was moved out.

    Raises `CgmemError` or OSError where the scope can't be reached, for want of a descriptor, say;
    the main process has its signal then, which takes none. (pam_systemd moves what su and sudo
    start to a session's cgroup.)
    """
    inside: list[int] = []
    failure: CgmemError | OSError | None = None
    try:
        inside = scope.pids()
        scope.signal(signum)
    except ScopeVanished:
        pass
    except (CgmemError, OSError) as error:
        failure = error
        # Where somebody refuses a signal by pidfd (sudo), the others have theirs, the main process
        # too: a second SIGTERM can mean "at once". Of any other failure that can't be said.
        refused = getattr(error, "errno", None) == errno.EPERM
        by_pidfd = main is not None and main.exit_fd is not None
        if signum == signal.SIGKILL or not (refused and by_pidfd):
            inside = []
    if main is not None and main.pid is not None and main.pid not in inside:
        main.send_signal(signum)
    if failure is not None:
        raise failure


def attempt(step: Callable[[], object], warn: Callable[[str], None]) -> None:
    """Do one step that the others don't depend on: its failure costs a warning."""
    try:
        step()
    except ScopeVanished:
        pass
    except (CgmemError, OSError) as error:
        warn(str(error))
