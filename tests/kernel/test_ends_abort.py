"""An abort that works: who obeys is left to, who can't hear is woken, who won't is killed."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cgmem
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervisor import Supervisor
from tests.helpers.proc import running, state
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

LONG_GRACE = 60.0
"""Who is killed only after this was not asked as it should have been."""

IGNORES = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
HANDLES = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
SOME = {"warning": "16M", "critical": "32M", "max": "64M"}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def ready(supervisor: Supervisor, command: list[str], **options: Any) -> MonitoredProcess:
    """Start a command and wait for its first line."""
    options.setdefault("grace", LONG_GRACE)
    process = cgmem.spawn(command, supervisor=supervisor, stdout=subprocess.PIPE, **options)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def aborted(process: MonitoredProcess) -> Outcome:
    """Abort it; return how it ended, and leave a note of how long that took."""
    began = time.monotonic()
    process.abort()
    outcome = process.outcome(PATIENCE)
    took = time.monotonic() - began
    if process.stdout is not None:
        process.stdout.close()
    real.note(f"aborted in {took:.2f} s: {outcome.message}")
    return outcome


def test_a_group_gets_its_grace_after_its_main_process(tmp_path: Path) -> None:
    """A child that needs a second to put its work away has it, though its parent obeys at once."""
    saved = tmp_path / "saved"
    # The child leaves the session, too: SIGTERM is for the group, not for a process group.
    child = "trap 'sleep 1; echo saved > $0; exit' TERM; echo ready; while :; do sleep 0.1; done"
    family = 'setsid /bin/sh -c "$0" "$1" & exec sleep 600'
    with real.supervising(tmp_path, tick=real.LONG_TICK, **SOME) as supervisor:
        process = ready(supervisor, ["/bin/sh", "-c", family, child, str(saved)])
        directory = real.cgroup_of(process.pid)
        outcome = aborted(process)

    assert outcome.cause == "aborted"
    assert outcome.signal == signal.SIGTERM
    assert not outcome.sigkill_needed
    assert saved.read_text() == "saved\n"
    assert not directory.exists()


@pytest.mark.parametrize("who", ["main", "child"])
def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, who: str) -> None:
    """SIGKILL ends what SIGTERM did not, the whole group, and not before the grace is over."""
    family = {"main": ["/bin/sh", "-c", IGNORES], "child": ["/bin/sh", "-c", f"({IGNORES}) & wait"]}
    with real.supervising(tmp_path, tick=real.LONG_TICK, **SOME) as supervisor:
        process = ready(supervisor, family[who], grace=1.5)
        directory = real.cgroup_of(process.pid)
        began = time.monotonic()
        outcome = aborted(process)
        took = time.monotonic() - began

    assert outcome.cause == "aborted"
    assert outcome.signal == (signal.SIGKILL if who == "main" else signal.SIGTERM)
    assert outcome.sigkill_needed
    assert "SIGKILL was needed" in outcome.message
    assert took >= 1.5
    assert not directory.exists()


@pytest.mark.parametrize("by", ["us", "somebody", "SIGSTOP"])
def test_a_stopped_group_is_set_going_to_obey(tmp_path: Path, by: str) -> None:
    """A group that was frozen or stopped handles its SIGTERM, and needs no SIGKILL."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **SOME) as supervisor:
        process = ready(supervisor, ["/bin/sh", "-c", HANDLES])
        directory = real.cgroup_of(process.pid)
        supervision = supervisor.find(process.subprocess_id)
        assert supervision is not None
        if by == "us":
            supervision.scope.freeze(True)
        elif by == "somebody":
            (directory / "cgroup.freeze").write_text("1")
        else:
            supervision.scope.signal(signal.SIGSTOP)
        stopped = until(lambda: _stopped(directory))
        outcome = aborted(process)

    assert stopped
    assert outcome.cause == "aborted"
    assert outcome.exit_code == 5
    assert not outcome.sigkill_needed


def _stopped(directory: Path) -> bool:
    # Any: a shell whose child was stopped between vfork(2) and exec sits in D until it goes on.
    inside = map(int, real.read(directory, "cgroup.procs").split())
    frozen = real.events(directory, "cgroup.events")["frozen"] == 1
    return frozen or any(state(pid) == "T" for pid in inside)


HANDLER = """
import signal, sys
def obey(number, frame):
    more = bytearray(4 << 20)
    sys.exit(5)
signal.signal(signal.SIGTERM, obey)
"""


@pytest.mark.parametrize("handles", [False, True])
def test_a_throttled_group_obeys(tmp_path: Path, handles: bool) -> None:
    """SIGTERM ends a group that memory.high holds, and one with a handler has room to run it."""
    settings = {"warning": "16M", "critical": "32M", "max": "192M", "on_stall": "hold"}
    code = (HANDLER if handles else "") + real.LEAK
    with real.supervising(tmp_path, tick=real.LONG_TICK, **settings) as supervisor:
        process = cgmem.spawn(real.python(code, 400), supervisor=supervisor, grace=LONG_GRACE)
        directory = real.cgroup_of(process.pid)
        held = until(lambda: real.events(directory)["high"] > 20)
        outcome = aborted(process)

    assert held
    assert outcome.cause == "aborted"
    assert outcome.returncode == (5 if handles else -signal.SIGTERM)
    assert outcome.events.oom_kill == 0
    assert not outcome.sigkill_needed


FORKING = """
import os, time
for number in range(600):
    if os.fork() == 0:
        time.sleep(600)
    if number == 5:
        os.write(1, b"ready\\n")
time.sleep(600)
"""
"""Every child lives until its own SIGTERM."""


def test_nobody_forks_past_the_signal(tmp_path: Path) -> None:
    """A child that is being forked when a group is told to end is told, too: no SIGKILL needed."""
    budget = {"warning": "200M", "critical": "300M", "max": "400M"}
    for _ in range(3):
        with real.supervising(tmp_path, tick=real.LONG_TICK, **budget) as supervisor:
            process = ready(supervisor, real.python(FORKING))
            outcome = aborted(process)

        assert outcome.cause == "aborted"
        assert outcome.signal == signal.SIGTERM
        assert not outcome.sigkill_needed


def test_an_abort_that_comes_while_it_starts(tmp_path: Path) -> None:
    """Who is aborted by another thread as soon as its id is known is aborted."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **SOME) as supervisor:
        found = threading.Event()

        def abort() -> None:
            while (supervision := supervisor.find("early")) is None:
                pass
            supervision.abort("abort", LONG_GRACE)
            found.set()

        other = threading.Thread(target=abort)
        other.start()
        process = cgmem.spawn(["sleep", "600"], supervisor=supervisor, subprocess_id="early")
        outcome = process.outcome(PATIENCE)
        other.join()

    assert found.is_set()
    assert outcome.cause == "aborted"
    assert outcome.signal == signal.SIGTERM


def test_a_supervisor_that_closes_finishes_its_abort(tmp_path: Path) -> None:
    """What is being ended when its supervisor closes does not live on."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **SOME) as supervisor:
        process = ready(supervisor, ["/bin/sh", "-c", IGNORES])
        directory = real.cgroup_of(process.pid)
        process.abort()
        supervisor.close()
        outcome = process.outcome(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
        status = process.wait(PATIENCE)
        emptied = until(lambda: not real.events(directory, "cgroup.events")["populated"])
        directory.rmdir()

    assert outcome.cause == "aborted"
    assert outcome.sigkill_needed
    assert status == -signal.SIGKILL
    assert emptied


ABORTING = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "grace": 60.0,
                         "warning": "16M", "critical": "32M", "max": "64M"})
process = cgmem.spawn(["/bin/sh", "-c", sys.argv[2]], supervisor=supervisor,
                      stdout=-1, start_new_session=True)
process.stdout.readline()
say(pid=process.pid)
sys.stdin.readline()
process.abort()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_supervisor_killed_while_it_aborts(tmp_path: Path) -> None:
    """A group whose abort nobody finishes runs on, not frozen, and its hard limit holds."""
    with real.Script(ABORTING, tmp_path, IGNORES) as script:
        pid = script.heard()["pid"]
        directory = real.cgroup_of(pid)
        try:
            script.tell()
            assert script.process.wait(PATIENCE) == -signal.SIGKILL
            ran_on = running(pid)
            frozen = until(lambda: real.read(directory, "cgroup.freeze") == "0")
            limits = real.read(directory, "memory.high"), real.read(directory, "memory.max")
        finally:
            (directory / "cgroup.kill").write_text("1")
        assert until(lambda: not real.events(directory, "cgroup.events")["populated"])
        directory.rmdir()

    assert ran_on
    assert frozen
    assert limits == ("max", str(64 << 20))
