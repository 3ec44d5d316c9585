"""Stalls: recognised as measured on real kernels, and never seen in honest work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest

from cgmem.contract import MB, MemoryEvents, Sample, StallPolicy, Thresholds
from cgmem.judging.stall import Brake, StallState, Step, non_reclaimable_bytes, step
from cgmem.judging.stall_rules import RULES

HIGH = 200 * MB
THRESHOLDS = Thresholds(100 * MB, HIGH, 400 * MB)


def brake(on_stall: StallPolicy | None = "release", **changes: Any) -> Brake:
    """Build the brake of a 100/200/400 MB budget."""
    return Brake(THRESHOLDS, HIGH, on_stall, 10.0, 2.0)._replace(**changes)


def look(at: float, **changes: Any) -> Sample:
    """Build a look at a group that stalls since 0: all at the brake, all waiting, no progress."""
    sample = Sample(
        at=at,
        current_bytes=HIGH + MB // 2,
        metric="cgroup",
        events=MemoryEvents(high=int(at * 3), max=0, oom=0, oom_kill=0),
        reclaimable_bytes=MB,
        swap_bytes=0,
        some_seconds=0.99 * at,
        full_seconds=0.99 * at,
        user_seconds=0.001 * at,
        refaults=0,
    )
    return sample._replace(**changes)


def ticks(until: float, every: float = 2.0, *, start: float = 0.0) -> list[float]:
    """Return the times of samples, `every` seconds apart."""
    return [start + every * number for number in range(int((until - start) / every) + 1)]


def drive(
    samples: Iterable[Sample], asked: Brake | None = None, *, obey: bool = True
) -> list[tuple[Sample, Step]]:
    """Run a series through the detection, releasing and setting the brake when told to."""
    held, state, steps = asked or brake(), StallState(), []
    for sample in samples:
        done = step(state, sample, non_reclaimable_bytes(sample), held)
        state = done.state
        if obey and done.action in ("release", "brake"):
            held = held._replace(high_bytes=HIGH if done.action == "brake" else None)
        steps.append((sample, done))
    return steps


def actions(steps: list[tuple[Sample, Step]]) -> list[tuple[float, str]]:
    """Return when which action was asked for."""
    return [(sample.at, done.action) for sample, done in steps if done.action]


def alerts(steps: list[tuple[Sample, Step]]) -> list[tuple[float, str, str]]:
    """Return time, kind and message of every alert."""
    return [(one.at, done.alert.kind, done.alert.message) for one, done in steps if done.alert]


def measured(at: float) -> Sample:
    """Return the measured stall: 4 KiB pages, +10 MB after 3 s, +20 after 22 s, +30 after 72 s."""
    over = 10 * at / 3 if at < 3 else 10 + (at - 3) * 10 / 19 if at < 22 else 20 + (at - 22) / 5
    pressure = min(0.99, 0.3 + at * 0.1)
    total = sum(min(0.99, 0.3 + second * 0.1) for second in range(int(at)))
    assert pressure <= 1
    return look(at, current_bytes=HIGH + int(over * MB), some_seconds=total, full_seconds=total)


def test_the_measured_stall_is_released_within_half_a_minute() -> None:
    """The leak of the kernel notes, creeping above high, is recognised and released."""
    steps = drive(map(measured, ticks(60)))

    assert [action for _, action in actions(steps)] == ["release"]
    assert 10 <= actions(steps)[0][0] <= 20


def test_a_full_stall_is_released_after_stall_after() -> None:
    """With every sign there from the start it takes exactly stall_after."""
    assert actions(drive(map(look, ticks(12)))) == [(10.0, "release")]


def test_the_alert_has_numbers_and_says_what_was_done() -> None:
    """A stall is one CRITICAL alert of kind stall that tells what decides now."""
    found = next(done.alert for _, done in drive(map(look, ticks(10))) if done.alert)

    assert (found.level, found.kind, found.at) == ("CRITICAL", "stall", 10.0)
    assert found.message == (
        "CRITICAL: Stalled at memory.high 200MB for 10 s (199.5MB can't be reclaimed, waiting 99%):"
        " brake released, the task goes on; hard limit 400MB decides"
    )
    assert (found.judged_bytes, found.current_bytes) == (HIGH - MB // 2, HIGH + MB // 2)


def test_wake_ups_between_ticks_do_not_hide_a_stall() -> None:
    """A look 5 ms after another, in which nothing rose, ends no stall."""
    times = sorted(ticks(10) + [at + 0.005 for at in ticks(10)] + ticks(10, 0.25))

    assert [action for _, action in actions(drive(map(look, times)))] == ["release"]


def reads_a_file(at: float) -> Sample:
    """Page cache at the brake: `high` rises by thousands, nearly all can be reclaimed."""
    return look(at, reclaimable_bytes=199 * MB, some_seconds=0.9 * at, user_seconds=0.0)


def computes(at: float) -> Sample:
    """A group near the brake that works and seldom waits."""
    return look(at, some_seconds=0.1 * at, full_seconds=0.0, user_seconds=0.99 * at)


def saw_tooth(at: float) -> Sample:
    """A collector that lets the heap grow to the brake and frees half of it every 8 s."""
    return look(at, current_bytes=int(HIGH * (0.5 + 0.5 * (at % 8) / 8)))


def stopped(at: float) -> Sample:
    """A job under SIGSTOP: nothing moves and no time counts."""
    return look(at, frozen=True, events=MemoryEvents(high=5))


def works_in_a_crowd(at: float) -> Sample:
    """Eight busy tasks, each slowed down for a tenth of its time."""
    return look(at, some_seconds=0.12 * at, full_seconds=0.1 * at, user_seconds=7.0 * at)


def fills_up(at: float) -> Sample:
    """Waits a lot and yet reaches the hard limit within a minute."""
    return look(at, current_bytes=HIGH + int(4 * at * MB))


def swaps_out(at: float) -> Sample:
    """Waits a lot, while swap takes 10 MB/s."""
    return look(at, swap_bytes=int(10 * at * MB))


def idles(at: float) -> Sample:
    """Sits at the brake and does not ask for more."""
    return look(at, events=MemoryEvents(high=7), some_seconds=0.0)


def gives_back(at: float) -> Sample:
    """Reclaim keeps finding enough to stay 5 % below the brake."""
    return look(at, current_bytes=190 * MB)


def half_waits(at: float) -> Sample:
    """Waits for 60 % of the time: slow, yet moving."""
    return look(at, some_seconds=0.6 * at)


def knows_nothing(at: float) -> Sample:
    """A kernel without PSI and without CPU time: no sign of waiting."""
    return look(at, some_seconds=None, full_seconds=None, user_seconds=None)


def details_unread(at: float) -> Sample:
    """Without the reclaimable bytes a stall can't be told from page cache."""
    return look(at, reclaimable_bytes=None)


def no_events(at: float) -> Sample:
    """A mechanism without memory.events has no brake to stall at."""
    return look(at, events=None)


@pytest.mark.parametrize(
    "series",
    [
        reads_a_file, computes, saw_tooth, stopped, works_in_a_crowd, fills_up, swaps_out,
        idles, gives_back, half_waits, knows_nothing, details_unread, no_events,
    ],
)  # fmt: skip
@pytest.mark.parametrize("every", [0.5, 2.0, 3.0])
def test_honest_work_is_never_a_stall(series: Callable[[float], Sample], every: float) -> None:
    """Two minutes of work that looks like a stall in all signs but one raise nothing."""
    steps = drive(map(series, ticks(120, every)), brake("abort"))

    assert alerts(steps) == []
    assert not any(done.state.stalled for _, done in steps)


def test_a_leak_beside_a_task_that_spins_is_a_stall() -> None:
    """PSI is averaged over the busy CPUs: one task that waits and one that spins show as 49 %."""
    beside = [
        look(at, some_seconds=0.49 * at, full_seconds=0.48 * at, user_seconds=0.97 * at)
        for at in ticks(10)
    ]

    assert actions(drive(beside)) == [(10.0, "release")]
    assert "waiting 97%" in alerts(drive(beside))[0][2]
    assert actions(drive(beside, brake("abort"))) == []
    assert "part of it still makes progress" in alerts(drive(beside, brake("abort")))[0][2]


def test_without_psi_an_idle_cpu_tells() -> None:
    """Where the kernel has no PSI, user CPU below 5 % stands in for it, also for abort."""
    no_psi = [look(at, some_seconds=None, full_seconds=None) for at in ticks(10)]
    busy = [one._replace(user_seconds=0.06 * one.at) for one in no_psi]

    assert actions(drive(no_psi, brake("abort"))) == [(10.0, "abort")]
    assert "hardly any CPU used" in alerts(drive(no_psi))[0][2]
    assert alerts(drive(busy)) == []


def test_without_psi_only_time_at_the_brake_tells() -> None:
    """A job that is stopped as it gets there, after much sleep, is not told for its idle CPU."""
    at_rest = MemoryEvents(high=9)
    stopped_soon = [
        look(
            at, some_seconds=None, full_seconds=None, events=MemoryEvents(0) if at < 2 else at_rest
        )
        for at in ticks(60)
    ]
    stopped_soon[0] = stopped_soon[0]._replace(current_bytes=HIGH // 2)

    assert alerts(drive(stopped_soon, brake("abort", stall_after_seconds=2.0))) == []


def test_stopped_time_counts_for_nothing_and_ends_nothing() -> None:
    """A stalled job under Ctrl-Z goes on counting after fg where it was before."""
    before = list(map(look, ticks(6)))
    pause = [look(at, frozen=True, events=before[-1].events) for at in ticks(66, start=8)]
    after = list(map(look, ticks(80, start=68)))

    assert actions(drive(before + pause + after)) == [(72.0, "release")]


def test_a_gap_in_the_samples_counts_for_nothing() -> None:
    """An hour without samples (suspended, supervisor stopped) is no stall of an hour."""
    steps = drive([look(0.0), look(3600.0), *map(look, ticks(3612, start=3602))])

    assert actions(steps) == [(3610.0, "release")]


def test_a_clock_that_steps_back_counts_for_nothing() -> None:
    """An impossible series is no evidence."""
    assert alerts(drive(map(look, [10.0, 8.0, 6.0, 4.0, 2.0, 0.0]))) == []


def test_no_hard_limit_is_never_near() -> None:
    """Without a hard limit the progress seen does not excuse a stall."""
    unlimited = brake(thresholds=THRESHOLDS._replace(max_bytes=None))

    steps = drive(map(fills_up, ticks(10)), unlimited)

    assert actions(steps) == [(10.0, "release")]
    assert "no hard limit" in alerts(steps)[0][2]


def small(at: float) -> Sample:
    """Return a look below the warning threshold, where details are not read."""
    return Sample(at, 50 * MB, "cgroup", MemoryEvents(high=999))


def test_after_a_release_the_brake_returns_when_it_was_small_for_30_s() -> None:
    """Half a minute below the warning threshold brings the brake back, with an alert."""
    steps = drive([*map(look, ticks(10)), *map(small, ticks(60, start=12))])

    assert actions(steps) == [(10.0, "release"), (42.0, "brake")]
    assert alerts(steps)[1][1:] == (
        "action",
        "WARNING: Memory below 100MB for 30 s: brake set again, memory.high 200MB",
    )


def test_a_large_moment_starts_the_30_s_anew() -> None:
    """Not even a wake-up's look above the warning threshold is forgotten."""
    moment = small(30.5)._replace(current_bytes=150 * MB)
    times = ticks(80, start=12)
    calm = [*map(small, times[:10]), moment, *map(small, times[10:])]

    assert actions(drive([*map(look, ticks(10)), *calm])) == [(10.0, "release"), (62.0, "brake")]


def test_a_second_stall_releases_for_good() -> None:
    """The brake returns once; after the second release it never does."""
    again = [look(at) for at in ticks(60, start=44)]
    steps = drive(
        [*map(look, ticks(10)), *map(small, ticks(42, start=12)), *again]
        + [small(at) for at in ticks(300, start=62)]
    )

    assert [action for _, action in actions(steps)] == ["release", "brake", "release"]
    assert "for good" in alerts(steps)[-1][2]


def test_a_supervisor_that_fails_to_release_is_asked_twice_and_no_more() -> None:
    """Whatever becomes of the action, there are at most two."""
    steps = drive(map(look, ticks(600)), obey=False)

    assert [action for _, action in actions(steps)] == ["release"] * RULES.releases


def test_the_brake_does_not_return_after_a_second_release() -> None:
    """Also when the first release came to nothing, two stalls have shown that it is needed."""
    twice = drive(map(look, ticks(40)), obey=False)
    state = twice[-1][1].state
    for sample in map(small, ticks(100, start=42)):
        done = step(state, sample, sample.current_bytes, brake(high_bytes=None))
        state = done.state

        assert done.action is None


def test_hold_tells_once_and_stays_critical() -> None:
    """`hold` leaves it to the kernel and doesn't repeat itself."""
    steps = drive(map(look, ticks(600)), brake("hold"))

    assert [kind for _, kind, _ in alerts(steps)] == ["stall"]
    assert actions(steps) == []
    assert all(done.state.stalled for one, done in steps if one.at >= 10)


def test_a_flickering_stall_is_told_at_most_every_30_s() -> None:
    """A stall that ends and begins again is no new line each time."""
    flicker = [look(at, current_bytes=HIGH // 2 if at % 14 == 0 else HIGH) for at in ticks(280)]

    told = [at for at, _, _ in alerts(drive(flicker, brake("hold")))]

    assert len(told) > 1
    assert all(later - sooner >= 30 for sooner, later in pairwise(told))


def test_with_enforcement_off_a_stall_is_told_and_left() -> None:
    """Observing a brake that somebody else set asks for nothing."""
    steps = drive(map(look, ticks(60)), brake(None))

    assert len(alerts(steps)) == 1
    assert actions(steps) == []


@pytest.mark.parametrize("policy", ["abort", "freeze"])
def test_abort_and_freeze_wait_until_nobody_makes_progress(policy: StallPolicy) -> None:
    """While one process still works a stall is told; only a full stall ends or freezes it."""
    partly = [look(at, full_seconds=0.5 * at) for at in ticks(20)]
    fully = [look(at, full_seconds=0.99 * at - 9.8) for at in ticks(60, start=22)]

    steps = drive([*partly, *fully], brake(policy))

    assert alerts(steps)[0][0] == 10.0
    assert "part of it still makes progress" in alerts(steps)[0][2]
    assert actions(steps)[0][1] == policy
    assert 22 <= actions(steps)[0][0] <= 32


def test_a_thawed_group_gets_its_full_time_again() -> None:
    """After a freeze and a thaw the stall must be proven anew."""
    frozen = [look(at, frozen=True) for at in ticks(100, start=12)]

    steps = drive(
        [*map(look, ticks(10)), *frozen, *map(look, ticks(130, start=102))], brake("freeze")
    )

    assert actions(steps)[:2] == [(10.0, "freeze"), (112.0, "freeze")]
    assert all(done.state.stalled for one, done in steps if 10 <= one.at <= 112)


def test_a_group_that_is_slow_to_freeze_is_frozen_once() -> None:
    """A throttled task sleeps on for seconds before it stops; asked for again after a while."""
    steps = drive(map(look, ticks(45)), brake("freeze"))

    assert actions(steps) == [(10.0, "freeze"), (40.0, "freeze")]
    assert [at for at, _, _ in alerts(steps)] == [10.0, 40.0]


def thrashes(at: float) -> Sample:
    """Return a look at a group whose files don't fit: cache evicted and read again."""
    return look(at, reclaimable_bytes=100 * MB, refaults=int(5000 * at))


def test_thrashing_is_a_warning_that_names_refaults_and_does_nothing() -> None:
    """The pressure of a stall with memory that can be reclaimed: told, rarely, and left alone."""
    steps = drive(map(thrashes, ticks(200)), brake("abort"))

    assert actions(steps) == []
    assert [(at, kind) for at, kind, _ in alerts(steps)] == [(10.0, "thrashing")]
    assert "5000 evicted file pages a second read again" in alerts(steps)[0][2]
    assert not steps[-1][1].state.stalled


def thrashes_on_a_fast_disk(at: float) -> Sample:
    """Return the measured look of a mapped file that does not fit: 28 % of the time is lost."""
    return thrashes(at)._replace(some_seconds=0.28 * at, refaults=int(10000 * at))


def test_thrashing_on_a_fast_disk_is_told_once_it_goes_on() -> None:
    """Where little time is lost, memory.high must have been read again three times over."""
    [(at, kind, text)] = alerts(drive(map(thrashes_on_a_fast_disk, ticks(200))))

    assert kind == "thrashing"
    assert 15 <= at <= 30
    assert "waiting 28%" in text


def test_a_second_reading_is_not_thrashing() -> None:
    """A linker that reads what the compilers wrote, 1.5 times memory.high, is left in peace."""

    def links(at: float) -> Sample:
        refaults = 5000 * min(at, 16.0)
        return thrashes(at)._replace(some_seconds=0.18 * at, refaults=int(refaults))

    assert alerts(drive(map(links, ticks(120)))) == []


def test_the_brake_is_judged_at_its_present_height() -> None:
    """A brake that was raised out of reach holds nobody."""
    assert alerts(drive(map(look, ticks(60)), brake(high_bytes=300 * MB))) == []
