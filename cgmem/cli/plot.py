"""`cgmem plot`: a recording, or a live subprocess for a while, drawn in the terminal or a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from cgmem.cli import options
from cgmem.cli.logs import tell_skipped
from cgmem.cli.output import print_json, say
from cgmem.errors import ConfigurationError, InvalidIdError, ScopeVanished, UnknownIdError
from cgmem.inspecting import orders
from cgmem.inspecting.live_scopes import LiveScope, look
from cgmem.inspecting.recorded import Point, Series, parse
from cgmem.text.ids import check_id
from cgmem.text.sizes import mb
from cgmem.text.words import shown

EPILOG = """\b
What is no file that is there is an id: a live subprocess is looked at for
--seconds. To keep the whole of a life: cgmem run --record FILE -- CMD

\b
In the terminal it needs plotext, as a picture matplotlib:
pip install 'cgmem[plot]', 'cgmem[picture]'.

\b
Examples:
  cgmem plot build.jsonl
  cgmem plot build.jsonl --output build.png
  cgmem plot engineer_abc123 --seconds 60

\b
Exit status:
  0  done   1  no such subprocess, or nothing was seen
  2  wrong usage or trouble
"""


@click.command("plot", epilog=EPILOG)
@click.argument("what", metavar="FILE|ID")
@click.option("--output", metavar="FILE", help="Write a picture: .png, .svg or .pdf.")
@options.seconds_option(
    "--seconds", 0.1, 86400, "How long to look at a live subprocess.", default=20.0
)
@options.seconds_option("--every", 0.05, 3600, "How often to look at it.", default=0.5)
@options.json_option
def command(what: str, output: str | None, seconds: float, every: float, as_json: bool) -> int:
    """Draw the memory of a subprocess over time, with its thresholds and alerts."""
    if output is not None:
        from cgmem.cli.picture import check

        check(output)
    path = Path(what)
    # Also what is no regular file (a pipe of the shell's), but not a directory of the id's name.
    recorded = os.path.exists(what) and not os.path.isdir(what)  # noqa: PTH110, PTH112  (False for a name that is too long)
    series = _read(path) if recorded else _watched(what, seconds, every)
    tell_skipped(series.skipped)
    if not series.points:
        say(f"{what}: no look at it was recorded")
        return 1
    if as_json:
        print_json(_as_json(series))
    elif output is not None:
        from cgmem.cli.picture import draw

        draw(series, output)
    else:
        from cgmem.cli.terminal_plot import drawn

        print(drawn(series))
    return 0


def _read(path: Path) -> Series:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return parse(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _watched(name: str, seconds: float, every: float) -> Series:
    points: list[Point] = []
    began = time.monotonic()
    # Ctrl-C: what was seen by then is drawn.
    with _target(name) as to, suppress(KeyboardInterrupt):
        while time.monotonic() < began + seconds:
            try:
                live = look(to.backend, to.scope)
            except ScopeVanished:
                live = None
            if live is None:
                break
            points.append(_point(live))
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{len(points)} looks, {points[-1].judged_mb} MB\033[K")
            time.sleep(every)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return Series(name, tuple(points), (), None, 0)


@contextmanager
def _target(name: str) -> Iterator[orders.Target]:
    try:
        check_id(name, source="FILE|ID")
        with orders.target(name) as to:
            yield to
    except InvalidIdError as error:
        raise InvalidIdError(
            f"{shown(name)}: no such file, and can't be an id", hint="cgmem ps  # the ids there are"
        ) from error
    except UnknownIdError as error:
        raise UnknownIdError(
            f"{shown(name)}: no such file, and no live subprocess has this id", hint=error.hint
        ) from error


def _point(live: LiveScope) -> Point:
    budget = (None if size is None else mb(size) for size in live.thresholds)
    used = mb(live.judged_bytes), mb(live.sample.current_bytes)
    return Point(round(live.age_seconds, 3), *used, *budget)


def _as_json(series: Series) -> dict[str, Any]:
    return {
        "subprocess_id": series.name,
        "points": [point._asdict() for point in series.points],
        "alerts": [told._asdict() for told in series.alerts],
        "end": series.end,
    }
