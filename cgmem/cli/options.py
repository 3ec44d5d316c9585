"""Options that several verbs share, and how settings become options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from cgmem.cli.run_options import AGENT_TYPE, CONFIG, Option
from cgmem.cli.setting_flags import sentence
from cgmem.config.setting_table import flag_source
from cgmem.errors import CgmemError
from cgmem.text.ids import check_id

Decorator = Callable[[Any], Any]


def click_option(option: Option) -> click.Option:
    """Make click's option of one of the table's."""
    declared = [*option.flags, option.name]
    if option.metavar is not None:
        return click.Option(declared, metavar=option.metavar, help=option.help)
    return click.Option(
        declared, flag_value=option.value, type=bool, default=option.default, help=option.help
    )


def setting_option(key: str, metavar: str) -> Decorator:
    """An option that takes a setting's value as text; the setting's own parser reads it."""
    return click.option(flag_source(key), key, metavar=metavar, help=sentence(key))


class Number(click.FloatRange):
    """A number in a range; click's own lets `nan` through, which is neither below nor above it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is no finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def seconds_option(
    flag: str, least: float, most: float | None, text: str, *, default: float | None = None
) -> Decorator:
    """An option of this command line alone that takes seconds."""
    return click.option(
        flag, type=Number(least, most), default=default, show_default=default is not None,
        metavar="SECONDS", help=text,
    )  # fmt: skip


config_option = click.option("--config", metavar=CONFIG.metavar, help=CONFIG.help)


def _live_ids(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from cgmem.inspecting.live_scopes import live_scopes

    try:
        ids = {live.record.subprocess_id for live in live_scopes()}
    except (CgmemError, OSError):  # nothing to complete: the command itself will say why
        return []
    return sorted(name for name in ids if name.startswith(incomplete))


def checked_target(text: str) -> str:
    """Return what can be an id or a location. Raises `InvalidIdError`."""
    # Where the kernel holds limits a location is a path; elsewhere it could be an id.
    return text if text.startswith("/") else check_id(text, source="ID")


target_argument = click.argument(
    "name",
    metavar="ID",
    shell_complete=_live_ids,
    callback=lambda _context, _param, text: checked_target(text),
)
"""A live subprocess: its id, or its location as `show` prints it."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

agent_type_option = click.option("--agent-type", metavar=AGENT_TYPE.metavar, help=AGENT_TYPE.help)
