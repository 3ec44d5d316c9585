"""What the core and the backends agree on: records and Protocols. No I/O, no policy, stdlib only.

Units, everywhere: bytes are `int` bytes, time is `float` seconds. "max" (no limit) is `None`.
A key that the kernel lacks is `None`, never 0. Field names follow the kernel's file names
(Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from subprocess import Popen

from cgmem.shapes import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

MB = 1 << 20
"""The spec's MB: 2**20 bytes."""

Metric: TypeAlias = "Literal['cgroup', 'pss', 'rss', 'phys_footprint']"
"""What a backend's `current_bytes` measured."""


class Limits(NamedTuple):
    """The budget of one scope. `None` means no limit (the kernel's "max")."""

    high_bytes: int | None = None
    max_bytes: int | None = None
    swap_max_bytes: int | None = 0
    oom_group: bool = True


class LimitAbove(NamedTuple):
    """A cgroup above a scope, and its budget."""

    name: str
    """As told to people: its path, or `group NAME`."""
    max_bytes: int | None
    """memory.max."""


class Headroom(NamedTuple):
    """What the tightest limit above leaves: the smallest (memory.max - memory.current)."""

    left_bytes: int
    """0 where more is in use."""
    limit: LimitAbove
    smallest_max_bytes: int | None = None
    """The smallest memory.max on the path; None: not asked."""


class EffectiveLimits(NamedTuple):
    """What the kernel holds after a limit was set, as read back from its files."""

    high_bytes: int | None
    max_bytes: int | None
    swap_max_bytes: int | None
    effective_max_bytes: int | None
    """The smallest memory.max on the path from the scope to the root that we can see."""
    effective_max_source: str | None
    """The cgroup path (or mechanism) that sets `effective_max_bytes`."""
    enforced: bool
    """The kernel holds `max_bytes`: a subprocess can't pass it."""
    soft: bool = False
    """The host has swap and no memory.swap.max here: the limit bounds memory but not swap."""
    headroom: Headroom | None = None
    """What the cgroups above left when this was read; None without a limit there."""


class MemoryEvents(NamedTuple):
    """memory.events (or memory.events.local). A key that the kernel lacks is `None`."""

    high: int | None = None
    max: int | None = None
    oom: int | None = None
    oom_kill: int | None = None
    oom_group_kill: int | None = None


class Sample(NamedTuple):
    """One look at a scope. The fields after `events` are read only past `detail_above`."""

    at: float
    """Monotonic seconds."""
    current_bytes: int
    metric: Metric
    events: MemoryEvents | None = None
    reclaimable_bytes: int | None = None
    """inactive_file + active_file + slab_reclaimable: what the kernel can take back."""
    swap_bytes: int | None = None
    some_seconds: float | None = None
    """memory.pressure `some total`, seconds since the scope began."""
    full_seconds: float | None = None
    user_seconds: float | None = None
    """cpu.stat user_usec, in seconds."""
    refaults: int | None = None
    """workingset_refault_file of memory.stat, pages."""
    frozen: bool = False
    """The group is frozen, or every process in it is stopped."""


class MemoryStat(NamedTuple):
    """What a scope's memory is, in bytes: keys of memory.stat (cgroup-v2.rst)."""

    anon: int | None = None
    file: int | None = None
    shmem: int | None = None
    """Also part of `file`."""
    kernel: int | None = None
    slab: int | None = None
    """Part of `kernel`, which is younger (5.18)."""
    sock: int | None = None


class ProcessMemory(NamedTuple):
    """One process of a scope."""

    pid: int
    command: tuple[str, ...]
    """The words of its command line; the kernel's name for it alone where they are not known."""
    memory_bytes: int
    metric: Metric


class Snapshot(NamedTuple):
    """What fills a scope's memory, as far as it could be read in time."""

    memory_stat: MemoryStat | None = None
    """None where the mechanism has none."""
    processes: tuple[ProcessMemory, ...] = ()
    """The largest, largest first."""
    partial: bool = True
    """More was to be read."""


class Counters(NamedTuple):
    """The last read of a scope, taken before it is removed."""

    events: MemoryEvents | None = None
    local_events: MemoryEvents | None = None
    """memory.events.local: what happened at this scope's own limit. Read only after a kill."""
    ancestors_with_oom: tuple[LimitAbove, ...] = ()
    """Ancestor cgroups whose memory.events.local `oom` rose while the scope lived."""
    host_root_visible: bool = True
    """False in a cgroup namespace: limits above it can't be seen."""
    peak_bytes: int | None = None
    """memory.peak, page cache included."""
    reclaimable_bytes: int | None = None
    """Reclaimable bytes still charged at the end."""
    cached: bool = False
    """The scope was already gone: the values are those of the last wake-up."""


class Capabilities(NamedTuple):
    """What a backend can promise. `cannot` holds what it can't, in sentences to show."""

    kernel_limits: bool
    """The kernel holds the hard limit, with no help from us."""
    brake: bool
    """memory.high: the kernel slows a scope down at the critical threshold."""
    placed_before_exec: bool
    """A child is inside its scope before its first instruction."""
    every_descendant: bool
    """No descendant can leave by setsid, double fork or reparenting."""
    metric: Metric
    cannot: tuple[str, ...] = ()


class Usability(NamedTuple):
    """A backend's answer to `probe`."""

    usable: bool
    reason: str
    """Why, in one sentence, either way."""
    fix: str | None = None
    """A command or setting that makes the backend usable, or takes the `note` away."""
    note: str | None = None
    """Usable, but this can surprise, in one sentence."""


class Leave(NamedTuple):
    """What the caller lets a backend do with the calling process itself."""

    allow_move: bool | None = None
    """It may (True) or must not (False) be moved to another cgroup; None: as the rule has it."""
    own_process: bool = False
    """The process is cgmem's own command, not somebody's program that uses the library."""


BY_RULE = Leave()
"""Nobody said anything."""


class Group(NamedTuple):
    """A budget that several subprocesses of one user share, beside their own."""

    name: str
    max_bytes: int | None
    """memory.max of all together; None: as whoever came first has set it."""


class ScopeRecord(NamedTuple):
    """What is written down with a scope, so that any later process can tell what it is."""

    subprocess_id: str
    supervisor_pid: int
    supervisor_start: int
    """Its start time in clock ticks since boot (proc_pid_stat(5), field 22); 0 if unknown."""
    started_at: float
    """Seconds since the epoch."""
    command: tuple[str, ...] = ()
    agent_type: str | None = None
    warning_bytes: int | None = None
    critical_bytes: int | None = None
    max_bytes: int | None = None
    log_dir: str | None = None
    high_bytes: int | None = None
    """memory.high as it is to be while nothing was released."""
    supervisor_namespace: int = 0
    """Inode of the pid namespace that `supervisor_pid` is of; 0 if unknown."""
    concluded: bool = False
    """Its end was told, or nobody is to tell it: what lives in it is left over."""

    @property
    def thresholds(self) -> Thresholds:
        """The budget that was written down."""
        return Thresholds(self.warning_bytes, self.critical_bytes, self.max_bytes)


class Scope(Protocol):
    """One budgeted group of processes.

    Every method may raise `CgroupError`; those that need the scope raise `ScopeVanished` once it
    is gone. No method blocks for longer than a kernel call takes, `start` (which returns after
    exec) excepted.
    """

    @property
    def record(self) -> ScopeRecord:
        """What was written down when the scope was opened."""

    @property
    def location(self) -> str:
        """Where it is: the cgroup's path below the mount, or a name of the mechanism's own."""

    @property
    def wake_descriptors(self) -> Sequence[tuple[int, int]]:
        """(descriptor, poll(2) event mask) pairs, ready when memory events need a look.

        One descriptor per waiter: a read clears the state (kernel-side EPOLLPRI). Empty where
        the mechanism has none.
        """

    @property
    def emptied_descriptor(self) -> tuple[int, int] | None:
        """The same for the end of the last process inside; None where the mechanism has none."""

    def start(self, args: Any, options: Mapping[str, Any]) -> Popen[Any]:
        """Start one command inside, before its first instruction. Arguments as subprocess.Popen.

        Raises what subprocess.Popen raises, and `ScopeVanished`.
        """

    def sample(self, detail_above: int | None = None, *, if_changed: bool = False) -> Sample | None:
        """Look once. Past `detail_above` bytes also read what costs more.

        With `if_changed`: None where nothing moved since the last look, which is what most looks
        at most scopes find, and then nothing is parsed. Else never None.
        """

    def unchanged(self) -> bool:
        """Whether nothing moved since the last sample, where that costs less than a sample.

        False when in doubt, also for a scope that has gone: a sample will tell.
        """

    def inspect(self, most: int) -> Iterator[Snapshot]:
        """Look for what fills it: yield ever more complete pictures, with `most` processes.

        For a thread of its own: it may take as long as the processes are many, though not as long
        as one of them can't be read. Safe while others use the scope, and once it is gone.
        """

    def counters(self) -> Counters:
        """Take the last read. Valid once every process has ended and until `close`.

        Before that: what it is so far.
        """

    def set_limits(self, limits: Limits) -> EffectiveLimits:
        """Set the budget and read back what the kernel holds."""

    def limits(self) -> Limits:
        """Read the budget that the scope has now."""

    def held(self) -> EffectiveLimits:
        """Read what the kernel holds now, whoever set it, also above the scope."""

    def reclaim(self, size: int) -> None:
        """Have the kernel take back up to `size` bytes from the scope; less is no error."""

    def rewrite(self, record: ScopeRecord) -> None:
        """Write down another record, so that later processes and its supervisor know.

        See `Backend.rung`.
        """

    def written(self) -> ScopeRecord | None:
        """Read the record as it is written down now; None where it can't be read. Never raises."""

    def freeze(self, frozen: bool) -> None:
        """Stop every process of the scope (True), or let them run again (False)."""

    def signal(self, signum: int) -> None:
        """Send a signal to every process of the scope. SIGKILL reaches all, forks included."""

    def pids(self) -> list[int]:
        """Ids of the processes inside, nested scopes included. Empty once the scope is gone."""

    def close(self, before: Callable[[], object] | None = None) -> bool:
        """Remove the scope if no process is left in it; True once it is gone. Never kills.

        `before` is called once no process is left, and while the scope is still there if that can
        be seen. It may `detach`; else descriptors stay open until then, and whoever waits on them
        must stop first.
        """

    def sweep(self) -> bool:
        """Remove one of `Backend.remains`. True only for the one caller that did it."""

    def detach(self) -> None:
        """Give up the descriptors; the scope and its processes stay as they are."""


class Backend(Protocol):
    """One mechanism. Opening is cheap; nothing is touched before `probe` or `open_scope`."""

    name: str
    capabilities: Capabilities
    warn: Callable[[str], None]
    """Takes a word about trouble of its own, from any thread. Its owner may set it."""

    def probe(self) -> Usability:
        """Say whether this host lets the mechanism work, and why not. Changes nothing lasting."""

    def with_note(self, found: Usability) -> Usability:
        """Add to a `probe` that found it usable the `note` that takes another program to find out.

        That program may cost more than all the rest of a start. Never raises.
        """

    def open_scope(self, record: ScopeRecord, limits: Limits) -> tuple[Scope, EffectiveLimits]:
        """Make a scope with its budget set, no process inside yet.

        Raises `BackendUnavailable` or `CgroupError`.
        """

    def prepare(self, limits: Limits) -> None:
        """The caller is idle: make ready what the next `open_scope` may need. Never raises."""

    def close(self) -> None:
        """Give up what was made ready. Open scopes are their owners'. Never raises."""

    def rung(self) -> bool:
        """Whether a record may have been rewritten since this was last asked. Never raises."""

    def list_scopes(self) -> list[Scope]:
        """Every live scope of this user (root: of everybody), whichever process opened it."""

    def remains(self, *, nearby: bool = False) -> Iterator[Scope]:
        """Scopes of this user without a process, whose supervisor is gone; each to be detached.

        With `nearby` only where this process's own scopes are, which costs next to nothing.
        """

    def take_over(self, scope: Scope, record: ScopeRecord) -> None:
        """Make an orphan of `list_scopes` this process's; `record` says so to later processes.

        Raises `ScopeVanished`, and `CgmemError` where somebody else was faster, or the mechanism
        can't.
        """


class ObservingBackend(Backend, Protocol):
    """A backend that can also watch a process that already runs (no budget: charges don't move)."""

    def observe(self, record: ScopeRecord, pid: int) -> Scope:
        """Watch `pid` and its descendants. Raises `ProcessLookupError`."""


class SystemMemory(NamedTuple):
    """The machine's memory, host-wide, and what is left for this process's own cgroup."""

    total_bytes: int
    available_bytes: int
    headroom: Headroom | None = None
    """Of the own cgroup and its ancestors; None without a limit."""
    swap_free_bytes: int = 0

    @property
    def effective_total_bytes(self) -> int:
        """What a percentage is one of: the machine's memory, or a cgroup's limit that is less."""
        limit = self.headroom.smallest_max_bytes if self.headroom else None
        return self.total_bytes if limit is None else min(self.total_bytes, limit)


Level: TypeAlias = "Literal['OK', 'WARNING', 'CRITICAL', 'ABORTED', 'NOT_MONITORED']"
"""The spec's statuses."""

StallPolicy: TypeAlias = "Literal['release', 'abort', 'freeze', 'hold']"

Cause: TypeAlias = (
    "Literal['exited', 'signalled', 'hard_limit', 'stalled', 'aborted', 'timeout',"
    " 'parent_limit', 'system_oom', 'unknown']"
)
"""Why a subprocess ended."""


class Thresholds(NamedTuple):
    """A budget's three thresholds in bytes; None = none at that level."""

    warning_bytes: int | None
    critical_bytes: int | None
    max_bytes: int | None


class Alert(NamedTuple):
    """One line for the alert log and for callbacks."""

    level: Literal["WARNING", "CRITICAL"]
    message: str
    """The spec's text for thresholds; free text for the others."""
    kind: Literal["threshold", "stall", "thrashing", "action", "kill", "note"]
    at: float
    """Monotonic seconds, the sample's."""
    judged_bytes: int
    """Non-reclaimable bytes, or what `accounting` says."""
    current_bytes: int
    snapshot: Snapshot | None = None
    """What filled the memory, secrets masked; None for alerts that are told without."""
