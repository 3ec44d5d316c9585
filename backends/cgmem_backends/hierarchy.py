"""Where cgroup v2 is mounted here, and where in it this process is.

Covers: telling apart v2 alone, hybrid, v1, a cgroup namespace, a read-only mount, no cgroups.
Does not cover: whether the own cgroup may be used for scopes (see subtree.py).
Source: proc_pid_mountinfo(5), cgroups(7) "/proc/pid/cgroup", cgroup_namespaces(7).
"""

from __future__ import annotations

import os
from pathlib import Path

from cgmem.errors import CgroupError
from cgmem.shapes import NamedTuple
from cgmem_backends import kernel_files as kf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Kind: TypeAlias = "Literal['v2', 'hybrid', 'v1', 'none']"


class Hierarchy(NamedTuple):
    """The cgroup v2 hierarchy as this process sees it."""

    kind: Kind
    """"hybrid": v2 is mounted, and a v1 hierarchy has the memory controller."""
    mount: Path | None
    """Where cgroup2 is mounted, for "v2" and "hybrid"."""
    own: Path | None
    """Directory of this process's cgroup; None when it lies outside of what is mounted."""
    read_only: bool = False

    @property
    def root_is_hosts(self) -> bool:
        """The mounted root is the machine's own, no cgroup namespace in between.

        Only the real root has no cgroup.type file.
        """
        return self.mount is not None and not (self.mount / kf.TYPE).exists()

    def shown(self, directory: Path) -> str:
        """A cgroup directory as /proc/PID/cgroup names it: its path below the mount."""
        return str(directory).removeprefix(str(self.mount).rstrip("/")) or "/"


class _Mount(NamedTuple):
    root: str
    point: str
    read_only: bool
    fstype: str
    super_options: frozenset[str]


def find_hierarchy(proc: Path = Path("/proc")) -> Hierarchy:
    """Read `proc`/self/mountinfo and `proc`/self/cgroup. Missing files mean no cgroups.

    Raises `CgroupError` where they can't be read for want of descriptors or memory.
    """
    mounts = parse_mountinfo(read_proc(proc / "self/mountinfo"))
    cgroups = read_proc(proc / "self/cgroup")
    # A container may have v2 mounted alone, while the machine has the controller on v1.
    v1_memory = has_v1_memory(cgroups) or any(
        m.fstype == "cgroup" and "memory" in m.super_options for m in mounts
    )
    any_v1 = any(m.fstype == "cgroup" for m in mounts)
    unified = [m for m in mounts if m.fstype == "cgroup2"]
    if not unified:
        return Hierarchy("v1" if any_v1 or v1_memory else "none", None, None)
    own = parse_own_cgroup(cgroups)
    mount, directory = _nearest(unified, own)
    kind: Kind = "hybrid" if v1_memory else "v2"
    return Hierarchy(kind, Path(mount.point), directory, mount.read_only)


def parse_mountinfo(text: bytes) -> list[_Mount]:
    """Parse mountinfo. A line of another shape is skipped."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(b" - ")
        fields, tail = before.split(), after.split()
        if not separator or len(fields) < 6 or len(tail) < 2:
            continue
        options = tail[2].split(b",") if len(tail) > 2 else []
        # The mount's own options tell read-only binds; the super block's tell a read-only mount.
        read_only = b"ro" in fields[5].split(b",") or b"ro" in options
        mounts.append(
            _Mount(
                _unescape(fields[3]),
                _unescape(fields[4]),
                read_only,
                os.fsdecode(tail[0]),
                frozenset(os.fsdecode(option) for option in options),
            )
        )
    return mounts


def parse_own_cgroup(text: bytes) -> str | None:
    """Take the path of the `0::` line of /proc/PID/cgroup; None where there is none."""
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            return os.fsdecode(line[3:]).removesuffix(" (deleted)")
    return None


def has_v1_memory(text: bytes) -> bool:
    """Whether /proc/PID/cgroup has a line of a v1 hierarchy with the memory controller."""
    return any(
        b"memory" in line.split(b":", 2)[1].split(b",")
        for line in text.splitlines()
        if line.count(b":") >= 2
    )


def _nearest(unified: list[_Mount], own: str | None) -> tuple[_Mount, Path | None]:
    """Choose the mount through which the own cgroup is visible, the longest root first."""
    for mount in sorted(unified, key=lambda m: len(m.root), reverse=True):
        below = _below(own, mount.root)
        if below is not None:
            return mount, Path(mount.point) / below
    return unified[0], None


def _below(own: str | None, root: str) -> str | None:
    # "/.." at the front: the cgroup lies outside of our cgroup namespace.
    if own is None or own.startswith("/.."):
        return None
    if root == "/":
        return own.lstrip("/")
    if own == root or own.startswith(root + "/"):
        return own[len(root) :].lstrip("/")
    return None


def _unescape(field: bytes) -> str:
    """Undo mountinfo's octal escapes (space, tab, newline, backslash)."""
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return os.fsdecode(field)


def read_proc(path: str | Path) -> bytes:
    """Read a file of /proc; b"" where it is missing. Raises as `find_hierarchy` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a fifth of Path.read_bytes
        try:
            return b"".join(iter(lambda: os.read(descriptor, 65536), b""))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return b""
    except OSError as error:  # out of descriptors, say: that is not "no cgroups"
        raise CgroupError(error, "reading", str(path)) from error
