"""Subprocess ids: which are taken, and making new ones like the spec's `engineer_abc123`.

An id stands in log lines, in tables and on command lines, so it is a plain word in all three. It
never becomes a path.
"""

from __future__ import annotations

import os
import re

from cgmem.errors import InvalidIdError
from cgmem.text.words import shown

LONGEST_ID = 128
_ID = r"[A-Za-z0-9][A-Za-z0-9._:@+-]*"
_NOT_IN_IDS = r"[^A-Za-z0-9._:@+-]+|\.{2,}"
_LEADING = r"^[^A-Za-z0-9]+"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS = 8
_LONGEST_PREFIX = LONGEST_ID - _RANDOM_DIGITS - 1


def check_id(text: str, *, source: str) -> str:
    """Return `text` if it can be a subprocess id.

    Taken are 1 to 128 ASCII letters, digits and `. _ : @ + -`, the first a letter or digit, and
    no `..`. Raises `InvalidIdError`, which names the id and `source`.
    """
    if not isinstance(text, str):
        raise _refused(text, source, "is not text")
    if not text:
        raise _refused(text, source, "is empty")
    if len(text) > LONGEST_ID:
        raise _refused(text, source, f"has {len(text)} characters")
    if ".." in text:
        raise _refused(text, source, "contains '..'")
    if not re.fullmatch(_ID, text):
        raise _refused(text, source, "holds a character that an id can't have there")
    return text


def new_id(prefix: str) -> str:
    """Return a fresh id: `prefix`, made fit for an id, `_` and 8 random letters and digits.

    The randomness is the kernel's, so threads, forks and other processes don't collide.
    """
    word = prefix
    if not (word.isascii() and word.isalnum()):  # compiling patterns takes longer than all the rest
        word = re.sub(_LEADING, "", re.sub(_NOT_IN_IDS, "-", prefix)) or "subprocess"
    number = int.from_bytes(os.urandom(8), "big")
    tail = ""
    for _ in range(_RANDOM_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        tail += _DIGITS[digit]
    return f"{word[:_LONGEST_PREFIX]}_{tail}"


def _refused(text: object, source: str, why: str) -> InvalidIdError:
    return InvalidIdError(
        f"{source}: subprocess id {shown(text)} {why}",
        hint=f"use at most {LONGEST_ID} letters, digits and . _ : @ + -, first a letter or digit",
    )
