"""Measure side by side, print the tables, and write them as JSON and Markdown.

Usage: python3 -m bench [--quick | --rounds N] [--name NAME] [QUESTION ...]   (--help lists them)
Results go to $CGMEM_GUEST_RESULTS (set in a guest), else to bench/results.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from bench.measure import Question, Row
from bench.report import answered, as_markdown, machine, write

MODULES = (
    "spawn",
    "parts",
    "command",
    "overshoot",
    "stall",
    "false_alarms",
    "peaks",
    "footprint",
    "tick",
    "slowdown",
    "escapes",
    "agents",
)


def main() -> str | None:
    """Answer the questions asked for, all of them by default."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="rounds for each question")
    parser.add_argument("--quick", action="store_true", help="few rounds: does every row run?")
    parser.add_argument("--counted", action="store_true", help="this clock counts instructions")
    parser.add_argument("--name", default="bench", help="of the two files of results")
    parser.add_argument("questions", nargs="*", metavar="|".join(MODULES))
    given = parser.parse_args()
    unknown = set(given.questions) - set(MODULES)
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    # Modules are compiled, as an installer leaves them; or each start would compile them anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    facts = machine()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    answers = []
    for name in given.questions or MODULES:
        question: Question = import_module(f"bench.{name}").QUESTION
        rounds = given.rounds or (question.quick if given.quick else question.rounds)
        began = time.monotonic()
        rows = _rows(question, rounds)
        answers.append(answered(question, rows, rounds, counted=given.counted))
        print("\n" + as_markdown(answers[-1]), flush=True)
        print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
        write(_results(), given.name, facts, answers)
    broken = [one.key for one in answers if not any(row.values for row in one.rows)]
    return f"not answered: {', '.join(broken)}" if broken else None


def _rows(question: Question, rounds: int) -> list[Row]:
    """Measure. A question that fails costs its own answer, not the other half hour's."""
    rows: list[Row] = []
    try:
        rows.extend(question.rows(rounds))
    except Exception as error:  # noqa: BLE001  # shown, and told by the exit status
        traceback.print_exc()
        rows.append(Row("", "the measurement itself", {}, {}, f"failed: {error!r}"))
    return rows


def _results() -> Path:
    return Path(os.environ.get("CGMEM_GUEST_RESULTS") or "bench/results")


if __name__ == "__main__":
    sys.exit(main())
