"""A short run of the chaos test: every fault once. `make chaos` runs longer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.kernel import real_cgroups as real


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_chaos_breaks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is done to a supervisor, no process, scope or stats line is lost, and none torn."""
    real.need_cgroup2()
    real.need_root()
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", "1", "--seconds", "1"],
        env=real.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    with capsys.disabled():
        sys.stdout.write(f"\nchaos: {json.dumps(json.loads(done.stdout))}\n")
