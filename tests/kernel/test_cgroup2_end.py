"""Ends: known at once, a scope that others remove, and a supervisor that dies first."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

import cgmem
from cgmem_backends.cgroup2 import Cgroup2Backend
from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

SOON = 10.0
"""Far more than the milliseconds that it takes, on the slowest machine; far less than a tick."""


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_an_exit_is_known_between_ticks(tmp_path: Path) -> None:
    """The outcome follows the end of a process at once, also when nobody waits for it."""
    with real.supervising(tmp_path, tick=real.LONG_TICK) as supervisor:
        process = cgmem.spawn(["cat"], stdin=subprocess.PIPE, supervisor=supervisor)
        assert process.stdin is not None
        began = time.monotonic()
        process.stdin.close()
        ended = process.supervision.ended.wait(PATIENCE)
        took = time.monotonic() - began

    assert ended
    assert took < SOON
    assert process.outcome().cause == "exited"


def test_a_kill_is_known_between_ticks(tmp_path: Path) -> None:
    """An OOM kill of one process of several is an alert at once, not with the next tick."""
    alerts = []
    family = '"$@"; echo survived; exec sleep 600'
    with real.supervising(tmp_path, tick=real.LONG_TICK, **real.budget(64)) as supervisor:
        process = cgmem.spawn(
            ["/bin/sh", "-c", family, "sh", *real.python(real.LEAK, 400)],
            supervisor=supervisor,
            oom_group=False,
            stdout=subprocess.PIPE,
            on_alert=lambda _, alert: alerts.append(alert),
        )
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        known = until(lambda: any(alert.kind == "kill" for alert in alerts))
        took = time.monotonic() - began
        process.abort(grace_seconds=5)
        outcome = process.outcome(PATIENCE)
        process.stdout.close()

    assert known
    assert took < SOON
    assert outcome.cause == "aborted"


def test_a_scope_that_somebody_else_removes(tmp_path: Path) -> None:
    """cgroup.kill and rmdir from another process are a normal end: signalled, no complaint."""
    code = 'echo 1 > "$0/cgroup.kill"; until rmdir "$0" 2> /dev/null; do :; done'
    with real.supervising(tmp_path, tick=0.1) as supervisor:
        process = cgmem.spawn(["sleep", "600"], supervisor=supervisor)
        directory = real.cgroup_of(process.pid)
        supervision = supervisor.find(process.subprocess_id)
        assert supervision is not None
        # Held, because the supervision, woken by the kill, could be the faster one.
        with supervision._lock:
            subprocess.run(["/bin/sh", "-c", code, directory], check=True, timeout=PATIENCE)
        outcome = process.outcome(PATIENCE)

    assert outcome.cause == "signalled"
    assert outcome.signal == 9
    assert outcome.leftovers == ()
    assert outcome.counters_cached


def test_leftovers_are_killed_and_named(tmp_path: Path) -> None:
    """What a command leaves behind, in a session of its own, ends with it and is named."""
    # The main process ends when told: the one that it leaves behind has said who it is by then.
    away = real.AWAY.replace("import time\ntime.sleep(600)\n", "sys.stdin.readline()\n")
    with real.supervising(tmp_path, tick=real.LONG_TICK) as supervisor:
        code = "import time; print(os.getpid(), flush=True); time.sleep(600)"
        process = cgmem.spawn(
            real.python(away, 0, code),
            supervisor=supervisor,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            process.stdin.close()
            outcome = process.outcome(PATIENCE)

    assert outcome.cause == "exited"
    assert outcome.leftovers == (pid,)
    assert not running(pid)


SUPERVISOR = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 30.0,
                         "warning": "32M", "critical": "67104768B", "max": "64M"})
process = cgmem.spawn(sys.argv[2:], supervisor=supervisor, subprocess_id="orphan_1",
                      start_new_session=True)
say(pid=process.pid)
time.sleep(600)
"""

WAIT_AND_LEAK = (
    """
import os, sys, time
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
"""
    + real.LEAK
)


def test_the_hard_limit_outlives_the_supervisor(tmp_path: Path) -> None:
    """With its supervisor SIGKILLed, a leak is still ended at memory.max, and can be found."""
    go = tmp_path / "go"
    leak = real.python(WAIT_AND_LEAK, 400, go)
    with real.Script(SUPERVISOR, tmp_path, *leak) as script:
        pid = script.heard()["pid"]
        directory = real.cgroup_of(pid)
        script.process.send_signal(signal.SIGKILL)
        script.process.wait(PATIENCE)
        limit = real.read(directory, "memory.max")
        found = [
            scope
            for scope in Cgroup2Backend().list_scopes()
            if scope.record.subprocess_id == "orphan_1"
        ]
        go.touch()
        emptied = until(lambda: not real.events(directory, "cgroup.events")["populated"])
        counted = real.events(directory)
        closed = [scope.close() for scope in found]
        for scope in found:
            scope.detach()
        if not emptied:
            real.kill_quietly(pid)

    assert limit == str(64 << 20)
    assert emptied
    assert counted["oom_kill"] >= 1
    assert closed == [True]
    assert found[0].record.supervisor_pid == script.process.pid
    assert found[0].record.max_bytes == 64 << 20
    assert not directory.exists()
