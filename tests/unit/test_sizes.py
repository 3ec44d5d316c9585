"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.text.sizes import LARGEST_BYTES, format_size, mb, parse_size

KB, GB, TB = MB >> 10, MB << 10, MB << 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512M", 512 * MB),
        ("512m", 512 * MB),
        ("512MB", 512 * MB),
        ("512MiB", 512 * MB),
        ("2GiB", 2 * GB),
        ("1.5G", 1536 * MB),
        ("0.1K", 102),
        ("64k", 64 * KB),
        ("1T", TB),
        ("1P", TB << 10),
        ("4096B", 4096),
        (" 1 G\n", GB),
        ("0", 0),
        ("0M", 0),
        ("max", None),
        ("MAX", None),
        ("infinity", None),
    ],
)
def test_a_size_is_read_by_systemds_rules(text: str, expected: int | None) -> None:
    """Suffixes are powers of 1024 in any case and spelling; max and infinity mean no limit."""
    assert parse_size(text, source="--max") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "12XB", "M", "-1M", "+1M", "nan", "inf", "1e3", "1,5G", ".5G", "1.G", "0x10M",
        "1GG", "1GBB", "1BB", "1BiB", "1_000M", "1G 2M", "\u0661\u0662M", "9" * 5000, "1G\0", "%",
        "1i",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: str) -> None:
    """The error names the source and shows the value on one short line."""
    with pytest.raises(ConfigurationError, match=r"^--max: ") as caught:
        parse_size(text, source="--max")

    assert caught.value.hint
    assert len(str(caught.value)) < 120
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["2048P", "99999999999T", "1152921504606846977B"])
def test_an_absurdly_large_size_is_refused(text: str) -> None:
    """No size comes near the numbers that the kernel would silently read as max."""
    with pytest.raises(ConfigurationError, match="larger than any machine"):
        parse_size(text, source="--max")


def test_a_hint_names_no_value_that_is_refused_next() -> None:
    """Not everywhere is max a size, but everywhere there is a largest one."""
    with pytest.raises(ConfigurationError) as caught:
        parse_size("99999P", source="--critical")

    assert caught.value.hint == "write at most 1024P"
    assert parse_size("1024P", source="--critical") == LARGEST_BYTES


def test_a_negative_size_is_told_so() -> None:
    """A minus before the digits is named; one before a word is no sign."""
    with pytest.raises(ConfigurationError, match="is not a size: it must be positive"):
        parse_size("-5M", source="--max")
    with pytest.raises(ConfigurationError, match=r"is not a size$"):
        parse_size("-x", source="--max")


def test_a_bare_number_says_to_write_a_unit() -> None:
    """A number that could be bytes or megabytes is refused, with what to write instead."""
    with pytest.raises(ConfigurationError, match="--max: 512 has no unit") as caught:
        parse_size("512", source="--max")

    assert caught.value.hint == "write 512M if megabytes are meant"


@pytest.mark.parametrize(("text", "expected"), [("512", 512 * MB), ("0.5", MB // 2), ("1G", GB)])
def test_a_bare_number_takes_the_unit_that_its_place_has(text: str, expected: int) -> None:
    """Where bare numbers have a unit it counts, and a written unit still wins."""
    assert parse_size(text, source="X", bare_unit_bytes=MB) == expected


@pytest.mark.parametrize(("text", "expected"), [("80%", 800), ("12.5 %", 125), ("100%", 1000)])
def test_a_percentage_is_one_of_the_total(text: str, expected: int) -> None:
    """Percentages are exact parts of the memory at hand."""
    assert parse_size(text, source="X", total_bytes=1000) == expected


def test_a_percentage_needs_a_total_and_is_at_most_all_of_it() -> None:
    """Without a total, or past 100 %, a percentage is refused."""
    with pytest.raises(ConfigurationError, match="no percentage is taken here"):
        parse_size("80%", source="X")
    with pytest.raises(ConfigurationError, match="more than all"):
        parse_size("100.1%", source="X", total_bytes=1000)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, "max"),
        (0, "0"),
        (1, "1B"),
        (512 * MB, "512M"),
        (1536 * MB, "1.5G"),
        (1100 * MB, "1100M"),
        (4 * GB, "4G"),
        (1_000_000_000, "953.7M"),
        (GB - 1, "1024M"),
        (4096, "4K"),
    ],
)
def test_a_size_is_shown_short_and_exact_where_it_can_be(size: int | None, expected: str) -> None:
    """People see the unit in which the number is short, rounded only if nothing short is exact."""
    assert format_size(size) == expected


@given(st.integers(min_value=0, max_value=LARGEST_BYTES))
def test_a_shown_size_reads_back_nearly_the_same(size: int) -> None:
    """What format_size shows is a size again, within the rounding of its last digit."""
    back = parse_size(format_size(size), source="X")

    assert back is not None
    assert abs(back - size) <= size * 0.05


@given(st.integers(min_value=0, max_value=9_999), st.sampled_from(["K", "M", "G", "T"]))
def test_whole_units_are_shown_exactly(number: int, unit: str) -> None:
    """A whole number of units survives the way out and back."""
    size = parse_size(f"{number}{unit}", source="X")

    assert parse_size(format_size(size), source="X") == size


@given(st.text(max_size=80))
def test_any_text_is_a_size_or_a_configuration_error(text: str) -> None:
    """No text makes the parser fail in another way, or return a size out of range."""
    try:
        size = parse_size(text, source="X", total_bytes=GB, bare_unit_bytes=MB)
    except ConfigurationError:
        return

    assert size is None or 0 <= size <= LARGEST_BYTES


def test_mb_has_one_decimal() -> None:
    """The spec's figures are MB of 2**20 bytes with one decimal."""
    assert mb(1_212_468_429) == 1156.3
