"""`cgmem top`: live subprocesses on the whole screen."""

from __future__ import annotations

import sys

import click

from cgmem.cli import options
from cgmem.cli.output import print_json
from cgmem.cli.scope_table import SORTS, Filter, as_json_values, look
from cgmem.errors import CgmemError
from cgmem.inspecting.trend import Trend

EPILOG = """\b
Keys: up, down, enter (its processes), s (sort), f (freeze), t (thaw),
      k (kill), q (quit). Freezing and killing ask first.

\b
It needs textual: pip install 'cgmem[top]'. Without: cgmem ps --watch.

\b
Example:
  cgmem top --sort growth

\b
Exit status:
  0  done   2  wrong usage or trouble
"""


@click.command("top", epilog=EPILOG)
@options.seconds_option("--every", 0.2, 3600, "How often to look.", default=2.0)
@click.option("--sort", type=click.Choice(list(SORTS)), default="level", help="What comes first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON of one look, as ps does.")
def command(every: float, sort: str, as_json: bool) -> int:
    """Watch this user's live subprocesses (root: everybody's) and act on them."""
    if as_json:
        print_json(as_json_values(sorted(look(Trend(), Filter()), key=SORTS[sort])))
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CgmemError("top needs a terminal", hint="cgmem ps --watch, or cgmem ps --json")
    try:
        from cgmem.cli.top_app import TopApp
    except ImportError as error:
        raise CgmemError(
            f"top needs textual ({error})", hint="pip install 'cgmem[top]', or cgmem ps --watch"
        ) from error
    TopApp(every, sort).run()
    return 0
