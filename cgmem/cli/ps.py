"""`cgmem ps`: live subprocesses in a table."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.output import age, print_json, print_table
from cgmem.live_scopes import LiveScope, live_scopes
from cgmem.sizes import format_size

_HEADINGS = ("ID", "LEVEL", "USED", "RAW", "MAX", "%", "PIDS", "AGE", "BACKEND", "BY")
_NUMBERS = ("USED", "RAW", "MAX", "%", "PIDS", "AGE")

EPILOG = """\b
USED  what the kernel can't take back; the level is judged on it
RAW   with page cache; the same where none is counted
BY    the process that supervises it; "gone": it has ended, and only
      limits that the kernel holds still apply

\b
Example:
  cgmem ps --json | jq '.[] | select(.level != "OK")'

\b
Exit status:
  0  done, also when there is none   2  wrong usage or trouble
"""


@click.command("ps", epilog=EPILOG)
@options.json_option
def command(as_json: bool) -> int:
    """List this user's live subprocesses (root: everybody's), whoever started them."""
    found = live_scopes()
    if as_json:
        print_json([live.as_json() for live in found])
    else:
        print_table(_HEADINGS, map(_row, found), right=_NUMBERS)
    return 0


def _row(live: LiveScope) -> tuple[str, ...]:
    percent = live.percent
    return (
        live.record.subprocess_id,
        live.level,
        format_size(live.judged_bytes),
        format_size(live.sample.current_bytes),
        format_size(live.record.max_bytes),
        "-" if percent is None else f"{percent:.0f}",
        str(len(live.pids)),
        age(live.age_seconds),
        live.backend,
        f"{live.record.supervisor_pid}{'' if live.supervised else ' gone'}",
    )
