"""`cgmem check`: the pre-flight check."""

from __future__ import annotations

import click

from cgmem import selector
from cgmem.cli import options
from cgmem.cli.errors import NO
from cgmem.cli.output import print_json
from cgmem.errors import ConfigurationError
from cgmem.judging import preflight
from cgmem.logs.lines import system_memory_mb
from cgmem.text.sizes import mb, parse_size

EPILOG = """\b
Example:
  cgmem check --need 4G && make

\b
Exit status:
  0  a subprocess may be started   1  it may not   2  wrong usage or trouble
"""


@click.command("check", epilog=EPILOG)
@click.option(
    "--need", metavar="SIZE", default="1G", show_default=True, help="Memory that must be available."
)
@options.json_option
def command(need: str, as_json: bool) -> int:
    """Say whether there is memory to start a subprocess.

    Available is what the machine has, or less if this process's own cgroup leaves less.
    """
    memory = selector.system_memory()
    needed = parse_size(need, source="--need", total_bytes=memory.effective_total_bytes)
    if needed is None:
        raise ConfigurationError(f"--need: {need} is no amount", hint="write a size, as 512M")
    allowed, message = preflight.can_create(memory, needed)
    if as_json:
        print_json(
            {
                "allowed": allowed,
                "message": message,
                "available_mb": mb(preflight.available_bytes(memory)),
                "limited_by": memory.headroom.limit.name if memory.headroom else None,
                "system_memory": system_memory_mb(memory),
            }
        )
    else:
        print(message)
    return 0 if allowed else NO
