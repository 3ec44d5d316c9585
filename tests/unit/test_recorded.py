"""Recordings: parsed whatever they hold, and drawn where the extras are installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.errors import ConfigurationError
from cgmem.inspecting.recorded import Point, Series, Told, parse

POINT = {"judged_mb": 10.0, "current_mb": 12.0, "warning_mb": 5.0, "critical_mb": 20.0}

LINES = [
    {"subprocess_id": "demo", "command": ["x"], "tick_seconds": 2.0},
    {"t": 0.0, "level": "OK", **POINT, "max_mb": 40.0, "frozen": False},
    {"t": 1.0, "alert": "WARNING", "message": "WARNING: Memory exceeded 5MB at 10.0MB"},
    {"t": 2.0, "level": "WARNING", **POINT, "max_mb": None, "frozen": False},
    {"t": 3.0, "cause": "exited", "message": "exited: status 0", "peak_mb": 10.0},
]


def a_series() -> Series:
    """What the lines say."""
    return parse(json.dumps(line) for line in LINES)


def test_a_recording() -> None:
    """Looks, alerts and the end are told apart; a threshold that there isn't is None."""
    assert a_series() == Series(
        "demo",
        (Point(0.0, 10.0, 12.0, 5.0, 20.0, 40.0), Point(2.0, 10.0, 12.0, 5.0, 20.0, None)),
        (Told(1.0, "WARNING", "WARNING: Memory exceeded 5MB at 10.0MB"),),
        "exited: status 0",
        0,
    )


def test_torn_and_foreign_lines_are_counted() -> None:
    """A recording that was cut short is read as far as it goes."""
    whole = json.dumps(LINES[1])
    found = parse([whole, "[]", "{}", '{"t": NaN}', '{"t": 1}', whole[:20]])

    assert len(found.points) == 1
    assert found.skipped == 5
    assert found.end is None


@given(st.lists(st.text() | st.just(json.dumps(LINES[2]))))
def test_any_text_can_be_read(lines: list[str]) -> None:
    """Nothing raises, and every line that isn't taken is counted."""
    found = parse(lines)

    assert found.skipped + len(found.alerts) == len(lines)


def test_drawn_in_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most as wide as the terminal; thresholds, alerts and the end; no colours in a pipe."""
    pytest.importorskip("plotext")
    from cgmem.cli.terminal_plot import drawn

    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "24")
    lines = drawn(a_series()).splitlines()

    assert max(map(len, lines)) <= 70
    assert any("warning 5" in line for line in lines)
    assert "exited: status 0" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_drawn_as_a_picture(tmp_path: Path) -> None:
    """A PNG, where the name and its directory are fit for it."""
    pytest.importorskip("matplotlib")
    from cgmem.cli.picture import check, draw

    check(str(tmp_path / "x.png"))
    draw(a_series(), str(tmp_path / "x.png"))

    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ("x.nothing", "x", ".png", "no/x.png"):
        with pytest.raises(ConfigurationError, match="--output"):
            check(str(tmp_path / wrong))


def test_a_number_that_no_float_holds_is_foreign() -> None:
    """An absurdly large integer costs its line, nothing else."""
    series = parse([json.dumps({"t": 1, "judged_mb": 10**400, "current_mb": 1})])

    assert (series.points, series.skipped) == ((), 1)
