"""The log files of one supervisor: how many are open and remembered at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cgmem.contract import MB, SystemMemory
from cgmem.logs.memory_logs import MemoryLogs
from cgmem.supervising import journal as journal_module
from cgmem.supervising.journal import REST_SECONDS, Journal
from tests.helpers.proc import open_descriptors

LATER = 2 * REST_SECONDS


@pytest.fixture
def warned() -> list[str]:
    """What was told to `warn`."""
    return []


@pytest.fixture
def journal(warned: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A journal on a machine with plenty of memory; ticks of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return Journal(lambda: SystemMemory(16384 * MB, 8000 * MB), warned.append)


def numbers(directory: Path) -> list[int]:
    """What stands in the statistics there."""
    text = (directory / "subprocess-stats.jsonl").read_text()
    return [json.loads(line)["n"] for line in text.splitlines()]


def writing(number: int) -> Callable[[MemoryLogs], None]:
    """What writes a line."""
    return lambda logs: logs.stats({"n": number})


def held_in(directory: Path) -> set[str]:
    """The descriptors of files there."""
    return {found for found in open_descriptors() if f"{directory}{os.sep}" in found}


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors have no names elsewhere")
def test_files_that_are_not_written_to_are_closed(
    journal: Journal, tmp_path: Path, warned: list[str]
) -> None:
    """A directory's files are closed when it had no line for a while, and open by themselves."""
    old, busy = tmp_path / "old", tmp_path / "busy"
    journal.tick(0.0)
    journal.logs(str(old)).stats({"n": 1})
    journal.logs(str(busy)).stats({"n": 1})
    journal.tick(REST_SECONDS)
    assert held_in(old)
    journal.logs(str(busy)).stats({"n": 2})
    journal.tick(LATER)

    assert held_in(busy)
    assert not held_in(old)
    journal.logs(str(old)).stats({"n": 2})
    assert numbers(old) == [1, 2]
    journal.close()
    assert warned == []


def test_what_waits_is_kept_by_a_directory_at_rest(
    journal: Journal, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that can't be written is not lost, and its directory not forgotten."""
    monkeypatch.setattr(journal_module, "MOST_DIRECTORIES", 1)
    wrong = tmp_path / "wrong"
    (wrong / "subprocess-stats.jsonl").mkdir(parents=True)
    for name in ("first", "wrong", "third"):
        journal.logs(str(tmp_path / name)).stats({"n": 1})
    for tick in range(4):
        journal.tick(tick * REST_SECONDS)
    (wrong / "subprocess-stats.jsonl").rmdir()
    journal.tick(4 * REST_SECONDS)

    assert numbers(wrong) == [1]
    journal.close()
    assert len(warned) == 1
    assert str(wrong) in warned[0]


def test_not_every_directory_is_remembered(
    journal: Journal, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many directories the oldest are forgotten; a late line of one still gets there."""
    monkeypatch.setattr(journal_module, "MOST_DIRECTORIES", 3)
    directories = [tmp_path / f"checkout-{number}" for number in range(9)]
    for number, directory in enumerate(directories):
        journal.logs(str(directory)).stats({"n": number})
    for tick in range(3):
        journal.tick(tick * REST_SECONDS)

    assert len(journal._logs) == 3
    assert len(journal._directories) == 3
    for number, directory in enumerate(directories):
        journal._write(str(directory), writing(number))
    assert [numbers(directory) for directory in directories] == [[n, n] for n in range(9)]
    journal.close()
    assert warned == []
