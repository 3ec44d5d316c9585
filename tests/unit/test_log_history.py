"""What is made of log lines: runs, figures and suggested thresholds; reading and following."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cgmem.cli.logs import since_when
from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.logs import history
from cgmem.logs.history import Run, is_alert, is_run, run_of, suggest, summarise
from cgmem.logs.reading import LONGEST_LINE_BYTES, Reader, _Splitter

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def a_line(name: str = "engineer_abc", peak: float = 10.0, **ours: Any) -> dict[str, Any]:
    """A line of subprocess-stats.jsonl."""
    stats = {"start_mb": 1.0, "peak_mb": peak, "end_mb": 1.0, "duration_seconds": 2.0}
    return {
        "subprocess_id": name,
        "memory_stats": {**stats, "warnings": [], "aborted": False},
        "timestamp": "2025-07-20T10:31:20.456789",
        **({"cgmem": ours} if ours else {}),
    }


def a_run(peak: float, *, cause: str = "exited", seen: bool = True) -> Run:
    """A run of an engineer."""
    return Run("engineer_1", "engineer", 0.0, cause, peak, 1.0, False, seen)


@given(line=st.dictionaries(st.sampled_from(sorted(a_line(cause="x"))), JSON))
def test_foreign_lines_never_raise(line: dict[str, Any]) -> None:
    """Whatever JSON object it is, it is a run that can be read, or none."""
    is_alert(line)
    if is_run(line):
        run_of(line)


def test_a_line_of_the_spec_is_a_run() -> None:
    """Without anything of ours the type is the id's and the cause follows from `aborted`."""
    run = run_of(a_line())

    assert (run.agent_type, run.cause, run.peak_mb) == ("engineer", "exited", 10.0)
    assert run_of(a_line(cause="timeout", agent_type="qa")).agent_type == "qa"


def test_lines_that_are_no_runs() -> None:
    """NaN, what no float holds, a negative size, a text for a number, or no time: not taken."""
    for wrong in (float("nan"), float("inf"), 10**400, 1e308, -1, "12", True, None):
        assert not is_run(a_line(peak=wrong))  # type: ignore[arg-type]  # what is tested
    assert not is_run({**a_line(), "timestamp": "yesterday"})


def test_figures_by_nearest_rank() -> None:
    """The 95th percentile of 100 peaks is the 95th, that of one is the one."""
    many = summarise([a_run(float(peak)) for peak in range(1, 101)])
    one = summarise([a_run(7.0, cause="hard_limit", seen=False)])

    assert many.peak_mb == (50.0, 95.0, 100.0)
    assert one.peak_mb == (7.0, 7.0, 7.0)
    assert (one.unseen, one.cut_short) == (1, 1)


@given(peaks=st.lists(st.floats(0, 1e6), min_size=1, max_size=50), margin=st.floats(0, 10))
def test_a_suggestion_rises_and_holds_what_was_seen(peaks: list[float], margin: float) -> None:
    """warning < critical < max; the warning is above the p95, the hard limit above every peak."""
    summary = summarise([a_run(peak) for peak in peaks])
    found = suggest(summary, margin)

    assert found.warning < found.critical < found.maximum
    assert found.warning >= summary.peak_mb[1] * MB
    assert found.maximum >= max(peaks) * MB


def test_the_yaml_is_what_a_configuration_file_takes() -> None:
    """Also below agent_types, with a name that YAML would take for something else."""
    found = suggest(summarise([a_run(100.0)]), 0.25)
    whole = yaml.safe_load("\n".join(history.as_yaml(found)))
    typed = yaml.safe_load("\n".join(["agent_types:", *history.as_yaml(found, "on")]))

    assert whole == {"warning": "128M", "critical": "192M", "max": "256M"}
    assert typed == {"agent_types": {"on": whole}}


def accept(line: dict[str, Any]) -> bool:
    """Lines with a number."""
    return isinstance(line.get("n"), int)


def numbers(*values: int) -> str:
    """Lines with these numbers."""
    return "".join(f"{json.dumps({'n': value})}\n" for value in values)


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    """The highest number is the oldest; torn and foreign lines are counted, not raised."""
    path = tmp_path / "x.log"
    path.write_text(numbers(5) + '{"n": 6')
    (tmp_path / "x.log.1").write_text(numbers(3) + "[1]\n\n" + numbers(4))
    (tmp_path / "x.log.10").write_bytes(b"\xff\xfe\n" + numbers(1, 2).encode())
    (tmp_path / "x.log.old").write_text(numbers(99))
    found = Reader(path, accept)

    assert [line["n"] for line in found.read()] == [1, 2, 3, 4, 5]
    assert found.skipped == 3


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A FIFO or a link is neither waited for nor followed: the writer refuses it too."""
    os.mkfifo(tmp_path / "x.log")
    (tmp_path / "device").symlink_to(os.devnull)

    for name, why in (("x.log", "not a regular file"), ("device", "symbolic links are refused")):
        found = Reader(tmp_path / name, accept)
        for lines in (found.read, partial(found.follow, lambda _seconds: None)):
            with pytest.raises(OSError, match=why) as caught:
                list(lines())
            assert caught.value.filename == str(tmp_path / name)


def test_no_file_is_no_line(tmp_path: Path) -> None:
    """Neither a missing file nor a missing directory is an error."""
    assert list(Reader(tmp_path / "x.log", accept).read()) == []
    assert list(Reader(tmp_path / "none" / "x.log", accept).read()) == []


def test_following_through_torn_writes_and_rotation(tmp_path: Path) -> None:
    """Lines come whole and once, those of the rotated file before those of the new one."""
    path = tmp_path / "x.log"
    path.write_text(numbers(0))

    def append(text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    def rotate() -> None:
        append(numbers(3))
        path.rename(tmp_path / "x.log.1")
        path.write_text(numbers(4))

    steps = [lambda: append('{"n"'), lambda: append(": 1}\n"), lambda: append(numbers(2)), rotate]
    coming = Reader(path, accept).follow(lambda _seconds: steps.pop(0)())

    assert [next(coming)["n"] for _ in range(4)] == [1, 2, 3, 4]
    coming.close()


def test_following_an_emptied_file(tmp_path: Path) -> None:
    """After `: > FILE` or copytruncate what is written is read from the beginning."""
    path = tmp_path / "x.log"
    path.write_text(numbers(0, 1, 2) + '{"n": 3')

    texts = ["", numbers(4), "", numbers(5)]

    def write(_seconds: float) -> None:
        path.write_text(texts.pop(0))

    found = Reader(path, accept)
    coming = found.follow(write)

    assert [next(coming)["n"] for _ in range(2)] == [4, 5]
    assert found.skipped == 0
    coming.close()


def test_following_keeps_no_line_without_an_end(tmp_path: Path) -> None:
    """A line longer than any of ours is one foreign line, and the next one comes whole."""
    path = tmp_path / "x.log"
    path.write_text("")
    long = "x" * (2 * LONGEST_LINE_BYTES)

    def append(text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    steps = [lambda: append(long), lambda: append(f"{long}\n{numbers(1)}")]
    found = Reader(path, accept)
    coming = found.follow(lambda _seconds: steps.pop(0)())

    assert next(coming) == {"n": 1}
    assert found.skipped == 1
    coming.close()
    splitter = _Splitter()
    given = [splitter.lines(b"x" * (1 << 16)) for _ in range(40)]
    assert sum(map(len, given)) == 1
    assert splitter._rest == b""


def test_following_a_file_that_comes_later(tmp_path: Path) -> None:
    """What is not there yet is read from its beginning."""
    path = tmp_path / "x.log"

    def write(_seconds: float) -> None:
        path.write_text(numbers(1))

    coming = Reader(path, accept).follow(write)

    assert next(coming) == {"n": 1}
    coming.close()


def test_since() -> None:
    """A while ago, or a date."""
    assert since_when(None) == 0.0
    assert since_when("90s", now=1000.0) == 910.0
    assert since_when("1.5h", now=10_000.0) == 4600.0
    assert since_when("2025-07-20T10:00:00Z") == 1_753_005_600.0
    for wrong in ("", "later", "10", "10y"):
        with pytest.raises(ConfigurationError, match="--since"):
            since_when(wrong)
