"""`cgmem reclaim`: have the kernel take back a subprocess's page cache."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.output import print_json
from cgmem.errors import ConfigurationError
from cgmem.inspecting import orders
from cgmem.text.sizes import format_size, mb, parse_size

EPILOG = """\b
The kernel takes page cache first, and what it may swap out (memory.reclaim,
Linux 5.19). Getting less than SIZE is no error.

\b
Example:
  cgmem reclaim engineer_abc123 512M

\b
Exit status:
  0  done   1  no live subprocess has this id   2  wrong usage or trouble
"""


@click.command("reclaim", epilog=EPILOG)
@options.target_argument
@click.argument("size")
@options.json_option
def command(name: str, size: str, as_json: bool) -> int:
    """Have the kernel take back up to SIZE of a live subprocess's memory."""
    asked = parse_size(size, source="SIZE")
    if not asked:
        raise ConfigurationError(f"SIZE: {size} is no amount", hint="write a size, as 512M")
    with orders.target(name) as to:
        before, after = orders.reclaim(to, asked)
    if as_json:
        print_json({"subprocess_id": name, "before_mb": mb(before), "after_mb": mb(after)})
    else:
        taken = format_size(max(0, before - after))
        print(f"{name}: {taken} taken back: {format_size(before)}, now {format_size(after)}")
    return 0
