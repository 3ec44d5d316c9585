"""Whether the line of a run is in a log: what `cgmem gc` asks before it writes another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import ScopeRecord
from cgmem.logs import told
from cgmem.logs.memory_logs import STATS_FILE
from cgmem.logs.told import is_told

STARTED = 1_700_000_000.123456


def a_line(name: str = "job", started_at: object = STARTED, pid: int = 7, start: int = 9) -> bytes:
    """A line of a statistics log, as far as it matters here."""
    ours = {"started_at": started_at, "supervisor_pid": pid, "supervisor_start": start}
    return json.dumps({"subprocess_id": name, "cgmem": ours}).encode()


def told_in(directory: Path | None, name: str = "job", started_at: float = STARTED) -> bool:
    """Whether a run of supervisor 7, which began at tick 9, is told in a directory's log."""
    return is_told(
        ScopeRecord(
            subprocess_id=name,
            supervisor_pid=7,
            supervisor_start=9,
            started_at=started_at,
            command=("true",),
            log_dir=None if directory is None else str(directory),
        )
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a statistics log is to be."""
    return tmp_path / STATS_FILE


def test_its_line_is_there(log: Path) -> None:
    """Found among others, to the very start."""
    log.write_bytes(b"\n".join([a_line("other"), a_line("job", 3.0), a_line(), a_line("last")]))

    assert told_in(log.parent)
    assert told_in(log.parent, "last")
    assert not told_in(log.parent, started_at=STARTED + 1e-6)
    assert not told_in(log.parent, "jo")


def test_a_rotated_log_counts(log: Path) -> None:
    """The line may have been rotated away since; what is much older than the run is not read."""
    rotated = log.with_name(f"{STATS_FILE}.2")
    rotated.write_bytes(a_line())
    log.write_bytes(a_line("other"))

    assert told_in(log.parent)
    os.utime(rotated, (STARTED - 1, STARTED - 1))
    assert told_in(log.parent)
    os.utime(rotated, (STARTED - 4000, STARTED - 4000))
    assert not told_in(log.parent)


def test_another_supervisors_line_is_not_its(log: Path) -> None:
    """Who let go of a run has told that, not how it ended under whoever took it over."""
    log.write_bytes(b"\n".join([a_line(pid=8), a_line(start=10)]))
    assert not told_in(log.parent)


def test_a_log_that_cannot_be_opened_hides_no_other(log: Path) -> None:
    """A rotated file that is gone by now, or no file, costs its own lines alone."""
    log.write_bytes(a_line())
    log.with_name(f"{STATS_FILE}.1").symlink_to("gone")
    os.mkfifo(log.with_name(f"{STATS_FILE}.2"))

    assert told_in(log.parent)


@pytest.mark.parametrize(
    "text",
    [
        a_line()[:-3],
        b'"job"',
        b'["job"]',
        b'{"job": 1, "cgmem": 3}',
        b'{"agent": "job", "subprocess_id": "x", "cgmem": {"started_at": 1700000000.123456}}',
        b"[" * 100_000 + b'"job"',
    ],
)
def test_torn_and_foreign_lines_tell_nothing(log: Path, text: bytes) -> None:
    """A line that names the run and is not its own is none, and hides none."""
    log.write_bytes(text + b"\n")
    assert not told_in(log.parent)

    log.write_bytes(text + b"\n" + a_line() + b"\n")
    assert told_in(log.parent)


def test_no_log(log: Path) -> None:
    """No directory, no file, or something else in its place: nothing was told."""
    assert not told_in(None)
    assert not told_in(log.parent / "gone")
    assert not told_in(Path("/nowhere\0"))
    assert not told_in(log.parent)
    os.mkfifo(log)
    assert not told_in(log.parent)


def test_the_end_of_an_endless_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that nobody rotated the end is read."""
    monkeypatch.setattr(told, "MOST_BYTES", 200)
    log.write_bytes(a_line("early") + b"\n" + a_line("x") * 10 + b"\n" + a_line() + b"\n")

    assert told_in(log.parent)
    assert not told_in(log.parent, "early")


@given(data=st.binary(max_size=200))
def test_whatever_is_in_it(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No bytes before the line keep it from being found, as long as a line ends there."""
    log = tmp_path_factory.mktemp("log") / STATS_FILE
    log.write_bytes(data + b"\n" + a_line())

    assert told_in(log.parent)
