"""A scope unit that is held open, ready to have scopes made in it.

Covers: the process that keeps a unit while it holds nothing else, where its cgroup is, making that
ready, who puts children in. Does not cover: whose scope it is (systemd_family.py,
systemd_group.py).
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from cgmem.errors import BackendUnavailable
from cgmem.shapes import NamedTuple
from cgmem_backends import subtree
from cgmem_backends.hierarchy import Hierarchy, parse_own_cgroup
from cgmem_backends.linux_calls import set_xattr
from cgmem_backends.subtree import Host
from cgmem_backends.subtree_source import Subtree
from cgmem_backends.systemd_attacher import Attacher
from cgmem_backends.systemd_manager import Manager, may_enter

_HOLD = "/bin/cat"


class Family(NamedTuple):
    """A scope unit that this process holds, and how children get in."""

    subtree: Subtree
    holder: subprocess.Popen[bytes] | None
    attacher: Attacher | None

    def drop(self) -> None:
        """Give up what keeps the scope."""
        let_go(self.holder)
        if self.attacher is not None:
            self.attacher.close()


def make_ready(host: Host, base: Path, movable: set[int]) -> None:
    """Let a scope's cgroup hold budgets. Raises `BackendUnavailable`."""
    subtree.divide(host, base, movable)
    # User managers leave this mark of delegation out; a cgmem inside goes by it.
    with suppress(OSError):
        set_xattr(base, "user.delegate", b"1")


def family_of(
    manager: Manager,
    unit: str,
    base: Path,
    hierarchy: Hierarchy,
    holder: subprocess.Popen[bytes] | None,
) -> Family:
    """A scope that is ready, and whoever puts children in where this process may not."""
    own = hierarchy.own
    attacher = None
    if holder is not None and not (own and may_enter(own, base)):
        attacher = Attacher(manager.address, unit)
    return Family(Subtree(base, hierarchy, attacher.attach if attacher else None), holder, attacher)


def base_of(host: Host, pid: int, unit: str) -> Path:
    """The cgroup of a unit that `pid` was put into. Raises `BackendUnavailable`."""
    try:
        path = parse_own_cgroup((host.proc / str(pid) / "cgroup").read_bytes())
    except OSError:
        path = None
    path = path and path.removesuffix(f"/{subtree.SUPERVISOR_LEAF}")
    if path is None or host.hierarchy.mount is None or Path(path).name != unit:
        raise BackendUnavailable(
            f"systemd started {unit}, but process {pid} is in {path or 'no cgroup'}",
            hint="cgmem doctor",
        )
    return host.hierarchy.mount / path.lstrip("/")


def start_holder() -> subprocess.Popen[bytes]:
    """Start what keeps the scope while it holds nothing else; it ends with this process."""
    try:
        # A session of its own: Ctrl-C is not meant for it.
        return subprocess.Popen(
            [_HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise BackendUnavailable(f"{_HOLD} can't be started: {error.strerror}") from error


def let_go(holder: subprocess.Popen[bytes] | None) -> None:
    """End it."""
    if holder is not None:
        with suppress(OSError):
            holder.communicate()
