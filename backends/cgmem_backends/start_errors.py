"""How the kernel's refusal to take a process into a cgroup is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cgmem.errors import BackendUnavailable, CgmemError, CgroupError, ScopeVanished

_GONE = frozenset({errno.ENOENT, errno.ENODEV})

_HINTS = {
    errno.EACCES: (
        "this user must own the cgroup and the nearest cgroup above both it and this process: "
        "`--backend systemd` starts from within a scope where that is so, or has systemd do it"
    ),
    errno.EBUSY: (
        "a cgroup that passes controllers on to others may hold no process itself: "
        "place into a leaf, or empty its cgroup.subtree_control"
    ),
    errno.EOPNOTSUPP: "the cgroup's cgroup.type must be `domain`",
}


def cgroup_refused(error: int, cgroup_path: str) -> CgmemError:
    """Say that a process could not be placed: `ScopeVanished` or `CgroupError`."""
    if error in _GONE:
        return scope_vanished(cgroup_path)
    refusal = OSError(error, os.strerror(error))
    return CgroupError(
        refusal, "placing a process", f"{cgroup_path}/cgroup.procs", hint=_HINTS.get(error)
    )


def scope_vanished(cgroup_path: str) -> ScopeVanished:
    """Say that somebody removed the cgroup before the process was inside."""
    return ScopeVanished(f"{cgroup_path} was removed before a process could be placed in it")


def is_gone(cgroup_path: str, cgroup_fd: int) -> bool:
    """Tell whether the directory that `cgroup_fd` holds is no longer at `cgroup_path`."""
    try:
        there = Path(cgroup_path).stat()
    except OSError:
        return True
    return not os.path.samestat(there, os.fstat(cgroup_fd))


def no_trampoline(why: str) -> BackendUnavailable:
    """Say that this Python can't start the exec trampoline."""
    return BackendUnavailable(
        f"cannot place a subprocess in its cgroup: {why}",
        hint="install cgmem as plain files for a python whose sys.executable can be run, "
        "or use the psutil backend",
    )
