"""`cgmem gc` and `adopt` on the backend that works anywhere; tests/kernel has them on cgroups."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import POLLED, cgmem, start, until
from tests.helpers.proc import running


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this test's live scopes are seen."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, int, int]]:
    """A supervised subprocess: its id, its pid and its supervisor's; both end with the test."""
    name = f"gc-{os.getpid()}"
    words = ("/bin/sh", "-c", "echo $$; exec sleep 300 >/dev/null 2>&1")
    run = start("run", *POLLED, "-q", "--id", name, "--max", "64M", "--", *words, cwd=tmp_path)
    with run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        until(lambda: mine(json.loads(cgmem("ps", "--json", cwd=tmp_path).stdout), name), "it")
        yield name, pid, run.pid
        run.kill()
        if running(pid):
            os.kill(pid, signal.SIGKILL)


def mine(listed: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return what is listed of one subprocess."""
    return [found for found in listed if found["subprocess_id"] == name]


def gc(tmp_path: Path, *words: str) -> dict[str, Any]:
    """Run gc and return its JSON."""
    done = cgmem("gc", "--json", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_gc(live: tuple[str, int, int], tmp_path: Path) -> None:
    """An orphan is named; once it has ended it is removed and its end written down, once."""
    name, pid, supervisor = live
    supervised = gc(tmp_path)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not running(supervisor), "its end")
    orphaned = gc(tmp_path)
    shown = cgmem("gc", cwd=tmp_path)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not running(pid), "its end")
    dry = gc(tmp_path, "--dry-run")
    table = cgmem("gc", cwd=tmp_path)
    again = gc(tmp_path)
    log = tmp_path / ".claude-pm/logs/memory/subprocess-stats.jsonl"
    (line,) = mine([json.loads(line) for line in log.read_text().splitlines()], name)

    assert mine(supervised["removed"], name) == []
    assert name not in supervised["orphans"]
    assert name in orphaned["orphans"]
    assert mine(orphaned["removed"], name) == []
    assert f"cgmem kill {name}" in shown.stderr
    assert name not in shown.stdout
    assert [found["outcome"]["cause"] for found in mine(dry["removed"], name)] == ["unknown"]
    assert name in table.stdout
    assert " removed" in table.stdout
    assert mine(again["removed"], name) == []
    assert line["subprocess_id"] == name
    assert line["cgmem"]["unobserved"] is True
    assert line["cgmem"]["exit_code"] is None


def test_adopt_what_is_supervised(live: tuple[str, int, int], tmp_path: Path) -> None:
    """It is its supervisor's: 1, and whose it is."""
    name, _, supervisor = live
    done = cgmem("adopt", name, cwd=tmp_path)

    assert done.returncode == 1
    assert f"subprocess {name} is supervised by process {supervisor}, which lives" in done.stderr


def test_adopt_without_kernel_limits(live: tuple[str, int, int], tmp_path: Path) -> None:
    """An orphan of the fallback can't be taken over, and that is said."""
    name, pid, supervisor = live
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not running(supervisor), "its end")
    done = cgmem("adopt", name, cwd=tmp_path)

    assert done.returncode == 2
    assert "no kernel holds its limits" in done.stderr
    assert f"try: cgmem kill {name}" in done.stderr
    assert running(pid)


def test_adopt_what_is_not_there(tmp_path: Path) -> None:
    """1 for an id that nobody has, 2 for what is no id."""
    unknown = cgmem("adopt", "nobody", cwd=tmp_path)
    wrong = cgmem("adopt", "../x", cwd=tmp_path)

    assert unknown.returncode == 1
    assert "no live subprocess has the id 'nobody'" in unknown.stderr
    assert wrong.returncode == 2
    assert "subprocess id" in wrong.stderr
