"""Series recorded on real kernels (tests/kernel/record.py), judged again: what must come of each.

docs/stalls.md has the measurements that these recordings hold.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgmem.contract import StallPolicy
from tests.helpers.series import Series, judged, load, measurements

SERIES = {path.stem: load(path) for path in sorted((Path(__file__).parent / "series").iterdir())}

STALLS = {name for name in SERIES if name.startswith(("leak", "tmpfs"))}
BLIND = {"leak-beside-spin-psi-off"}
"""Without PSI only an idle CPU tells of a stall, and here another process keeps one busy."""
PARTLY = {"leak-beside-spin"}
"""One task stalls and another works: nothing is ended or frozen for that."""
THRASHING = {"mapped"}
HONEST = set(SERIES) - STALLS - THRASHING


def seconds_at_the_brake(series: Series, until: float) -> float:
    """Return how long before `until` memory.high was first reached."""
    high = series.thresholds.critical_bytes or 0
    began = series.looks[0].sample.at
    times = [one.sample.at - began for one in series.looks if one.sample.current_bytes >= high]
    return until - times[0]


def test_every_case_is_there() -> None:
    """Leaks of every kind, honest work of every kind, and thrashing were recorded."""
    assert len(STALLS - BLIND) >= 8
    assert len(HONEST) >= 8
    assert set(SERIES) >= BLIND | PARTLY | THRASHING
    assert {bool(series.options["psi"]) for series in SERIES.values()} == {True, False}
    assert {series.kernel.split(".")[0] for series in SERIES.values()} == {"6"}


@pytest.mark.parametrize("name", sorted(STALLS - BLIND))
def test_a_recorded_leak_is_released(name: str) -> None:
    """Within 25 s at the brake, and not before stall_after, the default policy lets go."""
    series = SERIES[name]
    found = judged(series)

    [(at, action)] = found.actions
    assert action == "release"
    assert series.stall_after <= seconds_at_the_brake(series, at) + series.tick
    assert seconds_at_the_brake(series, at) <= 25
    assert found.level == "CRITICAL"
    assert sum(alert.kind == "stall" for alert in found.alerts) == 1


@pytest.mark.parametrize("policy", ["abort", "freeze"])
@pytest.mark.parametrize("name", sorted(STALLS - BLIND))
def test_a_recorded_leak_is_ended_where_nobody_works(name: str, policy: StallPolicy) -> None:
    """`abort` and `freeze` act on a full stall, and only tell of one beside a working task."""
    found = judged(SERIES[name], policy)

    assert [action for _, action in found.actions] == ([] if name in PARTLY else [policy])
    assert "stall" in found.kinds()


def test_what_cannot_be_told_is_not_claimed() -> None:
    """Without PSI a leak beside a spinning process raises the thresholds' alerts alone."""
    for name in BLIND:
        found = judged(SERIES[name])

        assert found.actions == ()
        assert found.kinds() == {"threshold"}
        assert found.level == "CRITICAL"


@pytest.mark.parametrize("stall_after", [4.0, 10.0])
@pytest.mark.parametrize("policy", ["release", "abort"])
@pytest.mark.parametrize("name", sorted(HONEST))
def test_recorded_honest_work_is_no_stall(
    name: str, policy: StallPolicy, stall_after: float
) -> None:
    """No action, and no alert but for thresholds that memory which can't be reclaimed passed."""
    found = judged(SERIES[name]._replace(stall_after=stall_after), policy)

    assert found.actions == ()
    assert found.kinds() <= {"threshold"}


@pytest.mark.parametrize("name", ["build", "metadata", "read", "shared", "write"])
def test_recorded_page_cache_raises_nothing(name: str) -> None:
    """What the kernel can take back, and what is shared, is no alarm at all."""
    assert judged(SERIES[name]).alerts == ()


@pytest.mark.parametrize("name", sorted(THRASHING))
def test_recorded_thrashing_is_named(name: str) -> None:
    """One WARNING of its own kind, no action, and no stall."""
    found = judged(SERIES[name], "abort")

    assert found.actions == ()
    assert [alert.kind for alert in found.alerts] == ["thrashing"]
    assert found.level == "OK"


@settings(deadline=None)
@given(st.sampled_from(sorted(HONEST | THRASHING)), st.data())
def test_honest_work_is_no_stall_whichever_looks_are_missed(name: str, data: st.DataObject) -> None:
    """A busy supervisor that comes late or not at all turns no work into a stall."""
    series = SERIES[name]
    kept = data.draw(st.lists(st.booleans(), min_size=len(series.looks)).map(tuple))
    looks = tuple(look for look, keep in zip(series.looks, kept, strict=False) if keep)
    if looks:
        found = judged(series._replace(looks=looks), "abort")

        assert found.actions == ()
        assert "stall" not in found.kinds()


@settings(deadline=None)
@given(st.sampled_from(sorted(STALLS)), st.integers(1), st.floats(60, 1e6))
def test_a_suspended_machine_is_no_stall(name: str, place: int, asleep: float) -> None:
    """An hour asleep counts for nothing: what is told is told after stall_after seconds awake."""
    series = SERIES[name]
    cut = place % len(series.looks) or 1
    awake, later = series.looks[:cut], series.looks[cut:]
    shifted = tuple(
        look._replace(sample=look.sample._replace(at=look.sample.at + asleep)) for look in later
    )
    found = judged(series._replace(looks=awake + shifted))

    slept_from = awake[-1].sample.at - series.looks[0].sample.at
    for at, _ in found.actions:
        assert (at if at <= slept_from else at - asleep) >= series.stall_after


def test_the_documented_measurements_are_the_recordings() -> None:
    """docs/stalls.md has the table that these files give."""
    text = (Path(__file__).parents[2] / "docs" / "stalls.md").read_text()

    assert measurements(SERIES) in text
