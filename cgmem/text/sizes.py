"""Sizes as people write them: `512M`, `2GiB`, `1.5G`, `80%`, `max`. Bytes are `int`, "max" is None.

The rules are systemd's (systemd.resource-control(5), MemoryMax=): suffixes are powers of 1024,
`infinity` means no limit, a percentage is one of the memory at hand. Case does not matter, and
`K`, `KB` and `KiB` are the same.
"""

from __future__ import annotations

import re

from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.text.words import shown

LARGEST_BYTES = 1 << 60
"""Larger than any machine; from 2**63 on the kernel would silently read "max"."""

_UNITS = {"B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = r"([0-9]+)(?:\.([0-9]+))? ?([A-Za-z%]*)"
_LONGEST_TEXT = 64
_LONGEST_NUMBER = 10_000
_HINT = "write a number and a unit, as 512M, 1.5G or 2GiB"
_NO_LIMIT = frozenset({"max", "infinity"})


def parse_size(
    text: str,
    *,
    source: str,
    total_bytes: int | None = None,
    bare_unit_bytes: int | None = None,
) -> int | None:
    """Return the bytes that `text` stands for; None for `max` and `infinity`.

    `source` is named in errors. A percentage is one of `total_bytes` and is refused without it.
    `bare_unit_bytes` is the unit of a number that has none (MB in environment variables); without
    it only a bare 0 is taken. Fractions of a byte are dropped. Raises `ConfigurationError`.
    """
    written = text.strip()
    if written.lower() in _NO_LIMIT:
        return None
    match = re.fullmatch(_SIZE, written) if len(written) <= _LONGEST_TEXT else None
    if match is None:
        raise not_a_size(text, source)
    whole, fraction, unit = match[1], match[2] or "", match[3]
    digits = int(whole + fraction)
    if unit == "%":
        numerator, denominator = _percentage(text, source, digits, len(fraction), total_bytes)
    else:
        numerator = digits * _unit_bytes(text, source, unit, digits, bare_unit_bytes)
        denominator = 10 ** len(fraction)
    size = numerator // denominator
    if size > LARGEST_BYTES:
        raise ConfigurationError(
            f"{source}: {shown(text)} is larger than any machine's memory",
            hint=f"write at most {format_size(LARGEST_BYTES)}",
        )
    return size


def not_a_size(value: object, source: str) -> ConfigurationError:
    """Return the error for a value that is no size at all."""
    text = shown(value)
    why = ": it must be positive" if re.match(r"'?\s*-[.0-9]", text) else ""
    return ConfigurationError(f"{source}: {text} is not a size{why}", hint=_HINT)


def without_unit(value: object, source: str) -> ConfigurationError:
    """Return the error for a number that could be bytes or MB."""
    number = shown(value).strip("'")
    return ConfigurationError(
        f"{source}: {number} has no unit", hint=f"write {number}M if megabytes are meant"
    )


def _percentage(
    text: str, source: str, digits: int, decimals: int, total_bytes: int | None
) -> tuple[int, int]:
    if total_bytes is None:
        raise ConfigurationError(
            f"{source}: {shown(text)}: no percentage is taken here", hint=_HINT
        )
    hundred_percent = 100 * 10**decimals
    if digits > hundred_percent:
        raise ConfigurationError(
            f"{source}: {shown(text)} is more than all of this machine's memory",
            hint="write at most 100%, or a size with a unit",
        )
    return digits * total_bytes, hundred_percent


def _unit_bytes(text: str, source: str, unit: str, digits: int, bare: int | None) -> int:
    if not unit:
        if bare is None and digits:
            raise without_unit(text.strip(), source)
        return bare or 1
    letter, rest = unit[0].upper(), unit[1:].lower()
    if letter not in _UNITS or rest not in ("", "b", "ib") or (letter == "B" and rest):
        raise not_a_size(text, source)
    return 1 << (10 * _UNITS[letter])


def format_size(size: int | None) -> str:
    """Return a size for people: `512M`, `1.5G`, `max`. Exact where a short number can be."""
    if size is None:
        return "max"
    fitting = [(unit, 1 << (10 * power)) for unit, power in _UNITS.items() if size >> (10 * power)]
    for unit, unit_bytes in reversed(fitting):
        if size * 10 % unit_bytes == 0 and size < _LONGEST_NUMBER * unit_bytes:
            return _with_unit(size, unit, unit_bytes)
    return _with_unit(size, *fitting[-1]) if fitting else "0"


def _with_unit(size: int, unit: str, unit_bytes: int) -> str:
    tenths = (size * 10 + unit_bytes // 2) // unit_bytes
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{unit}" if tenth else f"{whole}{unit}"


def mb(size: int) -> float:
    """Return bytes as the spec's MB (2**20) with one decimal."""
    return round(size / MB, 1)
