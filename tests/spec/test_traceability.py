"""docs/spec-traceability.md: every sentence of the spec, and what shows it."""

from __future__ import annotations

import re

import pytest

from cgmem.cli.group import VERBS
from tests.spec.markdown import ROOT, SPEC, sentences

_MARKER = re.compile(r"^(?:- |\d+\. )")
_TEST = re.compile(r"`(tests/[\w/.]+)::(\w+)`")
_COMMAND = re.compile(r"`cgmem (\w+)")


def rows() -> list[tuple[str, str, str]]:
    """Return the table's rows: sentence, verdict, what shows it."""
    found = []
    for line in (ROOT / "docs" / "spec-traceability.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] != "the spec":
            found.append((cells[0], cells[1], cells[2] if len(cells) > 2 else ""))
    return found


def promises() -> list[str]:
    """Return the spec's sentences as the table writes them; lead-ins promise nothing."""
    found = []
    for line in sentences(SPEC.read_text()):
        words = " / ".join(cell.strip() for cell in line.strip("|").split("|"))
        if not words.endswith(":") and words != "Threshold / Default Value / Action":
            found.append(_MARKER.sub("", words))
    return found


def test_every_sentence_is_there_once_and_nothing_else() -> None:
    """The first column is the spec's sentences, to the letter and in order."""
    assert [row[0] for row in rows()] == promises()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_what_shows_it_exists(row: tuple[str, str, str]) -> None:
    """A row names a test or a command that is there; a deviation has a reason; plans have none."""
    _, verdict, shown = row

    assert verdict in ("shown", "deviates", "planned")
    assert bool(shown.strip()) == (verdict != "planned")
    tests, commands = _TEST.findall(shown), _COMMAND.findall(shown)
    assert tests or commands or "`make bench`" in shown or verdict == "planned"
    for path, function in tests:
        assert f"def {function}(" in (ROOT / path).read_text(), f"{path}::{function}"
    assert set(commands) <= set(VERBS)
