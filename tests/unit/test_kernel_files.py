"""The four formats of the kernel's files, well-formed and not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MemoryEvents
from cgmem_backends import kernel_files as kf

KEYS = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
COUNTS = st.integers(min_value=0, max_value=2**64)


@pytest.mark.parametrize(
    ("text", "limit"),
    [(b"max\n", None), (b"max", None), (b"0\n", 0), (b"67108864\n", 67108864), (b" 5 \n", 5)],
)
def test_a_limit(text: bytes, limit: int | None) -> None:
    """A number of bytes, or None for "max"."""
    assert kf.parse_limit(text) == limit


@pytest.mark.parametrize("text", [b"", b"\n", b"-1", b"12XB", b"1 2", b"MAX", b"\xff", b"1.5"])
def test_a_malformed_limit(text: bytes) -> None:
    """Anything else is refused, with the value in the message."""
    with pytest.raises(ValueError, match="not a number of bytes"):
        kf.parse_limit(text)


@given(st.none() | COUNTS)
def test_limits_round_trip(limit: int | None) -> None:
    """What is written as a limit reads back as the same limit."""
    assert kf.parse_limit(kf.limit_text(limit) + b"\n") == limit


@given(st.binary(max_size=60))
def test_a_limit_of_any_bytes(text: bytes) -> None:
    """No content raises anything but ValueError."""
    try:
        limit = kf.parse_limit(text)
    except ValueError:
        return

    assert limit is None or limit >= 0


@given(st.dictionaries(KEYS, COUNTS))
def test_keyed_files_round_trip(values: dict[str, int]) -> None:
    """Every "KEY VALUE" line is found."""
    text = "".join(f"{key} {value}\n" for key, value in values.items())

    assert kf.parse_keyed(text.encode()) == values


@given(st.binary(max_size=200))
def test_a_keyed_file_of_any_bytes(text: bytes) -> None:
    """Nothing raises, and what is found are counts."""
    assert all(value >= 0 for value in kf.parse_keyed(text).values())


def test_a_truncated_keyed_file() -> None:
    """Lines of another shape are skipped, those before and after are kept."""
    text = b"low 0\nhigh\nmax -3\nnested a=1\n\noom 2\noom_kil"

    assert kf.parse_keyed(text) == {"low": 0, "oom": 2}


def test_events() -> None:
    """The five keys by name, whatever their order and whatever else is there."""
    text = b"low 9\noom_kill 4\nhigh 1\nmax 2\noom 3\noom_group_kill 5\nnew_key 6\n"

    assert kf.parse_events(text) == MemoryEvents(1, 2, 3, 4, 5)


def test_events_of_an_older_kernel() -> None:
    """A key that is not there is None, never 0."""
    assert kf.parse_events(b"low 0\nhigh 0\nmax 0\noom 0\n") == MemoryEvents(0, 0, 0, None, None)
    assert kf.parse_events(b"") == MemoryEvents(None, None, None, None, None)


@given(st.binary(max_size=200))
def test_events_of_any_bytes(text: bytes) -> None:
    """Nothing raises."""
    assert all(value is None or value >= 0 for value in kf.parse_events(text))


def test_pressure() -> None:
    """The totals, in seconds."""
    text = (
        b"some avg10=0.00 avg60=1.20 avg300=0.33 total=1500000\n"
        b"full avg10=0.00 avg60=0.00 avg300=0.00 total=20\n"
    )

    assert kf.parse_pressure(text) == {"some": 1.5, "full": 0.00002}


@pytest.mark.parametrize("text", [b"", b"some", b"some total=", b"some total=x", b"some avg10=0"])
def test_malformed_pressure(text: bytes) -> None:
    """What is not there is absent."""
    assert kf.parse_pressure(text) == {}


@given(st.binary(max_size=200))
def test_pressure_of_any_bytes(text: bytes) -> None:
    """Nothing raises."""
    assert all(value >= 0 for value in kf.parse_pressure(text).values())


def test_pids() -> None:
    """One a line; 0 is a process that our pid namespace does not show."""
    assert kf.parse_pids(b"12\n0\n7\n") == [12, 7]
    assert kf.parse_pids(b"") == []
    assert kf.parse_pids(b"12\n-4\nx\n") == [12]


@given(st.lists(st.integers(min_value=1, max_value=2**22)))
def test_pids_round_trip(pids: list[int]) -> None:
    """All of them, in their order."""
    assert kf.parse_pids("".join(f"{pid}\n" for pid in pids).encode()) == pids


@given(st.binary(max_size=200))
def test_pids_of_any_bytes(text: bytes) -> None:
    """Nothing raises, and a pid is positive: 0 and -1 would signal whole groups."""
    assert all(pid > 0 for pid in kf.parse_pids(text))


def test_reclaimable_bytes() -> None:
    """Both file lists and reclaimable slab; what this kernel lacks counts nothing."""
    stat = b"inactive_file 1\nactive_file 2\nslab_reclaimable 4\nfile 64\nanon 8\n"

    assert kf.reclaimable_bytes(stat) == 7
    assert kf.reclaimable_bytes(b"active_file 2\n") == 2
    assert kf.reclaimable_bytes(b"anon 8\n") is None
