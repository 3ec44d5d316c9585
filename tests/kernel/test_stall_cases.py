"""Leaks that memory.high holds: each is noticed, and let go, ended or frozen as the policy says."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

import cgmem
from cgmem.supervising.outcome import Outcome
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real
from tests.kernel.conftest import Recorded, policy
from tests.kernel.workloads import FULL, LEAKS, SHORT, Budget

SIZES = [
    pytest.param(SHORT, id="short"),
    pytest.param(FULL, id="full", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
]


class Played(NamedTuple):
    """What came of a leak under a policy, and what was seen of it before its end."""

    outcome: Outcome
    charged_bytes: int = 0
    level: str = ""


def leak_settings(on_stall: str) -> dict[str, object]:
    """Return a supervisor's settings for a leak whose stall is met in a policy's way."""
    return {**SHORT.settings(), "on_stall": on_stall}


def play_abort(tmp_path: Path) -> Played:
    """A leak that is aborted once it stalls."""
    with real.supervising(tmp_path, **leak_settings("abort")) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 800), supervisor=supervisor)
        return Played(process.outcome(PATIENCE))


def play_freeze(tmp_path: Path) -> Played:
    """A leak that is frozen once it stalls, looked at, and killed."""
    with real.supervising(tmp_path, **leak_settings("freeze")) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 800), supervisor=supervisor)
        group = real.cgroup_of(process.pid)
        assert until(lambda: real.events(group, "cgroup.events")["frozen"] == 1)
        charged = int(real.read(group, "memory.current"))
        level = process.check_memory()[1]
        process.kill()
        return Played(process.outcome(PATIENCE), charged, level)


def play_hold(tmp_path: Path) -> Played:
    """A leak that stays at the brake after its stall was told, until we end it."""
    told: list[str] = []
    with real.supervising(tmp_path, **leak_settings("hold")) as supervisor:
        process = cgmem.spawn(
            real.python(real.LEAK, 800),
            supervisor=supervisor,
            on_alert=lambda _, alert: told.append(alert.kind),
        )
        assert until(lambda: "stall" in told)
        told_at = time.monotonic()
        assert until(lambda: time.monotonic() - told_at > 2 * SHORT.stall_after)
        process.kill()
        return Played(process.outcome(PATIENCE))


def play_stopped(tmp_path: Path) -> Played:
    """A leak that gets SIGSTOP at the brake."""
    settings = {**leak_settings("abort"), "stall_after": 4.0}  # the stop falls within one span
    with real.supervising(tmp_path, **settings) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 800), supervisor=supervisor)
        group = real.cgroup_of(process.pid)
        brake = SHORT.critical_mb << 20
        assert until(lambda: int(real.read(group, "memory.current")) >= brake)
        process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        assert until(lambda: time.monotonic() - stopped_at > 8.0)
        process.kill()
        return Played(process.outcome(PATIENCE))


SCENES = {"abort": play_abort, "freeze": play_freeze, "hold": play_hold, "stopped": play_stopped}


@pytest.fixture(scope="module", autouse=True)
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Played]]:
    """Play all scenes at once, since they wait at the brake; give each one's outcome."""
    real.need_cgroup2()
    with ThreadPoolExecutor(len(SCENES)) as pool:
        futures = {
            name: pool.submit(play, tmp_path_factory.mktemp(name)) for name, play in SCENES.items()
        }
        yield lambda name: futures[name].result()


@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("budget", SIZES)
@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_released_and_the_hard_limit_decides(
    name: str, budget: Budget, recorded: Recorded
) -> None:
    """Whatever leaks is told from work, the brake is lifted, and the kernel ends it at max."""
    series, outcome = recorded(name, budget)

    if policy(name) == "hold":
        assert outcome.stalls == ()
        return
    assert outcome.cause == "hard_limit"
    if name == "leak-several" and series.options["thp"] == "always" and not outcome.stalls:
        return  # with huge pages four of them may come to a near limit in time by themselves
    assert [stall["action"] for stall in outcome.stalls] == ["release"]
    assert outcome.stalls[0]["at"] >= budget.stall_after
    assert any("WARNING" in text for text in outcome.warnings)
    assert any("Stalled" in text for text in outcome.warnings)


def test_the_abort_policy_ends_a_stall(played: Callable[[str], Played]) -> None:
    """With on_stall=abort the leak gets SIGTERM at the brake, far below the hard limit."""
    outcome = played("abort").outcome

    assert outcome.cause == "stalled"
    assert outcome.signal == 15
    assert outcome.aborted
    assert [stall["action"] for stall in outcome.stalls] == ["abort"]
    assert outcome.events.oom_kill == 0
    assert outcome.peak_mb < SHORT.critical_mb * 2


def test_the_freeze_policy_keeps_a_stalled_group_for_a_look(
    played: Callable[[str], Played],
) -> None:
    """With on_stall=freeze the group stops, keeps its memory, and can still be killed."""
    outcome, charged, level = played("freeze")

    assert charged >= SHORT.critical_mb << 20
    assert level == "CRITICAL"
    assert [stall["action"] for stall in outcome.stalls] == ["freeze"]
    assert outcome.signal == 9


def test_the_hold_policy_tells_and_leaves_it_to_the_kernel(
    played: Callable[[str], Played],
) -> None:
    """With on_stall=hold a stall is one alert, and the leak stays where it is."""
    outcome = played("hold").outcome

    assert [stall["action"] for stall in outcome.stalls] == ["hold"]
    assert outcome.cause == "signalled", "the test ended it"
    assert outcome.events.oom_kill == 0


def test_a_stopped_job_is_no_stall(played: Callable[[str], Played]) -> None:
    """A job under SIGSTOP at the brake is not told, however long, and its time doesn't count."""
    outcome = played("stopped").outcome

    assert outcome.stalls == ()
    assert outcome.cause == "signalled"
