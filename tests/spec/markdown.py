"""The spec as the tests read it: its code blocks and its sentences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec" / "memory-monitoring.md"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"[|\s-]+")


class Fenced(NamedTuple):
    """One fenced block."""

    language: str
    text: str


def fenced_blocks(text: str) -> list[Fenced]:
    """Return every fenced block, in order."""
    return [Fenced(match[1], match[2]) for match in _FENCED.finditer(text)]


def sentences(text: str) -> list[str]:
    """Return every line that says something: no code, no headings, no table rules."""
    found = []
    for line in _FENCED.sub("", text).splitlines():
        words = line.strip()
        if words and not words.startswith("#") and not _RULE.fullmatch(words):
            found.append(words)
    return found
