"""The fallback: polls process trees where the kernel can't hold a budget.

Covers macOS, and Linux without a usable memory controller. On Linux /proc is read by our own
parser, elsewhere through psutil. There is no policy here: who samples decides when to kill.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cgmem.contract import (
    Capabilities,
    EffectiveLimits,
    Limits,
    Metric,
    Scope,
    ScopeRecord,
    Usability,
)
from cgmem.errors import CgmemError
from cgmem_backends import scope_record
from cgmem_backends.process_signals import Signaller, TreeSignals
from cgmem_backends.process_tree import ProcessSource, ProcessTable, ProcessTree
from cgmem_backends.psutil_scope import PsutilScope
from cgmem_backends.run_directory import Entry, RunDirectory, read_all, visible_directories

CANNOT = (
    "a burst between two ticks can pass the hard limit",
    "nothing slows a subprocess down at the critical threshold",
    "nobody holds the limit once the supervisor has died",
    "a descendant that leaves its session, loses its parent and clears its environment before it "
    "was seen is not found",
    "files on tmpfs, page cache and kernel memory are not counted",
)
CANNOT_COUNT_SWAP = "memory that was swapped out is not counted"


def capabilities(metric: Metric) -> Capabilities:
    """What polling can promise with this metric."""
    return Capabilities(
        kernel_limits=False,
        brake=False,
        # The mark is in its environment at exec, and RSS, unlike a charge, is seen afterwards too.
        placed_before_exec=True,
        every_descendant=False,
        metric=metric,
        cannot=CANNOT if metric == "phys_footprint" else (*CANNOT, CANNOT_COUNT_SWAP),
    )


def host_processes(proc: Path) -> ProcessSource:
    """/proc on Linux, psutil elsewhere; only the one that is used is imported."""
    if sys.platform == "linux":
        from cgmem_backends.linux_processes import LinuxProcesses

        source: ProcessSource = LinuxProcesses(proc)
    else:
        from cgmem_backends.psutil_processes import PsutilProcesses

        source = PsutilProcesses()
    return source


class PsutilBackend:
    """See `cgmem.contract.ObservingBackend`."""

    name = "psutil"

    def __init__(
        self,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        *,
        source: ProcessSource | None = None,
        signaller: Signaller | None = None,
        run_directory: RunDirectory | None = None,
        directories: Callable[[], Sequence[Path]] = visible_directories,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        source = source or host_processes(proc)
        self.capabilities = capabilities(source.metric)
        self.warn: Callable[[str], None] = lambda _text: None
        self._proc = proc
        self._source = source
        self._table = ProcessTable(source, clock)
        self._signaller = signaller or Signaller(source.process)
        self._run_directory = run_directory or RunDirectory()
        self._directories = directories
        self._pause = pause
        self._looked: int | None = None
        self._told_not_written = False

    def with_note(self, found: Usability) -> Usability:
        """See `cgmem.contract.Backend`: nothing to add."""
        return found

    def probe(self) -> Usability:
        """Whether processes can be seen; that scopes can't be written down is a remark."""
        usability = self._source.usability()
        problem = self._run_directory.problem() if usability.usable else None
        if problem is None:
            return usability
        return usability._replace(
            reason=f"{usability.reason}; other processes can't list its scopes: {problem}"
        )

    def open_scope(self, record: ScopeRecord, limits: Limits) -> tuple[Scope, EffectiveLimits]:
        """Make an empty scope. It is written down when its first process starts."""
        token = os.urandom(16).hex()
        tree = ProcessTree(self._table, token)
        scope = self._scope(record, token, tree, self._run_directory)
        return scope, scope.set_limits(limits)

    def observe(self, record: ScopeRecord, pid: int) -> Scope:
        """Watch a process that runs, and its descendants by parent links and sessions.

        Raises `ProcessLookupError`.
        """
        process = self._source.process(pid)
        if process is None or process.ended:
            raise ProcessLookupError(f"no process {pid} runs here")
        tree = ProcessTree(self._table, token=None)
        scope = self._scope(record, os.urandom(16).hex(), tree, self._run_directory)
        scope.follow(process.identity, marked=False)
        return scope

    def prepare(self, limits: Limits) -> None:
        """Nothing can be made ahead."""

    def close(self) -> None:
        """Nothing is held."""

    def rung(self) -> bool:
        """Whether records came, went or were replaced: the run directory's mtime changed."""
        before, self._looked = self._looked, self._run_directory.changed_at()
        return self._looked != before

    def list_scopes(self) -> list[Scope]:
        """Every scope that is written down and has a living process."""
        return [scope for _, tree, scope in self._written_down() if tree.processes()]

    def remains(self, *, nearby: bool = False) -> Iterator[Scope]:
        """Records of this user without a living process or supervisor. All are near.

        With `nearby`, by which a supervisor cleans up, torn files are removed on the way.
        """
        if nearby:
            for path in self._directories():
                RunDirectory(path).remove_torn(self._proc)
        for entry, tree, scope in self._written_down():
            ours = entry.uid == os.geteuid()
            if ours and not self._is_supervised(entry.record) and not tree.processes():
                yield scope

    def take_over(self, scope: Scope, record: ScopeRecord) -> None:
        """Not here: two could do it at once, and nothing held the limits meanwhile."""
        raise CgmemError(
            f"subprocess {record.subprocess_id} can't be taken over: no kernel holds its limits",
            hint=f"cgmem kill {record.subprocess_id}",
        )

    def _written_down(self) -> list[tuple[Entry, ProcessTree, PsutilScope]]:
        table_id = self._source.table_id()
        entries = read_all(self._directories())
        here = [entry for entry in entries if entry.table_id == table_id]
        # All trees are made before the first is asked, so that one scan serves them all.
        trees = [(entry, self._tree_of(entry)) for entry in here]
        found = []
        for entry, tree in trees:
            directory = RunDirectory(entry.directory, entry.uid)
            scope = self._scope(entry.record, entry.token, tree, directory)
            scope.written_down(entry.root, marked=entry.marked, table_id=entry.table_id)
            found.append((entry, tree, scope))
        return found

    def _tree_of(self, entry: Entry) -> ProcessTree:
        tree = ProcessTree(self._table, entry.token if entry.marked else None)
        # A record can name any pid: root must not act on a process that isn't its writer's.
        if entry.uid == 0 or self._source.owner(entry.root.pid) == entry.uid:
            tree.add_root(entry.root)
        else:
            tree.look_for_marks_since(entry.root.start)
        return tree

    def _scope(
        self, record: ScopeRecord, token: str, tree: ProcessTree, directory: RunDirectory
    ) -> PsutilScope:
        signals = TreeSignals(lambda: tree.processes(fresh=True), self._signaller, self._pause)
        told = self._not_written
        return PsutilScope(record, token, self._table, tree, signals, directory, told)

    def _is_supervised(self, record: ScopeRecord) -> bool:
        supervised = scope_record.is_supervised(record, self._proc)
        supervisor = self._source.process(record.supervisor_pid) if supervised else None
        # A zombie answers kill(2), where that is all there is to ask.
        return supervised and not (supervisor is not None and supervisor.ended)

    def _not_written(self, record: ScopeRecord, error: Exception) -> None:
        """Say so once: what keeps one record from being written keeps the others too."""
        if not self._told_not_written:
            self._told_not_written = True
            hint = getattr(error, "hint", None)
            self.warn(
                f"other processes can't list subprocess {record.subprocess_id}: {error}"
                + (f": {hint}" if hint else "")
            )
