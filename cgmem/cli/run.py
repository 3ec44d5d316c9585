"""`cgmem run`: its help and its errors in usage. What it does: `cgmem.cli.run_job`."""

from __future__ import annotations

from typing import Any

import click

from cgmem.cli import options
from cgmem.cli.errors import NOT_EXECUTABLE, NOT_FOUND, RUN_TROUBLE
from cgmem.cli.run_job import run
from cgmem.cli.run_options import OPTIONS, json_is_a_report

EPILOG = f"""\b
Examples:
  cgmem run --max 512M -- make -j8
  cgmem run --max 2G --timeout 600 --report out.json -- python3 train.py

\b
Exit status: the command's own, or
  124  --timeout was reached
  {RUN_TROUBLE}  cgmem refused or failed; a wrong option
  {NOT_EXECUTABLE}  the command can't be executed
  {NOT_FOUND}  the command was not found
  137  a memory limit ended it (or SIGKILL did)
  143  stalled or aborted; 137 if SIGKILL was needed
  128+N  signal N ended it; of INT and QUIT cgmem dies itself
"""


class _Run(click.Command):
    """Has the options of the table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*map(options.click_option, OPTIONS), *self.params]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read them as click does, but for the short form of one."""
        rest = super().parse_args(ctx, args)
        if not json_is_a_report(ctx.params) and not ctx.resilient_parsing:
            raise click.UsageError("--json is --report -: give one of --json and --report", ctx)
        return rest


@click.command(
    "run",
    cls=_Run,
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.argument("words", metavar="CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
def command(**given: Any) -> int:
    """Run CMD under a memory budget and end as it ends.

    CMD shares the terminal, the process group and stdin, stdout and stderr. Sizes are 512M,
    1.5G, 2GiB, 80% (of the memory there is) or max.
    """
    return run(**given)
