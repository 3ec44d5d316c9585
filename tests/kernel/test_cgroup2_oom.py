"""At the hard limit: who dies, what the kernel counts, and what the outcome says of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cgmem
from cgmem.contract import MB, Alert, Limits
from cgmem_backends.cgroup2 import Cgroup2Backend
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_the_verdict_of_a_leak(tmp_path: Path) -> None:
    """A leak ends by the kernel's hand, with an alert, cause, counters and the limit as peak."""
    alerts: list[Alert] = []
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        process = cgmem.spawn(
            real.python(real.LEAK, 400),
            supervisor=supervisor,
            on_alert=lambda _, alert: alerts.append(alert),
        )
        outcome = process.outcome(PATIENCE)

    assert until(lambda: bool(alerts))
    assert alerts[-1].kind == "kill"
    assert outcome.warnings[-1] == "CRITICAL: Memory exceeded 64MB limit at 64.0MB"
    assert outcome.cause == "hard_limit"
    assert outcome.signal == 9
    assert outcome.returncode == -9
    assert outcome.aborted
    assert outcome.events.oom is not None
    assert outcome.events.oom >= 1
    assert outcome.events.oom_kill is not None
    assert outcome.events.oom_kill >= 1
    assert outcome.peak_mb == 64.0
    assert "64" in outcome.message
    assert not outcome.counters_cached


def test_a_full_speed_allocator_does_not_pass_the_hard_limit() -> None:
    """memory.peak of an OOM-killed scope is at most memory.max: the overshoot is 0."""
    limits = Limits(high_bytes=48 * MB, max_bytes=64 * MB)
    scope, effective = Cgroup2Backend().open_scope(real.a_record(), limits)
    # A brake in the way would only slow it: what counts is the speed at the limit.
    scope.set_limits(limits._replace(high_bytes=None))
    with scope.start(real.python(real.LEAK, 400), {}) as process:
        status = process.wait(PATIENCE)
    counters = scope.counters()
    assert until(scope.close)
    scope.detach()

    assert status == -9
    assert effective.max_bytes == 64 * MB
    assert counters.local_events is not None
    assert counters.local_events.oom
    assert counters.ancestors_with_oom == ()
    assert not counters.cached
    assert counters.peak_bytes is not None
    assert 60 * MB < counters.peak_bytes <= 64 * MB


FAMILY = 'sleep 600 & a=$!; sleep 600 & b=$!; "$@"; echo survived $?; kill $a $b; wait; exit 7'


def test_the_whole_group_dies_by_default(tmp_path: Path) -> None:
    """With memory.oom.group the wrapping shell and its other children die with the leaker."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        outcome = cgmem.run(
            ["/bin/sh", "-c", FAMILY, "sh", *real.python(real.LEAK, 400)],
            supervisor=supervisor,
            capture_output=True,
            text=True,
        )

    assert outcome.cause == "hard_limit"
    assert outcome.stdout == ""
    assert outcome.events.oom_kill is not None
    assert outcome.events.oom_kill >= 1
    assert outcome.events.oom_group_kill in (1, None)


def test_only_the_leaker_dies_without_the_group(tmp_path: Path) -> None:
    """With oom_group off the shell lives on, sees 137, and its own exit is the cause."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        outcome = cgmem.run(
            ["/bin/sh", "-c", FAMILY, "sh", *real.python(real.LEAK, 400)],
            supervisor=supervisor,
            capture_output=True,
            text=True,
            oom_group=False,
        )

    assert outcome.cause == "exited"
    assert outcome.exit_code == 7
    assert outcome.stdout == "survived 137\n"
    assert outcome.events.oom_kill == 1
    assert outcome.events.oom_group_kill in (0, None)
    assert "OOM killer killed a process in it, at the hard limit" in outcome.message


def test_every_descendant_counts(tmp_path: Path) -> None:
    """A grandchild that left the session and its parent is charged to, and ends with, the scope."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        away = real.LEAK.replace("sys.argv[1]", "'400'")
        process = cgmem.spawn(real.python(real.AWAY, 0, away), supervisor=supervisor)
        directory = real.cgroup_of(process.pid)
        outcome = process.outcome(PATIENCE)

    assert outcome.cause == "hard_limit"
    assert outcome.signal == 9
    assert not directory.exists()


def test_a_burst_between_two_ticks_counts(tmp_path: Path) -> None:
    """Memory taken and given back between two looks is in peak_mb, from memory.peak."""
    burst = real.LEAK + "held.clear()\n"
    with real.supervising(
        tmp_path, tick=real.LONG_TICK, warning="200M", critical="300M", max="400M"
    ) as supervisor:
        outcome = cgmem.run(
            real.python(burst, 100), supervisor=supervisor, stdout=subprocess.DEVNULL
        )

    assert outcome.cause == "exited"
    assert outcome.warnings == ()
    assert 100 <= outcome.peak_mb <= 140
    assert outcome.peak_charged_mb is not None
    assert outcome.peak_mb <= logged_peak_mb(tmp_path) == outcome.peak_charged_mb


def test_a_burst_to_the_limit_is_told_with_its_kill_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing to the limit within one tick: the kernel's wake-up tells, not the tick."""
    told: list[tuple[float, Alert]] = []
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        process = cgmem.spawn(
            real.python(real.LEAK, 400),
            supervisor=supervisor,
            on_alert=lambda _, alert: told.append((time.monotonic(), alert)),
        )
        assert until(lambda: process.poll() is not None)
        ended = time.monotonic()
        outcome = process.outcome(PATIENCE)

    kill_at, kill = next((at, alert) for at, alert in told if alert.kind == "kill")
    with capsys.disabled():
        print(f"\nburst: told {(kill_at - ended) * 1000:.1f} ms after the end")  # noqa: T201  (the number that is asked for)
    assert kill.message == "CRITICAL: Memory exceeded 64MB limit at 64.0MB"
    assert outcome.peak_mb == 64.0
    assert 60 < logged_peak_mb(tmp_path) <= 64


def logged_peak_mb(tmp_path: Path) -> float:
    """Return `cgmem.peak_charged_mb` of the one line in the stats log."""
    line = (tmp_path / "logs" / "subprocess-stats.jsonl").read_text()
    return float(json.loads(line)["cgmem"]["peak_charged_mb"])


PARENT = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 30.0,
                         "warning": "100M", "critical": "200M", "max": "400M"})
try:  # it shares the limit with the two, who are slow to die: the next choice would be itself
    Path("/proc/self/oom_score_adj").write_text("-1000")
except PermissionError:
    pass
both = [cgmem.spawn(sys.argv[2:], supervisor=supervisor, stdout=-3) for _ in range(2)]
for outcome in [process.outcome(90) for process in both]:
    say(cause=outcome.cause, message=outcome.message, aborted=outcome.aborted,
        warning=outcome.warnings[-1], effective=outcome.limits.effective_max_bytes,
        oom=outcome.events.oom, oom_kill=outcome.events.oom_kill)
supervisor.close()
"""


def test_an_ancestors_limit_is_told_from_the_own(tmp_path: Path) -> None:
    """Two that only together pass a limit above them end by `parent_limit`, told whose it is."""
    leak = real.python(real.CHOSEN + real.LEAK, 300)
    with real.stage(memory_max=str(128 * MB)) as directory:
        with real.Script(PARENT, tmp_path, *leak, inside=directory) as script:
            both = [script.heard(), script.heard()]

    for said in both:
        assert said["cause"] == "parent_limit"
        assert f"{directory}, memory.max 128M" in said["message"]
        assert "not at this budget's limit" in said["warning"]
        assert said["effective"] == 128 * MB
        assert said["oom"] == 0
        assert said["oom_kill"] >= 1
        assert not said["aborted"]


NESTED = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 30.0,
                         "warning": "16M", "critical": "33550336B", "max": "32M"})
outcome = cgmem.run(sys.argv[2:], supervisor=supervisor)
say(cause=outcome.cause)
supervisor.close()
sys.exit(5)
"""


def test_an_inner_budgets_oom_is_not_the_outers(tmp_path: Path) -> None:
    """A supervisor inside a scope, whose own subprocess hits its limit, has simply exited."""
    leak = real.python(real.LEAK, 200)
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(256)) as supervisor:
        outcome = cgmem.run(
            [sys.executable, "-c", real.PREAMBLE + NESTED, str(tmp_path), *leak],
            supervisor=supervisor,
            capture_output=True,
            text=True,
            env=real.environment(),
        )

    assert outcome.stdout == '{"cause": "hard_limit"}\n'
    assert outcome.cause == "exited"
    assert outcome.exit_code == 5
    assert "nested budget" in outcome.message
