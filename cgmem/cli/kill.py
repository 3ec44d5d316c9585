"""`cgmem kill`: end a live subprocess with everything in it."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.errors import NO, Failure, complain
from cgmem.cli.output import print_json
from cgmem.inspecting import orders

EPILOG = """\b
Example:
  cgmem kill engineer_abc123 --grace 30

\b
Exit status:
  0  all its processes are gone   1  no such subprocess, or some live on
  2  wrong usage or trouble
"""


@click.command("kill", epilog=EPILOG)
@options.target_argument
@options.seconds_option(
    "--grace", 0, None, "From SIGTERM to SIGKILL; 0: SIGKILL at once.", default=5.0
)
@options.json_option
def command(name: str, grace: float, as_json: bool) -> int:
    """End a live subprocess: SIGTERM to every process in it, SIGKILL to what stays."""
    with orders.target(name) as to:
        count, forced, gone = orders.kill(to, grace, lambda text: complain(Failure(text)))
    if as_json:
        answer = {"processes": count, "sigkill_needed": forced, "gone": gone}
        print_json({"subprocess_id": name, **answer})
    elif gone:
        how = "SIGKILL" if forced else "SIGTERM"
        print(f"{name}: {count} process{'es' if count != 1 else ''} ended by {how}")
    else:
        complain(Failure(f"{name}: some processes live on after SIGKILL", f"cgmem show {name}"))
    return 0 if gone else NO
