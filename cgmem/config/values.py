"""Parsers of one setting's value, by kind: size, seconds, yes/no, choice, path.

A value comes from the environment (always text), from a file (typed by YAML) or as an argument
(text from a flag, typed from Python). The parsers raise `ConfigurationError`, which names the
value and its source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.shapes import NamedTuple
from cgmem.text.sizes import not_a_size, parse_size, without_unit
from cgmem.text.words import alike, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Layer: TypeAlias = "Literal['file', 'environment', 'argument']"


class Reading(NamedTuple):
    """Where a value was found, and what its parser may need to know."""

    source: str
    """For people: `--max`, `CGMEM_SWAP`, `/home/me/cgmem.yaml: max`."""
    layer: Layer
    directory: str
    """What a relative path is relative to; empty if there is none."""
    total_bytes: Callable[[], int] | None = None
    """The memory that a percentage is one of; asked only then."""


Parser = Callable[[object, Reading], object]

_NUMBER = r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?"
_GROUP = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_NEVER = frozenset({"max", "infinity"})


def size(value: object, reading: Reading) -> int | None:
    """Return bytes, None for `max`. A bare number is MB in the environment, an error elsewhere."""
    if isinstance(value, str):
        total = reading.total_bytes() if "%" in value and reading.total_bytes else None
        bare = MB if reading.layer == "environment" else None
        return parse_size(value, source=reading.source, total_bytes=total, bare_unit_bytes=bare)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise not_a_size(value, reading.source)
    if value == 0:
        return 0
    if not value > 0:
        raise not_a_size(value, reading.source)
    raise without_unit(value, reading.source)


def seconds(least: float, most: float, *, or_never: bool = False) -> Parser:
    """Return a parser of seconds between `least` and `most`; `or_never` also takes `infinity`."""

    def parse(value: object, reading: Reading) -> float | None:
        if or_never and isinstance(value, str) and value.strip().lower() in _NEVER:
            return None
        never = ", or infinity" if or_never else ""
        number = _number(value, reading, never)
        if not least <= number <= most:
            raise ConfigurationError(
                f"{reading.source}: {shown(value)} seconds is out of range",
                hint=f"write a number of seconds from {least:.9g} to {most:.9g}{never}",
            )
        return float(number)

    return parse


def _number(value: object, reading: Reading, never: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and reading.layer != "file" and re.fullmatch(_NUMBER, value.strip()):
        return float(value)
    raise ConfigurationError(
        f"{reading.source}: {shown(value)} is not a number of seconds",
        hint=f"write plain digits without quotes or a unit, as 30 or 0.5{never}",
    )


def yes_no(value: object, reading: Reading) -> bool:
    """Return a truth value. The words 1/true/yes/on, 0/false/no/off count in the environment."""
    if isinstance(value, bool):
        return value
    hint = "write true or false"
    if reading.layer == "environment" and isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        hint = "write 1, true, yes or on; or 0, false, no or off"
    raise ConfigurationError(
        f"{reading.source}: {shown(value)} is neither true nor false", hint=hint
    )


def choice(known: Sequence[str]) -> Parser:
    """Return a parser that takes the `known` words only."""

    def parse(value: object, reading: Reading) -> str:
        if isinstance(value, str) and value in known:
            return value
        near = alike(value, known) if isinstance(value, str) else None
        raise ConfigurationError(
            f"{reading.source}: {shown(value)} is none of {', '.join(known)}",
            hint=near or "write one of these",
        )

    return parse


def group_name(value: object, reading: Reading) -> str:
    """Return the name of a group: it becomes part of a cgroup's and of a systemd unit's name."""
    if isinstance(value, str) and re.fullmatch(_GROUP, value):
        return value
    raise ConfigurationError(
        f"{reading.source}: {shown(value)} can't be the name of a group",
        hint="use at most 64 letters, digits and _ -, first a letter or digit",
    )


def path(value: object, reading: Reading) -> str:
    """Return an absolute path. A leading `~/` is the home directory."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(
            f"{reading.source}: {shown(value)} is not a path", hint="write the path of a directory"
        )
    if value.startswith("~"):
        value = os.path.expanduser(value)  # noqa: PTH111  (pathlib costs 10 ms at start-up)
    if value.startswith("/"):
        return value
    if not reading.directory:
        raise ConfigurationError(
            f"{reading.source}: {shown(value)} is relative to a working directory that is gone",
            hint="write an absolute path",
        )
    return f"{reading.directory.rstrip('/')}/{value}"
