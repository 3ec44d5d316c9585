"""`cgmem config`: every setting and where it came from."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.output import print_json, print_table
from cgmem.cli.setting_flags import resolver
from cgmem.config.settings import Settings, rows
from cgmem.supervising.supervisor import Supervisor

EPILOG = """\b
Example:
  CLAUDE_PM_MEMORY_MAX_MB=512 cgmem config

\b
Exit status:
  0  done   2  a setting is wrong: the message names it and its source
"""


@click.command("config", epilog=EPILOG)
@options.agent_type_option
@options.config_option
@options.json_option
def command(agent_type: str | None, config: str | None, as_json: bool) -> int:
    """Show every setting and where it came from.

    A flag of `run` goes before the environment, that before the file, that before the default.
    """
    settings = Supervisor(resolve_settings=resolver(config)).settings(agent_type=agent_type)
    if as_json:
        print_json(_as_json(settings))
        return 0
    print(f"file: {settings.config_path or 'none (cgmem.yaml, .claude-pm/memory.yaml)'}\n")
    shown = ((row.name, row.value or "-", row.origin) for row in rows(settings))
    print_table(("SETTING", "VALUE", "FROM"), shown)
    return 0


def _as_json(settings: Settings) -> dict[str, object]:
    return {
        "config_path": settings.config_path,
        "settings": [row._asdict() for row in rows(settings)],
    }
