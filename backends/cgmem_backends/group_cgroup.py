"""A group's budget: one cgroup above the scopes of several subprocesses.

Covers: its name, its memory.max, making and removing it in a subtree that is ours. Does not cover:
the group as a unit of systemd's (systemd_group.py).
docs/decisions/035 has the reasons.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cgmem.contract import MB, Group, Usability
from cgmem.errors import BackendUnavailable, ConfigurationError, ScopeVanished
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf
from cgmem_backends.subtree_source import Subtree, SubtreeSource

PREFIX = "cgmem-group-"

_NAME = rf"{PREFIX}([A-Za-z0-9_-]+)(\.scope)?"


def named(directory: Path) -> str:
    """A cgroup above a scope as it is told to people: a group by its name, others by their path."""
    found = re.fullmatch(_NAME, directory.name)
    return f"group {found[1]}" if found else str(directory)


def is_left(directory: Path) -> bool:
    """Whether this is the cgroup of a group that has no subprocess any more."""
    found = re.fullmatch(_NAME, directory.name)
    # A unit is systemd's to remove.
    return found is not None and found[2] is None and not cg.subdirectories(directory)


def wanted_limit(directory: Path, group: Group) -> int | None:
    """What memory.max has to be set to, or None if it is to stay.

    Raises `ConfigurationError` where nobody has given the group a budget, and where the new one is
    less than it uses: the kernel would kill for it.
    """
    current = cg.read_limit(directory, kf.MEMORY_MAX)
    if group.max_bytes is None:
        if current is None:
            raise no_budget(group)
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    if current == group.max_bytes // page * page:  # the kernel rounds it down
        return None
    used = cg.read_limit(directory, kf.MEMORY_CURRENT) or 0
    if used > group.max_bytes:
        raise ConfigurationError(
            f"group {group.name} uses {used / MB:.1f} MB already, more than its new budget"
            f" of {group.max_bytes / MB:.1f} MB",
            hint="give it a larger budget, or wait until some of its subprocesses have ended",
        )
    return group.max_bytes


def no_budget(group: Group) -> ConfigurationError:
    """Say that a group is only joined, and not there."""
    return ConfigurationError(
        f"group {group.name} has no budget here yet",
        hint="whoever comes first gives it: --group-max SIZE, or `groups:` in the"
        " configuration file",
    )


class GroupWithin:
    """A group inside another source's subtree. Implements `SubtreeSource`."""

    def __init__(
        self,
        source: SubtreeSource,
        group: Group,
        *,
        mkdir: Callable[[Path], None] = os.mkdir,
        rmdir: Callable[[Path], None] = os.rmdir,
    ) -> None:
        self._source = source
        self._group = group
        self._mkdir = mkdir
        self._rmdir = rmdir
        self._directory: Path | None = None

    def inspect(self) -> Usability:
        """As the source, which is what can fail."""
        return self._source.inspect()

    def with_note(self, found: Usability) -> Usability:
        """As without a group."""
        return self._source.with_note(found)

    def claim(self) -> Subtree:
        """Make the group's cgroup, or join it. Raises also `ConfigurationError`."""
        outer = self._source.claim()
        directory = outer.base / f"{PREFIX}{self._group.name}"
        for last in (False, False, True):
            try:
                self._make(directory)
                break
            except ScopeVanished as error:  # by another supervisor, which was the last to leave
                if last:
                    raise BackendUnavailable(str(error)) from error
            except OSError as error:
                refusal = f"group {self._group.name} can't be made in {outer.base}: {error}"
                raise BackendUnavailable(refusal) from error
            except ConfigurationError:
                self._remove(directory)
                raise
        # Whoever makes it anew after somebody removed it knows its budget then.
        known = cg.read_limit(directory, kf.MEMORY_MAX)
        self._group = self._group._replace(max_bytes=known)
        self._directory = directory
        return outer._replace(base=directory)

    def _make(self, directory: Path) -> None:
        with suppress(FileExistsError):
            self._mkdir(directory)
        limit = wanted_limit(directory, self._group)
        if limit is not None:
            cg.write_limit(directory, kf.MEMORY_MAX, limit)
        cg.write_file(directory, kf.SUBTREE_CONTROL, b"+memory")

    def release(self) -> None:
        """Remove it, unless others have something in it."""
        directory, self._directory = self._directory, None
        if directory is not None:
            self._remove(directory)
        self._source.release()

    def _remove(self, directory: Path) -> None:
        with suppress(OSError):  # others are in it, or it is gone
            self._rmdir(directory)
