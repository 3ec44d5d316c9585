"""The pre-flight check's bounds and the spec's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB, Headroom, LimitAbove, SystemMemory
from cgmem.judging.preflight import available_bytes, can_create, needed_bytes

BUILD = LimitAbove("group build", 6144 * MB)


def memory(available: float, headroom: float | None = None) -> SystemMemory:
    """A 16 GB machine; sizes in MB."""
    left = None if headroom is None else Headroom(int(headroom * MB), BUILD)
    return SystemMemory(16384 * MB, int(available * MB), left)


@pytest.mark.parametrize(
    ("available", "answer"),
    [
        (512.3, (False, "Insufficient memory: only 512.3MB available (need at least 1GB)")),
        (1023.99, (False, "Insufficient memory: only 1023.9MB available (need at least 1GB)")),
        (1024.0, (True, "WARNING: Low memory - only 1024.0MB available")),
        (2047.99, (True, "WARNING: Low memory - only 2047.9MB available")),
        (2048.0, (True, "OK")),
    ],
)
def test_bounds_and_messages(available: float, answer: tuple[bool, str]) -> None:
    """The spec's messages, to the letter, at and beside each bound."""
    # 512.3 MB in whole bytes is a hair less, which rounding down would show.
    assert can_create(memory(available + 1 / MB)) == answer


def test_headroom_decides_where_it_is_smaller() -> None:
    """Below a limit that counts, not the host's memory; a refusal says whose it is and how large.

    Where the host has less, nobody's limit is named.
    """
    assert available_bytes(memory(8000, 300)) == 300 * MB
    assert available_bytes(memory(300, 8000)) == 300 * MB
    assert can_create(memory(8000, 300.5)) == (
        False,
        "Insufficient memory: only 300.5MB available (need at least 1GB):"
        " group build, memory.max 6G, leaves no more",
    )
    assert can_create(memory(300, 400)) == (
        False,
        "Insufficient memory: only 300.0MB available (need at least 1GB)",
    )


@pytest.mark.parametrize(
    ("max_bytes", "need", "shown"),
    [
        (None, 1024 * MB, "1GB"),
        (8192 * MB, 1024 * MB, "1GB"),
        (512 * MB, 512 * MB, "512MB"),
        (100 * MB + MB // 2, 100 * MB + MB // 2, "100.5MB"),
    ],
)
def test_a_small_hard_limit_needs_no_more_than_itself(
    max_bytes: int | None, need: int, shown: str
) -> None:
    """The need is min(1 GB, hard limit), and the message names that size."""
    assert needed_bytes(max_bytes) == need
    assert can_create(memory(64), needed_bytes(max_bytes)) == (
        False,
        f"Insufficient memory: only 64.0MB available (need at least {shown})",
    )
    assert can_create(memory(700), 512 * MB)[0]


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 40))
def test_more_memory_turns_no_yes_into_a_no(less: int, more: int, headroom: int | None) -> None:
    """The answer is monotonic in the available memory."""
    left = None if headroom is None else Headroom(headroom, BUILD)
    answers = [can_create(SystemMemory(1 << 41, size, left))[0] for size in sorted((less, more))]

    assert answers != [True, False]
