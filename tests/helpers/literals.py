"""The values of an alias like `Cause`, which is text at run time (cgmem.shapes says why)."""

from __future__ import annotations

from typing import Any, Literal, get_args


def values_of(alias: Any) -> tuple[str, ...]:
    """Read "Literal['a', 'b']"."""
    return get_args(eval(alias, {"Literal": Literal}))
