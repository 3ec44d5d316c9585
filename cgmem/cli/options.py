"""Options that several verbs share, and how settings become options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click

from cgmem.errors import CgmemError
from cgmem.setting_table import BY_KEY, argument_source, flag_source
from cgmem.settings import Settings, resolve

Decorator = Callable[[Any], Any]


def setting_option(key: str, metavar: str) -> Decorator:
    """An option that takes a setting's value as text; the setting's own parser reads it."""
    return click.option(flag_source(key), key, metavar=metavar, help=_sentence(key))


def switch_option(key: str, value: bool, text: str | None = None) -> Decorator:
    """An option without a value that sets a setting to `value`."""
    return click.option(
        flag_source(key),
        key,
        flag_value=value,
        type=bool,
        default=None,
        help=text or _sentence(key),
    )


config_option = click.option(
    "--config",
    metavar="FILE",
    help="Read this configuration file (default: cgmem.yaml or .claude-pm/memory.yaml, nearest"
    " upwards).",
)


def _live_ids(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from cgmem.live_scopes import live_scopes

    try:
        ids = {live.record.subprocess_id for live in live_scopes()}
    except (CgmemError, OSError):  # nothing to complete: the command itself will say why
        return []
    return sorted(name for name in ids if name.startswith(incomplete))


target_argument = click.argument("name", metavar="ID", shell_complete=_live_ids)
"""A live subprocess: its id, or its location as `show` prints it."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

agent_type_option = click.option(
    "--agent-type", metavar="TYPE", help="Use this agent type's part of the configuration file."
)


def resolver(config: str | None) -> Callable[..., Settings]:
    """`cgmem.settings.resolve` for the command line: errors name flags."""
    return partial(resolve, config=config, argument_source=_source)


def given(values: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that the command line sets."""
    return {key: value for key, value in values.items() if key in BY_KEY and value is not None}


def _source(key: str) -> str:
    return flag_source(key) if key in BY_KEY else argument_source(key)


def _sentence(key: str) -> str:
    text = BY_KEY[key].help
    return f"{text[0].upper()}{text[1:]}."
