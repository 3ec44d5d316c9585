"""Which subprocess ids are taken, and what new ones look like."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.errors import InvalidIdError
from cgmem.text.ids import LONGEST_ID, check_id, new_id


@pytest.mark.parametrize("text", ["engineer_abc123", "a", "7", "build@host:1.2+x-y", "a" * 128])
def test_a_plain_word_is_an_id(text: str) -> None:
    """Letters, digits and a few marks come back unchanged."""
    assert check_id(text, source="--id") == text


@pytest.mark.parametrize(
    "text",
    [
        "", "a/b", "/", "..", ".", "a..b", "../a", "-a", "--max", ".hidden", "_a", "a\0b", "a\n",
        "\n", "a b", "a\x1b[31m", "ä", "٣", "a" * 129, "a" * 300, "a;b", "a%b", "a\\b", "a\u202eb",
    ],
)  # fmt: skip
def test_what_could_harm_a_path_a_log_or_a_terminal_is_no_id(text: str) -> None:
    """The error names the source and shows the id on one short line of ASCII."""
    with pytest.raises(InvalidIdError, match=r"^--id: subprocess id ") as caught:
        check_id(text, source="--id")

    assert caught.value.hint
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 140


@pytest.mark.parametrize("value", [None, 7, b"abc"])
def test_an_id_is_text(value: Any) -> None:
    """Other types are refused as ids, not by a TypeError from inside."""
    with pytest.raises(InvalidIdError, match="is not text"):
        check_id(value, source="argument subprocess_id")


def test_a_new_id_looks_like_the_specs() -> None:
    """A new id is the prefix, an underscore, and lower-case letters and digits."""
    assert re.fullmatch(r"engineer_[0-9a-z]{8}", new_id("engineer"))


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "subprocess"),
        ("../..", "subprocess"),
        ("/usr/bin/make", "usr-bin-make"),
        ("--max", "max"),
        ("a..b", "a-b"),
        ("a b\n", "a-b-"),
    ],
)
def test_a_prefix_is_made_fit_for_an_id(prefix: str, expected: str) -> None:
    """What can't be in an id is left out of a prefix, never refused."""
    assert new_id(prefix).rpartition("_")[0] == expected


@given(st.text(max_size=400))
def test_every_new_id_is_a_valid_id(prefix: str) -> None:
    """Whatever the prefix, the result passes check_id."""
    made = new_id(prefix)

    assert check_id(made, source="new") == made
    assert len(made) <= LONGEST_ID


def test_new_ids_made_at_once_all_differ() -> None:
    """Threads that make ids at the same time never get the same one."""
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_id("a") for _ in range(500)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 4000
