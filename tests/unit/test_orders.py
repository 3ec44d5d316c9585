"""Orders to a live scope, on fakes: what is written, in which order, and what is refused."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from cgmem import selector
from cgmem.config.thresholds import Given
from cgmem.contract import MB, Limits, Thresholds
from cgmem.errors import CgroupError, ConfigurationError, UnknownIdError
from cgmem.inspecting import orders
from cgmem.inspecting.orders import Target
from tests.unit.fakes import NOBODY, FakeBackend, FakeClock, FakeScope, a_record


@pytest.fixture
def scope() -> FakeScope:
    """A scope under 100/200/400 MB."""
    record = a_record()._replace(
        supervisor_pid=os.getpid(),
        warning_bytes=100 * MB,
        critical_bytes=200 * MB,
        max_bytes=400 * MB,
        high_bytes=200 * MB,
    )
    made = FakeScope(FakeClock(), record)
    made.budget = Limits(200 * MB, 400 * MB, 7 * MB)
    return made


@pytest.fixture
def to(scope: FakeScope) -> Target:
    """The same as a target."""
    return Target(FakeBackend(FakeClock()), scope)


def given(**sizes: int | None) -> dict[str, Given]:
    """Sizes in MB as if from flags."""
    return {
        key: Given(None if size is None else size * MB, f"--{key}") for key, size in sizes.items()
    }


def test_set_changes_what_is_named(scope: FakeScope, to: Target) -> None:
    """The kernel's limits come first, then the record; swap and the rest stay."""
    budget = orders.set_budget(to, given(max=800))
    after = Thresholds(100 * MB, 200 * MB, 800 * MB)

    assert budget.after == after
    assert scope.asked("set_limits") == [Limits(200 * MB, 800 * MB, 7 * MB, oom_group=False)]
    assert scope.rewritten is not None
    assert scope.rewritten.max_bytes == 800 * MB
    names = [name for name, _ in scope.calls]
    assert names.index("set_limits") < names.index("rewrite")


def test_set_puts_no_brake_on_an_orphan(scope: FakeScope, to: Target) -> None:
    """Nobody would lift it; whoever adopts it finds it in the record."""
    scope.record = scope.record._replace(supervisor_pid=NOBODY)
    orders.set_budget(to, given(critical=300))

    assert scope.asked("set_limits")[-1][:2] == (None, 400 * MB)
    assert scope.record.high_bytes == 300 * MB


def test_set_refuses_thresholds_that_do_not_rise(scope: FakeScope, to: Target) -> None:
    """The error names both values and where they are from; nothing is written."""
    with pytest.raises(ConfigurationError, match=r"200M \(as it is\).*150M \(--max\)"):
        orders.set_budget(to, given(max=150))

    assert scope.asked("set_limits") == []
    assert scope.rewritten is None


def test_set_refuses_to_end_it_at_once(scope: FakeScope, to: Target) -> None:
    """A hard limit below what is in use needs force."""
    scope.current_bytes = 300 * MB
    lower = given(max=250)
    with pytest.raises(ConfigurationError, match="would end at once"):
        orders.set_budget(to, lower)
    budget = orders.set_budget(to, lower, force=True)

    assert budget.after.max_bytes == 250 * MB


def test_set_leaves_an_observed_scope_without_limits(scope: FakeScope, to: Target) -> None:
    """Where the kernel was asked for nothing, only the thresholds change."""
    scope.budget = Limits()
    scope.record = scope.record._replace(high_bytes=None)
    budget = orders.set_budget(to, given(warning=50))

    assert budget.observed
    assert scope.asked("set_limits") == []
    assert scope.rewritten is not None
    assert scope.rewritten.warning_bytes == 50 * MB


def refused(text: str) -> None:
    """Nothing may fail on the way."""
    raise AssertionError(text)


def test_kill_waits_for_the_grace(scope: FakeScope, to: Target) -> None:
    """SIGTERM is enough for an obedient group; nobody forks past it, and no brake holds it up."""
    assert orders.kill(to, 5.0, refused, pause=lambda _: None) == (1, False, True)
    assert scope.asked("signal") == [signal.SIGTERM, signal.SIGCONT]
    assert scope.asked("freeze") == [True, False]
    assert scope.asked("set_limits")[-1].high_bytes is None


def test_kill_forces_what_stays(scope: FakeScope, to: Target) -> None:
    """What ignores SIGTERM gets SIGKILL when the grace is over."""
    scope.term_obeyed = False
    slept: list[float] = []

    assert orders.kill(to, 1.0, refused, pause=slept.append) == (1, True, True)
    assert sum(slept) == pytest.approx(1.0, abs=0.05)
    assert scope.asked("signal")[-1] == signal.SIGKILL


def test_kill_where_sigterm_is_refused(scope: FakeScope, to: Target) -> None:
    """What can't be asked to end is told, and ended all the same."""
    scope.term_obeyed = False
    scope.errors["freeze"] = CgroupError(OSError(errno.EPERM, "no"), "writing", "cgroup.freeze")
    told: list[str] = []

    assert orders.kill(to, 1.0, told.append, pause=lambda _: None) == (1, True, True)
    assert told == ["writing: no (cgroup.freeze)"] * 2


def test_kill_of_what_vanishes(scope: FakeScope, to: Target) -> None:
    """A scope that is removed meanwhile has ended."""
    scope.vanish()

    assert orders.kill(to, 1.0, refused, pause=lambda _: None)[2] is True


def test_freeze_says_when_it_does_not_come(scope: FakeScope, to: Target) -> None:
    """A group that does not stop in time is told as such."""
    assert orders.freeze(to, True, pause=lambda _: None) is False
    assert orders.freeze(to, False, pause=lambda _: None) is True
    assert scope.asked("freeze") == [True, False]


@pytest.fixture
def two_backends(monkeypatch: pytest.MonkeyPatch) -> list[FakeScope]:
    """Scopes with the ids a, b, b at the locations /1, /2, /3."""
    scopes = []
    for number, name in enumerate("abb", start=1):
        scopes.append(FakeScope(FakeClock(), a_record(name)))
        scopes[-1].location = f"/{number}"
    backend = FakeBackend(FakeClock())
    backend.opened = list(scopes)
    monkeypatch.setattr(selector, "NAMES", ("fake",))
    monkeypatch.setattr(selector, "load", lambda _name: backend)
    return scopes


def test_target_by_id_and_location(two_backends: list[FakeScope]) -> None:
    """An id names one scope, a location too; every scope looked at is detached at the end."""
    found: list[Any] = []
    for name in ("a", "/3"):
        with orders.target(name) as to:
            found.append(to.scope.location)

    assert found == ["/1", "/3"]
    assert all(scope.detached == 4 for scope in two_backends)


def test_target_that_is_not_one(two_backends: list[FakeScope]) -> None:
    """No such id names those there are, two of one id name their locations."""
    with pytest.raises(UnknownIdError) as missing, orders.target("c"):
        pass
    with pytest.raises(ConfigurationError) as several, orders.target("b"):
        pass

    assert missing.value.hint == "one of: a, b, b"
    assert several.value.hint == "name one by its location: /2, /3"
