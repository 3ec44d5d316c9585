"""The verbs that change a live subprocess: set, freeze, thaw, reclaim, kill."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from tests.cli.command import HOG, POLLED, cgmem, start, until
from tests.helpers.proc import state


class Job:
    """A live subprocess of some 40 MB under a budget of 256 MB."""

    def __init__(self, name: str, run: Popen[str], pid: int, cwd: Path) -> None:
        self.name = name
        self.run = run
        self.pid = pid
        self._cwd = cwd

    def do(self, verb: str, *words: str, status: int = 0) -> str:
        """Run one verb on it; returns stdout and stderr."""
        done = cgmem(verb, self.name, *words, cwd=self._cwd)
        assert done.returncode == status, done
        return done.stdout + done.stderr


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """One job."""
    name = f"ordered-{os.getpid()}"
    run = start(
        "run", *POLLED, "-v", "--id", name, "--max", "256M", "--",
        sys.executable, HOG, "--mb", "30", "--hold", "300", cwd=tmp_path,
    )  # fmt: skip
    assert run.stdout is not None
    pid = int(run.stdout.readline().split()[1])
    yield Job(name, run, pid, tmp_path)
    run.terminate()
    run.communicate(timeout=60)


def test_set_is_followed_by_the_supervisor(job: Job, tmp_path: Path) -> None:
    """A threshold lowered below what is in use is told by the process that supervises it."""
    answer = json.loads(job.do("set", "--warning", "16M", "--json"))
    listed = json.loads(cgmem("ps", "--json", cwd=tmp_path).stdout)
    (seen,) = [one for one in listed if one["subprocess_id"] == job.name]
    alerts = tmp_path / ".claude-pm/logs/memory/memory-alerts.log"

    assert answer["after"]["warning_bytes"] == 16 << 20
    assert answer["before"]["warning_bytes"] == 64 << 20
    assert answer["supervised"] is True
    assert seen["limits"]["warning_bytes"] == 16 << 20
    until(lambda: alerts.exists() and "exceeded 16MB" in alerts.read_text(), "the alert")


def test_set_says_what_is_wrong(job: Job) -> None:
    """Nothing to set, a contradiction, no unit, more than there is, and less than is in use."""
    assert "nothing to set" in job.do("set", status=2)
    assert "as it is" in job.do("set", "--max", "64M", status=2)
    assert "--max" in job.do("set", "--max", "64", status=2)
    assert "larger than this machine's memory" in job.do("set", "--max", "99999T")
    low = ("--warning", "8M", "--critical", "9M", "--max", "10M")
    assert "would end at once" in job.do("set", *low, status=2)


def test_freeze_and_thaw(job: Job) -> None:
    """Every process stops and goes on, and so does a supervisor that stopped along."""
    assert "frozen" in job.do("freeze")
    assert state(job.pid) == "T"
    assert "runs" in job.do("thaw")
    assert state(job.pid) != "T"
    until(lambda: state(job.run.pid) != "T", "the supervisor to go on")


def test_kill(job: Job) -> None:
    """It ends, and its supervisor says how."""
    assert "1 process ended by SIGTERM" in job.do("kill")
    assert job.run.wait(60) == 128 + 15
    assert "no live subprocess has the id" in job.do("kill", status=1)


def test_kill_of_a_shell_s_job(tmp_path: Path) -> None:
    """A kill stops all for a moment: a supervisor that a shell could stop goes on to the end."""
    name = f"killed-{os.getpid()}"
    # A process group of its own in our session, as a shell's job is: only there one can stop.
    how: dict[str, Any] = {"start_new_session": False, "process_group": 0}
    words = ("run", *POLLED, "--id", name, "--", "sh", "-c", "echo; exec sleep 300")
    with start(*words, cwd=tmp_path, **how) as run:
        assert run.stdout is not None
        run.stdout.readline()
        done = cgmem("kill", name, cwd=tmp_path)
        try:
            assert done.returncode == 0, done
            assert run.wait(20) == 128 + 15
        finally:
            run.send_signal(signal.SIGCONT)
            run.kill()


def test_reclaim_needs_a_cgroup(job: Job) -> None:
    """Where nobody but the kernel could, that is said."""
    refused = job.do("reclaim", "1M", status=2)
    assert "nothing can be reclaimed" in refused
    assert "1048576" not in refused
    assert "no amount" in job.do("reclaim", "max", status=2)


@pytest.mark.parametrize(
    ("verb", "rest"),
    [
        ("show", ()), ("adopt", ()), ("kill", ()), ("freeze", ()), ("thaw", ()),
        ("set", ("--max", "1G")), ("reclaim", ("1M",)), ("trace", ()), ("plot", ()),
    ],
)  # fmt: skip
def test_what_cannot_be_an_id(tmp_path: Path, verb: str, rest: tuple[str, ...]) -> None:
    """Every verb that takes an id refuses it with the same status, and says what it takes."""
    for wrong in ("a/b", "", "\x01", "x" * 300):
        done = cgmem(verb, wrong, *rest, cwd=tmp_path)

        assert done.returncode == 2, done
        assert "can't be an id" in done.stderr or "subprocess id" in done.stderr
        assert "\ncgmem: try: " in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("ps", "--watch", "--every", "nan"), ("top", "--every", "nan"),
        ("stats", "--suggest", "--margin", "nan"), ("plot", "x", "--seconds", "nan"),
        ("plot", "x", "--every", "nan"), ("trace", "x", "--seconds", "nan"),
        ("trace", "x", "--seconds", "inf"), ("kill", "x", "--grace", "nan"),
    ],
)  # fmt: skip
def test_what_is_no_number(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is neither below nor above what is taken, and is refused by the option's name."""
    *_, option, value = words
    done = cgmem(*words, cwd=tmp_path)

    assert done.returncode == 2
    assert f"'{option}': {value} is not a finite number" in done.stderr
