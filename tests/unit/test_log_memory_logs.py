"""Which lines are written at once, and to which file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cgmem.logs.memory_logs import MemoryLogs


def lines(path: Path) -> list[dict[str, Any]]:
    """The file's lines, parsed; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_nothing_is_touched_before_the_first_line(tmp_path: Path) -> None:
    """Neither construction nor flush nor close makes a directory."""
    logs = MemoryLogs(tmp_path / "logs", warn=print)
    logs.flush()
    logs.close()

    assert logs.directory == tmp_path / "logs"
    assert not list(tmp_path.iterdir())


def test_the_first_line_makes_all_three_files(tmp_path: Path) -> None:
    """Who follows the alerts can begin before there is one; what was there is left as it is."""
    new, old = tmp_path / "a" / "new", tmp_path / "old"
    old.mkdir()
    for directory in (new, old):
        logs = MemoryLogs(directory, warn=print)
        logs.stats({"n": 1})
        logs.close()

    assert [path.name for path in old.iterdir()] == ["subprocess-stats.jsonl"]
    assert {path.name: path.stat().st_size > 0 for path in new.iterdir()} == {
        "memory-alerts.log": False,
        "subprocess-stats.jsonl": True,
        "memory-monitor.log": False,
    }
    assert {path.stat().st_mode & 0o077 for path in new.iterdir()} == {0}


def test_critical_and_stats_are_written_at_once_the_rest_at_the_tick(tmp_path: Path) -> None:
    """CRITICAL alerts and statistics don't wait for the tick; warnings and the monitor do."""
    warned: list[str] = []
    logs = MemoryLogs(tmp_path, warned.append)
    logs.alert({"level": "WARNING", "n": 1})
    logs.monitor({"level": "OK", "n": 2})
    assert not list(tmp_path.iterdir())

    logs.stats({"subprocess_id": "a"})
    assert lines(tmp_path / "subprocess-stats.jsonl") == [{"subprocess_id": "a"}]
    logs.alert({"level": "CRITICAL", "n": 3})
    assert [line["n"] for line in lines(tmp_path / "memory-alerts.log")] == [1, 3]
    assert not lines(tmp_path / "memory-monitor.log")
    logs.flush()
    assert [line["n"] for line in lines(tmp_path / "memory-monitor.log")] == [2]
    assert warned == []


def test_closed_logs_take_a_late_line(tmp_path: Path) -> None:
    """A line after close is written too: a subprocess may end while the supervisor goes down."""
    warned: list[str] = []
    logs = MemoryLogs(tmp_path, warned.append)
    logs.stats({"n": 1})
    logs.close()
    logs.stats({"n": 2})
    logs.close()

    assert lines(tmp_path / "subprocess-stats.jsonl") == [{"n": 1}, {"n": 2}]
    assert warned == []


def test_vanished_directory_costs_one_warning_a_file_and_stays_gone(tmp_path: Path) -> None:
    """A removed log directory is not made again, also for a file that was never written."""
    warned: list[str] = []
    logs = MemoryLogs(tmp_path / "project" / "logs", warned.append)
    logs.stats({"n": 1})
    shutil.rmtree(tmp_path / "project")

    for _ in range(3):
        logs.stats({"n": 2})
        logs.monitor({"level": "CRITICAL"})
        logs.flush()

    assert len(warned) == 2
    assert all("No such file or directory" in message for message in warned)
    assert not (tmp_path / "project").exists()
    (tmp_path / "project" / "logs").mkdir(parents=True)
    logs.flush()
    assert len(lines(tmp_path / "project" / "logs" / "subprocess-stats.jsonl")) == 3
    logs.close()
