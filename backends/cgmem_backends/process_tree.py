"""Which processes belong to a scope, where no cgroup says so.

Covers the shared picture of all processes and the walk over parent links, sessions and the
environment mark. Does not cover how a host's processes are read: see `linux_processes` and
`psutil_processes`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cgmem.contract import Metric, Snapshot, Usability
from cgmem.shapes import NamedTuple, Protocol

MARK = "CGMEM_SCOPE"
"""Environment variable that names the scopes of a process: tokens, outermost first."""

MARK_SEPARATOR = ","

SCAN_LIFE = 0.05
"""Seconds for which one picture serves all scopes, so that N scopes cost one scan a tick."""


class Identity(NamedTuple):
    """One process for ever: a pid alone may be reused."""

    pid: int
    start: int
    """When it started, in the source's own unit."""


class Process(NamedTuple):
    """One process as a scan saw it."""

    pid: int
    ppid: int
    session: int
    state: str
    """The letter of proc(5) stat field 3."""
    start: int
    rss_bytes: int | None = None
    """None where a scan does not give it for free."""
    ended: bool = False
    """A zombie, no thread of it left."""
    name: str = ""
    """proc(5) comm: the first 15 bytes of the program's name, or what it calls itself."""

    @property
    def identity(self) -> Identity:
        """Pid and start time."""
        return Identity(self.pid, self.start)

    @property
    def of_kernel(self) -> bool:
        """A kernel thread of Linux, a child of kthreadd."""
        return self.session == 0 and self.ppid == 2

    @property
    def stopped(self) -> bool:
        """Stopped by a signal (T) or by a tracer (t)."""
        return self.state in ("T", "t")


class Measurement(NamedTuple):
    """What some processes hold together."""

    total_bytes: int
    metric: Metric
    swap_bytes: int | None = None


class ProcessSource(Protocol):
    """A host's processes. Nothing here raises for a process that has just ended."""

    metric: Metric

    def usability(self) -> Usability:
        """Whether this host's processes can be seen."""

    def table_id(self) -> str:
        """Name the table that pids belong to (boot and pid namespace); "" where unknown."""

    def processes(self) -> Iterable[Process]:
        """Scan every process once. Raises OSError where it can't see them all."""

    def process(self, pid: int) -> Process | None:
        """Look at one process; None when there is none."""

    def marks(self, candidates: Sequence[Process]) -> Mapping[Identity, tuple[str, ...]]:
        """Read the environment marks; a process left out is to be asked for again."""

    def measure(self, members: Sequence[Process], detail_above: int | None) -> Measurement:
        """Sum the memory; past `detail_above` bytes with what costs more."""

    def largest(self, members: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """Name the largest of them, ever more precisely; see `cgmem.contract.Scope.inspect`."""

    def owner(self, pid: int) -> int | None:
        """Effective uid of a process; None when there is none."""

    def swap_unbounded(self) -> bool:
        """Whether memory can leave `measure` by being swapped out."""


class Scan:
    """All processes at one moment, indexed by what the walk follows."""

    def __init__(
        self,
        at: float,
        processes: Iterable[Process],
        marks: Mapping[Identity, tuple[str, ...]],
        *,
        unread: bool = False,
    ) -> None:
        self.at = at
        self.unread = unread
        """Some environment could not be read yet: an exec was under way."""
        self.by_pid = {process.pid: process for process in processes}
        self.children: dict[int, list[Process]] = defaultdict(list)
        self.sessions: dict[int, list[Process]] = defaultdict(list)
        self.marked: dict[str, list[Process]] = defaultdict(list)
        for process in self.by_pid.values():
            self.children[process.ppid].append(process)
            self.sessions[process.session].append(process)
            for token in marks.get(process.identity, ()):
                self.marked[token].append(process)

    def holds(self, identity: Identity) -> Process | None:
        """The process itself, never another one that got its pid."""
        process = self.by_pid.get(identity.pid)
        return process if process is not None and process.start == identity.start else None


def find_members(
    scan: Scan,
    known: Iterable[Identity],
    led: Iterable[int],
    token: str | None,
) -> dict[int, Process]:
    """Walk from the known members over children, sessions that members lead, and the mark.

    `led`: ids of sessions that a member led when it was last seen; the leader may have ended.
    """
    found: dict[int, Process] = {}
    waiting = [process for identity in known if (process := scan.holds(identity))]
    waiting += scan.marked.get(token, ()) if token is not None else ()
    for session in led:
        # A leader that is there and not known is a reuse of the pid, by a stranger.
        if session not in scan.by_pid:
            waiting += scan.sessions.get(session, ())
    while waiting:
        process = waiting.pop()
        if process.pid in found:
            continue
        found[process.pid] = process
        waiting += scan.children.get(process.pid, ())
        if process.session == process.pid:
            waiting += scan.sessions.get(process.pid, ())
    return found


class Clock(Protocol):
    """time.monotonic, or a test's own."""

    def __call__(self) -> float:
        """Seconds."""


class ProcessTable:
    """The picture that all scopes of a supervisor share, renewed when it is too old."""

    def __init__(self, source: ProcessSource, clock: Clock) -> None:
        self.source = source
        self.clock = clock
        self._lock = threading.Lock()
        self._scan: Scan | None = None
        self._life = SCAN_LIFE
        self._marks: dict[Identity, tuple[str, ...]] = {}
        self._marks_since: int | None = None

    def look_for_marks_since(self, start: int) -> None:
        """Read the environment of processes that started at `start` or later."""
        with self._lock:
            if self._marks_since is None or start < self._marks_since:
                self._marks_since = start
                self._scan = None

    def scan(self, not_before: float = 0.0) -> Scan:
        """The shared picture, not older than `not_before` nor than its life."""
        with self._lock:
            now = self.clock()
            cached = self._scan
            if cached is None or now - cached.at > self._life or cached.at < not_before:
                cached = self._scan = self._look(now)
                # Where a scan is dear, it has to serve for longer.
                self._life = max(SCAN_LIFE, 2 * (self.clock() - now))
            return cached

    def _look(self, now: float) -> Scan:
        processes = list(self.source.processes())
        identities = {process.identity for process in processes}
        self._marks = {key: value for key, value in self._marks.items() if key in identities}
        unread = False
        if self._marks_since is not None:
            unknown = [
                process
                for process in processes
                if process.start >= self._marks_since and process.identity not in self._marks
            ]
            if unknown:
                read = self.source.marks(unknown)
                unread = len(read) < len(unknown)
                self._marks.update(read)
        return Scan(now, processes, self._marks, unread=unread)


class ProcessTree:
    """The processes of one scope, followed from scan to scan."""

    def __init__(self, table: ProcessTable, token: str | None) -> None:
        self._table = table
        self._token = token
        self._lock = threading.Lock()
        self._known: set[Identity] = set()
        self._led: set[int] = set()
        self._not_before = 0.0

    def add_root(self, root: Identity) -> None:
        """Follow this process and all that descends from it."""
        self.look_for_marks_since(root.start)
        with self._lock:
            self._known.add(root)
        self.expire()

    def expire(self) -> None:
        """What was seen before now no longer holds: we have changed it."""
        self._not_before = self._table.clock()

    def look_for_marks_since(self, start: int) -> None:
        """Find by the mark what started at `start` or later."""
        if self._token is not None:
            self._table.look_for_marks_since(start)

    def undecided(self) -> bool:
        """Whether one more may belong to it than `processes` has just said."""
        return self._token is not None and self._table.scan(self._not_before).unread

    def processes(self, *, fresh: bool = False) -> list[Process]:
        """Every process inside that has not ended; `fresh`: as of now, not of this tick."""
        with self._lock:
            at_least = self._table.clock() if fresh else self._not_before
            scan = self._table.scan(at_least)
            found = find_members(scan, self._known, self._led, self._token)
            self._known = {process.identity for process in found.values()}
            # A session id stays taken while anybody is in it (setsid(2)), also without its leader.
            self._led = {
                process.session
                for process in found.values()
                if process.session in self._led or process.session == process.pid
            }
            return [process for process in found.values() if not process.ended]
