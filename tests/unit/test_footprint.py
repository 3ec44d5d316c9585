"""phys_footprint through a fake libproc: the struct's layout and the call."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from cgmem_backends.footprint import RUSAGE_INFO_V4, Footprint, RusageInfoV4, load_libproc


class FakeLibproc:
    """Fills the buffer as the kernel does: by offset, knowing nothing of our struct."""

    def __init__(self, footprints: dict[int, int]) -> None:
        self._footprints = footprints
        self.flavors: list[int] = []

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: Any) -> int:
        """-1 (ESRCH) for a pid that is not there."""
        self.flavors.append(flavor)
        if pid not in self._footprints:
            return -1
        raw = bytearray(296)
        raw[72:80] = self._footprints[pid].to_bytes(8, sys.byteorder)
        ctypes.memmove(buffer, bytes(raw), len(raw))
        return 0


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("ri_uuid", 0),
        ("ri_user_time", 16),
        ("ri_resident_size", 64),
        ("ri_phys_footprint", 72),
        ("ri_diskio_bytesread", 144),
        ("ri_lifetime_max_phys_footprint", 240),
        ("ri_instructions", 248),
        ("ri_runnable_time", 288),
    ],
)
def test_rusage_field_offsets(name: str, offset: int) -> None:
    """Each field lies where <sys/resource.h> of macOS has it."""
    assert getattr(RusageInfoV4, name).offset == offset


def test_rusage_size() -> None:
    """The struct is as large as the kernel's: a smaller one would be written past its end."""
    assert ctypes.sizeof(RusageInfoV4) == 296


def test_footprint_is_read_with_flavor_4() -> None:
    """The footprint is the kernel's number, asked for with the flavor of our struct."""
    library = FakeLibproc({7: 123_456_789_012})

    assert Footprint(library).read(7) == 123_456_789_012
    assert library.flavors == [RUSAGE_INFO_V4] == [4]


def test_footprint_of_a_gone_process_is_unknown() -> None:
    """A process that is gone, or another user's, has no footprint rather than 0."""
    assert Footprint(FakeLibproc({})).read(7) is None


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has the call")
def test_loading_elsewhere_says_that_this_is_not_macos() -> None:
    """Without the call there is a clear error, not an AttributeError."""
    with pytest.raises(OSError, match="not macOS"):
        load_libproc()


@pytest.mark.skipif(sys.platform != "darwin", reason="proc_pid_rusage is macOS's")
def test_footprint_of_this_process() -> None:
    """The real call gives a plausible number for the running interpreter."""
    import os

    footprint = Footprint().read(os.getpid())

    assert footprint is not None
    assert 1 << 20 < footprint < 1 << 33
