"""The `cgroup2` backend: cgroupfs, in this process's own delegated cgroup.

The `systemd` backend is the same in a subtree from elsewhere (systemd_backend.py).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from cgmem.contract import (
    Capabilities,
    EffectiveLimits,
    Group,
    Limits,
    Scope,
    ScopeRecord,
    Usability,
)
from cgmem.errors import CgroupError, ScopeVanished, out_of_descriptors
from cgmem.shapes import NamedTuple
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf
from cgmem_backends import scope_record, subtree
from cgmem_backends.ancestry import Ancestry
from cgmem_backends.cgroup_scope import CgroupScope
from cgmem_backends.guard import Guard
from cgmem_backends.hierarchy import Hierarchy, find_hierarchy
from cgmem_backends.linux_calls import get_xattr, set_xattr
from cgmem_backends.placement import Placement
from cgmem_backends.spare import Spare
from cgmem_backends.subtree_source import SubtreeSource, in_family_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgmem_backends.remains import Found

_PREFIX = "cgmem-"
_TRIAL_BYTES = 1 << 20


class _Claimed(NamedTuple):
    base: Path
    ancestry: Ancestry
    hierarchy: Hierarchy
    root_is_hosts: bool


class Cgroup2Backend:
    """Scopes in the own cgroup. Implements `cgmem.contract.Backend`."""

    name = "cgroup2"
    in_family_scopes = False
    """Which half of the scopes it lists: each is in one backend's list."""
    capabilities = Capabilities(
        kernel_limits=True,
        brake=True,
        placed_before_exec=True,
        every_descendant=True,
        metric="cgroup",
        cannot=("a child with the same uid can raise its own limit if it means to",),
    )

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        systemd_runs: bool | None = None,
        placement: Placement | None = None,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.monotonic,
        mkdir: Callable[[Path], None] = os.mkdir,
        rmdir: Callable[[Path], None] = os.rmdir,
        source: SubtreeSource | None = None,
        group: Group | None = None,
    ) -> None:
        self._proc = proc
        self._systemd_runs = subtree.systemd_runs() if systemd_runs is None else systemd_runs
        self._placement = placement or Placement()
        self._clock = clock
        self._mkdir = mkdir
        self._rmdir = rmdir
        self._guard = guard or self._new_guard()
        self._more_guards: list[Guard] = []
        """One for each scope that was taken over."""
        self._numbers = itertools.count(1)
        self._claim_lock = threading.Lock()
        self._claimed: _Claimed | None = None
        self._spare = Spare()
        self._source = source or subtree.OwnCgroup(self._host)
        if source is None and group is not None:
            from cgmem_backends.group_cgroup import GroupWithin

            self._source = GroupWithin(self._source, group, mkdir=mkdir, rmdir=rmdir)
        self._bell: bytes | None = None

    @property
    def warn(self) -> Callable[[str], None]:
        """See `cgmem.contract.Backend`."""
        return self._guard.warn

    @warn.setter
    def warn(self, tell: Callable[[str], None]) -> None:
        self._guard.warn = tell

    def probe(self) -> Usability:
        """Say whether there is a subtree to make scopes in, changing nothing."""
        return self._source.inspect()

    def with_note(self, found: Usability) -> Usability:
        """See `cgmem.contract.Backend`."""
        return self._source.with_note(found)

    def open_scope(self, record: ScopeRecord, limits: Limits) -> tuple[Scope, EffectiveLimits]:
        """Make a cgroup with its limits set. Raises `BackendUnavailable` or `CgroupError`."""
        ready = self._spare.take(record, limits) or self._open_new(record, limits)
        self._write_down(ready[0].directory, record)
        return ready

    def prepare(self, limits: Limits) -> None:
        """Make a cgroup ahead, for the next `open_scope`."""
        self._spare.prepare(limits, self._make_scope)

    def close(self) -> None:
        """Remove a cgroup that was made ahead, send the guard away, give the subtree back."""
        self._spare.close()
        self._guard.close()
        while self._more_guards:
            self._more_guards.pop().close()
        self._source.release()

    def _open_new(self, record: ScopeRecord, limits: Limits) -> tuple[CgroupScope, EffectiveLimits]:
        scope = self._make_scope(limits)
        try:
            return scope, scope.renew(record)
        except BaseException:
            with suppress(CgroupError):  # what `renew` raised is the one to show
                scope.close()
            scope.detach()
            raise

    def _make_scope(self, limits: Limits) -> CgroupScope:
        claimed = self._claim()
        try:
            directory = self._make(claimed.base)
        except ScopeVanished:  # a family scope that somebody stopped: there may be another
            self._claimed = None
            claimed = self._claim()
            directory = self._make(claimed.base)
        try:
            scope = self._scope(directory, scope_record.NOBODY, *claimed[1:])
            ours = f"{_PREFIX}{os.getpid()}-*"
            scope.on_brake = partial(self._guard.start, claimed.base, ours)
            try:
                scope.set_limits(limits)
            except BaseException:
                scope.detach()
                raise
        except BaseException:
            cg.remove(directory, self._rmdir)
            raise
        return scope

    def list_scopes(self) -> list[Scope]:
        """Every scope of this user (root: of everybody) that this mount shows.

        Those in systemd's family scopes are the `systemd` backend's to list.
        """
        from cgmem_backends.remains import recorded  # those who only start need it not

        found: list[Scope] = []
        try:
            found.extend(self._open(lambda mount: recorded(self._everywhere(mount))))
        except CgroupError:
            for scope in found:
                scope.detach()
            raise
        return found

    def remains(self, *, nearby: bool = False) -> Iterator[Scope]:
        """Cgroups that dead supervisors left; `nearby`: those beside this process's scopes."""
        from cgmem_backends.remains import left_behind  # a short run has ended by now

        claimed = self._claimed

        def directories(mount: Path) -> Iterable[Path]:
            if not nearby:
                return self._everywhere(mount)
            return [] if claimed is None else cg.subdirectories(claimed.base)

        return self._open(lambda mount: left_behind(directories(mount), self._proc))

    def _everywhere(self, mount: Path) -> Iterable[Path]:
        return (path for path in cg.walk(mount) if in_family_scope(path) == self.in_family_scopes)

    def take_over(self, scope: Scope, record: ScopeRecord) -> None:
        """See `cgmem.contract.Backend`. An xattr that can be made but once decides who gets it."""
        from cgmem_backends.remains import claim  # those who only start need it not

        if not isinstance(scope, CgroupScope):
            raise TypeError(f"{scope!r} is not of this backend")
        directory = scope.directory
        claim(directory, scope.record)
        scope.rewrite(record)
        guard = self._new_guard()
        guard.warn = self.warn
        self._more_guards.append(guard)
        scope.on_brake = partial(guard.start, directory.parent, directory.name)

    def _open(self, find: Callable[[Path], Found]) -> Iterator[Scope]:
        """Open cgroups that are there already. Raises `CgroupError` for want of descriptors."""
        hierarchy = find_hierarchy(self._proc)
        mount = hierarchy.mount
        if mount is None:
            return
        root_is_hosts = hierarchy.root_is_hosts
        ancestries: dict[Path, Ancestry] = {}
        for directory, record in find(mount):
            parent = directory.parent
            ancestry = ancestries.get(parent) or Ancestry(parent, mount)
            ancestries[parent] = ancestry
            try:
                yield self._scope(directory, record, ancestry, hierarchy, root_is_hosts)
            except ScopeVanished:  # removed meanwhile
                continue
            except CgroupError as error:
                if out_of_descriptors(error):
                    raise

    def rung(self) -> bool:
        """One getxattr, however many scopes there are."""
        if self._claimed is None:
            return False
        before, self._bell = self._bell, get_xattr(self._claimed.base, subtree.BELL_XATTR)
        return self._bell != before

    def placement(self) -> tuple[str, str]:
        """How children are put inside, and why so."""
        return self._placement.method, self._placement.reason

    def try_guard(self, seconds: float = 20.0) -> str | None:
        """Let a guard believe that we have died; None if it lifts a brake then, else why not.

        Raises `BackendUnavailable` or `CgroupError`.
        """
        troubles: list[str] = []
        guard = self._new_guard()
        guard.warn = troubles.append
        scope = self._make_scope(Limits(high_bytes=_TRIAL_BYTES))
        try:
            guard.start(scope.directory.parent, scope.directory.name)
            guard.abandon()
            deadline = self._clock() + seconds
            while cg.read_limit(scope.directory, kf.MEMORY_HIGH) is not None:
                if troubles or self._clock() > deadline:
                    return troubles[0] if troubles else "it lifts no brake"
                time.sleep(0.01)
            return None
        finally:
            guard.close()
            scope.close()
            scope.detach()

    def _new_guard(self) -> Guard:
        return Guard(self._placement, mkdir=self._mkdir, rmdir=self._rmdir)

    def _host(self) -> subtree.Host:
        return subtree.Host(
            find_hierarchy(self._proc), self._proc, self._systemd_runs, os.geteuid(), self._mkdir
        )

    def _claim(self) -> _Claimed:
        with self._claim_lock:
            if self._claimed is None:
                base, hierarchy, attach = self._source.claim()
                if attach is not None:
                    self._placement.attach_by(attach)
                ancestry = Ancestry(base, hierarchy.mount or base)
                self._claimed = _Claimed(base, ancestry, hierarchy, hierarchy.root_is_hosts)
            return self._claimed

    def _make(self, base: Path) -> Path:
        """Make a directory with a name of our own: an id never becomes a path."""
        for number in self._numbers:
            directory = base / f"{_PREFIX}{os.getpid()}-{number}"
            try:
                self._mkdir(directory)
            except FileExistsError:  # left by an earlier process with our pid
                continue
            except FileNotFoundError as error:
                raise ScopeVanished(f"cgroup {base} was removed") from error
            except OSError as error:
                raise CgroupError(error, "making", str(directory)) from error
            return directory
        raise AssertionError("unreachable: the numbers never end")

    def _scope(
        self,
        directory: Path,
        record: ScopeRecord,
        ancestry: Ancestry,
        hierarchy: Hierarchy,
        root_is_hosts: bool,
    ) -> CgroupScope:
        return CgroupScope(
            directory,
            record,
            shown=hierarchy.shown(directory),
            ancestry=ancestry,
            placement=self._placement,
            root_is_hosts=root_is_hosts,
            clock=self._clock,
            rmdir=self._rmdir,
        )

    def _write_down(self, directory: Path, record: ScopeRecord) -> None:
        # Without the record `ps` doesn't show the scope; its limits hold all the same.
        with suppress(OSError):
            set_xattr(directory, subtree.RECORD_XATTR, scope_record.encode(record))
