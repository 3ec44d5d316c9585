"""Settings as flags: their help, and settings made of what a command line gives. Without click."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from cgmem.config.setting_table import BY_KEY, flag_source
from cgmem.config.settings import Settings, resolve


def resolver(config: str | None) -> Callable[..., Settings]:
    """`config.settings.resolve` for the command line: errors name flags."""
    return partial(resolve, config=config, argument_source=flag_source)


def given(values: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that the command line sets."""
    return {key: value for key, value in values.items() if key in BY_KEY and value is not None}


def sentence(key: str) -> str:
    """Return a setting's help as a sentence."""
    text = BY_KEY[key].help
    return f"{text[0].upper()}{text[1:]}."
