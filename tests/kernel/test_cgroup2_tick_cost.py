"""What a tick costs, counted in system calls."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel import real_cgroups as real

TICKS = 10

TICKING = """
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 3600.0})
say(pid=os.getpid())
sys.stdin.readline()
processes = []
for scopes in (1, 3):
    while len(processes) < scopes:
        processes.append(cgmem.spawn(["sleep", "600"], supervisor=supervisor))
    poller = processes[0].supervision._poller
    for _ in range(2):  # the first looks at a fresh scope
        poller.tick(time.monotonic())
    os.access(f"/begin-{scopes}", 0)
    for _ in range(%d):
        poller.tick(time.monotonic())
    os.access(f"/end-{scopes}", 0)
say(done=True)
for process in processes:
    process.supervision.kill("abort")
supervisor.close()
"""

SCOPE_FILE = re.compile(r"/cgmem-\d+-\d+(/[a-z.]+)?")


def calls_between(trace: str, pid: int, scopes: int) -> Counter[str]:
    """Count the main thread's calls that name a scope's file, by call and file."""
    inside, found = False, Counter[str]()
    for line in trace.splitlines():
        number, _, call = line.partition(" ")
        if number != str(pid):
            continue
        if f'"/end-{scopes}"' in call:
            return found
        file = SCOPE_FILE.search(call)
        if inside and file is not None:
            found[f"{call.strip().partition('(')[0]} {file[1]}"] += 1
        inside = inside or f'"/begin-{scopes}"' in call
    raise AssertionError(f"no marks for {scopes} scopes in the trace")


def test_an_idle_scope_costs_two_calls_a_tick(tmp_path: Path) -> None:
    """A tick over an idle scope is two preads and nothing else."""
    real.need_cgroup2()
    if shutil.which("strace") is None:
        if real.IN_GUEST:
            pytest.fail("a guest has strace")
        pytest.skip("strace is not installed")
    output = tmp_path / "trace"
    with real.Script(TICKING % TICKS, tmp_path / "logs") as script:
        pid = script.heard()["pid"]
        with subprocess.Popen(
            ["strace", "-f", "-y", "-o", output, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        ) as strace:
            assert strace.stderr is not None
            attached = strace.stderr.readline()
            script.tell()
            script.heard()
            script.process.wait(real.PATIENCE)
            strace.communicate(timeout=real.PATIENCE)
    trace = output.read_text(errors="replace")

    assert "attached" in attached
    for scopes in (1, 3):
        assert calls_between(trace, pid, scopes) == {
            "pread64 /memory.current": scopes * TICKS,
            "pread64 /memory.events": scopes * TICKS,
        }
