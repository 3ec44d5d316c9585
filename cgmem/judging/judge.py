"""From a sample to a level, alerts and actions. Pure: no I/O, no clock; time is the sample's.

Covers thresholds, kills and the level. Does not cover: stalls (`judging.stall`), the end
(`judging.verdict`). Source: spec, "Memory Thresholds" and "Alert Log Format".
"""

from __future__ import annotations

from cgmem.contract import Alert, Level, MemoryEvents, Sample, StallPolicy, Thresholds
from cgmem.judging import messages, stall
from cgmem.judging.stall_rules import RULES
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Accounting: TypeAlias = "Literal['non-reclaimable', 'current']"
"""What the level is judged on: what the kernel can't take back, or memory.current."""

Enforcement: TypeAlias = "Literal['required', 'best-effort', 'off']"

Action: TypeAlias = "Literal['kill', 'release', 'brake', 'abort', 'freeze']"
"""What the supervisor is to do, in this order:

- `kill`: SIGKILL the whole group, it passed the hard limit and no kernel holds it;
- `release`: memory.high = max; `brake`: memory.high = the critical threshold again;
- `abort`: SIGTERM, and SIGKILL after the grace; `freeze`: stop the group and keep it.
"""

HYSTERESIS = 0.95
"""A level is left below this share of its threshold, so that noise around it raises one alert."""
GROWTH = 1.25
"""A level is told again when the memory grew by this factor since it was last told."""
AGAIN_SECONDS = 30.0
"""Shortest time between two alerts for one threshold."""

_WARNING, _CRITICAL, _LIMIT, _OUTSIDE = 1, 2, 3, 4
"""Ranks of the three thresholds, and the slot for kills that this budget did not cause."""


class Policy(NamedTuple):
    """What does not come from the thresholds. May change between samples (a release, `set`)."""

    accounting: Accounting = "non-reclaimable"
    on_stall: StallPolicy = "release"
    stall_after_seconds: float = 10.0
    kernel_limits: bool = True
    """The kernel holds the hard limit (`EffectiveLimits.enforced`). If not, we kill at it."""
    high_bytes: int | None = None
    """memory.high as it is now; None without a brake and after a release."""
    enforcement: Enforcement = "best-effort"
    """`off`: alerts, no actions."""
    abort_on_memory_limit: bool = True
    """False: no memory.max and no kill; `on_stall: abort` releases."""
    tick_seconds: float = 2.0


class History(NamedTuple):
    """Everything carried from one sample to the next."""

    rank: int
    """The highest threshold passed, by bytes: 0 none, 1 warning, 2 critical, 3 hard limit."""
    told_at: tuple[float | None, ...]
    """When each threshold, and a kill from outside, was last told. By slot, see above."""
    bytes_when_told: int
    """The highest judged bytes of any threshold alert."""
    events: MemoryEvents
    """memory.events at the start, then at the last OOM kill."""
    aborted: bool
    """A kill or an abort was seen or ordered. It stays."""
    ending: bool
    """We ordered the end; nothing more is done about stalls."""
    limit_passed: bool
    """The hard limit was reached, whether or not anything was done about it."""
    stall: stall.StallState

    @classmethod
    def start(cls, events: MemoryEvents | None = None) -> History:
        """Begin; `events` are those of a scope that has already lived (adopted, nested)."""
        zero = MemoryEvents(high=0, max=0, oom=0, oom_kill=0, oom_group_kill=0)
        return cls(
            rank=0,
            told_at=(None,) * 5,
            bytes_when_told=0,
            events=events or zero,
            aborted=False,
            ending=False,
            limit_passed=False,
            stall=stall.StallState(),
        )


class Judgement(NamedTuple):
    """The outcome of one sample."""

    history: History
    level: Level
    alerts: tuple[Alert, ...]
    actions: tuple[Action, ...]


class _Reach(NamedTuple):
    """How far the memory got, as far as this sample tells."""

    rank: int
    judged: int
    current: int
    kill: Literal["own", "outside"] | None
    we_kill: bool


def judged_bytes(sample: Sample, accounting: Accounting = "non-reclaimable") -> int:
    """Return the bytes that the level is judged on. 0 <= it <= `current_bytes`.

    A sample whose `reclaimable_bytes` were not read (below every threshold, or a metric that has
    no page cache in it) counts in full.
    """
    if accounting == "current":
        return sample.current_bytes
    return stall.non_reclaimable_bytes(sample)


def detail_above(thresholds: Thresholds, policy: Policy) -> int | None:
    """Return the `detail_above` to sample with: what the judge needs, read no sooner. None: never.

    At a threshold the reclaimable bytes matter, near memory.high also the pressure.
    """
    bounds = [bound for bound in thresholds if bound is not None]
    if policy.high_bytes is not None:
        bounds.append(int(policy.high_bytes * RULES.near_high))
    return max(0, min(bounds) - 1) if bounds else None


def judge(
    thresholds: Thresholds,
    policy: Policy,
    history: History,
    sample: Sample,
    *,
    own_oom: bool | None = None,
) -> Judgement:
    """Judge one sample. Call it once a tick and at every wake-up.

    A scope that did not change is judged with its last sample at the new time: time that no
    sample covers counts for nothing. `own_oom` tells whether `oom` rose in memory.events.local,
    for a caller who looked after an oom_kill rose; else memory.events decides, and an OOM kill in
    a nested budget passes for one of this scope.
    """
    reach = _reach(thresholds, policy, history, sample, own_oom)
    history, alerts = _tell(thresholds, history, reach, sample.at)
    if reach.kill is not None and sample.events is not None:
        history = history._replace(events=sample.events)
    history = history._replace(
        rank=reach.rank,
        aborted=history.aborted or reach.kill == "own" or reach.we_kill,
        ending=history.ending or reach.we_kill,
        limit_passed=history.limit_passed or reach.rank == _LIMIT,
    )
    if history.ending:
        actions: tuple[Action, ...] = ("kill",) if reach.we_kill else ()
        return Judgement(history, _level(history), alerts, actions)
    return _judge_stall(thresholds, policy, history, sample, alerts)


def _judge_stall(
    thresholds: Thresholds,
    policy: Policy,
    history: History,
    sample: Sample,
    alerts: tuple[Alert, ...],
) -> Judgement:
    judged = judged_bytes(sample, policy.accounting)
    step = stall.step(history.stall, sample, judged, _brake(thresholds, policy))
    history = history._replace(stall=step.state)
    if step.action == "abort":
        history = history._replace(aborted=True, ending=True)
    if step.alert is not None:
        alerts = (*alerts, step.alert)
    actions = () if step.action is None else (step.action,)
    return Judgement(history, _level(history), alerts, actions)


def _brake(thresholds: Thresholds, policy: Policy) -> stall.Brake:
    limit = thresholds.max_bytes if policy.abort_on_memory_limit else None
    on_stall = policy.on_stall
    if on_stall == "abort" and not policy.abort_on_memory_limit:
        on_stall = "release"
    return stall.Brake(
        thresholds=thresholds._replace(max_bytes=limit),
        high_bytes=policy.high_bytes,
        on_stall=None if policy.enforcement == "off" else on_stall,
        stall_after_seconds=policy.stall_after_seconds,
        tick_seconds=policy.tick_seconds,
    )


def _level(history: History) -> Level:
    if history.aborted:
        return "ABORTED"
    if history.stall.stalled or history.rank >= _CRITICAL:
        return "CRITICAL"
    return "WARNING" if history.rank == _WARNING else "OK"


def _reach(
    thresholds: Thresholds,
    policy: Policy,
    history: History,
    sample: Sample,
    own_oom: bool | None,
) -> _Reach:
    judged, current = judged_bytes(sample, policy.accounting), sample.current_bytes
    enforced = policy.enforcement != "off" and policy.abort_on_memory_limit
    kernel_holds = enforced and policy.kernel_limits
    limit = thresholds.max_bytes
    kill = _kill_seen(history, sample, own_oom if kernel_holds and limit is not None else False)
    if kill == "own" and limit is not None:
        # The memory is gone by the time of the sample; that it reached the limit is certain.
        judged, current = max(judged, limit), max(current, limit)
    elif kernel_holds:
        # At the limit the kernel reclaims and then kills: the bytes alone don't tell.
        thresholds = thresholds._replace(max_bytes=None)
    rank = _rank(thresholds, history.rank, judged)
    we_kill = enforced and not kernel_holds and limit is not None and judged >= limit
    return _Reach(rank, judged, current, kill, we_kill)


def _kill_seen(
    history: History, sample: Sample, own: bool | None
) -> Literal["own", "outside"] | None:
    """Say whether an OOM kill is new, and whose limit it was. `own` None: memory.events decides."""
    if sample.events is None or not _rose(history.events.oom_kill, sample.events.oom_kill):
        return None
    if own is None:
        # `oom` rises before `oom_kill`, so a look in between must not hide it.
        own = _rose(history.events.oom, sample.events.oom)
    return "own" if own else "outside"


def _rose(before: int | None, after: int | None) -> bool:
    return after is not None and after > (before or 0)


def _rank(thresholds: Thresholds, previous: int, judged: int) -> int:
    ranks = range(len(thresholds), 0, -1)
    return next((rank for rank in ranks if _holds(thresholds, rank, previous, judged)), 0)


def _holds(thresholds: Thresholds, rank: int, previous: int, judged: int) -> bool:
    bound = thresholds[rank - 1]
    if bound is None:
        return False
    return judged >= (bound if rank > previous else bound * HYSTERESIS)


def _tell(
    thresholds: Thresholds, history: History, reach: _Reach, at: float
) -> tuple[History, tuple[Alert, ...]]:
    """Return the alerts that are due for thresholds and kills, lowest first."""
    slots = _slots(thresholds, history, reach)
    due = [slot for slot in slots if _quiet(history.told_at[slot], at)]
    alerts = [_alert(thresholds, slot, reach, at) for slot in due]
    told_at = tuple(at if slot in due else old for slot, old in enumerate(history.told_at))
    told = history._replace(told_at=told_at)
    if any(slot != _OUTSIDE for slot in due):
        told = told._replace(bytes_when_told=max(history.bytes_when_told, reach.judged))
    return told, tuple(alerts)


def _slots(thresholds: Thresholds, history: History, reach: _Reach) -> list[int]:
    crossed = range(history.rank + 1, reach.rank + 1)
    slots = {rank for rank in crossed if thresholds[rank - 1] is not None}
    if reach.rank and reach.judged >= GROWTH * history.bytes_when_told:
        slots.add(reach.rank)
    if reach.kill is not None:
        slots.add(_LIMIT if reach.kill == "own" else _OUTSIDE)
    return sorted(slots)


def _quiet(told_at: float | None, at: float) -> bool:
    return told_at is None or at - told_at >= AGAIN_SECONDS


def _alert(thresholds: Thresholds, slot: int, reach: _Reach, at: float) -> Alert:
    level: Literal["WARNING", "CRITICAL"] = "WARNING" if slot == _WARNING else "CRITICAL"
    if slot == _OUTSIDE:
        text = messages.killed_from_outside(reach.judged, thresholds.max_bytes)
        return Alert(level, text, "kill", at, reach.judged, reach.current)
    bound = thresholds[slot - 1] or 0
    text = messages.exceeded(level, bound, reach.judged, limit=slot == _LIMIT)
    ends = slot == _LIMIT and (reach.we_kill or reach.kill == "own")
    return Alert(level, text, "kill" if ends else "threshold", at, reach.judged, reach.current)
