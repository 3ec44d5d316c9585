"""What a call of `Popen._execute_child` asks for, and what posix_spawn can honour of it.

The method is private; its parameters are the same in CPython 3.11-3.14, and `signature_matches`
says whether this Python still has them. What posix_spawn can't do exactly as Popen does it is
refused with `NotHonoured`, before anything was started.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator

from cgmem.shapes import NamedTuple
from cgmem_backends.exec_request import refuse_nul
from cgmem_backends.spawn_attr import Chdir, Close, CloseFrom, Dup2, FileAction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_GAPS = 256
"""Descriptors to close one by one between `pass_fds`, before the trampoline is the better way."""


class NotHonoured(Exception):  # noqa: N818  (a turn taken, not a fault)
    """These arguments, or this host (`lasting`), are not for posix_spawn."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class ExecuteChild(NamedTuple):
    """The parameters of `Popen._execute_child`, in its order."""

    args: Any
    executable: Any
    preexec_fn: Any
    close_fds: bool
    pass_fds: Any
    cwd: Any
    env: Any
    startupinfo: Any
    creationflags: int
    shell: bool
    p2cread: int
    p2cwrite: int
    c2pread: int
    c2pwrite: int
    errread: int
    errwrite: int
    restore_signals: bool
    gid: int | None
    gids: list[int] | None
    uid: int | None
    umask: int
    start_new_session: bool
    process_group: int


def signature_matches() -> bool:
    """Tell whether this Python's Popen has the private method that we replace, unchanged."""
    method = getattr(subprocess.Popen, "_execute_child", None)
    code = getattr(method, "__code__", None)
    if code is None or not hasattr(subprocess.Popen, "_close_pipe_fds"):
        return False
    return bool(code.co_varnames[: code.co_argcount] == ("self", *ExecuteChild._fields))


def refuse_identity(call: ExecuteChild) -> None:
    """Raise `NotHonoured` for what posix_spawn has no attribute for."""
    if call.preexec_fn is not None:
        raise NotHonoured("preexec_fn")
    if any(value is not None for value in (call.gid, call.gids, call.uid)):
        raise NotHonoured("user, group or extra_groups")
    if call.umask >= 0:
        raise NotHonoured("umask")


def file_actions(call: ExecuteChild) -> list[FileAction]:
    """List what the child does with its descriptors and cwd, in the order in which Popen does it.

    Raises `NotHonoured` where one dup2 would overwrite the source of the next, or for `pass_fds`
    that are no descriptors or lie too far apart.
    """
    kept = _descriptors(call.pass_fds)
    actions: list[FileAction] = [Dup2(fd, fd) for fd in kept]
    actions += [Close(fd) for fd in (call.p2cwrite, call.c2pread, call.errread) if fd != -1]
    actions += _standard_streams(call)
    if call.cwd is not None:
        directory = os.fsencode(call.cwd)
        refuse_nul(directory)
        actions.append(Chdir(directory))
    if call.close_fds:
        actions += _closing([fd for fd in kept if fd > 2])
    return actions


def _descriptors(pass_fds: Iterable[Any]) -> list[int]:
    kept = sorted(set(map(int, pass_fds)))
    if kept and kept[0] < 0:
        raise NotHonoured("a negative descriptor in pass_fds")
    return kept


def _standard_streams(call: ExecuteChild) -> Iterator[FileAction]:
    overwritten = set()
    for fd, new_fd in ((call.p2cread, 0), (call.c2pwrite, 1), (call.errwrite, 2)):
        if fd == -1:
            continue
        if fd in overwritten:
            raise NotHonoured("standard descriptors that replace each other")
        if fd != new_fd:
            overwritten.add(new_fd)
        yield Dup2(fd, new_fd)


def _closing(kept: list[int]) -> Iterator[FileAction]:
    if not kept:
        yield CloseFrom(3)
        return
    if kept[-1] - 2 - len(kept) > MAX_GAPS:
        raise NotHonoured("pass_fds that lie far apart")
    yield from (Close(fd) for fd in range(3, kept[-1]) if fd not in kept)
    yield CloseFrom(kept[-1] + 1)
