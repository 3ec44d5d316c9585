"""What killed supervisors leave: swept once, told once, and taken over while it lives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cgmem
from cgmem.contract import ScopeRecord
from cgmem_backends import scope_record
from cgmem_backends.linux_calls import set_xattr
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

STALE = (200, pytest.param(1000, marks=pytest.mark.long))

# A tick that never comes: with it a supervisor would sweep, too.
SUPERVISOR = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 3600.0,
                         "warning": "32M", "critical": "67104768B", "max": "64M"})
process = cgmem.spawn(sys.argv[3:], supervisor=supervisor, subprocess_id=sys.argv[2],
                      start_new_session=True)
for _ in range(2):  # what begins a spare
    cgmem.run(["true"], supervisor=supervisor)
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


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def command(*words: str) -> subprocess.Popen[str]:
    """Start a cgmem command."""
    return subprocess.Popen(
        [sys.executable, "-m", "cgmem", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=real.environment(),
    )


def said(process: subprocess.Popen[str]) -> tuple[int, Any, str]:
    """Return exit status, JSON on stdout and text on stderr of a command that ends."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, json.loads(out) if out else None, err


def stats(log_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of the statistics log."""
    text = (log_dir / "subprocess-stats.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def of(name: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one subprocess's lines."""
    return [line for line in lines if line["subprocess_id"] == name]


def dead() -> int:
    """Return the pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def a_stale_scope(base: Path, pid: int, number: int, log_dir: Path) -> Path:
    """Make what a supervisor that was killed has left of a subprocess that has ended."""
    directory = base / f"cgmem-{pid}-{number}"
    directory.mkdir()
    record = ScopeRecord(f"stale_{number}", pid, 1, time.time(), ("true",), log_dir=str(log_dir))
    set_xattr(directory, "user.cgmem", scope_record.encode(record))
    return directory


@pytest.mark.parametrize("stale", STALE)
def test_many_are_swept_once(
    stale: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two gc at once remove each of many stale scopes once and write one line for each."""
    base, pid = real.base(), dead()
    for number in range(stale):
        a_stale_scope(base, pid, number, tmp_path)
    began = time.monotonic()
    both = [command("gc", "--json"), command("gc", "--json")]
    ends = [said(process) for process in both]
    took = time.monotonic() - began
    # Another test's leftovers are none of ours.
    ids = [[one["subprocess_id"] for one in end[1]["removed"]] for end in ends]
    counts = [sum(str(one).startswith("stale_") for one in each) for each in ids]
    with capsys.disabled():
        text = f"{stale} stale scopes swept by two at once in {took:.1f} s: {counts}"
        print(f"\ngc: {text}")  # noqa: T201  (a number that docs quote)
    names = [line["subprocess_id"] for line in stats(tmp_path)]

    assert [end[0] for end in ends] == [0, 0]
    assert sum(counts) == stale
    assert len(names) == stale
    assert len(set(names)) == stale
    assert not list(base.glob(f"cgmem-{pid}-*"))


def test_an_end_that_nobody_saw(tmp_path: Path) -> None:
    """The hard limit outlives its supervisor; gc tells of the kill that nobody saw.

    It leaves the scopes of living supervisors alone.
    """
    go = tmp_path / "go"
    leak = real.python(WAIT_AND_LEAK, 400, go)
    sleep = ["sleep", "600"]
    with (
        real.Script(SUPERVISOR, tmp_path, "killed_1", *leak) as script,
        real.Script(SUPERVISOR, tmp_path, "lives_1", *sleep) as other,
    ):
        directory = real.cgroup_of(script.heard()["pid"])
        other.heard()
        others = real.scopes_below(directory.parent)
        script.process.kill()
        script.process.wait(PATIENCE)
        limit = real.read(directory, "memory.max")
        go.touch()
        emptied = until(lambda: not real.events(directory, "cgroup.events")["populated"])
        swept = said(command("gc", "--json"))
        left = real.scopes_below(directory.parent)
        for process in (script.process, other.process):
            process.kill()
            process.wait(PATIENCE)
            real.clear(directory.parent, process.pid)
    (line,) = of("killed_1", stats(tmp_path))

    assert limit == str(64 << 20)
    assert emptied
    assert [found["subprocess_id"] for found in swept[1]["removed"]] == ["killed_1"]
    assert not directory.exists()
    # Both have their spares still, too young to be swept, and the living one has its scope.
    assert set(left) == set(others) - {directory.name}
    assert len([name for name in left if f"-{other.process.pid}-" in name]) == 2
    assert line["cgmem"]["unobserved"] is True
    assert line["cgmem"]["cause"] == "hard_limit"
    assert line["cgmem"]["exit_code"] is None
    assert line["memory_stats"]["peak_mb"] == 64.0
    assert line["memory_stats"]["aborted"] is True


POINTS = """
from cgmem.supervising.journal import Journal
from cgmem_backends.cgroup_scope import CgroupScope
points = {
    "before_start": (CgroupScope, "start", False),
    "after_start": (CgroupScope, "start", True),
    "before_closing": (CgroupScope, "close", False),
    "before_line": (Journal, "ended", False),
    "after_line": (Journal, "ended", True),
    "after_removal": (CgroupScope, "close", True),
}
def supervise(owner, name, through):
    original = getattr(owner, name)
    def killed(*arguments, **options):
        if through:
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, killed)
    supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 3600.0})
    cgmem.run(["true"], supervisor=supervisor, subprocess_id=point)
pids = {}
for point, where in points.items():
    pids[point] = os.fork()
    if not pids[point]:
        supervise(*where)
        os._exit(0)
for point, pid in pids.items():
    say(point=point, pid=pid, signal=os.waitpid(pid, 0)[1])
"""


def test_killed_at_any_point(tmp_path: Path) -> None:
    """Whatever step a supervisor was killed at, the next removes the scope and one line is there.

    In a stall and in a freeze: test_guard.
    """
    base = real.base()
    with real.Script(POINTS, tmp_path) as script:
        killed = [script.heard() for _ in range(6)]
    scopes = [f"cgmem-{one['pid']}-*" for one in killed]
    before = [len(list(base.glob(name))) for name in scopes]
    with real.supervising(tmp_path, tick=0.1) as supervisor:
        cgmem.run(["true"], supervisor=supervisor, subprocess_id="sweeps")
        gone = until(lambda: not any(list(base.glob(name)) for name in scopes))
    for one in killed:
        real.clear(base, one["pid"])
    unobserved = {
        one["point"]: [line["cgmem"]["unobserved"] for line in of(one["point"], stats(tmp_path))]
        for one in killed
    }

    assert [one["signal"] for one in killed] == [signal.SIGKILL] * 6
    assert before == [1, 1, 1, 1, 1, 0]
    assert gone
    told = [[True], [True], [True], [True], [False], [False]]
    assert list(unobserved.values()) == told, unobserved


def test_adopting(tmp_path: Path) -> None:
    """An orphan is taken over with its brake, by one; left again; seen to its end by a third."""
    go = tmp_path / "go"
    leak = real.python(WAIT_AND_LEAK, 400, go)
    with real.Script(SUPERVISOR, tmp_path, "orphan_2", *leak) as script:
        pid = script.heard()["pid"]
        directory = real.cgroup_of(pid)
        script.process.kill()
        script.process.wait(PATIENCE)

        def high() -> str:
            return real.read(directory, "memory.high")

        lifted = until(lambda: high() == "max")
        first = command("adopt", "--json", "orphan_2")
        braked = until(lambda: high() == str((64 << 20) - 4096))
        second = said(command("adopt", "--json", "orphan_2"))
        first.send_signal(signal.SIGINT)
        left = said(first)
        after = high(), real.read(directory, "memory.max")
        third = command("adopt", "--json", "orphan_2")
        braked_again = until(lambda: high() != "max")
        go.touch()
        end = said(third)
        guards = list(directory.parent.glob(f"cgmem-guard-{third.pid}-*"))
        real.clear(directory.parent, script.process.pid)
    (line,) = of("orphan_2", stats(tmp_path))

    assert lifted
    assert braked
    assert second[0] == 1
    assert f"is supervised by process {first.pid}" in second[2]
    assert left[0] == 0
    assert left[1] == {"subprocess_id": "orphan_2", "detached": True}
    assert after == ("max", str(64 << 20))
    assert braked_again
    assert end[0] == 137
    assert end[1]["cause"] == "hard_limit"
    assert end[1]["unobserved"] is False
    assert line["cgmem"]["cause"] == "hard_limit"
    assert not directory.exists()
    assert guards == []
