"""One scope without a cgroup: a process tree, measured and signalled process by process."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from subprocess import Popen

from cgmem.contract import Counters, EffectiveLimits, Limits, Sample, ScopeRecord, Snapshot
from cgmem.errors import CgmemError, CgroupError, ScopeVanished
from cgmem_backends.process_signals import TreeSignals
from cgmem_backends.process_tree import (
    MARK,
    MARK_SEPARATOR,
    Identity,
    Process,
    ProcessTable,
    ProcessTree,
)
from cgmem_backends.run_directory import RunDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNDECIDED_SECONDS = 1.0
"""How long the end of a scope waits for an environment that can't be read yet."""


def marked_environment(env: Mapping[Any, Any] | None, token: str) -> dict[Any, Any]:
    """The child's environment with the scope's token behind those of the scopes around it."""
    marked = dict(os.environ if env is None else env)
    as_bytes = marked.pop(os.fsencode(MARK), b"")
    outer = marked.get(MARK, os.fsdecode(as_bytes))
    marked[MARK] = f"{outer}{MARK_SEPARATOR}{token}" if outer else token
    return marked


class PsutilScope:
    """See `cgmem.contract.Scope`. Holds no descriptors."""

    wake_descriptors: Sequence[tuple[int, int]] = ()
    emptied_descriptor: tuple[int, int] | None = None

    def __init__(
        self,
        record: ScopeRecord,
        token: str,
        table: ProcessTable,
        tree: ProcessTree,
        signals: TreeSignals,
        run_directory: RunDirectory,
        not_written: Callable[[ScopeRecord, Exception], None],
    ) -> None:
        self._record = record
        self._token = token
        self._table = table
        self._tree = tree
        self._signals = signals
        self._run_directory = run_directory
        self._not_written = not_written
        self._peak_bytes: int | None = None
        self._members: Sequence[Process] = ()
        self._last_seen: tuple[object, ...] | None = None
        self._closed = False
        self._undecided_since: float | None = None
        self._saved: Callable[[ScopeRecord], None] | None = None

    @property
    def record(self) -> ScopeRecord:
        """What was written down when the scope was opened."""
        return self._record

    @property
    def location(self) -> str:
        """The token that marks the tree's processes."""
        return f"psutil:{self._token}"

    def start(self, args: Any, options: Mapping[str, Any]) -> Popen[Any]:
        """Start one command with the mark in its environment. Raises what Popen raises."""
        self._check_open()
        environment = marked_environment(options.get("env"), self._token)
        child: Popen[Any] = Popen(args, **{**options, "env": environment})
        # None only where SIGCHLD is ignored or somebody else reaps; the mark finds the rest.
        process = self._table.source.process(child.pid)
        if process is not None:
            self.follow(process.identity, marked=True)
        else:
            self._look_for_marks_from_now()
        return child

    def follow(self, root: Identity, *, marked: bool) -> None:
        """Take a running process in, and write the scope down. For the backend.

        Where it can't be written, it works all the same: `not_written` is told.
        """
        self._tree.add_root(root)
        self.written_down(root, marked=marked, table_id=self._table.source.table_id())
        try:
            self.rewrite(self._record)
        except (OSError, CgmemError) as error:
            self._not_written(self._record, error)

    def limits(self) -> Limits:
        """What was written down: nothing holds it."""
        record = self._record
        return Limits(record.high_bytes, record.max_bytes, swap_max_bytes=None, oom_group=False)

    def written_down(self, root: Identity, *, marked: bool, table_id: str) -> None:
        """What its file says, or is to say, beside the record. For the backend."""
        save = self._run_directory.save
        facts: dict[str, str | bool] = {"marked": marked, "table_id": table_id}
        self._saved = lambda record: save(self._token, record, root, **facts)

    def rewrite(self, record: ScopeRecord) -> None:
        """Write the file anew; its directory then looks changed to the supervisor."""
        self._check_open()
        self._record = record
        if self._saved is not None:
            self._saved(record)

    def written(self) -> ScopeRecord | None:
        """Read the file."""
        entry = self._run_directory.load(self._token)
        return None if entry is None else entry.record

    def _look_for_marks_from_now(self) -> None:
        supervisor = self._table.source.process(os.getpid())
        self._tree.look_for_marks_since(0 if supervisor is None else supervisor.start)

    def sample(self, detail_above: int | None = None, *, if_changed: bool = False) -> Sample | None:
        """Measure the living processes. None only with `if_changed`, when nothing moved."""
        self._check_open()
        members = self._members = self._tree.processes()
        measured = self._table.source.measure(members, detail_above)
        frozen = bool(members) and all(process.stopped for process in members)
        self._peak_bytes = max(self._peak_bytes or 0, measured.total_bytes)
        seen = (measured, frozen)
        if if_changed and seen == self._last_seen:
            return None
        self._last_seen = seen
        return Sample(
            at=self._table.clock(),
            current_bytes=measured.total_bytes,
            metric=measured.metric,
            swap_bytes=measured.swap_bytes,
            frozen=frozen,
        )

    def unchanged(self) -> bool:
        """Never known without a sample."""
        return False

    def inspect(self, most: int) -> Iterator[Snapshot]:
        """The processes of the last sample: whoever was killed for it has a name and a size."""
        return self._table.source.largest(self._members, most)

    def counters(self) -> Counters:
        """There are no counters; the peak is the highest sample."""
        return Counters(peak_bytes=self._peak_bytes)

    def set_limits(self, limits: Limits) -> EffectiveLimits:
        """Nothing holds them but whoever samples and kills."""
        self._check_open()
        return self._polled(limits.high_bytes, limits.max_bytes)

    def held(self) -> EffectiveLimits:
        """What the record says: its supervisor goes by that."""
        self._check_open()
        return self._polled(self._record.critical_bytes, self._record.max_bytes)

    def reclaim(self, size: int) -> None:
        """Only the kernel can. Raises `CgroupError` (EOPNOTSUPP)."""
        self._check_open()
        raise CgroupError(
            OSError(errno.EOPNOTSUPP, "no cgroup, so nothing can be reclaimed"),
            "taking back memory",
            self.location,
            hint="cgmem doctor  # says what a cgroup needs",
        )

    def _polled(self, high_bytes: int | None, max_bytes: int | None) -> EffectiveLimits:
        return EffectiveLimits(
            high_bytes=high_bytes,
            max_bytes=max_bytes,
            swap_max_bytes=None,
            effective_max_bytes=max_bytes,
            effective_max_source="psutil" if max_bytes is not None else None,
            enforced=False,
            soft=max_bytes is not None and self._table.source.swap_unbounded(),
        )

    def freeze(self, frozen: bool) -> None:
        """SIGSTOP until all are stopped, or SIGCONT to all. Never stops the calling process."""
        self._check_open()
        if frozen:
            self._after_signal(self._signals.stop(), signal.SIGSTOP)
        else:
            self._after_signal(self._signals.each(signal.SIGCONT), signal.SIGCONT)

    def signal(self, signum: int) -> None:
        """To each process; SIGKILL after all are stopped, so that no fork escapes it.

        Raises `CgroupError` (EPERM) once all others have it, when a process refused it.
        """
        self._check_open()
        if signum == signal.SIGKILL:
            self._after_signal(self._signals.kill(), signum)
        else:
            self._after_signal(self._signals.each(signum), signum)

    def pids(self) -> list[int]:
        """Living processes as of now; zombies hold no memory and are left out."""
        if self._closed:
            return []
        return sorted(process.pid for process in self._tree.processes(fresh=True))

    def close(self, before: Callable[[], object] | None = None) -> bool:
        """Remove the record once no process is left; True then."""
        if self._closed:
            return True
        if self.pids() or self._one_may_be_missing():
            return False
        if before is not None:
            before()
        self._closed = True
        # A record without living processes is passed over by its readers, and removed later.
        with suppress(OSError, CgmemError):
            self._run_directory.remove(self._token)
        return True

    def _one_may_be_missing(self) -> bool:
        """A child that its parent did not wait for may be in its exec, where it has no mark."""
        if not self._tree.undecided():
            return False
        now = self._table.clock()
        if self._undecided_since is None:
            self._undecided_since = now
        return now - self._undecided_since < UNDECIDED_SECONDS

    def sweep(self) -> bool:
        """Remove the file; unlink(2) decides which of several callers did it."""
        self._closed = True
        return self._run_directory.remove(self._token)

    def detach(self) -> None:
        """Nothing to give up: no descriptors are held, and the record stays."""

    def _check_open(self) -> None:
        if self._closed:
            raise ScopeVanished(f"scope {self._record.subprocess_id!r} was closed")

    def _after_signal(self, refused: set[Identity], signum: int) -> None:
        self._tree.expire()
        if refused:
            pids = ", ".join(str(identity.pid) for identity in sorted(refused))
            raise CgroupError(
                PermissionError(errno.EPERM, os.strerror(errno.EPERM)),
                f"signal {int(signum)} to pid {pids}, another user's",
                self.location,
                hint="a subprocess that changes its user can only be ended by root",
            )
