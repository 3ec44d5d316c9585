"""The family budget: hard limits that are live together never pass it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB
from cgmem.errors import ConfigurationError, InsufficientMemory
from cgmem.supervising.family import Family

ORIGINS = {"max": "--max", "family_max": "CGMEM_FAMILY_MAX"}


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=40))
def test_the_sum_never_passes_the_budget(steps: list[tuple[bool, int]]) -> None:
    """Whatever starts and ends, what is reserved fits; a refused one changes nothing."""
    family = Family()
    reserved: dict[str, int] = {}
    for number, (starts, size) in enumerate(steps):
        if not starts and reserved:
            name = next(iter(reserved))
            del reserved[name]
            family.release(name)
            continue
        fits = sum(reserved.values()) + size <= 100
        try:
            family.reserve(f"q{number}", size * MB, 100 * MB, ORIGINS)
        except InsufficientMemory:
            assert not fits
        else:
            assert fits
            reserved[f"q{number}"] = size


def test_what_is_told() -> None:
    """The message has the spec's form, and the hint says for whom to wait."""
    family = Family()
    family.reserve("qa_1", 1536 * MB, 2048 * MB, ORIGINS)
    with pytest.raises(InsufficientMemory) as caught:
        family.reserve("qa_2", 1024 * MB, 2048 * MB, ORIGINS)

    assert str(caught.value) == (
        "Insufficient memory: only 512.0MB available in the family budget of 2G"
        " (need 1G, the hard limit)"
    )
    assert "qa_1" in str(caught.value.hint)


@pytest.mark.parametrize("size", [None, 3 * MB])
def test_what_never_fits_is_a_wrong_configuration(size: int | None) -> None:
    """Waiting would not help a subprocess without a hard limit or with one above the family's."""
    with pytest.raises(ConfigurationError, match=r"larger than the family budget 2M \(CGMEM"):
        Family().reserve("qa_1", size, 2 * MB, ORIGINS)


def test_many_threads() -> None:
    """Of many that start at once exactly as many get in as fit."""
    family, taken = Family(), []

    def start(name: str) -> None:
        try:
            family.reserve(name, MB, 5 * MB, ORIGINS)
        except InsufficientMemory:
            return
        taken.append(name)

    threads = [threading.Thread(target=start, args=(f"q{n}",)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 5


def test_who_has_reserved_nothing_releases_nothing() -> None:
    """Every subprocess's end is told, reserved or not."""
    Family().release("nobody")
