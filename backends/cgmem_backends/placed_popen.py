"""A Popen whose child begins inside a cgroup, by posix_spawn.

It replaces one private method, `_execute_child` (see execute_child). posix_spawn gives one errno
for cgroup, cwd and command: which it was is found out here, in that order.
"""

from __future__ import annotations

import errno
import os
import subprocess

from cgmem.shapes import NamedTuple
from cgmem_backends.exec_request import ExecRequest, exec_errno, exec_request
from cgmem_backends.execute_child import (
    ExecuteChild,
    NotHonoured,
    file_actions,
    refuse_identity,
)
from cgmem_backends.spawn_attr import FileAction, SpawnAttributes, SpawnLibrary
from cgmem_backends.start_errors import cgroup_refused, is_gone, scope_vanished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.E2BIG})
"""What clone3 with a cgroup answers under a seccomp filter, or on a kernel before 5.7 (E2BIG)."""

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_NO_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM})
# The child's own steps (dup2, setsid, setpgid) can end in these, and so can exec: posix_spawn
# does not say which, Popen does.
_AMBIGUOUS = frozenset({errno.EBADF, errno.EPERM, errno.ESRCH, errno.EINVAL})


class Destination(NamedTuple):
    """Where a child begins, and the library that puts it there."""

    library: SpawnLibrary
    cgroup_path: str
    cgroup_fd: int


class PlacedPopen(subprocess.Popen["Any"]):
    """subprocess.Popen, the child inside a cgroup from before its first instruction.

    Raises what Popen raises, `NotHonoured`, `ScopeVanished` and `CgroupError`.
    """

    def __init__(self, args: Any, *, destination: Destination, **options: Any) -> None:
        self._destination = destination
        super().__init__(args, **options)

    def _execute_child(self, *parameters: Any) -> None:
        call = ExecuteChild(*parameters)
        refuse_identity(call)
        actions = file_actions(call)
        request = exec_request(
            call.args, executable=call.executable, shell=call.shell, env=call.env, cwd=call.cwd
        )
        self.pid = _spawn(self._destination, call, request, actions)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]  # Popen's own, not in typeshed
            call.p2cread, call.p2cwrite, call.c2pread, call.c2pwrite, call.errread, call.errwrite
        )


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
