"""Calls that only Linux has, typed for every platform; elsewhere they raise ENOSYS."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path


def pidfd_open(pid: int) -> int:
    """Open a descriptor that names this process for ever (pidfd_open(2), Linux 5.3)."""
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    else:  # noqa: RET505  (mypy leaves out the branch of the other platform, not what follows)
        raise _no_such_call()


def pidfd_send_signal(descriptor: int, signum: int) -> None:
    """Signal the process that the descriptor names (pidfd_send_signal(2), Linux 5.1)."""
    if sys.platform == "linux":
        signal.pidfd_send_signal(descriptor, signum)
    else:
        raise _no_such_call()


def get_xattr(path: Path, name: str) -> bytes | None:
    """Read an extended attribute; None where it is absent or can't be read."""
    if sys.platform == "linux":
        try:
            return os.getxattr(path, name)
        except OSError:
            return None
    else:
        return None


def set_xattr(path: Path, name: str, value: bytes, *, new: bool = False) -> None:
    """Write an extended attribute (on cgroups: user.* since 5.7).

    With `new`, FileExistsError where it is there already.
    """
    if sys.platform == "linux":
        os.setxattr(path, name, value, os.XATTR_CREATE if new else 0)
    else:
        raise _no_such_call()


def _no_such_call() -> OSError:
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
