"""`cgmem top`: live subprocesses on the whole screen."""

from __future__ import annotations

import sys

import click

from cgmem.cli.scope_table import SORTS
from cgmem.errors import CgmemError

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
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--sort", type=click.Choice(list(SORTS)), default="level", help="What comes first.")
def command(every: float, sort: str) -> int:
    """Watch this user's live subprocesses (root: everybody's) and act on them."""
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
