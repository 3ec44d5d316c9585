"""The guard: no brake and no freeze outlives the supervisor that set it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

SUPERVISOR = """
seen = []
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 0.5, "warning": "16M",
                         "critical": "32M", "max": "96M", "on_stall": "hold", "stall_after": 2.0})
process = cgmem.spawn(sys.argv[3:], supervisor=supervisor, start_new_session=True,
                      on_alert=lambda _, alert: seen.append(alert.kind))
while process.check_memory()[1] != "CRITICAL":
    time.sleep(0.1)
if sys.argv[2] == "fork":
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(60)
        os._exit(0)
elif sys.argv[2] == "freeze":
    process.supervision.scope.freeze(True)
else:
    while "stall" not in seen:
        time.sleep(0.1)
say(pid=process.pid)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


class Orphan(NamedTuple):
    """What a killed supervisor left, and what became of it."""

    high: str
    frozen: str
    emptied: bool
    seconds: float
    events: dict[str, int]
    guard_gone: bool


def killed(killed_in: str, log_dir: Path) -> Orphan:
    """SIGKILL a supervisor of a leak at a moment, and wait for the end of both."""
    leak = real.python(real.LEAK, 400)
    with real.Script(SUPERVISOR, log_dir, killed_in, *leak) as script:
        pid = script.heard()["pid"]
        directory = real.cgroup_of(pid)
        before = real.read(directory, "memory.high")
        frozen = real.read(directory, "cgroup.freeze")
        began = time.monotonic()
        script.process.send_signal(signal.SIGKILL)
        script.process.wait(PATIENCE)
        emptied = until(lambda: not real.events(directory, "cgroup.events")["populated"])
        took = time.monotonic() - began
        counted = real.events(directory)
        real.kill_quietly(pid)
        (leaf,) = directory.parent.glob(f"cgmem-guard-{script.process.pid}-*")
        gone = until(lambda: not real.read(leaf, "cgroup.procs"))
    assert until(lambda: not real.read(directory, "cgroup.procs"))
    directory.rmdir()
    leaf.rmdir()
    return Orphan(before, frozen, emptied, took, counted, gone)


MOMENTS = ("stall", "freeze", "fork")


@pytest.fixture(scope="module")
def orphans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Orphan]]:
    """Kill a supervisor at each moment, side by side, since each waits for its own."""
    with ThreadPoolExecutor(len(MOMENTS)) as pool:
        futures = {
            moment: pool.submit(killed, moment, tmp_path_factory.mktemp(moment))
            for moment in MOMENTS
        }
        yield lambda moment: futures[moment].result()


@pytest.mark.parametrize("killed_in", MOMENTS)
def test_the_supervisor_is_killed(
    killed_in: str, orphans: Callable[[str], Orphan], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a stall, in a freeze, with a forked child: the orphan goes on to its hard limit."""
    orphan = orphans(killed_in)
    with capsys.disabled():
        text = f"supervisor killed in a {killed_in}: orphan ended {orphan.seconds:.1f} s later"
        print(f"\nguard: {text}")  # noqa: T201  (a number that docs quote)

    assert orphan.high == str(32 << 20)
    assert orphan.frozen == ("1" if killed_in == "freeze" else "0")
    assert orphan.emptied
    assert orphan.events["oom_kill"] >= 1
    assert orphan.guard_gone


ORDERLY = """
with_brake = sys.argv[2] == "brake"
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1],
                         "enforcement": "required" if with_brake else "off"})
cgmem.run(["true"], supervisor=supervisor)
own = Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2]
base = (Path("/sys/fs/cgroup") / own.lstrip("/")).parent
during = [path.name for path in base.glob("cgmem-guard-*")]
inside = [pid for path in base.glob("cgmem-guard-*/cgroup.procs") for pid in path.open()]
supervisor.close()
after = [path.name for path in base.glob("cgmem-*")]
say(during=during, inside=inside, after=after)
"""


@pytest.mark.parametrize("how", ["brake", "none"])
def test_an_orderly_end(how: str, tmp_path: Path) -> None:
    """With a brake there is one guard, in a cgroup of its own, until close; without one, none."""
    with (
        real.stage() as directory,
        real.Script(ORDERLY, tmp_path, how, inside=directory) as script,
    ):
        said = script.heard()
        script.process.wait(PATIENCE)
        left = real.read(directory, "cgroup.events")

    assert len(said["during"]) == (how == "brake")
    assert len(said["inside"]) == (how == "brake")
    assert said["after"] == ["cgmem-supervisor"]
    assert "populated 0" in left


def stands(procs: Path, supervisor: int) -> bool:
    """Whether the guard is alone in its cgroup: the shell that started it has gone."""
    pids = procs.read_text().split()
    if len(pids) != 1:
        return False
    status = Path(f"/proc/{pids[0]}/status").read_text()
    return f"\nPPid:\t{supervisor}\n" not in status


def test_beside_a_foreground_job(tmp_path: Path) -> None:
    """Ctrl-C does not reach it, and it holds none of the job's output once cgmem was killed."""
    job = "trap '' INT; echo $$; exec sleep 600 > /dev/null 2>&1"
    options = ["-q", "--max", "64M", "--no-preflight", "--log-dir", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "cgmem", "run", *options, "--", "/bin/sh", "-c", job],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=real.environment(),
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        directory = real.cgroup_of(pid)
        pattern = f"cgmem-guard-{run.pid}-*/cgroup.procs"
        assert until(lambda: [p for p in directory.parent.glob(pattern) if stands(p, run.pid)])
        (procs,) = directory.parent.glob(pattern)
        guard = int(procs.read_text())
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.5)
        after_interrupt = running(guard), run.poll()
        high = real.read(directory, "memory.high")
        run.send_signal(signal.SIGKILL)
        rest = run.stdout.read()
        lifted = until(lambda: real.read(directory, "memory.high") == "max")
        hard = real.read(directory, "memory.max")
        (directory / "cgroup.kill").write_text("1")
        assert until(lambda: not real.read(directory, "cgroup.procs"))
        assert until(lambda: not procs.read_text())
    directory.rmdir()
    procs.parent.rmdir()

    assert after_interrupt == (True, None)
    assert high == str(32 << 20)
    assert rest == b""
    assert lifted
    assert hard == str(64 << 20)


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    """It leaves neither a guard nor its cgroup."""
    base = real.base()
    run = subprocess.Popen(
        [sys.executable, "-m", "cgmem", "run", "-q", "--no-preflight", "--", "/no/such/command"],
        env=real.environment(CGMEM_LOG_DIR=str(tmp_path)),
        stderr=subprocess.DEVNULL,
    )
    status = run.wait(PATIENCE)

    assert status == 127
    assert not list(base.glob(f"cgmem-guard-{run.pid}-*"))
    assert not list(base.glob(f"cgmem-{run.pid}-*"))
