"""Where the subtree comes from in which scopes are made: here, this process's own cgroup.

Covers: whether the own cgroup is ours to divide, why not, and making it ready (leaf rule).
Does not cover: what is done in it (cgroup_scope.py), a subtree asked from systemd
(systemd_family.py).
Source: cgroup-v2.rst "No Internal Process Constraint" and "Delegation";
systemd's CGROUP_DELEGATION document (the user.delegate and trusted.delegate xattrs).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cgmem.contract import Usability
from cgmem.errors import BackendUnavailable, CgroupError, ScopeVanished
from cgmem_backends import kernel_files as kf
from cgmem_backends.cgroup_directory import own_pids, read_file, write_file
from cgmem_backends.hierarchy import Hierarchy
from cgmem_backends.linux_calls import get_xattr
from cgmem_backends.subtree_source import Subtree

SUPERVISOR_LEAF = "cgmem-supervisor"
"""Where the supervisor (and its ancestors) sit, so that their cgroup can hold budgets."""

RECORD_XATTR = "user.cgmem"
BELL_XATTR = "user.cgmem.bell"
"""On the cgroup that holds the scopes: changes when somebody rewrites a record."""

_CLAIM_TRIES = 5


class Host(NamedTuple):
    """What the decision needs to know of the machine, injectable."""

    hierarchy: Hierarchy
    proc: Path
    systemd_runs: bool
    euid: int
    mkdir: Callable[[Path], None] = os.mkdir


class OwnCgroup:
    """This process's own cgroup as the source. Implements `SubtreeSource`."""

    def __init__(self, look: Callable[[], Host]) -> None:
        self._look = look

    def inspect(self) -> Usability:
        """Say whether the own cgroup can be divided, changing nothing."""
        host = self._look()
        found = inspect(host)
        if not (found.usable and host.systemd_runs and host.hierarchy.own):
            return found
        from cgmem_backends.oom_policy import with_oom_policy

        return with_oom_policy(found, host.hierarchy.shown(host.hierarchy.own))

    def claim(self) -> Subtree:
        """Divide it. Moves this process to a leaf if the kernel asks for it."""
        host = self._look()
        return Subtree(claim(host), host.hierarchy)


def systemd_runs(run: Path = Path("/run")) -> bool:
    """Whether systemd manages this host (sd_booted(3))."""
    return (run / "systemd/system").is_dir()


def inspect(host: Host) -> Usability:
    """Say whether `claim` would work, changing nothing."""
    base, why_not = visible_base(host)
    if base is None:
        return why_not
    for check in (_controller, _writable, _delegated, _alone):
        refusal = check(host, base)
        if refusal is not None:
            return refusal
    return Usability(True, f"own cgroup {host.hierarchy.shown(base)} is delegated and ours alone")


def claim(host: Host) -> Path:
    """Make the subtree ready and return its directory.

    Moves this process and its ancestors inside the cgroup to a leaf if the kernel asks for it.
    Raises `BackendUnavailable` with the reason.
    """
    found = inspect(host)
    base, _ = visible_base(host)
    if not found.usable or base is None:
        raise BackendUnavailable(found.reason, hint=found.fix)
    divide(host, base, family(host.proc))
    return base


def divide(host: Host, base: Path, movable: set[int]) -> None:
    """Let `base` hold budgets: its processes go to a leaf, as far as they are `movable`.

    Raises `BackendUnavailable` with the reason.
    """
    try:
        _enable_memory(host, base, movable)
    except (CgroupError, ScopeVanished) as error:
        raise BackendUnavailable(
            f"memory controller can't be enabled below {host.hierarchy.shown(base)}: {error}"
        ) from error


def visible_base(host: Host) -> tuple[Path | None, Usability]:
    """The cgroup that would be divided, or why there is none to be seen."""
    hierarchy = host.hierarchy
    if hierarchy.kind != "v2":
        return None, _NO_V2[hierarchy.kind]
    if hierarchy.read_only:
        return None, Usability(
            False,
            f"cgroup2 is mounted read-only on {hierarchy.mount}",
            "give the container a writable cgroup namespace "
            "(for example: --cgroupns=private with /sys/fs/cgroup mounted rw)",
        )
    if hierarchy.own is None or not hierarchy.own.is_dir():
        return None, Usability(
            False,
            "this process's cgroup can't be seen in what is mounted",
            "mount cgroup2 in this namespace: mount -t cgroup2 none /sys/fs/cgroup",
        )
    own = hierarchy.own
    # An earlier supervisor of the same family has moved us (or the shell above us) already.
    return (own.parent if own.name == SUPERVISOR_LEAF else own), Usability(True, "")


_BOOT_V2 = (
    "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=memory on the kernel command line"
)
_NO_V2 = {
    "hybrid": Usability(
        False, "hybrid cgroups: the memory controller is on a v1 hierarchy", _BOOT_V2
    ),
    "v1": Usability(False, "only cgroup v1 is mounted", _BOOT_V2),
    "none": Usability(
        False,
        "no cgroup2 file system is mounted",
        "mount -t cgroup2 none /sys/fs/cgroup (as root)",
    ),
}


def _controller(host: Host, base: Path) -> Usability | None:
    controllers = (read_file(base, kf.CONTROLLERS) or b"").split()
    if b"memory" in controllers:
        return None
    return Usability(
        False,
        f"no memory controller in {host.hierarchy.shown(base)} "
        f"(there: {b' '.join(controllers).decode() or 'none'})",
        "systemctl edit user@.service, add [Service] Delegate=memory; "
        "on boards that switch it off: cgroup_enable=memory on the kernel command line",
    )


def _writable(host: Host, base: Path) -> Usability | None:
    for path in (base, base / kf.PROCS, base / kf.SUBTREE_CONTROL):
        if not os.access(path, os.W_OK):
            return Usability(
                False,
                f"no permission to write {path}",
                "start it in a delegated unit: systemd-run --user --scope -p Delegate=yes COMMAND",
            )
    return None


def _delegated(host: Host, base: Path) -> Usability | None:
    if not host.systemd_runs or _is_namespace_root(host, base) or _marked(base):
        return None
    manager = "--user " if host.euid else ""
    return Usability(
        False,
        f"systemd manages {host.hierarchy.shown(base)} and has not delegated it",
        f"systemd-run {manager}--scope -p Delegate=yes COMMAND",
    )


def _is_namespace_root(host: Host, base: Path) -> bool:
    return base == host.hierarchy.mount and not host.hierarchy.root_is_hosts


def _marked(base: Path) -> bool:
    """Delegated by systemd, or a scope of cgmem's (its owner is whoever runs inside)."""
    for name in ("user.delegate", "trusted.delegate"):
        if get_xattr(base, name) == b"1":
            return True
    return get_xattr(base, RECORD_XATTR) is not None


def _alone(host: Host, base: Path) -> Usability | None:
    """Nobody else may be in the way of dividing the cgroup; the real root may hold processes."""
    if _memory_enabled(base) or (base == host.hierarchy.mount and host.hierarchy.root_is_hosts):
        return None
    strangers = set(own_pids(base)) - family(host.proc)
    if not strangers:
        return None
    named = ", ".join(f"{pid} ({_comm(host.proc, pid)})" for pid in sorted(strangers)[:3])
    return Usability(
        False,
        f"{host.hierarchy.shown(base)} holds processes that are not this one or its ancestors: "
        f"{named}",
        "start the supervisor in a cgroup of its own",
    )


def _enable_memory(host: Host, base: Path, movable: set[int]) -> None:
    for _ in range(_CLAIM_TRIES):
        if _memory_enabled(base):
            return
        try:
            write_file(base, kf.SUBTREE_CONTROL, b"+memory")
        except CgroupError as error:
            # Processes inside (v2's rule against them): they move to a leaf, and once more.
            if error.errno != errno.EBUSY:
                raise
            _move_to_leaf(host, base, movable)
    if not _memory_enabled(base):
        raise BackendUnavailable(f"{host.hierarchy.shown(base)} is busy: others keep entering it")


def _memory_enabled(base: Path) -> bool:
    return b"memory" in (read_file(base, kf.SUBTREE_CONTROL) or b"").split()


def _move_to_leaf(host: Host, base: Path, movable: set[int]) -> None:
    leaf = base / SUPERVISOR_LEAF
    try:
        host.mkdir(leaf)
    except FileExistsError:
        pass
    except OSError as error:
        raise CgroupError(error, "making", str(leaf)) from error
    for pid in set(own_pids(base)) & movable:
        try:
            write_file(leaf, kf.PROCS, b"%d" % pid)
        except CgroupError as error:
            if error.errno != errno.ESRCH:  # ended meanwhile
                raise


def family(proc: Path) -> set[int]:
    """This process and its ancestors, as far as this pid namespace shows them."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = _parent(proc, pid)
    return found


def _parent(proc: Path, pid: int) -> int:
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rfind(b")") + 1 :].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else 0


def _comm(proc: Path, pid: int) -> str:
    try:
        name = (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return "ended"
    return "".join(char if char.isprintable() else "?" for char in name)
