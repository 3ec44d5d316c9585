"""What stands in for a supervision where monitoring is disabled. Real processes, short-lived."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cgmem
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervisor import Supervisor
from cgmem.supervising.unsupervised import Unsupervised
from tests.helpers.waiting import until

PATIENCE = 20.0


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """One whose user switched monitoring off."""
    made = Supervisor({"log_dir": str(tmp_path / "logs"), "disabled": True})
    yield made
    made.close()


def test_runs_as_without_us(supervisor: Supervisor, tmp_path: Path) -> None:
    """The command runs, the outcome says how it ended, and nothing is logged or watched."""
    outcome = cgmem.run(
        [sys.executable, "-c", "print('x')"], supervisor=supervisor, capture_output=True, text=True
    )

    assert outcome.stdout == "x\n"
    assert (outcome.cause, outcome.exit_code, outcome.backend) == ("exited", 0, "none")
    assert not outcome.enforced
    assert outcome.message == "memory monitoring is disabled"
    assert not (tmp_path / "logs").exists()
    assert supervisor.live() == []


def test_level_and_check(supervisor: Supervisor) -> None:
    """Nothing is measured, and the status says so."""
    with cgmem.spawn(["sleep", "60"], supervisor=supervisor) as process:
        assert process.level == "NOT_MONITORED"
        assert process.check_memory() == (0.0, "NOT_MONITORED")
        process.kill()

    assert process.outcome().signal == signal.SIGKILL


def test_abort(supervisor: Supervisor) -> None:
    """`abort` is SIGTERM to the main process, and is called an abort."""
    process = cgmem.spawn(["sleep", "60"], supervisor=supervisor)
    process.abort()
    outcome = process.outcome(PATIENCE)

    assert (outcome.cause, outcome.signal) == ("aborted", signal.SIGTERM)
    assert outcome.aborted


def test_command_not_found(supervisor: Supervisor) -> None:
    """Errors are Popen's."""
    with pytest.raises(FileNotFoundError):
        cgmem.spawn(["cgmem-no-such-command"], supervisor=supervisor)


def test_ids_are_checked(supervisor: Supervisor) -> None:
    """An id that can't be one is refused also where nothing is logged."""
    with pytest.raises(cgmem.InvalidIdError):
        cgmem.spawn(["true"], supervisor=supervisor, subprocess_id="a/b")


def test_settled_once() -> None:
    """The outcome stays the same, however often it is asked for."""
    with subprocess.Popen(["true"]) as popen:
        told: list[object] = []
        unsupervised = Unsupervised("x", ("true",), popen, 5.0, told.append, told.append)
        popen.wait(PATIENCE)

        assert unsupervised.settle()
        first = unsupervised.outcome
        assert unsupervised.settle()
        assert unsupervised.outcome is first
        unsupervised.pause(1.0)
        unsupervised.kill("abort")
        unsupervised.abort("abort")
        assert unsupervised.ended.is_set()
        assert told == [first]


def test_callbacks_are_called(supervisor: Supervisor) -> None:
    """`on_abort` and `on_end` come once each, here too."""
    told: list[object] = []
    with cgmem.spawn(
        ["sleep", "60"],
        supervisor=supervisor,
        subprocess_id="one",
        on_abort=lambda *words: told.append(words),
        on_end=lambda outcome: told.append(outcome.cause),
    ) as process:
        process.abort()
        process.abort()
        process.outcome(PATIENCE)

    assert until(lambda: told == [("one", "aborted"), "aborted"])


@pytest.fixture
def stubborn(supervisor: Supervisor) -> Iterator[MonitoredProcess]:
    """One that ignores SIGTERM by now."""
    script = "trap '' TERM; echo; while :; do sleep 0.1; done"
    process = cgmem.spawn(
        ["sh", "-c", script], supervisor=supervisor, stdout=subprocess.PIPE, grace=0.1
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        yield process


def test_no_thread_for_the_grace(
    stubborn: MonitoredProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody could send SIGKILL later it is sent at once: nobody waits for ever."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        stubborn.abort()

    assert stubborn.outcome(PATIENCE).sigkill_needed


def test_an_interrupted_end_is_an_end() -> None:
    """A KeyboardInterrupt while the end is told keeps nobody waiting."""

    def interrupt(_outcome: object) -> None:
        raise KeyboardInterrupt

    with subprocess.Popen(["true"]) as popen:
        popen.wait(PATIENCE)
        unsupervised = Unsupervised("x", ("true",), popen, 5.0, interrupt, interrupt)
        with pytest.raises(KeyboardInterrupt):
            unsupervised.settle()

    assert unsupervised.ended.is_set()
    assert unsupervised.settle()


def test_who_ignores_sigterm_is_killed(stubborn: MonitoredProcess) -> None:
    """After the grace SIGKILL follows, so that nobody waits for ever."""
    stubborn.abort()
    outcome = stubborn.outcome(PATIENCE)

    assert (outcome.cause, outcome.signal) == ("aborted", signal.SIGKILL)
    assert outcome.sigkill_needed
