"""The machine's memory, parsed, estimated and compared with psutil's word."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import Headroom, LimitAbove, SystemMemory
from cgmem_backends import host_memory
from cgmem_backends.host_memory import memory_from_meminfo, parse_meminfo, read_system_memory

TOLERANCE_BYTES = 64 << 20
"""How far the C library's word on the total may be from /proc/meminfo's."""

# proc(5); the last three lines are shapes that carry no size.
MEMINFO = b"""\
MemTotal:       24684084 kB
MemFree:        20000000 kB
MemAvailable:   22000000 kB
Buffers:            1000 kB
Cached:           300000 kB
Shmem:            100000 kB
SwapFree:           4096 kB
HugePages_Total:       7
Odd: x kB
no colon
"""


def test_meminfo_in_bytes() -> None:
    """kB lines become bytes; counts and lines of another shape are skipped."""
    found = parse_meminfo(MEMINFO)

    assert found["MemTotal"] == 24684084 * 1024
    assert set(found) == {
        "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem", "SwapFree",
    }  # fmt: skip
    assert memory_from_meminfo(found) == SystemMemory(
        24684084 * 1024, 22000000 * 1024, swap_free_bytes=4096 * 1024
    )


def test_without_memavailable_it_is_estimated() -> None:
    """A kernel that lacks MemAvailable: free memory and page cache, without tmpfs."""
    found = parse_meminfo(MEMINFO)
    del found["MemAvailable"]

    memory = memory_from_meminfo(found)

    assert memory is not None
    assert memory.available_bytes == (20000000 + 1000 + 300000 - 100000) * 1024


@pytest.mark.parametrize("missing", [("MemTotal",), ("MemAvailable", "MemFree")])
def test_without_the_numbers_there_is_no_answer(missing: tuple[str, ...]) -> None:
    """A file without total or free memory gives None, never zeros."""
    found = {key: size for key, size in parse_meminfo(MEMINFO).items() if key not in missing}

    assert memory_from_meminfo(found) is None


KEYS = [line.partition(b":")[0].decode() for line in MEMINFO.splitlines()[:7]]


@given(st.dictionaries(st.sampled_from(KEYS), st.integers(0)))
def test_parser_reads_what_the_kernel_writes(sizes: dict[str, int]) -> None:
    """Whatever is written as the kernel writes it is read back."""
    text = "".join(f"{key}:{size:>12} kB\n" for key, size in sizes.items()).encode()

    assert parse_meminfo(text) == {key: size * 1024 for key, size in sizes.items()}


@given(st.binary(max_size=300) | st.lists(st.sampled_from(MEMINFO.split(b"\n"))).map(b"\n".join))
def test_parser_takes_anything(text: bytes) -> None:
    """No input makes the parser raise, and available memory is never more than the total."""
    memory = memory_from_meminfo(parse_meminfo(text))

    assert memory is None or 0 <= memory.available_bytes <= memory.total_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_agrees_with_psutil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one and the same /proc, psutil makes our numbers."""
    for name in ("meminfo", "vmstat"):
        (tmp_path / name).write_bytes(Path("/proc", name).read_bytes())
    monkeypatch.setattr(host_memory, "MEMINFO", str(tmp_path / "meminfo"))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    ours, theirs = read_system_memory(), psutil.virtual_memory()

    assert ours.total_bytes == theirs.total
    assert ours.swap_free_bytes == psutil.swap_memory().free
    # A kernel that lacks the line leaves it to each to estimate it in its own way.
    if b"MemAvailable:" in (tmp_path / "meminfo").read_bytes():
        assert ours.available_bytes == theirs.available


def test_elsewhere_psutil_answers() -> None:
    """The way taken off Linux gives the same kind of answer."""
    elsewhere = host_memory._elsewhere()

    assert elsewhere.total_bytes == psutil.virtual_memory().total
    assert 0 < elsewhere.available_bytes <= elsewhere.total_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_without_proc_the_c_library_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chroot without /proc the total is still right, and something is available."""
    monkeypatch.setattr(host_memory, "MEMINFO", "/nonexistent/meminfo")

    found = read_system_memory()

    assert abs(found.total_bytes - psutil.virtual_memory().total) <= TOLERANCE_BYTES
    assert 0 < found.available_bytes <= found.total_bytes


def test_headroom_is_carried() -> None:
    """What the own cgroup has left stands beside the host's numbers, with whose limit it is."""
    left = Headroom(5 << 20, LimitAbove("/docker/1", 64 << 20))

    assert read_system_memory(lambda: None).headroom is None
    assert read_system_memory(lambda: left).headroom == left
