"""The budget of one cgroup: written to the kernel, and read back as it is."""

from __future__ import annotations

import errno
from pathlib import Path

from cgmem.contract import EffectiveLimits, Limits
from cgmem.errors import CgroupError
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf


def write(directory: Path, limits: Limits, shown: str) -> EffectiveLimits:
    """Set a budget. memory.high goes first: it is the gentler one.

    `shown` is the cgroup's name for people. Raises `ScopeVanished` or `CgroupError`.
    """
    high = cg.write_limit(directory, kf.MEMORY_HIGH, limits.high_bytes)
    hard = cg.write_limit(directory, kf.MEMORY_MAX, limits.max_bytes)
    swap, swap_counted = _set_swap(directory, limits.swap_max_bytes)
    _set_oom_group(directory, limits.oom_group)
    taken = hard is not None and hard <= (limits.max_bytes or hard)
    return _effective(high, hard, swap, shown, taken, swap_counted)


def read(directory: Path) -> Limits:
    """Read the budget, whoever set it. Raises `CgroupError`."""
    return Limits(
        high_bytes=cg.read_limit(directory, kf.MEMORY_HIGH),
        max_bytes=cg.read_limit(directory, kf.MEMORY_MAX),
        swap_max_bytes=cg.read_limit(directory, kf.MEMORY_SWAP_MAX),
        oom_group=(cg.read_file(directory, kf.MEMORY_OOM_GROUP) or b"").strip() == b"1",
    )


def held(directory: Path, shown: str) -> EffectiveLimits:
    """Read what the kernel holds of it. Raises `CgroupError`."""
    high, hard, swap, _ = read(directory)
    counted = (directory / kf.MEMORY_SWAP_MAX).exists()
    return _effective(high, hard, swap, shown, hard is not None, counted)


def _effective(
    high: int | None, hard: int | None, swap: int | None, shown: str, taken: bool, counted: bool
) -> EffectiveLimits:
    source = None if hard is None else shown
    soft = not counted and _host_has_swap()
    return EffectiveLimits(high, hard, swap, hard, source, enforced=taken, soft=soft)


def _set_swap(directory: Path, limit: int | None) -> tuple[int | None, bool]:
    try:
        return cg.write_limit(directory, kf.MEMORY_SWAP_MAX, limit), True
    except CgroupError as error:
        if error.errno == errno.ENOENT:
            return None, False
        raise


def _set_oom_group(directory: Path, wanted: bool) -> None:
    if not wanted:  # 0 is what a new cgroup has
        return
    try:
        cg.write_file(directory, kf.MEMORY_OOM_GROUP, b"1")
    except CgroupError as error:
        if error.errno != errno.ENOENT:  # before 4.19: the kernel kills only the largest
            raise


def _host_has_swap(path: Path = Path("/proc/swaps")) -> bool:
    try:
        return len(path.read_bytes().splitlines()) > 1
    except OSError:
        return False
