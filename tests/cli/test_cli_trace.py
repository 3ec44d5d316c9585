"""`cgmem trace`, with what this host allows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cli.command import POLLED, cgmem, start

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
