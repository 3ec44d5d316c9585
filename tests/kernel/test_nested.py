"""A cgmem in another cgmem's scope: it nests where it is alone there, else it observes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cgmem
from cgmem.contract import MB
from cgmem.supervising.supervisor import Supervisor
from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real
from tests.kernel.real_systemd import RUNS

INNER = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 30.0,
                         "warning": "100M", "critical": "200M", "max": "512M"})
child = cgmem.spawn(["sleep", "600"], supervisor=supervisor, start_new_session=True)
plan = child.supervision.plan
say(pid=child.pid, backend=plan.backend, enforced=plan.effective.enforced,
    above=[plan.effective.effective_max_bytes, plan.effective.effective_max_source],
    why=supervisor.choice(supervisor.settings()).reason)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def inner(supervisor: Supervisor, tmp_path: Path, *front: str) -> cgmem.MonitoredProcess:
    """Start the inner one, behind some words."""
    return cgmem.spawn(
        [*front, sys.executable, "-c", real.PREAMBLE + INNER, str(tmp_path)],
        supervisor=supervisor,
        stdout=subprocess.PIPE,
        env=real.environment(),
    )


def heard(process: cgmem.MonitoredProcess) -> dict[str, Any]:
    """Return what it says of its own subprocess."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def test_it_nests(tmp_path: Path) -> None:
    """Its scopes are in its own scope, under the outer limit, which it names.

    To the outer one all is one group: it counts, kills and removes what is nested too.
    """
    with (
        real.supervising(tmp_path, **real.budget(256)) as supervisor,
        inner(supervisor, tmp_path) as process,
    ):
        said = heard(process)
        (outer,) = supervisor.live()
        directory = Path("/sys/fs/cgroup") / outer.scope.location.lstrip("/")
        inside, nested = outer.scope.pids(), real.cgroup_of(said["pid"])
        process.send_signal(signal.SIGKILL)
        outcome = process.outcome(PATIENCE)

    assert said["backend"] == "cgroup2"
    assert said["above"] == [256 * MB, str(directory)]
    assert nested.parent == directory
    assert {process.pid, said["pid"]} <= set(inside)
    assert outcome.cause == "signalled"
    assert said["pid"] in outcome.leftovers
    assert not running(said["pid"])
    assert not directory.exists()


def test_it_observes_beside_another_process(tmp_path: Path) -> None:
    """It does not move what is not its own, says who is in the way, and stays in the budget."""
    beside = 'sleep 600 > /dev/null & exec "$@"'
    with (
        real.supervising(tmp_path, **real.budget(256)) as supervisor,
        inner(supervisor, tmp_path, "/bin/sh", "-c", beside, "sh") as process,
    ):
        said = heard(process)
        where = real.cgroup_of(said["pid"]), real.cgroup_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.outcome(PATIENCE)

    assert (said["backend"], said["enforced"]) == ("psutil", False)
    assert "(sleep)" in said["why"]
    assert ("a scope of another cgmem" in said["why"]) == RUNS
    assert where[0] == where[1]
    assert not running(said["pid"])
