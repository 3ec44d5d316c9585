"""`cgmem alerts`: the alert log as a table, or as it is written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable

import click

from cgmem.cli import options
from cgmem.cli.logs import log_dir_option, log_file, reader, since_option, since_when, tell_skipped
from cgmem.cli.output import coloured, plain
from cgmem.logs.history import at_least, is_alert, time_of
from cgmem.logs.memory_logs import ALERTS_FILE
from cgmem.logs.reading import Line

EPILOG = """\b
Examples:
  cgmem alerts --since 1h --level critical
  cgmem alerts -f --id engineer_abc123

\b
Exit status:
  0  done, also when there is none   2  wrong usage or trouble
"""


@click.command("alerts", epilog=EPILOG)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "--level",
    type=click.Choice(["WARNING", "CRITICAL"], case_sensitive=False),
    default="WARNING",
    help="Only alerts of this level or above.",
)
@click.option("--id", "subprocess_id", metavar="ID", help="Only alerts of this subprocess.")
@since_option
@log_dir_option
@options.config_option
@click.option("--json", "as_json", is_flag=True, help="Print the log's own JSON lines.")
def command(
    follow: bool,
    level: str,
    subprocess_id: str | None,
    since: str | None,
    log_dir: str | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Show the alerts of the subprocesses that log here, the oldest first."""
    after = since_when(since)
    found = reader(log_file(ALERTS_FILE, log_dir, config), is_alert, log_dir)

    def wanted(line: Line) -> bool:
        return (
            at_least(level.upper(), line)
            and subprocess_id in (None, line["subprocess_id"])
            and (time_of(line) or 0.0) >= after
        )

    # What is written between reading and following must not be missed: it is followed first.
    coming = found.follow(time.sleep)
    _print(filter(wanted, found.read()), as_json)
    tell_skipped(found.skipped)
    if follow:
        _print(filter(wanted, coming), as_json)
    return 0


def _print(lines: Iterable[Line], as_json: bool) -> None:
    for line in lines:
        print(json.dumps(line) if as_json else _row(line))
        sys.stdout.flush()


def _row(line: Line) -> str:
    at = time.strftime("%m-%d %H:%M:%S", time.localtime(time_of(line) or 0.0))
    level, name = line["level"], plain(line["subprocess_id"])
    # The message begins with its level.
    message = plain(line["message"].removeprefix(f"{level}: "))
    return f"{at}  {coloured(level)}{' ' * (8 - len(level))}  {name}  {message}"
