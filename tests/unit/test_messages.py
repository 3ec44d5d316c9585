"""The sentences: the spec's word for word, ours safe to print."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgmem.contract import MB
from cgmem.judging import messages


def test_warning_text_is_the_specs() -> None:
    """The spec's example comes out character for character."""
    text = messages.exceeded("WARNING", 1024 * MB, int(1156.3 * MB))

    assert text == "WARNING: Memory exceeded 1024MB at 1156.3MB"


def test_limit_text_names_the_limit_with_level_critical() -> None:
    """The hard limit's alert is CRITICAL and says "limit"."""
    text = messages.exceeded("CRITICAL", 4096 * MB, 4100 * MB, limit=True)

    assert text == "CRITICAL: Memory exceeded 4096MB limit at 4100.0MB"


@pytest.mark.parametrize(
    ("count", "threshold", "size"),
    [
        (1024 * MB, "1024MB", "1G"),
        (400 * MB, "400MB", "400M"),
        (1536 * MB, "1536MB", "1536M"),
        (12 * MB + MB // 2, "12.5MB", "12.5M"),
        (0, "0MB", "0M"),
    ],
)
def test_limits_are_whole_where_they_are_whole(count: int, threshold: str, size: str) -> None:
    """A threshold of whole MB has no decimals, another has one."""
    assert messages.threshold_mb(count) == threshold
    assert messages.size(count) == size


def test_no_limit_is_max() -> None:
    """None is the kernel's "max"."""
    assert messages.size(None) == "max"


def test_largest_names_command_pid_and_amount() -> None:
    """Each process is named with what a person needs to find it."""
    text = messages.largest([(12, "python3 leak.py", 380 * MB), (7, "sh", MB)])

    assert text == "Largest when last seen: python3 leak.py[12] 380.0MB, sh[7] 1.0MB."


def test_largest_of_nothing_is_empty() -> None:
    """Where no process is known, nothing is said."""
    assert messages.largest([]) == ""


@settings(deadline=None)
@given(st.text())
def test_a_command_line_cannot_reach_the_terminal_raw(command: str) -> None:
    """No control character, newline or endless line of a subprocess gets into a message."""
    text = messages.largest([(1, command, 0)])

    assert text.isprintable()
    assert len(text) <= messages.COMMAND_CHARS + len("Largest when last seen: [1] 0.0MB.")


def test_release_says_what_decides_now() -> None:
    """After a release the reader knows which limit is left, if one is."""
    assert "hard limit 400MB decides" in messages.released(400 * MB, for_good=False)
    assert "no hard limit" in messages.released(None, for_good=True)
    assert "for good" in messages.released(None, for_good=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (12.34, "12.3 s"),
        (30.0, "30 s"),
        (320.9, "5 min 20 s"),
        (7380.0, "2 h 3 min"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    """A time span has the two units that matter."""
    assert messages.duration(seconds) == text
