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
import threading
from collections.abc import Callable
from pathlib import Path

from cgmem.contract import Usability
from cgmem.errors import BackendUnavailable, CgroupError, ScopeVanished
from cgmem.shapes import NamedTuple
from cgmem_backends import host_advice
from cgmem_backends import kernel_files as kf
from cgmem_backends.cgroup_directory import own_pids, read_file, write_file
from cgmem_backends.hierarchy import Hierarchy
from cgmem_backends.linux_calls import get_xattr
from cgmem_backends.process_stat import PPID, stat_fields
from cgmem_backends.subtree_source import Subtree

SUPERVISOR_LEAF = "cgmem-supervisor"
"""Where the supervisor (and its ancestors) sit, so that their cgroup can hold budgets."""

RECORD_XATTR = "user.cgmem"
BELL_XATTR = "user.cgmem.bell"
"""On the cgroup that holds the scopes: changes when somebody rewrites a record."""

_CLAIM_TRIES = 5

_quiet = threading.RLock()
"""Held while the own cgroup is looked at or divided, and while a program of ours runs in it: to
another thread that program would be somebody else's."""


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
        with _quiet:
            return inspect(self._look())

    def with_note(self, found: Usability) -> Usability:
        """Say so where the own unit would not survive a subprocess at its hard limit."""
        host = self._look()
        if not (found.usable and host.systemd_runs and host.hierarchy.own):
            return found
        from cgmem_backends.oom_policy import with_oom_policy

        with _quiet:
            return with_oom_policy(found, host.hierarchy.shown(host.hierarchy.own))

    def claim(self) -> Subtree:
        """Divide it. Moves this process to a leaf if the kernel asks for it."""
        with _quiet:
            host = self._look()
            return Subtree(claim(host), host.hierarchy)

    def release(self) -> None:
        """Nothing: the own cgroup stays divided for whoever comes next."""


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
        return None, host_advice.no_v2(hierarchy, host.proc)
    if hierarchy.read_only:
        return None, host_advice.read_only(hierarchy)
    if hierarchy.own is None or not hierarchy.own.is_dir():
        return None, host_advice.out_of_sight()
    own = hierarchy.own
    # An earlier supervisor of the same family has moved us (or the shell above us) already.
    return (own.parent if own.name == SUPERVISOR_LEAF else own), Usability(True, "")


def _controller(host: Host, base: Path) -> Usability | None:
    if b"memory" in (read_file(base, kf.CONTROLLERS) or b"").split():
        return None
    return host_advice.no_controller(host.hierarchy, base, host.proc)


def _writable(host: Host, base: Path) -> Usability | None:
    for path in (base, base / kf.PROCS, base / kf.SUBTREE_CONTROL):
        if not os.access(path, os.W_OK):
            return Usability(
                False,
                f"no permission to write {path}",
                _ask_systemd(host)
                if host.systemd_runs
                else f"as root: mkdir /sys/fs/cgroup/NAME && chown -R {host.euid}"
                " /sys/fs/cgroup/NAME && echo PID > /sys/fs/cgroup/NAME/cgroup.procs; in a"
                f" container: {host_advice.CONTAINER}",
            )
    return None


def _delegated(host: Host, base: Path) -> Usability | None:
    if not host.systemd_runs or _is_namespace_root(host, base) or _marked(base):
        return None
    return Usability(
        False,
        f"systemd manages {host.hierarchy.shown(base)}, and there is no mark that it has delegated"
        " it",
        _ask_systemd(host),
    )


def _ask_systemd(host: Host) -> str:
    # A user's manager leaves no mark on what it delegates, so `systemd-run --user -p Delegate=yes`
    # would not help.
    if host.euid:
        return "--backend systemd, which asks for a delegated scope by itself (auto does, too)"
    return "systemd-run --scope -p Delegate=yes COMMAND, or --backend systemd"


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
        return _hidden(host, base)
    named = ", ".join(f"{pid} ({_comm(host.proc, pid)})" for pid in sorted(strangers)[:3])
    return Usability(
        False,
        f"{host.hierarchy.shown(base)} holds processes that are not this one or its ancestors: "
        f"{named}",
        "start the supervisor in a cgroup of its own",
    )


def _hidden(host: Host, base: Path) -> Usability | None:
    """Processes of another pid namespace read as 0 in cgroup.procs, and can't be moved."""
    if b"0" not in (read_file(base, kf.PROCS) or b"").split():
        return None
    return Usability(
        False,
        f"{host.hierarchy.shown(base)} holds processes that can't be seen in this pid namespace",
        "have the container's starter put it into a cgroup of its own before it makes the cgroup"
        f" namespace; {host_advice.CONTAINER}",
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
        try:
            fields = stat_fields(pid, proc)
        except OSError:  # hidepid=1, say
            fields = []
        pid = int(fields[PPID]) if len(fields) > PPID and fields[PPID].isdigit() else 0
    return found


def _comm(proc: Path, pid: int) -> str:
    try:
        name = (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return "ended"
    return "".join(char if char.isprintable() else "?" for char in name)


def _after_fork_in_child() -> None:
    global _quiet  # noqa: PLW0603  (the thread that may hold it is not in the child)
    _quiet = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
