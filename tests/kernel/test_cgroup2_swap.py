"""Swap beside a budget: none by default, as much as asked for else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cgmem
from tests.kernel import real_cgroups as real


@pytest.mark.usefixtures("swap")
def test_swap_does_not_widen_the_hard_limit(tmp_path: Path) -> None:
    """With swap on and none allowed, a leak past memory.max ends; the message names --swap."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        outcome = cgmem.run(
            real.python(real.LEAK, 96), supervisor=supervisor, stdout=subprocess.DEVNULL
        )

    assert outcome.cause == "hard_limit"
    assert outcome.limits.swap_max_bytes == 0
    assert not outcome.limits.soft
    assert "--swap" in outcome.message


@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("allowed", ["max", "150M"])
def test_swap_that_is_allowed_lets_it_through(tmp_path: Path, allowed: str) -> None:
    """The same leak ends well where its swap is allowed."""
    with real.supervising(
        tmp_path, tick=real.LONG_TICK, swap=allowed, **real.budget(64)
    ) as supervisor:
        outcome = cgmem.run(
            real.python(real.LEAK, 96), supervisor=supervisor, stdout=subprocess.DEVNULL
        )

    assert outcome.cause == "exited"
    assert outcome.exit_code == 0
    assert outcome.events.oom_kill == 0
    assert outcome.limits.swap_max_bytes == (None if allowed == "max" else 150 << 20)
