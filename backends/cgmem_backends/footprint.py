"""phys_footprint of a macOS process: what Activity Monitor shows and what macOS kills by.

RSS misses compressed and swapped pages and counts shared ones; phys_footprint is the kernel's own
account. Source: <libproc.h> `proc_pid_rusage`, <sys/resource.h> `struct rusage_info_v4` (since
macOS 10.14, stable: later flavours are structs of their own).
"""

from __future__ import annotations

import ctypes

from cgmem.shapes import Protocol

RUSAGE_INFO_V4 = 4

_COUNTERS = (
    "ri_user_time", "ri_system_time", "ri_pkg_idle_wkups", "ri_interrupt_wkups", "ri_pageins",
    "ri_wired_size", "ri_resident_size", "ri_phys_footprint", "ri_proc_start_abstime",
    "ri_proc_exit_abstime", "ri_child_user_time", "ri_child_system_time",
    "ri_child_pkg_idle_wkups", "ri_child_interrupt_wkups", "ri_child_pageins",
    "ri_child_elapsed_abstime", "ri_diskio_bytesread", "ri_diskio_byteswritten",
    "ri_cpu_time_qos_default", "ri_cpu_time_qos_maintenance", "ri_cpu_time_qos_background",
    "ri_cpu_time_qos_utility", "ri_cpu_time_qos_legacy", "ri_cpu_time_qos_user_initiated",
    "ri_cpu_time_qos_user_interactive", "ri_billed_system_time", "ri_serviced_system_time",
    "ri_logical_writes", "ri_lifetime_max_phys_footprint", "ri_instructions", "ri_cycles",
    "ri_billed_energy", "ri_serviced_energy", "ri_interval_max_phys_footprint",
    "ri_runnable_time",
)  # fmt: skip


class RusageInfoV4(ctypes.Structure):
    """`struct rusage_info_v4`: a UUID and 35 counters, 296 bytes."""

    _fields_ = [
        ("ri_uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in _COUNTERS),
    ]


class Libproc(Protocol):
    """The one call that is used of libproc."""

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: object) -> int:
        """0, or -1 with errno set."""


class Footprint:
    """Reads the footprint of processes of this user (root: of every process)."""

    def __init__(self, library: Libproc | None = None) -> None:
        self._library = library

    def read(self, pid: int) -> int | None:
        """ri_phys_footprint in bytes; None when the process is gone or another user's."""
        info = RusageInfoV4()
        if self._libproc().proc_pid_rusage(pid, RUSAGE_INFO_V4, ctypes.byref(info)) != 0:
            return None
        return int(info.ri_phys_footprint)

    def _libproc(self) -> Libproc:
        if self._library is None:
            self._library = load_libproc()
        return self._library


def load_libproc() -> Libproc:
    """Load it from libSystem, which every macOS process has mapped. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        function = library.proc_pid_rusage
    except AttributeError as err:
        raise OSError("no proc_pid_rusage here: this is not macOS") from err
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return library
