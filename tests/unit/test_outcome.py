"""The outcome as the JSON object of `--report`, and as subprocess's users know it."""

from __future__ import annotations

import json
from subprocess import CalledProcessError
from typing import Any

import pytest

from cgmem.contract import MB, EffectiveLimits, MemoryEvents, SystemMemory
from cgmem.supervising.outcome import Outcome

DOCUMENTED = {
    "subprocess_id", "command", "backend", "cause", "exit_code", "signal", "message", "start_mb",
    "peak_mb", "end_mb", "duration_seconds", "warnings", "aborted", "enforced", "limits", "events",
    "system_memory", "log_dir",
}  # fmt: skip


def an_outcome(**changes: Any) -> Outcome:
    """A run that ended by itself; `changes` are fields."""
    made = Outcome(
        subprocess_id="engineer_1",
        command=("leak", "--fast"),
        pid=17,
        backend="cgroup2",
        cause="exited",
        exit_code=0,
        signal=None,
        message="exited: status 0",
        start_mb=1.5,
        peak_mb=2.5,
        end_mb=2.0,
        peak_charged_mb=None,
        duration_seconds=0.25,
        warnings=("WARNING: x",),
        aborted=False,
        enforced=True,
        limits=EffectiveLimits(2 * MB, 4 * MB, None, 4 * MB, "/a", enforced=True),
        events=MemoryEvents(1, 2, None, 0, None),
        counters_cached=False,
        stalls=({"at": 1.0, "seconds": 10.0, "action": "release"},),
        leftovers=(18,),
        kept=False,
        metric="cgroup",
        system_memory=SystemMemory(100 * MB, 40 * MB),
        log_dir="/logs",
        sigkill_needed=False,
    )
    return made._replace(**changes)


def test_every_documented_key() -> None:
    """Every key that the report promises is there, and its parts' keys exactly."""
    report = an_outcome().as_json()

    assert set(report) >= DOCUMENTED
    assert set(report["limits"]) >= {
        "high_bytes", "max_bytes", "swap_max_bytes", "effective_max_bytes",
    }  # fmt: skip
    assert set(report["events"]) == {"high", "max", "oom", "oom_kill", "oom_group_kill"}
    assert set(report["system_memory"]) == {"total_mb", "available_mb", "used_mb", "percent"}


def test_json_round_trip() -> None:
    """What is reported survives JSON unchanged, "max" and unknown as null."""
    report = an_outcome().as_json()

    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["limits"]["swap_max_bytes"] is None
    assert report["events"]["oom"] is None
    assert report["command"] == ["leak", "--fast"]
    assert report["leftovers"] == [18]


def test_captured_bytes_are_not_reported() -> None:
    """What was captured is the caller's; bytes would be no JSON either."""
    report = an_outcome(stdout=b"\xff", stderr=b"").as_json()

    assert "stdout" not in report
    assert "stderr" not in report


def test_an_undecodable_command_is_json() -> None:
    """A command line of arbitrary bytes can still be reported."""
    report = an_outcome(command=("leak", "\udcff")).as_json()

    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(
    ("exit_code", "signal", "returncode"), [(0, None, 0), (3, None, 3), (None, 9, -9)]
)
def test_returncode(exit_code: int | None, signal: int | None, returncode: int) -> None:
    """`returncode` is Popen's: negative for a signal."""
    assert an_outcome(exit_code=exit_code, signal=signal).returncode == returncode


def test_check_returncode() -> None:
    """As subprocess.CompletedProcess: silent at 0, else the error with everything captured."""
    an_outcome().check_returncode()
    failed = an_outcome(exit_code=None, signal=9, stdout=b"out", stderr=b"err")

    with pytest.raises(CalledProcessError) as caught:
        failed.check_returncode()
    error = caught.value
    assert (error.returncode, error.cmd) == (-9, ["leak", "--fast"])
    assert (error.stdout, error.stderr) == (b"out", b"err")


def test_check_an_unknown_end() -> None:
    """An end that nobody saw is no success."""
    with pytest.raises(CalledProcessError):
        an_outcome(exit_code=None).check_returncode()
