"""`cgmem set`: another budget for a running subprocess."""

from __future__ import annotations

from typing import Any

import click

from cgmem import selector
from cgmem.cli import options
from cgmem.cli.errors import NO
from cgmem.cli.output import print_field, print_json, say
from cgmem.config.thresholds import Given, larger_than_machine
from cgmem.contract import Thresholds
from cgmem.errors import ConfigurationError
from cgmem.inspecting import orders
from cgmem.supervising.upkeep import REWRITTEN_SECONDS
from cgmem.text.sizes import format_size, parse_size

EPILOG = """\b
What is not named stays as it is. The kernel has the new limits when this
returns; alerts follow the new thresholds within 5 seconds.

\b
Example:
  cgmem set engineer_abc123 --critical 2G --max 4G

\b
Exit status:
  0  done   1  no such subprocess, or the kernel holds another limit
  2  wrong usage or trouble
"""


@click.command("set", epilog=EPILOG)
@options.target_argument
@click.option("--warning", metavar="SIZE", help="Alert from here on.")
@click.option("--critical", metavar="SIZE", help="Alert, and slow it down, from here on.")
@click.option("--max", metavar="SIZE", help="The hard limit; max for none.")
@click.option("--force", is_flag=True, help="Also a hard limit that ends it at once.")
@options.json_option
def command(name: str, force: bool, as_json: bool, **sizes: str | None) -> int:
    """Set another budget on a running subprocess and print what the kernel then holds."""
    memory = selector.system_memory()
    share_of = memory.effective_total_bytes
    given = {
        key: Given(parse_size(size, source=f"--{key}", total_bytes=share_of), f"--{key}")
        for key, size in sizes.items()
        if size is not None
    }
    if not given:
        raise ConfigurationError(
            "nothing to set", hint=f"cgmem set {name} --max SIZE, --critical SIZE, --warning SIZE"
        )
    with orders.target(name) as to:
        budget = orders.set_budget(to, given, force=force)
        kernel, supervised = to.backend.capabilities.kernel_limits, to.supervised
    note = larger_than_machine(budget.after, memory.total_bytes) if "max" in given else None
    if note is not None:
        say(f"warning: {note}")
    taken = not kernel or budget.observed or _taken(budget)
    if as_json:
        print_json(_as_json(name, budget, kernel, supervised, taken))
    else:
        print_field("was", _thresholds(budget.before))
        print_field("now", _thresholds(budget.after))
        print_field("kernel", _kernel(budget, kernel))
        print_field("supervisor", _supervisor(kernel, supervised))
    return 0 if taken else NO


def _taken(budget: orders.Budget) -> bool:
    held, wanted = budget.held.max_bytes, budget.after.max_bytes
    return held == wanted if wanted is None else held is not None and held <= wanted


def _thresholds(thresholds: Thresholds) -> str:
    warning, critical, limit = map(format_size, thresholds)
    return f"warning {warning}, critical {critical}, max {limit}"


def _kernel(budget: orders.Budget, kernel: bool) -> str:
    held = budget.held
    if not kernel:
        return "holds no limit here: its supervisor polls"
    if budget.observed:
        return "holds no limit, as before: this subprocess is only observed"
    text = f"memory.high {format_size(held.high_bytes)}, memory.max {format_size(held.max_bytes)}"
    if held.effective_max_bytes != held.max_bytes:
        smaller = format_size(held.effective_max_bytes)
        text += f"; {held.effective_max_source} allows {smaller} only"
    return text


def _supervisor(kernel: bool, supervised: bool) -> str:
    if supervised:
        return f"follows within {REWRITTEN_SECONDS:.0f} s"
    return "gone: no alerts" if kernel else "gone: nobody holds this budget"


def _as_json(
    name: str, budget: orders.Budget, kernel: bool, supervised: bool, taken: bool
) -> dict[str, Any]:
    return {
        "subprocess_id": name,
        "before": budget.before._asdict(),
        "after": budget.after._asdict(),
        "held": budget.held._asdict() if kernel else None,
        "taken": taken,
        "supervised": supervised,
    }
