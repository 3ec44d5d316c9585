"""A leak that memory.high holds: noticed, and ended or let go as the policy says."""

from __future__ import annotations

from pathlib import Path

import pytest

import cgmem
from tests.kernel import real_cgroups as real

STALL_AFTER = 4.0
SETTINGS = {"warning": "24M", "critical": "48M", "max": "192M", "stall_after": STALL_AFTER}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_a_released_brake_lets_the_hard_limit_decide(tmp_path: Path) -> None:
    """By default the brake is lifted after stall_after, and the kernel ends the leak at max."""
    with real.supervising(tmp_path, tick=0.5, on_stall="release", **SETTINGS) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 800), supervisor=supervisor)
        outcome = process.outcome(real.PATIENCE)

    assert outcome.cause == "hard_limit"
    assert [stall["action"] for stall in outcome.stalls] == ["release"]
    assert outcome.stalls[0]["at"] >= STALL_AFTER
    assert outcome.duration_seconds < real.PATIENCE
    assert any("WARNING" in text for text in outcome.warnings)


def test_the_abort_policy_ends_a_stall(tmp_path: Path) -> None:
    """With on_stall=abort the leak gets SIGTERM at the brake, far below the hard limit."""
    with real.supervising(tmp_path, tick=0.5, on_stall="abort", **SETTINGS) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 800), supervisor=supervisor)
        outcome = process.outcome(real.PATIENCE)

    assert outcome.cause == "stalled"
    assert outcome.signal == 15
    assert outcome.aborted
    assert outcome.events.oom_kill == 0
    assert outcome.peak_mb < 192
