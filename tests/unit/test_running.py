"""`cgmem.run` and `cgmem.spawn` beside subprocess.run and Popen. Real, short-lived processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cgmem
from cgmem.supervising.process import MonitoredProcess
from tests.helpers.waiting import PATIENCE, until

CAT = [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read())"]
FOR_EVER = ["sleep", "3600"]


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], {"capture_output": True}),
        (["sh", "-c", "echo out; echo err >&2"], {"capture_output": True, "text": True}),
        (CAT, {"input": b"x" * 300_000, "stdout": subprocess.PIPE}),
        (CAT, {"input": "é\n", "stdout": subprocess.PIPE, "encoding": "utf-8"}),
        (CAT, {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}),
        ("echo $0 $X; exit 4", {"shell": True, "stdout": subprocess.PIPE, "env": {"X": "y"}}),
        (["pwd"], {"cwd": "/", "stdout": subprocess.PIPE}),
        (["sh", "-c", "echo x >&2"], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}),
        (["sh", "-c", "kill -TERM $$"], {}),
        (["sh", "-c", "kill -KILL $$"], {}),
        (["x", "-c", "echo $0"], {"executable": "/bin/sh", "stdout": subprocess.PIPE}),
        (["sh", "-c", "ps -o sid= -p $$ | tr -d ' '"], {"start_new_session": True}),
    ],
)
def test_like_subprocess_run(how: dict[str, Any], args: Any, options: dict[str, Any]) -> None:
    """The same call gives the same status and the same output as subprocess.run."""
    expected = subprocess.run(args, check=False, **options)
    found = cgmem.run(args, **options, **how)

    assert found.returncode == expected.returncode
    assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr)


@pytest.mark.parametrize(
    ("args", "options", "error"),
    [
        (["cgmem-no-such"], {}, FileNotFoundError),
        (["true"], {"cwd": "/no/such"}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["true"], {"no_such_option": 1}, TypeError),
        (["true"], {"input": b"x", "stdin": subprocess.DEVNULL}, ValueError),
        (["true"], {"capture_output": True, "stdout": subprocess.PIPE}, ValueError),
        (["true"], {"capture_output": True, "stderr": subprocess.PIPE}, ValueError),
        (["true"], {"bufsize": "x"}, TypeError),
    ],
)
def test_errors_like_subprocess_run(
    how: dict[str, Any], args: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """What subprocess.run refuses is refused with the same exception, and nothing is left."""
    with pytest.raises(error):
        subprocess.run(args, check=False, **options)
    with pytest.raises(error):
        cgmem.run(args, **options, **how)
    assert how["supervisor"].live() == []


def test_check(how: dict[str, Any]) -> None:
    """`check` raises CalledProcessError with status and output."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cgmem.run(["sh", "-c", "echo x; exit 3"], check=True, capture_output=True, **how)

    assert caught.value.returncode == 3
    assert caught.value.stdout == b"x\n"
    assert cgmem.run(["true"], check=True, **how).exit_code == 0


def test_timeout(how: dict[str, Any]) -> None:
    """When the time is up the whole group ends, nothing is raised, and the cause says why."""
    outcome = cgmem.run(
        ["sh", "-c", "sleep 3600 & echo $!; wait"], timeout=0.5, stdout=subprocess.PIPE, **how
    )

    assert outcome.cause == "timeout"
    assert outcome.aborted
    child = int(outcome.stdout)
    assert until(lambda: not _lives(child))


def test_timeout_against_deafness(how: dict[str, Any]) -> None:
    """Who ignores SIGTERM is killed after the grace time, and the outcome says so."""
    outcome = cgmem.run(
        ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], timeout=0.3, grace=0.3, **how
    )

    assert (outcome.cause, outcome.signal) == ("timeout", signal.SIGKILL)
    assert outcome.sigkill_needed


def test_leftovers_hold_no_pipe(how: dict[str, Any]) -> None:
    """A background child that holds the pipe open is ended, so that `run` returns."""
    outcome = cgmem.run(["sh", "-c", "sleep 3600 & echo x"], stdout=subprocess.PIPE, **how)

    assert outcome.stdout == b"x\n"
    assert outcome.cause == "exited"
    assert len(outcome.leftovers) == 1


def test_interrupted(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during `run` ends the whole group before the exception goes on."""
    started: list[MonitoredProcess] = []
    spawn = cgmem.running.spawn

    def noted(*args: Any, **options: Any) -> MonitoredProcess:
        started.append(spawn(*args, **options))
        return started[-1]

    def interrupted(self: MonitoredProcess, *args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cgmem.running, "spawn", noted)
    monkeypatch.setattr(MonitoredProcess, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cgmem.run(["sh", "-c", "sleep 3600 & sleep 3600"], **how)

    assert started[0].outcome(PATIENCE).cause == "aborted"
    assert how["supervisor"].live() == []


def test_large_output_and_input(how: dict[str, Any]) -> None:
    """Both pipes full at once do not block each other."""
    data = os.urandom(1 << 20)
    copy = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    outcome = cgmem.run([sys.executable, "-c", copy], input=data, capture_output=True, **how)

    assert outcome.stdout == data


def test_what_holds_the_pipe_is_ended(how: dict[str, Any]) -> None:
    """Output is collected until the main process ends, not until its last descendant does."""
    outcome = cgmem.run(["sh", "-c", "sleep 3600 & echo out"], capture_output=True, **how)

    assert outcome.stdout == b"out\n"
    assert len(outcome.leftovers) == 1


# --- spawn


def test_popen_methods(how: dict[str, Any]) -> None:
    """The handle has Popen's names with Popen's meanings."""
    args = ["sh", "-c", "read line; exit 3"]
    process = cgmem.spawn(args, stdin=subprocess.PIPE, **how)

    assert process.args == args
    before = process.poll(), process.returncode
    assert before == (None, None)
    assert process.stdout is None
    assert process.stderr is None
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.wait(timeout=0.01)
    assert caught.value.cmd == args
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE) == 3
    assert process.poll() == process.returncode == 3
    process.send_signal(signal.SIGTERM)
    process.terminate()
    process.kill()
    assert process.outcome(PATIENCE).exit_code == 3


@pytest.mark.parametrize("timeout", [1e9, 1e300, float("inf")])
def test_a_very_long_wait(how: dict[str, Any], timeout: float) -> None:
    """A time-out beyond poll(2)'s range waits, as Popen's does."""
    process = cgmem.spawn(["sleep", "0.2"], **how)

    assert process.wait(timeout=timeout) == 0


def test_wait_by_many_threads(how: dict[str, Any]) -> None:
    """Several threads may wait for one process."""
    process = cgmem.spawn(["sh", "-c", "sleep 0.1; exit 3"], **how)
    found: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(process.outcome(PATIENCE).exit_code))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [3] * 5


def test_context_manager(how: dict[str, Any]) -> None:
    """Leaving the block closes the pipes and waits."""
    with cgmem.spawn(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how) as process:
        assert isinstance(process.stdin, io.BufferedWriter)

    assert process.returncode == 0
    assert process.stdin.closed
    assert process.stdout is not None
    assert process.stdout.closed


def test_communicate_with_a_timeout(how: dict[str, Any]) -> None:
    """`communicate` may be tried again after TimeoutExpired; nothing is lost."""
    process = cgmem.spawn(
        ["sh", "-c", "echo x; sleep 3600"],
        stdout=subprocess.PIPE,
        text=True,
        **how,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.05)
    process.terminate()

    assert process.communicate(timeout=PATIENCE)[0] == "x\n"


def test_outcome_with_a_timeout(how: dict[str, Any]) -> None:
    """`outcome` raises TimeoutExpired as `wait` does."""
    process = cgmem.spawn(FOR_EVER, **how)
    with pytest.raises(subprocess.TimeoutExpired):
        process.outcome(timeout=0.01)
    process.kill()

    assert process.outcome(PATIENCE).signal == signal.SIGKILL


def test_abort(how: dict[str, Any]) -> None:
    """`abort` ends the whole group, and is called so."""
    process = cgmem.spawn(["sh", "-c", "sleep 3600 & wait"], **how)
    process.abort()

    assert process.outcome(PATIENCE).cause == "aborted"
    assert process.level == "ABORTED"


def test_check_memory(how: dict[str, Any]) -> None:
    """`check_memory` looks now."""
    process = cgmem.spawn(FOR_EVER, **how)

    # Right after exec Linux may tell an RSS of 0: it counts in batches, for each processor.
    assert until(lambda: process.check_memory()[0] > 0)
    assert process.check_memory()[1] == "OK"
    process.kill()


def test_an_agent_type_is_text() -> None:
    """What is no text is refused by the argument's name."""
    for wrong in (5, ["qa"]):
        with pytest.raises(cgmem.ConfigurationError, match=r"^agent_type: .* is not text"):
            cgmem.run(["true"], agent_type=wrong)


def test_a_bad_setting_is_named(how: dict[str, Any]) -> None:
    """A bad value is refused before anything starts, by name."""
    with pytest.raises(cgmem.ConfigurationError, match="max"):
        cgmem.run(["true"], max="12XB", **how)


def test_hard_limit(how: dict[str, Any]) -> None:
    """A leaking program ends at its limit with the reason."""
    leak = "held = []\nwhile True: held.append(bytearray(1 << 20))"
    outcome = cgmem.run([sys.executable, "-c", leak], max="64M", **how)

    assert outcome.cause == "hard_limit"
    assert outcome.signal == signal.SIGKILL
    assert "64" in outcome.message
    assert outcome.aborted
    assert not outcome.enforced


def test_logs(how: dict[str, Any], tmp_path: Path) -> None:
    """The statistics are on disk when `run` returns."""
    cgmem.run(["true"], subprocess_id="engineer_1", **how)

    assert "engineer_1" in (tmp_path / "logs" / "subprocess-stats.jsonl").read_text()


def test_the_default_supervisor_is_one() -> None:
    """Without a supervisor of its own every call shares the process's."""
    from cgmem.running import default_supervisor

    assert default_supervisor() is default_supervisor()


def test_lazy_names() -> None:
    """`import cgmem` loads nothing; every public name is found when it is asked for."""
    code = "import sys, cgmem; print(len([m for m in sys.modules if m.startswith('cgmem')]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "1\n"

    code = "import cgmem; print(cgmem.aio.run.__name__, cgmem.monitoring.MemoryMonitor.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "run MemoryMonitor\n"

    assert all(hasattr(cgmem, name) for name in cgmem.__all__)
    assert dir(cgmem) == sorted(cgmem.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cgmem.nothing  # noqa: B018


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and ") Z " in stat.read_text())
