"""Levels, alerts and actions: examples, and what must hold over any series of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgmem.contract import MB, Alert, MemoryEvents, Sample, StallPolicy, Thresholds
from cgmem.judging.judge import (
    AGAIN_SECONDS,
    Accounting,
    Enforcement,
    History,
    Judgement,
    Policy,
    detail_above,
    judge,
    judged_bytes,
)
from tests.helpers.literals import values_of

SPEC = Thresholds(1024 * MB, 2048 * MB, 4096 * MB)
QUIET = MemoryEvents(high=0, max=0, oom=0, oom_kill=0, oom_group_kill=0)
OOM = MemoryEvents(high=9, max=30, oom=1, oom_kill=2, oom_group_kill=1)
POLLED = Policy(kernel_limits=False)


def look(at: float, mb: float, **more: Any) -> Sample:
    """Build a sample of `mb` MB."""
    return Sample(at, int(mb * MB), **{"metric": "cgroup", "events": QUIET} | more)


def run(
    samples: Iterable[Sample], policy: Policy | None = None, thresholds: Thresholds = SPEC
) -> list[Judgement]:
    """Judge a series with a supervisor that releases and sets the brake when told to."""
    policy, history, found = policy or Policy(), History.start(), []
    high = policy.high_bytes
    for sample in samples:
        found.append(judge(thresholds, policy, history, sample))
        history = found[-1].history
        if "release" in found[-1].actions:
            policy = policy._replace(high_bytes=None)
        elif "brake" in found[-1].actions:
            policy = policy._replace(high_bytes=high)
    return found


def series(*amounts_mb: float, every: float = 40.0, **more: Any) -> list[Sample]:
    """Build samples of so many MB, far enough apart for every alert."""
    return [look(number * every, amount, **more) for number, amount in enumerate(amounts_mb)]


def texts(found: Sequence[Judgement]) -> list[str]:
    """Return all alert messages in order."""
    return [alert.message for one in found for alert in one.alerts]


def levels(found: Sequence[Judgement]) -> list[str]:
    """Return the level at each sample."""
    return [one.level for one in found]


def test_levels_rise_on_crossing_with_the_specs_messages() -> None:
    """Each threshold passed raises its alert once."""
    found = run(series(500, 1156.3, 1200, 2100, 2100))

    assert levels(found) == ["OK", "WARNING", "WARNING", "CRITICAL", "CRITICAL"]
    assert texts(found) == [
        "WARNING: Memory exceeded 1024MB at 1156.3MB",
        "CRITICAL: Memory exceeded 2048MB at 2100.0MB",
    ]


def test_a_jump_to_critical_raises_both_alerts() -> None:
    """Every threshold passed is told, the lowest first."""
    found = run(series(10, 3000))

    assert [(one.level, one.kind) for one in found[1].alerts] == [
        ("WARNING", "threshold"),
        ("CRITICAL", "threshold"),
    ]


def test_a_level_is_left_below_95_percent_of_its_threshold() -> None:
    """Noise within the band below a threshold changes nothing."""
    found = run(series(1030, 1000, 1030, 980, 1030, 972, 1030))

    assert levels(found) == ["WARNING"] * 5 + ["OK", "WARNING"]
    assert len(texts(found)) == 2


def test_a_level_is_told_again_when_the_memory_grew_by_a_quarter() -> None:
    """Growth within a level is news; less than a quarter is not."""
    found = run(series(1100, 1300, 1374, 1376, 1500))

    assert texts(found) == [
        "WARNING: Memory exceeded 1024MB at 1100.0MB",
        "WARNING: Memory exceeded 1024MB at 1376.0MB",
    ]


def test_no_level_is_told_twice_within_30_s() -> None:
    """Crossing again and growing again wait for 30 s."""
    found = run(series(1100, 100, 1100, 1500, 1500, 1500, every=9.0))

    assert [alert.at for one in found for alert in one.alerts] == [0.0, 36.0]


def test_the_way_down_is_not_told() -> None:
    """Falling from critical to warning raises no warning."""
    found = run(series(3000, 1500, 10))

    assert levels(found) == ["CRITICAL", "WARNING", "OK"]
    assert len(texts(found)) == 2


def test_page_cache_raises_no_level() -> None:
    """A group full of page cache whose high and max rise by thousands is OK."""
    busy = [
        look(
            at, 2048, reclaimable_bytes=2000 * MB, events=QUIET._replace(high=at * 99, max=at * 99)
        )
        for at in range(0, 60, 2)
    ]

    found = run(busy)

    assert set(levels(found)) == {"OK"}
    assert texts(found) == []


def test_accounting_current_judges_on_the_raw_number() -> None:
    """Whoever asks for the raw number gets its level."""
    full = [look(0, 2048, reclaimable_bytes=2000 * MB)]

    assert levels(run(full, Policy(accounting="current"))) == ["CRITICAL"]


def test_an_alert_names_both_numbers() -> None:
    """An alert carries what was judged and what is charged."""
    alert = run([look(3, 1500, reclaimable_bytes=300 * MB)])[0].alerts[0]

    assert alert == Alert(
        "WARNING", "WARNING: Memory exceeded 1024MB at 1200.0MB", "threshold",
        3, 1200 * MB, 1500 * MB,
    )  # fmt: skip


def test_an_oom_kill_at_the_own_limit_aborts_and_stays() -> None:
    """After the kernel's kill the level is ABORTED for good, and every threshold was passed."""
    found = run([look(0, 100), look(1, 2, events=OOM), look(2, 2, events=OOM)])

    assert levels(found) == ["OK", "ABORTED", "ABORTED"]
    assert texts(found) == [
        "WARNING: Memory exceeded 1024MB at 4096.0MB",
        "CRITICAL: Memory exceeded 2048MB at 4096.0MB",
        "CRITICAL: Memory exceeded 4096MB limit at 4096.0MB",
    ]
    assert found[1].alerts[-1].kind == "kill"
    assert found[1].alerts[-1].current_bytes == 4096 * MB
    assert found[-1].history.limit_passed


def test_each_kill_is_told_once() -> None:
    """Counters that stay where a kill left them are no news; the next kill is."""
    again = OOM._replace(oom=2, oom_kill=3)
    seen = [OOM, OOM, again, again]

    found = run([look(at * 60.0, 2, events=one) for at, one in enumerate(seen)])

    assert [one.alerts[-1].at for one in found if one.alerts] == [0.0, 120.0]


def test_an_oom_seen_before_its_kill_is_still_ours() -> None:
    """`oom` and `oom_kill` may rise in two samples."""
    found = run([look(0, 4000, events=OOM._replace(oom_kill=0)), look(0.1, 2, events=OOM)])

    assert levels(found) == ["CRITICAL", "ABORTED"]


@pytest.mark.parametrize(
    ("policy", "events", "own_oom"),
    [
        (Policy(), QUIET._replace(oom_kill=1), None),
        (Policy(), OOM, False),
        (Policy(enforcement="off"), OOM, None),
        (Policy(abort_on_memory_limit=False), OOM, None),
    ],
    ids=["ancestor", "nested", "no limits set", "no hard limit set"],
)
def test_a_kill_that_is_not_ours_does_not_abort(
    policy: Policy, events: MemoryEvents, own_oom: bool | None
) -> None:
    """An ancestor's, the host's or a nested budget's kill is told, and the level follows bytes."""
    found = judge(SPEC, policy, History.start(), look(0, 100, events=events), own_oom=own_oom)

    assert found.level == "OK"
    assert [(one.level, one.kind) for one in found.alerts] == [("CRITICAL", "kill")]
    assert "not at this budget's limit (100.0MB now, hard limit 4096MB)" in found.alerts[0].message


def test_local_events_prove_our_own_kill() -> None:
    """A caller who read memory.events.local overrules memory.events."""
    killed = look(0, 1, events=QUIET._replace(oom_kill=1))

    assert judge(SPEC, Policy(), History.start(), killed, own_oom=True).level == "ABORTED"


def test_kills_before_an_adoption_are_not_news() -> None:
    """A scope taken over with old counters starts clean."""
    found = judge(SPEC, Policy(), History.start(OOM), look(0, 1, events=OOM))

    assert (found.level, found.alerts) == ("OK", ())


def test_a_kernel_that_holds_the_limit_is_left_to_it() -> None:
    """At a limit that the kernel holds we neither kill nor claim that it was passed."""
    found = run(series(4096))

    assert levels(found) == ["CRITICAL"]
    assert found[0].actions == ()
    assert not any("limit" in text for text in texts(found))


def test_without_a_kernel_limit_we_kill_at_it() -> None:
    """A polled group is killed at the limit, again at each sample until it is gone."""
    found = run(series(4000, 4096, 4200, 10, every=0.1), POLLED)

    assert [one.actions for one in found] == [(), ("kill",), ("kill",), ()]
    assert levels(found) == ["CRITICAL", "ABORTED", "ABORTED", "ABORTED"]
    assert texts(found)[-1] == "CRITICAL: Memory exceeded 4096MB limit at 4096.0MB"
    assert found[1].alerts[-1].kind == "kill"


@pytest.mark.parametrize(
    "policy", [POLLED._replace(enforcement="off"), POLLED._replace(abort_on_memory_limit=False)]
)
def test_an_observer_tells_of_the_limit_and_does_nothing(policy: Policy) -> None:
    """Where nothing is to be killed the limit is an alert, and the level says it lives on."""
    found = run(series(5000), policy)

    assert levels(found) == ["CRITICAL"]
    assert found[0].actions == ()
    assert texts(found)[-1] == "CRITICAL: Memory exceeded 4096MB limit at 5000.0MB"
    assert found[0].alerts[-1].kind == "threshold"
    assert found[0].history.limit_passed


def test_missing_thresholds_are_no_thresholds() -> None:
    """None means no limit at that level, and no alert about 0 MB."""
    assert texts(run(series(9000), thresholds=Thresholds(None, None, None))) == []
    assert levels(run(series(5000), POLLED, Thresholds(None, None, 4096 * MB))) == ["ABORTED"]
    assert texts(run(series(5000), POLLED, Thresholds(None, None, 4096 * MB))) == [
        "CRITICAL: Memory exceeded 4096MB limit at 5000.0MB"
    ]


SMALL = Thresholds(100 * MB, 200 * MB, 400 * MB)
BRAKED = Policy(high_bytes=200 * MB)


def stalling(at: float) -> Sample:
    """Build the stall as measured: just above high, `high` rising, all waiting."""
    return Sample(
        at, 201 * MB, "cgroup", QUIET._replace(high=int(at * 3)), 20 * MB, 0, at, at, 0.0, 0
    )


def stall_for(seconds: int) -> list[Sample]:
    """Build a stall with a sample every 2 s."""
    return [stalling(at) for at in range(0, seconds + 1, 2)]


def test_a_stall_is_critical_whatever_the_judged_bytes_say() -> None:
    """181 MB that can't be reclaimed are a warning by bytes, and a stall by every other sign."""
    found = run(stall_for(10), BRAKED, SMALL)

    assert levels(found) == ["WARNING"] * 5 + ["CRITICAL"]
    assert found[-1].actions == ("release",)
    assert found[-1].alerts[-1].kind == "stall"
    assert found[-1].alerts[-1].judged_bytes == 181 * MB


def test_a_released_group_is_judged_by_its_bytes_again() -> None:
    """CRITICAL was for the stall; after the release the level is that of the bytes."""
    assert levels(run(stall_for(12), BRAKED, SMALL))[-1] == "WARNING"


def test_abort_ends_the_matter() -> None:
    """on_stall abort asks once, and the level is ABORTED from then on."""
    found = run(stall_for(60), BRAKED._replace(on_stall="abort"), SMALL)

    assert [one.actions for one in found if one.actions] == [("abort",)]
    assert levels(found)[-1] == "ABORTED"


def test_who_may_not_abort_releases() -> None:
    """abort_on_memory_limit=False never ends a subprocess, stalls included."""
    policy = BRAKED._replace(on_stall="abort", abort_on_memory_limit=False)

    found = run(stall_for(60), policy, SMALL)

    assert [one.actions for one in found if one.actions] == [("release",)]


def test_survivors_of_a_kill_can_still_stall() -> None:
    """With oom_group off the rest of the group must not hang on the brake for ever."""
    killed = [
        one._replace(events=QUIET._replace(high=int(one.at * 3), oom=1, oom_kill=1))
        for one in stall_for(20)
    ]

    found = run(killed, BRAKED, SMALL)

    assert [one.actions for one in found if one.actions] == [("release",)]
    assert set(levels(found)) == {"ABORTED"}


def test_details_are_read_from_the_first_threshold_or_the_brake_on() -> None:
    """What the judge needs is read when it could matter, and no sooner."""
    assert detail_above(SPEC, Policy()) == 1024 * MB - 1
    assert detail_above(SPEC, Policy(high_bytes=100 * MB)) == 98 * MB - 1
    assert detail_above(Thresholds(None, None, None), Policy()) is None


Move = tuple[float, int, int | None, tuple[int, int, int], tuple[float, float, float], bool]
"""Seconds since the last; MB charged; MB reclaimable; rises of high, max, oom; shares of some, full
and user time; frozen."""

counter = st.sampled_from([0, 0, 0, 1, 3])
dyadic = st.sampled_from([0.0, 0.0625, 0.5, 2.0, 2.0, 2.0, 2.0, 16.0, 64.0])
share = st.sampled_from([0.0, 0.0625, 0.75, 1.0])
moves = st.tuples(
    dyadic,
    st.sampled_from([0, 50, 94, 96, 99, 101, 130, 190, 199, 201, 250, 399, 400, 450]),
    st.none() | st.sampled_from([0, 1, 20, 150, 500]),
    st.tuples(st.sampled_from([0, 3, 3, 3]), counter, st.sampled_from([0] * 9 + [1])),
    st.tuples(share, share, share),
    st.booleans() | st.just(False) | st.just(False),
)
stall_moves = st.tuples(
    st.just(2.0), st.just(201), st.just(1), st.just((3, 0, 0)), st.just((1.0, 1.0, 0.0)),
    st.just(False),
)  # fmt: skip
calm_moves = st.tuples(
    st.just(2.0), st.just(50), st.none(), st.just((0, 0, 0)), st.just((0.0, 0.0, 0.5)),
    st.just(False),
)  # fmt: skip


stretches = st.lists(stall_moves, min_size=6, max_size=12) | st.lists(
    calm_moves, min_size=17, max_size=20
)
any_life = st.lists(st.lists(moves, max_size=12) | stretches, max_size=6)
troubled_life = st.lists(stretches, min_size=3, max_size=8)


@st.composite
def histories(draw: st.DrawFn, life: st.SearchStrategy[list[list[Move]]]) -> list[Sample]:
    """Draw a life: free moves, with stretches of stall and calm between them."""
    parts = draw(life)
    drawn = [move for part in parts for move in part]
    no_psi, no_events = draw(st.booleans()), draw(st.sampled_from([True, False, False]))
    at = list(accumulate((move[0] for move in drawn), initial=0.0))[1:]
    high, maxed, oom = (list(accumulate(move[3][i] for move in drawn)) for i in range(3))
    some, full, user = (list(accumulate(m[0] * m[4][i] for m in drawn)) for i in range(3))
    return [
        Sample(
            at=at[i],
            current_bytes=move[1] * MB,
            metric="cgroup",
            events=None if no_events else MemoryEvents(high[i], maxed[i], oom[i], oom[i], 0),
            reclaimable_bytes=None if move[2] is None else move[2] * MB,
            some_seconds=None if no_psi else some[i],
            full_seconds=None if no_psi else full[i],
            user_seconds=user[i],
            frozen=move[5],
        )
        for i, move in enumerate(drawn)
    ]


optional_thresholds = st.sampled_from(
    [SMALL, Thresholds(None, 200 * MB, 400 * MB), Thresholds(100 * MB, None, None)]
)
policies = st.builds(
    Policy,
    st.sampled_from(values_of(Accounting)),
    st.sampled_from(values_of(StallPolicy)),
    st.sampled_from([4.0, 10.0]),
    st.booleans(),
    st.sampled_from([None, 200 * MB, 200 * MB]),
    st.sampled_from(values_of(Enforcement)),
    st.booleans(),
)


def any_run(test: Callable[[list[Sample], Policy, Thresholds], None]) -> Callable[[], None]:
    """Run a test over drawn lives. No deadline: a busy machine is no failure."""
    return settings(deadline=None)(given(histories(any_life), policies, optional_thresholds)(test))


@settings(deadline=None)
@given(histories(any_life) | histories(troubled_life), policies | st.just(BRAKED))
def test_there_are_at_most_two_releases_and_one_return(
    samples: list[Sample], policy: Policy
) -> None:
    """The brake is released twice at most, and set again once at most, in between."""
    found = run(samples, policy, SMALL)

    order = [act for one in found for act in one.actions if act in ("release", "brake")]
    assert order in ([], ["release"], ["release", "brake"], ["release", "brake", "release"])


@settings(deadline=None)
@given(histories(troubled_life), st.lists(st.booleans(), min_size=200, max_size=200))
def test_a_supervisor_that_fails_at_random_still_gets_at_most_two_releases(
    samples: list[Sample], obeyed: list[bool]
) -> None:
    """Actions that came to nothing lead to no third release and no second return."""
    policy, history = BRAKED, History.start()
    asked: list[str] = []
    for sample, obey in zip(samples, obeyed, strict=False):
        found = judge(SMALL, policy, history, sample)
        history = found.history
        asked += found.actions
        if obey and found.actions:
            high = BRAKED.high_bytes if found.actions == ("brake",) else None
            policy = policy._replace(high_bytes=high)

    assert asked.count("release") <= 2
    assert asked.count("brake") <= 1


@any_run
def test_no_threshold_is_told_twice_within_30_s(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """Whatever happens, each threshold's alerts are 30 s apart."""
    told: dict[str, float] = {}
    for alert in (alert for one in run(samples, policy, thresholds) for alert in one.alerts):
        if alert.kind in ("threshold", "kill"):
            key = alert.message.split(" at ")[0]
            assert alert.at - told.get(key, alert.at - AGAIN_SECONDS) >= AGAIN_SECONDS
            told[key] = alert.at


@any_run
def test_enforcement_off_asks_for_nothing(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """Observing has no effect on the observed, and is never called an abort."""
    found = run(samples, policy._replace(enforcement="off"), thresholds)

    assert all(one.actions == () for one in found)
    assert "ABORTED" not in levels(found)


@any_run
def test_who_may_not_abort_never_kills(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """abort_on_memory_limit=False rules out kill and abort."""
    found = run(samples, policy._replace(abort_on_memory_limit=False), thresholds)

    assert not {"kill", "abort"} & {act for one in found for act in one.actions}


@any_run
def test_aborted_needs_a_kill_or_an_abort_and_stays(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """ABORTED begins with a kill seen or an end ordered, and never ends."""
    before = False
    for sample, one in zip(samples, run(samples, policy, thresholds), strict=True):
        aborted = one.level == "ABORTED"
        killed = sample.events is not None and bool(sample.events.oom_kill)
        assert aborted or not before
        assert before or not aborted or killed or {"kill", "abort"} & set(one.actions)
        before = aborted


@settings(deadline=None)
@given(
    st.integers(0, 1 << 50),
    st.none() | st.integers(0, 1 << 50),
    st.sampled_from(values_of(Accounting)),
)
def test_judged_bytes_lie_within_what_is_charged(
    current: int, reclaimable: int | None, accounting: Accounting
) -> None:
    """No accounting makes up bytes."""
    sample = Sample(0.0, current, "cgroup", reclaimable_bytes=reclaimable)

    assert 0 <= judged_bytes(sample, accounting) <= current


@any_run
def test_every_action_has_an_alert(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """Nothing is done in silence; a kill repeated on what is left is told once."""
    killing = False
    for one in run(samples, policy, thresholds):
        kinds = {alert.kind for alert in one.alerts}
        if "kill" in one.actions:
            assert killing or "kill" in kinds
            killing = True
        if {"release", "abort", "freeze"} & set(one.actions):
            assert "stall" in kinds
        if "brake" in one.actions:
            assert "action" in kinds


@any_run
def test_only_differences_of_time_matter(
    samples: list[Sample], policy: Policy, thresholds: Thresholds
) -> None:
    """The same life a day later gives the same levels, actions and messages."""
    later = [sample._replace(at=sample.at + 86400.0) for sample in samples]

    first, second = run(samples, policy, thresholds), run(later, policy, thresholds)

    assert levels(first) == levels(second)
    assert texts(first) == texts(second)
    assert [one.actions for one in first] == [one.actions for one in second]


@settings(deadline=None)
@given(
    st.sampled_from([100, 200]),
    st.lists(st.floats(0.951, 0.999), min_size=1),
    st.sampled_from(values_of(Enforcement)),
)
def test_the_band_below_a_threshold_changes_no_level(
    threshold: int, noise: list[float], enforcement: Enforcement
) -> None:
    """Once a threshold is passed, anything within 5 % below it keeps the level, in silence."""
    crossed = series(threshold * 1.001, *(threshold * part for part in noise))

    found = run(crossed, Policy(enforcement=enforcement), SMALL)

    assert len(set(levels(found))) == 1
    assert all(not one.alerts for one in found[1:])
