"""`cgmem ps`: live subprocesses in a table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import click

from cgmem.cli import options
from cgmem.cli.output import page, print_json, table_lines, terminal_width
from cgmem.cli.scope_table import (
    HEADINGS_OF_NUMBERS,
    SORTS,
    Filter,
    Row,
    as_json_values,
    look,
    rendered,
)
from cgmem.inspecting.live_scopes import LiveScope
from cgmem.inspecting.trend import Trend
from cgmem.selector import NAMES

EPILOG = """\b
USED   what the kernel can't take back; the level is judged on it
RAW    with page cache; the same where none is counted
PEAK   the most it ever had, including cache; - where nobody counts
%      USED of the hard limit
FULL   % of its life in which every process waited for memory (PSI)
/MIN   growth in a minute, with --watch
BY     the process that supervises it; "gone": it has ended, and only
       limits that the kernel holds still apply
On a narrow terminal the last columns give way first; a pipe gets all.

\b
Examples:
  cgmem ps --watch --sort growth
  cgmem ps --json | jq '.[] | select(.level != "OK")'

\b
Exit status:
  0  done, also when there is none   2  wrong usage or trouble
"""


@click.command("ps", epilog=EPILOG)
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@options.seconds_option("--every", 0.1, 3600, "How often, with --watch.", default=2.0)
@click.option("--sort", type=click.Choice(list(SORTS)), default="age", help="Worst or most first.")
@click.option(
    "--level",
    type=click.Choice(["WARNING", "CRITICAL"], case_sensitive=False),
    help="Only those at this level or worse.",
)
@click.option("--agent-type", metavar="TYPE", help="Only those of this agent type.")
@click.option("--backend", type=click.Choice(NAMES), help="Only those of this backend.")
@click.option("--id", "name", metavar="ID", help="Only this one, or a pattern: 'engineer_*'.")
@options.json_option
def command(
    watch: bool,
    every: float,
    sort: str,
    level: str | None,
    agent_type: str | None,
    backend: str | None,
    name: str | None,
    as_json: bool,
) -> int:
    """List this user's live subprocesses (root: everybody's), whoever started them."""
    wanted = Filter(None if level is None else level.upper(), agent_type, backend, name)
    trend = Trend()

    def rows() -> list[Row]:
        return sorted(look(trend, wanted), key=SORTS[sort])

    if watch:
        _watch(rows, every, as_json)
    elif as_json:
        print_json(as_json_values(rows()))
    else:
        print("\n".join(_table(rows(), without=("/MIN",))))
    return 0


def _watch(rows: Callable[[], list[Row]], every: float, as_json: bool) -> None:
    while True:
        found = rows()
        if as_json:
            # One look a line, for whoever reads along.
            print(json.dumps([_as_json(row) for row in found]))
        else:
            at = time.strftime("%H:%M:%S")
            page([f"{at}  {len(found)} live, every {every:g} s", *_table(found)])
        sys.stdout.flush()
        time.sleep(every)


def _as_json(row: Row) -> dict[str, object]:
    live: LiveScope = row.live
    return {**live.as_json(), "growth_bytes_per_minute": row.growth}


def _table(rows: list[Row], without: tuple[str, ...] = ()) -> list[str]:
    terminal = sys.stdout.isatty()
    room = terminal_width() if terminal else None
    bars = terminal and "utf" in (sys.stdout.encoding or "").lower()
    headings, cells = rendered(rows, room=room, without=without, bars=bars)
    return list(table_lines(headings, cells, right=HEADINGS_OF_NUMBERS))
