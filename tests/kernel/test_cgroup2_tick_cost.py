"""What a tick costs, counted in system calls."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real

TICKS = 10
SCOPES = 3

TICKING = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 3600.0})
processes = [cgmem.spawn(["sleep", "600"], supervisor=supervisor) for _ in range(%d)]
poller = processes[0].supervision._poller
for _ in range(2):  # the first looks at a fresh scope
    poller.tick(time.monotonic())
say(pid=os.getpid())
sys.stdin.readline()
os.access("/begin", 0)
for _ in range(%d):
    poller.tick(time.monotonic())
os.access("/end", 0)
say(done=True)
sys.stdin.readline()
for process in processes:
    process.supervision.kill("abort")
supervisor.close()
"""

SCOPE_FILE = re.compile(r"/cgmem-\d+-\d+(/[a-z.]+)?")


def calls_on_scopes(trace: str) -> Counter[str]:
    """Count the calls between the two marks that name a scope's file, by call and file."""
    _, began, rest = trace.partition('"/begin"')
    between, ended, _ = rest.partition('"/end"')
    assert began, "no mark in the trace"
    assert ended, "no second mark in the trace"
    found = Counter[str]()
    for call in between.splitlines():
        file = SCOPE_FILE.search(call)
        if file is not None:
            found[f"{call.partition('(')[0]} {file[1]}"] += 1
    return found


def test_an_idle_scope_costs_two_calls_a_tick(tmp_path: Path) -> None:
    """A tick over an idle scope is two preads and nothing else."""
    real.need_cgroup2()
    if shutil.which("strace") is None:
        if real.IN_GUEST:
            pytest.fail("a guest has strace")
        pytest.skip("strace is not installed")
    output = tmp_path / "trace"
    with real.Script(TICKING % (SCOPES, TICKS), tmp_path / "logs") as script:
        # Without -f the thread of this id alone: not the poller's, whose ticks are an hour apart.
        command = ["strace", "-y", "-o", str(output), "-p", str(script.heard()["pid"])]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            attached = strace.stderr.readline()
            script.tell()
            script.heard()
            strace.terminate()
            strace.communicate(timeout=PATIENCE)
        script.tell()
        script.process.wait(PATIENCE)

    assert "attached" in attached
    assert calls_on_scopes(output.read_text(errors="replace")) == {
        "pread64 /memory.current": SCOPES * TICKS,
        "pread64 /memory.events": SCOPES * TICKS,
    }
