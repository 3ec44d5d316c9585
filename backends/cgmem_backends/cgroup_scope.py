"""What is done in a subtree: one cgroup per subprocess.

Covers: limits, placing, reading, freezing, killing, removing. The code is the same whoever gave
the subtree. Does not cover: where the subtree comes from (subtree.py).
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from os import pread
from pathlib import Path
from subprocess import Popen

from cgmem.contract import (
    Counters,
    EffectiveLimits,
    LimitAbove,
    Limits,
    MemoryEvents,
    Sample,
    ScopeRecord,
    Snapshot,
)
from cgmem.errors import CgmemError, CgroupError, ScopeVanished
from cgmem_backends import cgroup_budget, scope_record, subtree
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf
from cgmem_backends.ancestry import Ancestry, headroom
from cgmem_backends.group_cgroup import named
from cgmem_backends.linux_calls import get_xattr, set_xattr
from cgmem_backends.placement import Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POLLPRI = getattr(select, "POLLPRI", 0x2)
_SMALL = 512
_STAT = 8192


class CgroupScope:
    """One cgroup with its files held open. Implements `cgmem.contract.Scope`."""

    def __init__(
        self,
        directory: Path,
        record: ScopeRecord,
        *,
        shown: str,
        ancestry: Ancestry,
        placement: Placement,
        root_is_hosts: bool,
        clock: Callable[[], float] = time.monotonic,
        rmdir: Callable[[Path], None] = os.rmdir,
    ) -> None:
        self.record = record
        self.location = shown
        self.directory = directory
        self._path = f"{directory}/"
        self._ancestry = ancestry
        self._ancestor_ooms = ancestry.ooms()
        self._placement = placement
        self._root_is_hosts = root_is_hosts
        self._clock = clock
        self._rmdir = rmdir
        self._descriptors: dict[str, int] = {}
        self._last_events: MemoryEvents | None = None
        self._last_local: tuple[int | None, MemoryEvents | None] = None, None
        """memory.events.local as last read, and the `oom_kill` that it belongs to."""
        self._looked: tuple[bytes, bytes] | None = None
        self._ahead: tuple[bytes, bytes] | None = None
        self._held = EffectiveLimits(None, None, None, None, None, enforced=False)
        self.on_brake: Callable[[], None] = lambda: None
        """Called before memory.high is set."""
        try:
            with cg.translated("opening", self._path + kf.MEMORY_CURRENT):
                self._current_fd = self._hold(kf.MEMORY_CURRENT)
                self._events_fd = self._hold(kf.MEMORY_EVENTS)
        except CgmemError:
            self.detach()
            raise

    @property
    def wake_descriptors(self) -> list[tuple[int, int]]:
        """memory.events: ready by POLLPRI until the next read of it."""
        return [(self._events_fd, _POLLPRI)]

    @property
    def emptied_descriptor(self) -> tuple[int, int] | None:
        """cgroup.events. Opened only when asked for: most scopes are empty once they are left."""
        with cg.translated("opening", self._path + kf.EVENTS):
            populated_fd = self._hold(kf.EVENTS)
            # A file that was never read is ready at once.
            os.pread(populated_fd, _SMALL, 0)
        return populated_fd, _POLLPRI

    def start(self, args: Any, options: Mapping[str, Any]) -> Popen[Any]:
        """Start a command inside, before its first instruction."""
        flags = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
        # The file inside is named, so that a missing directory reads as a vanished scope.
        with cg.translated("opening", self._path + kf.PROCS):
            descriptor = os.open(self._path, flags)
        try:
            return self._placement.start(
                args, options, cgroup_path=self._path[:-1], cgroup_fd=descriptor
            )
        finally:
            os.close(descriptor)

    def sample(self, detail_above: int | None = None, *, if_changed: bool = False) -> Sample | None:
        """Two preads; past `detail_above` bytes also memory.stat, pressure, swap and CPU time."""
        looked, self._ahead = self._ahead, None
        if looked is None:
            looked = self._read_both()
        if if_changed and looked == self._looked:
            return None
        self._looked = looked
        current = int(looked[0])
        events = kf.parse_events(looked[1])
        self._last_events = events
        sample = Sample(self._clock(), current, "cgroup", events)
        if detail_above is None or current <= detail_above:
            return sample
        return self._with_detail(sample)

    def unchanged(self) -> bool:
        """Two preads and a comparison; nothing is parsed. What has changed waits for `sample`."""
        try:
            looked = pread(self._current_fd, 32, 0), pread(self._events_fd, _SMALL, 0)
        except OSError:
            return False
        if looked == self._looked:
            return True
        self._ahead = looked
        return False

    def inspect(self, most: int) -> Iterator[Snapshot]:
        """memory.stat, then /proc. By path: a held descriptor may be closed meanwhile."""
        stat = kf.parse_memory_stat(cg.read_file(self.directory, kf.MEMORY_STAT) or b"")
        yield Snapshot(stat)
        # Most subprocesses never get so far.
        from cgmem_backends.largest_processes import LargestProcesses

        for found in LargestProcesses().of(self.pids(), most):
            yield found._replace(memory_stat=stat)

    def counters(self) -> Counters:
        """Read events, peak and what reclaim could take back; local events only after a kill."""
        try:
            events = self._read_events()
        except ScopeVanished:
            return self._counters_left()
        peak = cg.read_limit(self.directory, kf.MEMORY_PEAK)
        stat = cg.read_file(self.directory, kf.MEMORY_STAT)
        killed = bool(events.oom_kill)
        local = self._local_events() if killed else None
        self._last_events, self._last_local = events, (events.oom_kill, local)
        return Counters(
            events,
            local,
            self._ancestors_with_oom() if killed else (),
            self._root_is_hosts,
            peak,
            kf.reclaimable_bytes(stat or b""),
        )

    def _counters_left(self) -> Counters:
        """What is still known once the cgroup is gone; those above are there to be asked."""
        last, (kills, local) = self._last_events, self._last_local
        return Counters(
            last,
            local if last and last.oom_kill == kills else None,  # older than what was seen last
            ancestors_with_oom=self._ancestors_with_oom() if last and last.oom_kill else (),
            host_root_visible=self._root_is_hosts,
            cached=True,
        )

    def set_limits(self, limits: Limits) -> EffectiveLimits:
        """Write the budget and read it back."""
        if limits.high_bytes is not None:
            self.on_brake()
        self._held = cgroup_budget.write(self.directory, limits, self.location)
        return self._with_ancestors(self._held)

    def held(self) -> EffectiveLimits:
        """Read the budget back as it is now, whoever set it."""
        self._read_events()
        return self._with_ancestors(cgroup_budget.held(self.directory, self.location))

    def reclaim(self, size: int) -> None:
        """memory.reclaim (since 5.19): EAGAIN, when less could be taken back, is no error."""
        try:
            cg.write_file(self.directory, kf.MEMORY_RECLAIM, b"%d" % size)
        except CgroupError as error:
            if error.errno != errno.EAGAIN:
                raise

    def rewrite(self, record: ScopeRecord) -> None:
        """Write the xattr anew, and ring at the cgroup above: that is the supervisor's own."""
        with cg.translated("writing the record of", self._path + kf.EVENTS):
            set_xattr(self.directory, subtree.RECORD_XATTR, scope_record.encode(record))
            set_xattr(self.directory.parent, subtree.BELL_XATTR, b"%d" % time.time_ns())
        self.record = record

    def written(self) -> ScopeRecord | None:
        """Read the xattr."""
        return scope_record.decode(get_xattr(self.directory, subtree.RECORD_XATTR) or b"")

    def renew(self, record: ScopeRecord) -> EffectiveLimits:
        """Take a scope in which nothing has run yet for another subprocess, limits as they are.

        Raises `ScopeVanished` once it is gone.
        """
        self._read_events()
        self.record = record
        self._ancestor_ooms = self._ancestry.ooms()
        return self._with_ancestors(self._held)

    def _with_ancestors(self, own: EffectiveLimits) -> EffectiveLimits:
        limits = self._ancestry.limits()
        if not limits:
            return own
        own = own._replace(headroom=headroom(limits))
        above = min(limits)
        if own.max_bytes is not None and own.max_bytes <= above.max_bytes:
            return own
        return own._replace(
            effective_max_bytes=above.max_bytes, effective_max_source=named(above.directory)
        )

    def limits(self) -> Limits:
        """Read the files that `set_limits` writes."""
        return cgroup_budget.read(self.directory)

    def freeze(self, frozen: bool) -> None:
        """cgroup.freeze: 4-14 ms until all have stopped; SIGKILL still works."""
        cg.write_file(self.directory, kf.FREEZE, b"1" if frozen else b"0")

    def signal(self, signum: int) -> None:
        """Signal every process inside."""
        cg.send_signal(self.directory, signum)

    def pids(self) -> list[int]:
        """Processes inside, nested cgroups included."""
        return cg.pids(self.directory)

    def close(self, before: Callable[[], object] | None = None) -> bool:
        """Remove the cgroup, nested ones first; False while a process is inside."""
        if before is not None and self._is_empty():
            before()
            before = None
        gone = cg.remove(self.directory, self._rmdir)
        if gone and before is not None:
            before()
        return gone

    def _is_empty(self) -> bool:
        """False also where it can't be seen: it has vanished, or there is no descriptor left."""
        try:
            return not cg.populated(self.directory)
        except (CgmemError, OSError):
            return False

    def sweep(self) -> bool:
        """Remove the cgroup; rmdir(2) decides which of several callers did it."""
        return cg.remove_once(self.directory, self._rmdir)

    def detach(self) -> None:
        """Give up the descriptors."""
        # A glance that comes too late must not read what gets their numbers next.
        self._current_fd = self._events_fd = -1
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _with_detail(self, sample: Sample) -> Sample:
        stat = self._optional(kf.MEMORY_STAT, _STAT)
        pressure = kf.parse_pressure(self._optional(kf.MEMORY_PRESSURE))
        swap = self._optional(kf.MEMORY_SWAP_CURRENT).strip()
        user_usec = kf.parse_keyed(self._optional(kf.CPU_STAT, 2048)).get("user_usec")
        # A descriptor of its own: reading the one that is waited on would swallow the wake-up.
        frozen = kf.parse_keyed(self._optional(kf.EVENTS, holder="frozen")).get("frozen") == 1
        return sample._replace(
            reclaimable_bytes=kf.reclaimable_bytes(stat),
            swap_bytes=int(swap) if swap.isdigit() else None,
            some_seconds=pressure.get("some"),
            full_seconds=pressure.get("full"),
            user_seconds=None if user_usec is None else user_usec / 1e6,
            refaults=kf.pick(stat, (b"workingset_refault_file",))[0],
            frozen=frozen,
        )

    def _optional(self, name: str, size: int = _SMALL, holder: str | None = None) -> bytes:
        """Read a file that this kernel may lack; empty then."""
        try:
            return os.pread(self._hold(name, holder), size, 0)
        except OSError as error:
            # memory.pressure is there with psi=0 and answers EOPNOTSUPP.
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                return b""
            raise self._translated(error, name) from error

    def _read_both(self) -> tuple[bytes, bytes]:
        try:
            return os.pread(self._current_fd, 32, 0), os.pread(self._events_fd, _SMALL, 0)
        except OSError as error:
            raise self._translated(error, kf.MEMORY_EVENTS) from error

    def _read_events(self) -> MemoryEvents:
        try:
            return kf.parse_events(os.pread(self._events_fd, _SMALL, 0))
        except OSError as error:
            raise self._translated(error, kf.MEMORY_EVENTS) from error

    def _translated(self, error: OSError, name: str) -> CgmemError:
        # ENODEV: the directory is gone. EBADF: we closed it after it had gone.
        if error.errno in (errno.ENODEV, errno.EBADF):
            return ScopeVanished(f"cgroup {self.location} was removed")
        return CgroupError(error, "reading", self._path + name)

    def _hold(self, name: str, holder: str | None = None) -> int:
        key = holder or name
        if key not in self._descriptors:
            path = self._path + name
            self._descriptors[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[key]

    def _local_events(self) -> MemoryEvents | None:
        text = cg.read_file(self.directory, kf.MEMORY_EVENTS_LOCAL)
        return None if text is None else kf.parse_events(text)

    def _ancestors_with_oom(self) -> tuple[LimitAbove, ...]:
        before, now = self._ancestor_ooms, self._ancestry.ooms()
        risen = [path for path, count in now.items() if count > before.get(path, 0)]
        if not risen:  # every end comes by here
            return ()
        limits = {limit.directory: limit.max_bytes for limit in self._ancestry.limits()}
        return tuple(LimitAbove(named(path), limits.get(path)) for path in risen)
