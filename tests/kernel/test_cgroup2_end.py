"""Ends: known at once, a scope that others remove, and a supervisor that dies first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cgmem
from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_an_exit_is_known_between_ticks(tmp_path: Path) -> None:
    """The outcome follows the end of a process at once, also when nobody waits for it."""
    with real.supervising(tmp_path, tick=real.LONG_TICK) as supervisor:
        process = cgmem.spawn(["cat"], stdin=subprocess.PIPE, supervisor=supervisor)
        assert process.stdin is not None
        process.stdin.close()
        ended = process.supervision.ended.wait(PATIENCE)

    assert ended
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
        known = until(lambda: any(alert.kind == "kill" for alert in alerts))
        process.abort(grace_seconds=5)
        outcome = process.outcome(PATIENCE)
        process.stdout.close()

    assert known
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
