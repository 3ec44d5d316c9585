"""How the bench compares: rounds in turn, ratios, what can't run, and the tables."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.measure import (
    Absent,
    Contender,
    Metric,
    Question,
    Row,
    Spread,
    Taken,
    compared,
    spread,
    timed,
)
from bench.report import COUNTED, answered, as_markdown, write

QUESTION = Question("key", "Title", (Metric("ms", 1, ratio=True),), lambda rounds: [], 5, 1)


def counting(values: list[float]) -> Callable[[], Taken]:
    """A `measure` that gives one value after the other."""
    left: Iterator[float] = iter(values)
    return lambda: {"ms": next(left)}


def failing(error: Exception) -> Callable[[], Taken]:
    """A `measure` that can't."""

    def measure() -> Taken:
        raise error

    return measure


def test_ratios_are_taken_round_by_round() -> None:
    """A minute in which everything is ten times slower does not move a ratio."""
    base = Contender("base", counting([9.0, 1.0, 10.0, 1.0]))
    other = Contender("other", counting([9.0, 2.0, 20.0, 2.0]))

    found = compared("", [base, other], rounds=3, warm_up=1)

    assert found[0].ratios["ms"] == Spread(1, 1, 1)
    assert found[1].ratios["ms"] == Spread(2, 2, 2)
    assert found[1].values["ms"] == Spread(2, 2, 20)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Absent("no cgexec here"), "no cgexec here"),
        (OSError("gone"), "failed: gone"),
        (subprocess.TimeoutExpired(["peer"], 1.0), "failed: "),
    ],
)
def test_who_can_not_run_is_a_row_that_says_why(error: Exception, why: str) -> None:
    """One contender's failure leaves the others measured, also where it is the base."""
    found = compared(
        "scene",
        [Contender("broken", failing(error)), Contender("good", counting([1.0, 2.0]))],
        rounds=2,
    )

    assert found[0] == Row("scene", "broken", {}, {}, found[0].note)
    assert found[0].note.startswith(why)
    assert found[1].values["ms"].median == 1.5
    assert found[1].ratios == {}


def test_spread_of_few_values_is_the_extremes() -> None:
    """Quartiles need four values; one that never ended counts as infinite."""
    assert spread([3.0, 1.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([1.0, math.inf, 2.0]) == Spread(2.0, 1.0, math.inf)
    assert spread([1.0, 2.0, 3.0, 4.0]) == Spread(2.5, 1.25, 3.75)


def test_time_is_in_milliseconds() -> None:
    """`timed` calls what it was given, once."""
    calls: list[None] = []
    taken = timed(lambda: calls.append(None))()

    assert len(calls) == 1
    assert 0 <= float(taken["ms"]) < 20_000


def test_the_table_has_ratios_notes_and_never() -> None:
    """What is infinite reads "never"; a bar in a note does not break the table."""
    rows = [
        Row("a", "quick", {"ms": Spread(1.0, 1.0, 1.0)}, {"ms": Spread(1.0, 1.0, 1.0)}),
        Row("b", "slow", {"ms": Spread(math.inf, 2.0, math.inf)}, {}, "x|y"),
    ]

    text = as_markdown(answered(QUESTION, rows, 3, counted=False))

    assert "| case |  | ms | ratio | note |" in text
    assert "| a | quick | 1.0 | 1.00 |  |" in text
    assert "| b | slow | never (2.0 to never) |  | x\\|y |" in text


def test_counted_milliseconds_are_instructions() -> None:
    """Where a nanosecond is an instruction, a table says so."""
    row = Row("", "one", {"ms": Spread(1.0, 1.0, 1.0)}, {"ms": Spread(1.0, 1.0, 1.0)})

    text = as_markdown(answered(QUESTION, [row], 1, counted=True))

    assert f"|  | {COUNTED['ms']} | ratio |" in text
    assert "| one | 1.0 | 1.00 |" in text


def test_results_are_strict_json(tmp_path: Path) -> None:
    """What never ended is null: JSON has no infinity."""
    row = Row("", "one", {"ms": Spread(math.inf, 1.0, math.inf)}, {})
    write(tmp_path, "name", {"system": "here"}, [answered(QUESTION, [row], 1, counted=False)])

    record = json.loads((tmp_path / "name.json").read_text(), parse_constant=pytest.fail)

    assert record["answers"][0]["rows"][0]["values"]["ms"]["median"] is None
    assert (tmp_path / "name.md").read_text().startswith("- system: here\n")
