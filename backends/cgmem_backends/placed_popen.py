"""A Popen whose child begins inside a cgroup, by posix_spawn.

It replaces one private method, `_execute_child`, whose parameters are the same in CPython
3.11-3.14; `signature_matches` says whether this Python still has them. What posix_spawn can't do
exactly as Popen does it refuses with `NotHonoured`, before anything was started.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cgmem_backends.exec_request import ExecRequest, exec_errno, exec_request, refuse_nul
from cgmem_backends.spawn_attr import (
    Chdir,
    Close,
    CloseFrom,
    Dup2,
    FileAction,
    SpawnAttributes,
    SpawnLibrary,
)
from cgmem_backends.start_errors import cgroup_refused, is_gone, scope_vanished

MAX_GAPS = 256
"""Descriptors to close one by one between `pass_fds`, before the trampoline is the better way."""

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.E2BIG})
"""What clone3 with a cgroup answers under a seccomp filter, or on a kernel before 5.7 (E2BIG)."""

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_NO_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM})
# The child's own steps (dup2, setsid, setpgid) can end in these, and so can exec: posix_spawn
# does not say which, Popen does.
_AMBIGUOUS = frozenset({errno.EBADF, errno.EPERM, errno.ESRCH, errno.EINVAL})


class NotHonoured(Exception):  # noqa: N818  (a turn taken, not a fault)
    """These arguments, or this host (`lasting`), are not for posix_spawn."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Destination(NamedTuple):
    """Where a child begins, and the library that puts it there."""

    library: SpawnLibrary
    cgroup_path: str
    cgroup_fd: int


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


class PlacedPopen(subprocess.Popen[Any]):
    """subprocess.Popen, the child inside a cgroup from before its first instruction.

    Raises what Popen raises, `NotHonoured`, `ScopeVanished` and `CgroupError`.
    """

    def __init__(self, args: Any, *, destination: Destination, **options: Any) -> None:
        self._destination = destination
        super().__init__(args, **options)

    def _execute_child(self, *parameters: Any) -> None:
        call = ExecuteChild(*parameters)
        _refuse_identity(call)
        actions = file_actions(call)
        request = exec_request(
            call.args, executable=call.executable, shell=call.shell, env=call.env, cwd=call.cwd
        )
        self.pid = _spawn(self._destination, call, request, actions)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]  # Popen's own, not in typeshed
            call.p2cread, call.p2cwrite, call.c2pread, call.c2pwrite, call.errread, call.errwrite
        )


def _refuse_identity(call: ExecuteChild) -> None:
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


def _spawn(
    to: Destination, call: ExecuteChild, request: ExecRequest, actions: list[FileAction]
) -> int:
    attributes = SpawnAttributes(call.start_new_session, call.process_group, call.restore_signals)
    searching = len(request.candidates) > 1
    failures: list[int] = []
    for candidate in request.candidates:
        missing = _not_there(candidate, call.cwd) if searching else 0
        if missing:
            failures.append(missing)
            continue
        try:
            return to.library.spawn(
                candidate,
                request.argv,
                request.env,
                cgroup_fd=to.cgroup_fd,
                actions=actions,
                attributes=attributes,
            )
        except OSError as error:
            failures.append(_command_errno(error, to, call.cwd))
    if all(failure in _MISSING for failure in failures):
        _refuse_cgroup(to)
        _refuse_cwd(call.cwd)
    failure = exec_errno(failures)
    raise OSError(failure, os.strerror(failure), request.executable)


def _command_errno(error: OSError, to: Destination, cwd: Any) -> int:
    """Return the errno if it is the command's own, else raise for cgroup, cwd or resources."""
    _refuse_cgroup(to)
    _refuse_cwd(cwd)
    failure = error.errno or 0
    if failure in _NO_RESOURCES:
        raise error
    if failure in _AMBIGUOUS:
        raise NotHonoured(os.strerror(failure)) from error
    return failure


def _not_there(candidate: bytes, cwd: Any) -> int:
    # A spawn costs a thousand times a stat, and stat fails exactly as execve's own path walk does.
    try:
        os.stat(os.path.join(os.fsencode(cwd or b""), candidate))  # noqa: PTH116, PTH118  (bytes)
    except OSError as error:
        return error.errno or 0
    return 0


def _refuse_cgroup(to: Destination) -> None:
    """Raise if the cgroup is what posix_spawn failed on."""
    error = cgroup_errno(to)
    if is_gone(to.cgroup_path, to.cgroup_fd):
        raise scope_vanished(to.cgroup_path)
    if not error:
        return
    if error in _NO_RESOURCES:
        raise OSError(error, os.strerror(error))
    if error in UNSUPPORTED:
        raise NotHonoured(unsupported(error), lasting=True)
    raise cgroup_refused(error, to.cgroup_path)


def unsupported(error: int) -> str:
    """Say in one clause that clone3 into a cgroup is not to be had here."""
    return f"clone3 into a cgroup failed: {os.strerror(error)}"


def cgroup_errno(to: Destination) -> int:
    """Try the cgroup alone: the errno of clone3, 0 if it took a child.

    A path below a file ends exec with ENOTDIR (ENOENT in a root without /dev) and leaves nothing.
    """
    try:
        to.library.spawn(b"/dev/null/", [b""], [], cgroup_fd=to.cgroup_fd)
    except OSError as error:
        return 0 if error.errno in _MISSING else error.errno or 0
    return 0


def _refuse_cwd(cwd: Any) -> None:
    """Raise if the child could not change to `cwd`, with the error that Popen raises."""
    if cwd is None:
        return
    directory = os.fsencode(cwd)
    try:
        os.stat(directory)  # noqa: PTH116  (bytes)
        # "." can be looked up where chdir is allowed: in a directory, with search permission.
        os.stat(directory + b"/.")  # noqa: PTH116  (bytes)
    except OSError as error:
        failure = error.errno or 0
        raise OSError(failure, os.strerror(failure), cwd) from None
