"""Orders from another process to a running subprocess, read back from the kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cgmem
from cgmem.contract import MB
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

CACHE = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for _ in range(24):
        file.write(b"x" * (1 << 20))
    file.flush()
    import os
    os.fsync(file.fileno())
print("ready", flush=True)
time.sleep(600)
"""


def order(*words: str) -> dict[str, Any]:
    """Run one verb in another process."""
    done = subprocess.run(
        [sys.executable, "-m", "cgmem", *words, "--json"],
        env=real.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{words}: {done.returncode}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def file() -> Iterator[Path]:
    """Name a file on a disk: on tmpfs it would be memory that can't be taken back."""
    path = Path("/var/tmp/cgmem-test-orders")
    yield path
    path.unlink(missing_ok=True)


def test_orders_from_another_process(tmp_path: Path, file: Path) -> None:
    """set, reclaim, freeze, thaw and kill do what they say, and the supervisor follows."""
    real.need_cgroup2()
    with real.supervising(tmp_path, max="128M", tick=0.5) as supervisor:
        process = cgmem.spawn(
            real.python(CACHE, file),
            supervisor=supervisor,
            subprocess_id="ordered",
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        directory = real.cgroup_of(process.pid)

        shown = order("show", "ordered")
        assert shown["memory_stat"]["file"] >= 16 * MB
        assert shown["memory_stat"]["anon"] > 0
        assert shown["processes"][0]["pss_mb"] > 0
        assert shown["held"]["effective_max_bytes"] == 128 * MB

        budget = order("set", "ordered", "--max", "96M", "--critical", "80M")
        assert budget["taken"] is True
        assert budget["held"]["max_bytes"] == 96 * MB
        assert real.read(directory, "memory.max") == str(96 * MB)
        assert real.read(directory, "memory.high") == str(80 * MB)
        (supervision,) = supervisor.live()
        wanted = (32 * MB, 80 * MB, 96 * MB)
        assert until(lambda: supervision.plan.thresholds == wanted)
        assert real.read(directory, "memory.oom.group") == "1"
        assert real.read(directory, "memory.swap.max") == "0"

        taken = order("reclaim", "ordered", "16M")
        assert taken["after_mb"] < taken["before_mb"] - 8

        assert order("freeze", "ordered")["frozen"] is True
        assert real.events(directory, "cgroup.events")["frozen"] == 1
        assert order("thaw", "ordered")["frozen"] is False
        assert real.events(directory, "cgroup.events")["frozen"] == 0

        assert order("kill", "ordered")["gone"] is True
        assert process.wait() == -15
        process.stdout.close()
