"""Chaos: one short round, then every fault with few subprocesses and with many.

`make chaos` runs longer.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.kernel import real_cgroups as real

ONE_ROUND = ("--seconds", "0.1", "--at-least", "0", "--jobs", "4")
FEW = ("--seconds", "0", "--jobs", "4")
MANY = ("--seconds", "0")

LONG = pytest.mark.long  # out of descriptors for good, a round can take minutes


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(ONE_ROUND, id="one round"),
        pytest.param(FEW, id="few", marks=LONG),
        pytest.param(MANY, id="many", marks=LONG),
    ],
)
def test_chaos_breaks_nothing(how: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is done to a supervisor, no process, scope or stats line is lost, and none torn."""
    real.need_cgroup2()
    real.need_root()
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", "1", *how],
        env=real.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert set(counts["rounds"].values()) == {1}
    assert counts["started"] > 0
    with capsys.disabled():
        sys.stdout.write(f"\nchaos: {json.dumps(counts)}\n")
