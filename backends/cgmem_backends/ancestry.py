"""The cgroups above a scope: the limits that they set on it, and their OOMs.

Held descriptors, one pread each: this is read whenever a scope opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from cgmem.contract import Headroom, LimitAbove
from cgmem.errors import CgroupError, out_of_descriptors
from cgmem.shapes import NamedTuple
from cgmem_backends import kernel_files as kf
from cgmem_backends.group_cgroup import named
from cgmem_backends.hierarchy import find_hierarchy, read_proc


class AncestorLimit(NamedTuple):
    """A limit found on the path to the root. The smallest is the effective one."""

    max_bytes: int
    directory: Path
    left_bytes: int
    """memory.max - memory.current, at least 0."""


class _Ancestor(NamedTuple):
    directory: Path
    max_fd: int | None
    current_fd: int | None
    local_events_fd: int | None


class Ancestry:
    """The path from `base` (included) up to the mount (included, as far as it has the files)."""

    def __init__(self, base: Path, mount: Path) -> None:
        self._ancestors: list[_Ancestor] = []
        try:
            for directory in _path_up(base, mount):
                self._ancestors.append(_open(directory))
        except CgroupError:
            self.close()
            raise

    def limits(self) -> list[AncestorLimit]:
        """Every memory.max on the path. What has none costs one read, what has one two."""
        found = []
        for ancestor in self._ancestors:
            limit = _limit(ancestor.max_fd)
            if limit is not None:
                used = _limit(ancestor.current_fd) or 0
                found.append(AncestorLimit(limit, ancestor.directory, max(0, limit - used)))
        return found

    def ooms(self) -> dict[Path, int]:
        """`oom` of each ancestor's memory.events.local: OOMs at its own limit."""
        found = {}
        for ancestor in self._ancestors:
            text = _pread(ancestor.local_events_fd)
            if text is not None:
                found[ancestor.directory] = kf.parse_events(text).oom or 0
        return found

    def __del__(self) -> None:
        # Shared by every scope below the same cgroup; the last one to go closes it.
        self.close()

    def close(self) -> None:
        """Give up the descriptors."""
        for ancestor in self._ancestors:
            _close(ancestor[1:])
        self._ancestors = []


def headroom(limits: Iterable[AncestorLimit]) -> Headroom | None:
    """What the tightest of these leaves; None for none."""
    known = tuple(limits)
    if not known:
        return None
    tightest = min(known, key=lambda limit: limit.left_bytes)
    above = LimitAbove(named(tightest.directory), tightest.max_bytes)
    return Headroom(tightest.left_bytes, above, min(known).max_bytes)


def own_headroom(proc: Path = Path("/proc")) -> Headroom | None:
    """What is left on this process's own cgroup path. Holds nothing open."""
    found, path = [], _own_path(proc, read_proc(f"{proc}/self/cgroup"))
    if not path:  # cgroup2 may be mounted later
        _own_path.cache_clear()
    for directory in path:
        limit = _limit_now(f"{directory}/{kf.MEMORY_MAX}")
        if limit is not None:
            used = _limit_now(f"{directory}/{kf.MEMORY_CURRENT}") or 0
            found.append(AncestorLimit(limit, Path(directory), max(0, limit - used)))
    return headroom(found)


@lru_cache(maxsize=1)
def _own_path(proc: Path, _cgroups: bytes) -> list[str]:
    """The path up; anew when the text of `proc`/self/cgroup is another one: we were moved.

    Text, for this is on the way of every start: joining Paths costs more than reading the files.
    """
    hierarchy = find_hierarchy(proc)
    if hierarchy.mount is None or hierarchy.own is None:
        return []
    return [str(directory) for directory in _path_up(hierarchy.own, hierarchy.mount)]


def _path_up(base: Path, mount: Path) -> list[Path]:
    if base == mount or mount not in base.parents:
        return [base]
    return [base, *(parent for parent in base.parents if parent.is_relative_to(mount))]


def _open(directory: Path) -> _Ancestor:
    opened: list[int | None] = []
    try:
        for name in (kf.MEMORY_MAX, kf.MEMORY_CURRENT, kf.MEMORY_EVENTS_LOCAL):
            opened.append(_descriptor(directory / name))
    except CgroupError:
        _close(opened)
        raise
    return _Ancestor(directory, *opened)


def _close(descriptors: Iterable[int | None]) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


def _descriptor(path: str | Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        # These are opened once and serve every scope: missing them for want of a descriptor
        # would hide the limits above for good.
        if out_of_descriptors(error):
            raise CgroupError(error, "opening", str(path)) from error
        return None  # the root has no limits; before 5.2 there are no local events


def _limit_now(path: str) -> int | None:
    descriptor = _descriptor(path)
    try:
        return _limit(descriptor)
    finally:
        _close([descriptor])


def _limit(descriptor: int | None) -> int | None:
    text = _pread(descriptor)
    try:
        return None if text is None else kf.parse_limit(text)
    except ValueError:  # what can't be read limits nothing that we could name
        return None


def _pread(descriptor: int | None) -> bytes | None:
    if descriptor is None:
        return None
    try:
        return os.pread(descriptor, 4096, 0)
    except OSError:  # removed meanwhile
        return None
