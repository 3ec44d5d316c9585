"""`cgmem trace`, with what this host allows."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.command import POLLED, cgmem, start, until
from tests.helpers.proc import running

HOG = """
import mmap, subprocess, sys, time
if len(sys.argv) > 1:
    held = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held[::4096] = b"x" * (60 << 8)
    time.sleep(float(sys.argv[1]))
else:
    subprocess.run([sys.executable, "-I", "-S", __file__, "{seconds}"])
    sys.exit(3)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sources are Linux's")


def test_the_hog_of_a_command(tmp_path: Path) -> None:
    """A short-lived child that took the most is named; the exit status is the command's."""
    script = tmp_path / "hog.py"
    script.write_text(HOG.format(seconds=2.0))
    done = cgmem("trace", "--json", "--", sys.executable, "-I", "-S", str(script), cwd=tmp_path)
    answer = json.loads(done.stdout)

    assert done.returncode == 3
    assert answer["hog"]["command"].endswith("hog.py 2.0")
    assert answer["hog"]["peak_kib"] > 60 << 10
    assert "status" not in answer["hog"]
    assert answer["hog"]["signal"] is None
    assert answer["hog"]["exit_code"] == (None if "life" in answer["cannot"] else 0)
    assert answer["complete"] == (not answer["cannot"] and not answer["lost_events"])
    assert not any(process["lives"] for process in answer["processes"])


def test_a_command_that_would_clear_the_screen(tmp_path: Path) -> None:
    """A traced command line is its own text: what would act on a terminal is escaped."""
    code = "import time; time.sleep(1)  # \x1b[2J\n"
    done = cgmem("trace", "--", sys.executable, "-I", "-S", "-c", code, cwd=tmp_path)

    assert done.returncode == 0
    assert "hog: pid" in done.stdout
    assert "\x1b" not in done.stdout
    assert r"\x1b[2J\n" in done.stdout


def test_a_live_one_for_a_while(tmp_path: Path) -> None:
    """What already runs is shown as living, with its peak so far."""
    name = f"traced-{os.getpid()}"
    code = "import time; print('on', flush=True); time.sleep(300)"
    words = ("run", *POLLED, "-q", "--id", name, "--", sys.executable, "-c", code)
    with start(*words, cwd=tmp_path) as run:
        assert run.stdout is not None
        run.stdout.readline()
        done = cgmem("trace", name, "--seconds", "0.5", "--json", cwd=tmp_path)
        run.terminate()
    (process,) = json.loads(done.stdout)["processes"]

    assert process["lives"] is True
    assert process["peak_kib"] > 1000
    assert code in process["command"]


def test_who_cannot_listen_is_told_what_to_do(tmp_path: Path) -> None:
    """Without pyroute2 what can be looked at is shown, and what that can't see is said."""
    (tmp_path / "pyroute2.py").write_text("raise ImportError('hidden by a test')\n")
    done = cgmem(
        "trace", "--", "sleep", "1", cwd=tmp_path, env={"PYTHONPATH": _with(str(tmp_path))}
    )

    assert done.returncode == 0
    assert "sleep 1" in done.stdout
    assert "pip install 'cgmem[trace]'" in done.stderr


def _with(directory: str) -> str:
    checkout = Path(__file__).parents[2]
    return os.pathsep.join([directory, str(checkout), str(checkout / "backends")])


def test_trace_says_what_is_wrong(tmp_path: Path) -> None:
    """An unknown id is 1; two words without -- are told how a command is given."""
    assert cgmem("trace", "nobody", cwd=tmp_path).returncode == 1
    wrong = cgmem("trace", "sleep", "1", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "cgmem trace -- CMD" in wrong.stderr
    early = cgmem("trace", "nobody", "--max", "1G", cwd=tmp_path)
    assert early.returncode == 2
    assert "--max is for a CMD, which comes after --" in early.stderr


# Lives on for a second after the signal, so that it is looked at.
SLOW_END = "trap 'sleep 1; trap - {0}; kill -{0} $$' {0}; echo $$; sleep 300 & wait"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_what_asks_to_end_is_passed_on(tmp_path: Path, signum: signal.Signals) -> None:
    """The command gets the signal, its trace is printed, and the status is that of `run`."""
    code = SLOW_END.format(signum.name[3:])
    with start("trace", "--json", "--", "/bin/sh", "-c", code, cwd=tmp_path) as trace:
        assert trace.stdout is not None
        pid = int(trace.stdout.readline())
        trace.send_signal(signum)
        out, _ = trace.communicate(timeout=60)

    assert trace.returncode == 128 + signum
    assert pid in [process["pid"] for process in json.loads(out)["processes"]]
    assert not running(pid)


def test_ctrl_c_is_the_command_s_alone(tmp_path: Path) -> None:
    """What listens for processes goes on to the end of the trace, without a word."""
    code = "trap 'sleep 1; exit 5' INT; echo $$; while :; do sleep 0.1; done"
    with start("trace", "--json", "--", "/bin/sh", "-c", code, cwd=tmp_path) as trace:
        assert trace.stdout is not None
        pid = int(trace.stdout.readline())
        os.killpg(trace.pid, signal.SIGINT)
        out, err = trace.communicate(timeout=60)
    answer = json.loads(out)

    assert trace.returncode == 5
    assert pid in [process["pid"] for process in answer["processes"]]
    assert "Traceback" not in err
    assert "the program that listens has ended" not in answer["cannot"].values()


def test_a_live_one_until_sigterm(tmp_path: Path) -> None:
    """What was seen by then is printed; what is traced lives on."""
    name = f"left-{os.getpid()}"
    words = ("run", *POLLED, "-q", "--id", name, "--", "/bin/sh", "-c", "echo $$; exec sleep 300")
    with start(*words, cwd=tmp_path) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        trace = start("trace", name, "--json", cwd=tmp_path)
        try:
            until(lambda: _handles(trace.pid, signal.SIGTERM), "the trace to begin")
            trace.terminate()
            out, _ = trace.communicate(timeout=60)
            lives = running(pid)
        finally:
            trace.kill()
            run.terminate()

    assert trace.returncode == 143
    assert [process["pid"] for process in json.loads(out)["processes"]] == [pid]
    assert lives


def _handles(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signum - 1) & 1)
