"""What `run` shows and keeps while its command runs: the status line and the recording."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.command import POLLED, cgmem
from tests.cli.terminal import CTRL_Z, bash

SLOW = "import time; print('begun', flush=True); time.sleep({seconds}); print('done')"


def test_a_recording_tells_the_whole_life(tmp_path: Path) -> None:
    """Whose it is, a look a tick, the alerts among them, and the end; `plot` reads it."""
    grow = "import time; x = bytearray(40 << 20); time.sleep(1.5)"
    file = tmp_path / "rec.jsonl"
    done = cgmem(
        "run", *POLLED, "-q", "--id", "kept", "--max", "64M", "--record", str(file), "--",
        sys.executable, "-c", grow, cwd=tmp_path, env={"CGMEM_TICK": "0.1"},
    )  # fmt: skip
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    plotted = json.loads(cgmem("plot", str(file), "--json", cwd=tmp_path).stdout)

    assert done.returncode == 0
    assert lines[0]["subprocess_id"] == "kept"
    assert lines[-1]["cause"] == "exited"
    assert [line["alert"] for line in lines if "alert" in line] == ["WARNING", "CRITICAL"]
    assert max(line.get("judged_mb", 0) for line in lines) > 40
    assert [line["t"] for line in lines[1:]] == sorted(line["t"] for line in lines[1:])
    assert len(plotted["points"]) > 2
    assert plotted["end"].startswith("exited")


def test_a_recording_that_cannot_be_written(tmp_path: Path) -> None:
    """A wrong path is refused before anything starts; a full disk costs only the recording."""
    wrong = cgmem("run", "--record", str(tmp_path / "no" / "x"), "--", "touch", "ran", cwd=tmp_path)

    assert wrong.returncode == 125
    assert f"--record: '{tmp_path}"[:40] in wrong.stderr
    assert "try: " in wrong.stderr
    assert not (tmp_path / "ran").exists()
    if Path("/dev/full").exists():
        full = cgmem("run", *POLLED, "--record", "/dev/full", "--", "true", cwd=tmp_path)
        assert full.returncode == 0
        assert full.stderr.count("--record") == 1


@pytest.mark.parametrize("name", ["", "-", "fd:1"])
def test_a_recording_needs_a_file(tmp_path: Path, name: str) -> None:
    """Where --report could go is no place for a recording, and no file of such a name is made."""
    done = cgmem("run", "--record", name, "--", "touch", "ran", cwd=tmp_path)

    assert done.returncode == 125
    assert f"--record takes the name of a file, not {name!r}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_plotted(tmp_path: Path) -> None:
    """A torn line is counted; a picture that can't come is refused before anything is looked at."""
    (tmp_path / "torn.jsonl").write_text('{"subprocess_id": "x", "tick_seconds": 1}\n{"t": ')
    torn = cgmem("plot", "torn.jsonl", cwd=tmp_path)
    wrong = [
        cgmem("plot", "nobody", "--output", name, cwd=tmp_path)
        for name in ("x.foo", "x", "no/x.png")
    ]

    assert "1 torn or foreign line was skipped" in torn.stderr
    assert [done.returncode for done in wrong] == [2, 2, 2]
    assert all("--output: " in done.stderr and "try: " in done.stderr for done in wrong)


def test_nothing_of_the_status_line_in_a_pipe(tmp_path: Path) -> None:
    """-v in a pipe has no escape sequences."""
    words = (sys.executable, "-c", SLOW.format(seconds=1.5))
    done = cgmem("run", *POLLED, "-v", "--", *words, cwd=tmp_path)

    assert "\x1b" not in done.stderr + done.stdout


def test_the_status_line_keeps_to_its_row(tmp_path: Path) -> None:
    """It is drawn in the last row, given back when the job stops, and at the end."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(seconds=3))
    with bash(tmp_path, LC_ALL="C.UTF-8") as terminal:
        terminal.line("stty rows 24 columns 80")
        terminal.line(f"cgmem run {' '.join(POLLED)} -v --id shown -- {sys.executable} slow.py")
        terminal.expect("begun")
        terminal.expect(r"\x1b\[1;23r")
        terminal.expect(r"\x1b\[24;1H\x1b\[2Kshown  OK  ")
        terminal.type(CTRL_Z)
        terminal.expect(r"\x1b\[r\x1b\[24;1H\x1b\[2K")
        terminal.expect("Stopped")
        terminal.line("fg")
        terminal.expect("done")
        terminal.expect(r"\x1b\[r")
        terminal.line("echo status $?")
        terminal.expect("status 0")
