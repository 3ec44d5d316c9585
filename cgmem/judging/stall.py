"""Stalls and thrashing at memory.high: when the brake has held too long, and what to do. Pure.

memory.high throttles; a process that leaks without swap then sits just above it for hours, in
D state, and never reaches memory.max. Five signs together tell that from work: the charge sits at
memory.high, `high` keeps rising, little can be reclaimed, the hard limit is far away at the speed
seen, and tasks wait for memory most of the time. Does not cover: thresholds (`judging.judge`).
"""

from __future__ import annotations

from cgmem.contract import Alert, Sample, StallPolicy, Thresholds
from cgmem.judging import messages
from cgmem.judging.stall_rules import RULES
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias, TypeVar

    Number = TypeVar("Number", int, float)

StallAction: TypeAlias = "Literal['release', 'brake', 'abort', 'freeze']"


class Brake(NamedTuple):
    """What the detection needs to know about one scope's brake."""

    thresholds: Thresholds
    high_bytes: int | None
    """memory.high now; None while there is no brake, or after a release."""
    on_stall: StallPolicy | None
    """None: tell, and do nothing."""
    stall_after_seconds: float
    tick_seconds: float


class Span(NamedTuple):
    """What moved between two samples at the brake; `None` where the kernel has no such number."""

    seconds: float
    braked: bool
    """At memory.high from its first moment on."""
    held: bool
    progress_bytes: int
    refaults: int
    some_seconds: float | None
    full_seconds: float | None
    user_seconds: float | None


class StallState(NamedTuple):
    """What is carried from sample to sample."""

    last_at: float | None = None
    anchor: Sample | None = None
    """Where the span under way began; None while the group is stopped."""
    window: tuple[Span, ...] = ()
    stalled: bool = False
    told_at: float | None = None
    thrashing_told_at: float | None = None
    releases: int = 0
    returned: bool = False
    """The brake came back after a release. It does so once."""
    freezing: bool = False
    """Was to freeze, and was not seen frozen yet: a throttled task sleeps on for seconds."""
    calm_seconds: float = 0.0
    reread_pages: int = 0
    """Refaulted since file pages began to be evicted and read again at a cost."""


class Step(NamedTuple):
    """The outcome of one sample."""

    state: StallState
    action: StallAction | None = None
    alert: Alert | None = None


class _Evidence(NamedTuple):
    seconds: float
    braked: bool
    """Was at memory.high for all of stall_after."""
    held: bool
    hopeless: bool
    refaults_per_second: float
    some: float | None
    full: float | None
    user: float | None

    @property
    def waits(self) -> float | None:
        """Share of its time that a task waits.

        The kernel averages PSI over the CPUs that the group keeps busy, so a stalled task beside
        one that spins on another CPU shows as 50 % (`collect_percpu_times`, kernel/sched/psi.c).
        """
        return None if self.some is None else min(1.0, self.some * (1.0 + (self.user or 0.0)))

    @property
    def waiting(self) -> bool:
        """Some task waits most of the time, or, without PSI, hardly any CPU is used."""
        if self.some is not None and self.waits is not None:
            return self.some >= RULES.own_pressure and self.waits >= RULES.pressure
        # An idle CPU tells of waiting only for the time in which there was something to wait for.
        return self.braked and self.user is not None and self.user < RULES.user_cpu

    @property
    def all_waiting(self) -> bool:
        """No task makes progress: what `abort` and `freeze` ask for."""
        if self.some is None:
            return self.waiting
        return self.full is not None and self.full >= RULES.pressure

    @property
    def rereading(self) -> bool:
        """Waits for file pages that it had. Only PSI can tell: reading a file also uses no CPU."""
        refaulting = self.refaults_per_second >= RULES.refaults_per_second
        waiting = self.some is not None and self.some >= RULES.thrashing_pressure
        return not self.held and waiting and refaulting


def non_reclaimable_bytes(sample: Sample) -> int:
    """Return the bytes that the kernel can't take back; all of them where that is unknown."""
    return max(0, sample.current_bytes - (sample.reclaimable_bytes or 0))


def step(state: StallState, sample: Sample, judged: int, brake: Brake) -> Step:
    """Take one sample of a scope; `judged` is what the alert reports as its bytes."""
    moved, began = _advance(state, sample, brake.tick_seconds)
    if brake.high_bytes is None:
        return _without_brake(moved, began, sample, judged, brake)
    if began is None:
        return Step(moved)
    span = _measure(began, sample, brake.high_bytes)
    if span is None:
        return Step(moved._replace(window=(), stalled=False, reread_pages=0))
    window = _extend(moved.window, span, brake.stall_after_seconds)
    moved = moved._replace(window=window)
    evidence = _evidence(window, sample, brake)
    if evidence is None:
        return Step(moved)
    if evidence.held and evidence.hopeless and evidence.waiting:
        return _on_stall(moved, evidence, sample, judged, brake, brake.high_bytes)
    if not evidence.rereading:
        return Step(moved._replace(stalled=False, reread_pages=0))
    reread = moved.reread_pages + span.refaults
    moved = moved._replace(stalled=False, reread_pages=reread)
    return _on_rereading(moved, evidence, sample, judged, brake.high_bytes)


def _advance(state: StallState, sample: Sample, tick: float) -> tuple[StallState, Sample | None]:
    """Move on to `sample`; also return where a span began that it ends, if it ends one.

    Stopped time and gaps belong to no span, so they count for nothing and end nothing.
    """
    last, anchor = state.last_at, state.anchor
    state = state._replace(last_at=sample.at)
    if sample.frozen:
        return state._replace(anchor=None, freezing=False), None
    lost = last is None or sample.at - last > RULES.gap_ticks * tick
    if anchor is None or lost:
        return state._replace(anchor=sample), None
    if sample.at - anchor.at < RULES.span_seconds:
        return state, None
    return state._replace(anchor=sample), anchor


def _measure(began: Sample, ended: Sample, high: int) -> Span | None:
    """Return what moved, or None if the brake did not hold the group all along."""
    risen = _rise(began.events and began.events.high, ended.events and ended.events.high)
    if not risen or ended.current_bytes < RULES.near_high * high:
        return None
    # Unread details can't tell a stall from page cache; the next span will have them.
    if began.reclaimable_bytes is None or ended.reclaimable_bytes is None:
        return None
    held = non_reclaimable_bytes(ended)
    progress = held - non_reclaimable_bytes(began)
    return Span(
        seconds=ended.at - began.at,
        braked=began.current_bytes >= RULES.near_high * high,
        held=held >= RULES.held * high,
        progress_bytes=progress + (_rise(began.swap_bytes, ended.swap_bytes) or 0),
        refaults=_rise(began.refaults, ended.refaults) or 0,
        some_seconds=_rise(began.some_seconds, ended.some_seconds),
        full_seconds=_rise(began.full_seconds, ended.full_seconds),
        user_seconds=_rise(began.user_seconds, ended.user_seconds),
    )


def _rise(before: Number | None, after: Number | None) -> Number | None:
    return None if before is None or after is None else after - before


def _extend(window: tuple[Span, ...], span: Span, enough: float) -> tuple[Span, ...]:
    window = (*window, span)
    while sum(one.seconds for one in window[1:]) >= enough > 0:
        window = window[1:]
    return window


def _evidence(window: tuple[Span, ...], sample: Sample, brake: Brake) -> _Evidence | None:
    """Sum the window up; None while it is shorter than stall_after."""
    seconds = sum(span.seconds for span in window)
    if seconds < brake.stall_after_seconds:
        return None
    return _Evidence(
        seconds=seconds,
        braked=sum(one.seconds for one in window if one.braked) >= brake.stall_after_seconds,
        held=all(span.held for span in window),
        hopeless=_hopeless(window, seconds, sample, brake),
        refaults_per_second=sum(span.refaults for span in window) / seconds,
        some=_share([span.some_seconds for span in window], seconds),
        full=_share([span.full_seconds for span in window], seconds),
        user=_share([span.user_seconds for span in window], seconds),
    )


def _hopeless(window: tuple[Span, ...], seconds: float, sample: Sample, brake: Brake) -> bool:
    """Say whether the hard limit is out of reach at the speed seen."""
    progress = sum(span.progress_bytes for span in window)
    limit = brake.thresholds.max_bytes
    if limit is None or progress <= 0:
        return True
    room = max(0, limit - non_reclaimable_bytes(sample))
    return room * seconds / progress > RULES.hopeless * brake.stall_after_seconds


def _share(parts: list[float | None], seconds: float) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) / seconds if len(known) == len(parts) else None


def _on_stall(
    state: StallState, found: _Evidence, sample: Sample, judged: int, brake: Brake, high: int
) -> Step:
    action = _choose(state, found, sample, brake)
    quiet = state.stalled or not _due(state.told_at, sample.at, RULES.again_seconds)
    if action is None and quiet:
        return Step(state._replace(stalled=True))
    releases = state.releases + (action == "release")
    outcome = _outcome(action, releases, brake)
    text = messages.stalled(
        high, non_reclaimable_bytes(sample), found.seconds, found.waits, outcome
    )
    alert = Alert("CRITICAL", text, "stall", sample.at, judged, sample.current_bytes)
    # After an action the signs must all come anew: a thawed group gets its full time again.
    window = state.window if action is None else ()
    told = state._replace(
        stalled=True,
        told_at=sample.at,
        releases=releases,
        freezing=state.freezing or action == "freeze",
        window=window,
    )
    return Step(told, action, alert)


def _choose(
    state: StallState, found: _Evidence, sample: Sample, brake: Brake
) -> StallAction | None:
    if brake.on_stall == "release" and state.releases < RULES.releases:
        return "release"
    if state.freezing and not _due(state.told_at, sample.at, RULES.again_seconds):
        return None
    if brake.on_stall in ("abort", "freeze") and found.all_waiting:
        return brake.on_stall
    return None


def _outcome(action: StallAction | None, releases: int, brake: Brake) -> str:
    if action == "release":
        for_good = releases >= RULES.releases
        return messages.released(brake.thresholds.max_bytes, for_good=for_good)
    if action is not None:
        return messages.ABORTED if action == "abort" else messages.FROZEN
    return messages.PARTLY_STALLED if brake.on_stall in ("abort", "freeze") else messages.HELD


def _on_rereading(
    state: StallState, found: _Evidence, sample: Sample, judged: int, high: int
) -> Step:
    """Tell of thrashing, but not of a single second reading."""
    again = state.reread_pages * RULES.page_bytes >= RULES.rereads * high
    if not again and not found.waiting:
        return Step(state)
    if not _due(state.thrashing_told_at, sample.at, RULES.thrashing_again_seconds):
        return Step(state)
    text = messages.thrashing(high, found.refaults_per_second, found.some or 0.0)
    alert = Alert("WARNING", text, "thrashing", sample.at, judged, sample.current_bytes)
    return Step(state._replace(thrashing_told_at=sample.at), None, alert)


def _without_brake(
    state: StallState, began: Sample | None, sample: Sample, judged: int, brake: Brake
) -> Step:
    """After a release, wait until the group has been small for long enough to brake again."""
    state = state._replace(window=(), stalled=False)
    warning, critical = brake.thresholds.warning_bytes, brake.thresholds.critical_bytes
    wanted = state.releases == 1 and not state.returned and brake.on_stall == "release"
    if not wanted or warning is None or critical is None:
        return Step(state)
    if non_reclaimable_bytes(sample) >= warning:
        return Step(state._replace(calm_seconds=0.0, anchor=None))
    calm = state.calm_seconds
    if began is not None and non_reclaimable_bytes(began) < warning:
        calm += sample.at - began.at
    if calm < RULES.calm_seconds:
        return Step(state._replace(calm_seconds=calm))
    text = messages.brake_returned(warning, critical, calm)
    alert = Alert("WARNING", text, "action", sample.at, judged, sample.current_bytes)
    return Step(state._replace(returned=True, calm_seconds=0.0), "brake", alert)


def _due(told_at: float | None, at: float, after: float) -> bool:
    return told_at is None or at - told_at >= after
