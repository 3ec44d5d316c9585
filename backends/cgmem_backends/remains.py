"""Which cgroups of ours lie in a hierarchy, and which of them dead supervisors left behind.

Left behind is what no process is in and nobody alive will remove: ended scopes, cgroups that were
made ahead or between two steps, guards' cgroups. Does not cover: opening or removing them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cgmem.contract import ScopeRecord
from cgmem.errors import CgmemError, CgroupError
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import group_cgroup, scope_record
from cgmem_backends.linux_calls import get_xattr, set_xattr
from cgmem_backends.subtree import RECORD_XATTR

YOUNG_SECONDS = 60.0
"""A cgroup without a record may be one in the making. It is looked at when it is older, as far as
that shows: a directory that the kernel has dropped from memory meanwhile looks new once more."""

_NAME = r"cgmem-(?:guard-)?([1-9][0-9]{0,9})-[0-9]+"

Found = Iterator[tuple[Path, ScopeRecord]]


def recorded(directories: Iterable[Path]) -> Found:
    """Cgroups of this user (root: of everybody) that have a record."""
    euid = os.geteuid()
    for directory in directories:
        if re.fullmatch(_NAME, directory.name) and euid in (0, _owner(directory)):
            record = scope_record.decode(get_xattr(directory, RECORD_XATTR) or b"")
            if record is not None:
                yield directory, record


def left_behind(directories: Iterable[Path], proc: Path) -> Found:
    """Cgroups of this very user that dead supervisors left; without a record, `NOBODY`'s.

    Not of other users, for root neither: a record is its writer's word, and names a directory to
    write a log line to.
    """
    for directory in directories:
        if group_cgroup.is_left(directory):
            if _owner(directory) == os.geteuid() and _old(directory):
                yield directory, scope_record.NOBODY
            continue
        name = re.fullmatch(_NAME, directory.name)
        if name is None or int(name[1]) == os.getpid():  # ours: no need to look
            continue
        if _owner(directory) != os.geteuid() or cg.populated(directory):
            continue
        text = get_xattr(directory, RECORD_XATTR)
        if text is None:
            if _old(directory) and not scope_record.lives(int(name[1]), proc=proc):
                yield directory, scope_record.NOBODY
            continue
        record = scope_record.decode(text)  # None: another version's, which will know it
        if record is not None and not scope_record.is_supervised(record, proc):
            yield directory, record


def claim(directory: Path, record: ScopeRecord) -> None:
    """Become the one who takes over from the supervisor in `record`. Raises `CgmemError`."""
    name = record.subprocess_id
    if _owner(directory) != os.geteuid():
        raise CgmemError(
            f"subprocess {name} belongs to another user", hint="take it over as that user"
        )
    mark = f"{RECORD_XATTR}.after-{record.supervisor_pid}-{record.supervisor_start}"
    try:
        set_xattr(directory, mark, b"", new=True)
    except FileExistsError:
        raise CgmemError(
            f"subprocess {name} was taken over by another process just now", hint="cgmem ps"
        ) from None
    except OSError as error:
        raise CgroupError(error, "writing an xattr of", str(directory)) from error


def _owner(directory: Path) -> int | None:
    try:
        return directory.stat().st_uid
    except OSError:  # removed meanwhile
        return None


def _old(directory: Path) -> bool:
    try:
        return time.time() - directory.stat().st_mtime > YOUNG_SECONDS
    except OSError:
        return False
