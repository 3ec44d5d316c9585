"""Thresholds: what is derived, what contradicts, and the spec's MemoryThresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.config.thresholds import (
    SMALLEST_MAX_BYTES,
    Given,
    MemoryThresholds,
    derive,
    larger_than_machine,
)
from cgmem.contract import MB, Thresholds
from cgmem.errors import ConfigurationError

GB = 1024 * MB


def set_by(name: str, megabytes: float | None) -> Given:
    """Return a threshold as the flag of that name sets it; None is max."""
    return Given(None if megabytes is None else int(megabytes * MB), f"--{name}")


@pytest.mark.parametrize(
    ("given_mb", "expected_mb"),
    [
        ({}, (1024, 2048, 4096)),
        ({"max": 512}, (128, 256, 512)),
        ({"max": 16384}, (4096, 8192, 16384)),
        ({"max": 8}, (2, 4, 8)),
        ({"max": None}, (1024, 2048, None)),
        ({"critical": 1000}, (500, 1000, 4096)),
        ({"critical": 3000}, (1500, 3000, 4096)),
        ({"critical": 8192, "max": None}, (4096, 8192, None)),
        ({"critical": 500, "max": 600}, (250, 500, 600)),
        ({"warning": 100}, (100, 2048, 4096)),
        ({"warning": 2047}, (2047, 2048, 4096)),
        ({"warning": 100, "max": 512}, (100, 256, 512)),
        ({"warning": 256, "max": 512}, (256, 384, 512)),
        ({"warning": 500, "max": 512}, (500, 506, 512)),
        ({"warning": 1500, "max": None}, (1500, 2048, None)),
        ({"warning": 100, "critical": 3000}, (100, 3000, 4096)),
        ({"warning": 1, "critical": 2, "max": 8}, (1, 2, 8)),
        ({"warning": 1, "critical": 9000, "max": None}, (1, 9000, None)),
    ],
)
def test_unset_thresholds_follow_the_set_ones(
    given_mb: dict[str, int | None], expected_mb: tuple[int | None, ...]
) -> None:
    """Every row of the module's table holds."""
    given_ones = [
        set_by(name, given_mb[name]) if name in given_mb else None
        for name in ("warning", "critical", "max")
    ]

    assert derive(*given_ones).thresholds == tuple(
        None if value is None else value * MB for value in expected_mb
    )


def test_origins_say_what_was_set_derived_and_default() -> None:
    """Each value names the source that decided it."""
    assert derive().origins == dict.fromkeys(("warning", "critical", "max"), "default")
    assert derive(maximum=set_by("max", 512)).origins == {
        "warning": "derived from max (--max)",
        "critical": "derived from max (--max)",
        "max": "--max",
    }
    assert derive(critical=set_by("critical", 512)).origins == {
        "warning": "derived from critical (--critical)",
        "critical": "--critical",
        "max": "default",
    }
    both = derive(warning=set_by("warning", 400), maximum=set_by("max", 512))
    assert both.origins["critical"] == "derived from warning (--warning) and max (--max)"


@pytest.mark.parametrize(
    ("lower", "higher"), [("warning", "critical"), ("critical", "maximum"), ("warning", "maximum")]
)
@pytest.mark.parametrize("surplus_bytes", [0, 1, GB])
def test_set_values_that_contradict_name_both_and_their_sources(
    lower: str, higher: str, surplus_bytes: int
) -> None:
    """A set threshold at or above a higher set one is refused, with both sources."""
    with pytest.raises(ConfigurationError, match="is not below") as caught:
        derive(**{lower: Given(GB + surplus_bytes, "LOW"), higher: Given(GB, "HIGH")})

    assert "(LOW)" in str(caught.value)
    assert "1G (HIGH)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "megabytes", "to_set"),
    [("critical", 8192, "--max"), ("critical", 4096, "--max"), ("warning", 3072, "--critical")],
)
def test_nothing_raises_an_unset_threshold(name: str, megabytes: int, to_set: str) -> None:
    """A set threshold above an unset one is refused, and the hint says which to set too."""
    with pytest.raises(ConfigurationError, match="nobody set and nothing raises") as caught:
        derive(**{name: set_by(name, megabytes)})

    assert f"(--{name})" in str(caught.value)
    assert to_set in str(caught.value.hint)


def test_a_warning_that_leaves_no_room_below_max_says_to_set_critical() -> None:
    """Where no critical threshold fits between, it is asked for rather than made up."""
    with pytest.raises(ConfigurationError, match="is not below"):
        derive(warning=Given(GB - 1, "W"), maximum=Given(GB, "M"))


@pytest.mark.parametrize("name", ["warning", "critical"])
def test_only_the_hard_limit_can_be_max(name: str) -> None:
    """A warning or critical threshold of max makes no sense and is refused."""
    with pytest.raises(ConfigurationError, match="can't be max"):
        derive(**{name: Given(None, "--it")})


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("maximum", 0),
        ("maximum", -1),
        ("maximum", SMALLEST_MAX_BYTES - 1),
        ("warning", 0),
        ("critical", 0),
        ("critical", 4095),
    ],
)
def test_a_budget_too_small_to_start_anything_is_refused(name: str, size: int) -> None:
    """Zero, negative and below the floor are refused with the least that is taken."""
    with pytest.raises(ConfigurationError, match=r"--it: .* too small, the least is"):
        derive(**{name: Given(size, "--it")})


sizes = st.one_of(
    st.integers(min_value=1, max_value=1 << 60),
    st.sampled_from([4096, 8 * MB, GB, 2 * GB, 4 * GB, 4 * GB + 1]),
)
thresholds = st.none() | st.builds(Given, sizes, st.just("somebody"))
limits = thresholds | st.just(Given(None, "somebody"))


@given(thresholds, thresholds, limits)
def test_every_accepted_result_rises_and_keeps_what_was_set(
    warning: Given | None, critical: Given | None, maximum: Given | None
) -> None:
    """warning < critical < max holds in every result, and set values come back unchanged."""
    try:
        result: Thresholds | None = derive(warning, critical, maximum).thresholds
    except ConfigurationError as err:
        refused = str(err)
        result = None

    if result is None:
        assert "(somebody)" in refused or refused.startswith("somebody:")
        return

    assert result.warning_bytes is not None
    assert result.critical_bytes is not None
    assert 0 < result.warning_bytes < result.critical_bytes
    assert result.max_bytes is None or result.critical_bytes < result.max_bytes
    for was, value in zip((warning, critical, maximum), result, strict=True):
        assert was is None or was.size == value


@given(st.integers(min_value=SMALLEST_MAX_BYTES, max_value=1 << 60))
def test_a_hard_limit_alone_is_never_refused(size: int) -> None:
    """Only values that somebody set can contradict each other; one max alone contradicts none."""
    assert derive(maximum=Given(size, "--max")).thresholds.max_bytes == size


@given(st.integers(min_value=4096, max_value=1 << 58), st.integers(min_value=2, max_value=1 << 58))
def test_a_warning_below_a_set_hard_limit_is_never_refused(warning: int, room: int) -> None:
    """A warning and a hard limit that don't contradict each other find a critical between them."""
    maximum = max(SMALLEST_MAX_BYTES, warning + room)

    assert derive(warning=Given(warning, "W"), maximum=Given(maximum, "M")).thresholds


def test_a_limit_larger_than_the_machine_gets_a_note_only() -> None:
    """The note names limit and machine; limits within it, and no limit, get none."""
    note = larger_than_machine(Thresholds(1, 2, 64 * GB), 16 * GB)

    assert note is not None
    assert "64G" in note
    assert "16G" in note
    assert larger_than_machine(Thresholds(1, 2, 16 * GB), 16 * GB) is None
    assert larger_than_machine(Thresholds(1, 2, None), 16 * GB) is None


def test_memory_thresholds_are_the_specs() -> None:
    """The spec's constructor calls and defaults work, by keyword and by position."""
    given_ones = MemoryThresholds(warning_mb=512, critical_mb=1024, max_mb=2048)

    assert (given_ones.warning_mb, given_ones.critical_mb, given_ones.max_mb) == (512, 1024, 2048)
    assert given_ones == MemoryThresholds(512, 1024, 2048)
    assert given_ones.to_bytes() == Thresholds(512 * MB, 1024 * MB, 2048 * MB)
    assert MemoryThresholds() == MemoryThresholds(1024, 2048, 4096)
    assert repr(MemoryThresholds(max_mb=1.5 * 8)) == (
        "MemoryThresholds(warning_mb=3, critical_mb=6, max_mb=12)"
    )


def test_memory_thresholds_compare_hash_and_stay_as_they_are() -> None:
    """Equal thresholds are equal keys, other types are unequal, and nothing can be assigned."""
    one: Any = MemoryThresholds(max_mb=512)

    assert hash(one) == hash(MemoryThresholds(128, 256, 512))
    assert one != MemoryThresholds()
    assert one != (128, 256, 512)
    with pytest.raises(AttributeError):
        one.max_mb = 1


def test_memory_thresholds_can_have_no_hard_limit() -> None:
    """An infinite max_mb is no hard limit: None in bytes."""
    unlimited = MemoryThresholds(max_mb=math.inf)

    assert unlimited.max_mb == math.inf
    assert unlimited.to_bytes().max_bytes is None


def test_memory_thresholds_tell_which_were_set() -> None:
    """Only what the caller set is passed on as an argument, so that the rest can be configured."""
    assert MemoryThresholds(warning_mb=0.5).as_arguments() == {"warning": "524288B"}
    assert MemoryThresholds(max_mb=math.inf).as_arguments() == {"max": "max"}
    assert MemoryThresholds().as_arguments() == {}


def test_a_number_like_object_is_a_number() -> None:
    """Whatever Python takes as an index (numpy's integers, for one) is a number of MB."""

    class Integer:
        def __index__(self) -> int:
            return 512

    number: Any = Integer()
    assert MemoryThresholds(max_mb=number).max_mb == 512


@pytest.mark.parametrize(
    "value",
    [
        True,
        "512",
        "512M",
        b"1",
        [],
        0,
        -1,
        0.0,
        math.nan,
        -math.inf,
        1e300,
        10**400,
        7.9,
        pytest.param(10**5000, id="huge"),
    ],
)
def test_memory_thresholds_refuse_what_is_no_amount(value: Any) -> None:
    """Wrong types, zero, negative, nan, absurd and below the floor: an error that names max_mb."""
    with pytest.raises(ConfigurationError, match=r"^max_mb: "):
        MemoryThresholds(max_mb=value)


@pytest.mark.parametrize("name", ["warning_mb", "critical_mb"])
def test_memory_thresholds_below_the_hard_limit_are_finite(name: str) -> None:
    """Only max_mb can be infinite."""
    with pytest.raises(ConfigurationError, match=name):
        MemoryThresholds(**{name: math.inf})


def test_the_hint_names_what_is_taken() -> None:
    """On the command line and in the file it is max; max_mb where the caller wrote critical_mb."""
    with pytest.raises(ConfigurationError) as caught:
        derive(critical=Given(4 * GB, "--critical"))
    with pytest.raises(ConfigurationError) as ours:
        MemoryThresholds(critical_mb=4096)

    hint = "set the hard limit too: --max SIZE, max in the file, or CLAUDE_PM_MEMORY_MAX_MB"
    assert caught.value.hint == hint
    assert ours.value.hint == "set the hard limit too: max_mb"


def test_memory_thresholds_that_contradict_name_both() -> None:
    """The error names both values and their arguments."""
    with pytest.raises(ConfigurationError, match=r"1G \(warning_mb\).*512M \(critical_mb\)"):
        MemoryThresholds(warning_mb=1024, critical_mb=512)
