"""What goes to the terminal: safe text, whole lines, tables and JSON.

`run` says next to nothing, so what lays out and wraps is imported where it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NARROW = 80
_COLOURS = {"FROZEN": "36", "WARNING": "33", "CRITICAL": "31;1", "ABORTED": "31;1"}


def plain(text: str) -> str:
    """Return text from outside fit for a terminal: what isn't printable is escaped, `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def say(text: str) -> None:
    """Write one line to stderr in one write(2), so that lines of two threads don't mix.

    A stderr that is closed or full costs the line, nothing else.
    """
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    line = f"cgmem: {plain(text)}\n".encode(encoding, "backslashreplace")
    with suppress(OSError):
        os.write(2, line)


def print_json(value: Any) -> None:
    """Print one JSON value. Everything that isn't ASCII is escaped."""
    import json

    print(json.dumps(value, indent=2))


def coloured(level: str) -> str:
    """Return a level in its colour where stdout is a terminal that takes colours (no-color.org)."""
    colour = _COLOURS.get(level)
    if colour is None or not sys.stdout.isatty():
        return level
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return level
    return f"\033[{colour}m{level}\033[0m"


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print rows in columns, see `table_lines`."""
    for line in table_lines(headings, rows, right=right):
        print(line)


def table_lines(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> Iterator[str]:
    """Lay rows out in columns. On a terminal the first one gives way to keep lines on one line.

    `right` names the columns of numbers. A column LEVEL is coloured.
    """
    lines = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    gap, widths[0] = _fitted(widths)
    for number, line in enumerate(lines):
        cells = [
            _cell(text, heading, width, heading in right)
            for text, heading, width in zip(line, headings, widths, strict=True)
        ]
        if number and "LEVEL" in headings:
            at = headings.index("LEVEL")
            cells[at] = cells[at].replace(line[at], coloured(line[at]), 1)
        yield (" " * gap).join(cells).rstrip()


def page(lines: Sequence[str]) -> None:
    """Print lines in place of those before: on a terminal the screen, else after an empty line."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        print("\n".join([*lines, ""]))
        return
    import shutil

    rows = shutil.get_terminal_size((NARROW, 24)).lines
    shown = lines if len(lines) < rows else [*lines[: rows - 2], f"… {len(lines) - rows + 2} more"]
    # Overwritten line by line, and the rest cleared: no flicker (console_codes(4): EL, ED).
    sys.stdout.write("\033[H" + "".join(f"{line}\033[K\n" for line in shown) + "\033[J")


def _fitted(widths: Sequence[int]) -> tuple[int, int]:
    """Return the gap between columns and the width of the first one."""
    columns, first = len(widths), widths[0]
    if not sys.stdout.isatty():
        return 2, first
    room = terminal_width()
    gap = 2 if sum(widths) + 2 * (columns - 1) <= room else 1
    excess = sum(widths) + gap * (columns - 1) - room
    return gap, first if excess <= 0 else max(8, first - excess)


def print_field(name: str, text: str, *, width: int = 12, indent: int = 0) -> None:
    """Print a name and its text from outside; on a terminal wrapped beside the name."""
    lines = [plain(text)]
    start = " " * indent + name.ljust(width)
    if sys.stdout.isatty():
        import textwrap

        room = max(20, terminal_width() - len(start))
        lines = textwrap.wrap(lines[0], room, break_on_hyphens=False) or [""]
    for line in lines:
        print(f"{start}{line}".rstrip())
        start = " " * len(start)


def terminal_width() -> int:
    """The terminal's width in columns, 80 where there is none."""
    import shutil

    return shutil.get_terminal_size((NARROW, 24)).columns


def _cell(text: str, heading: str, width: int, right: bool) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)


def age(seconds: float) -> str:
    """Return a duration in at most four characters: `12s`, `59m`, `23h`, `5d`."""
    seconds = max(0, int(seconds))
    for unit, size, most in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"
