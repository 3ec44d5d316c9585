"""Words for error messages: a value from outside, safely shown, and the name that was meant."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 48


def shown(value: object) -> str:
    """Return a value as ASCII on one short line, whatever it holds."""
    try:
        text = ascii(value)
    except ValueError:  # an int with more digits than Python converts
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def meant(word: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the known one that is like it, else all of them."""
    names = sorted(known)
    return alike(word, names) or f"known are {', '.join(names)}"


def alike(word: str, known: Iterable[str]) -> str | None:
    """Return the hint for an unknown name that is like a known one; None if it is like none."""
    # Costs 4 ms, and only a mistake needs it.
    import difflib

    nearest = difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else None
