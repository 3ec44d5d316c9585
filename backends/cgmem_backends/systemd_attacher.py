"""Has systemd put processes into cgroups of a scope that this process may not enter.

Source: org.freedesktop.systemd1(5) AttachProcessesToUnit(). A user's manager that may not either
asks the system's, which checks that caller, process and scope are of the same user.
"""

from __future__ import annotations

import threading
from pathlib import Path

from cgmem.errors import BackendUnavailable, ScopeVanished
from cgmem_backends.systemd_address import Address
from cgmem_backends.systemd_bus import Bus, BusError
from cgmem_backends.systemd_scope_unit import enter_scope

_GONE = "org.freedesktop.systemd1.NoSuchUnit"


class Attacher:
    """Has systemd put processes into cgroups of the scope. Thread-safe."""

    def __init__(self, address: Address, unit: str) -> None:
        self._address = address
        self._unit = unit
        self._lock = threading.Lock()
        self._bus: Bus | None = None

    def attach(self, cgroup_path: str, pid: int) -> None:
        """Have one process put in. Raises `BackendUnavailable`, `ScopeVanished`."""
        with self._lock:
            try:
                try:
                    self._call(cgroup_path, pid)
                except BusError as error:
                    # It may have hung up since the last call.
                    if error.name != BusError.DISCONNECTED:
                        raise
                    self._call(cgroup_path, pid)
            except BusError as error:
                if error.name == _GONE:
                    raise ScopeVanished(f"{self._unit} was stopped") from error
                raise BackendUnavailable(
                    f"systemd did not put process {pid} into {self._unit}: {error}",
                    hint="cgmem doctor",
                ) from error

    def close(self) -> None:
        """Give up the connection."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _call(self, cgroup_path: str, pid: int) -> None:
        bus = self._bus = self._bus or Bus(self._address)
        try:
            enter_scope(bus, self._unit, Path(cgroup_path).name, pid)
        except BusError as error:
            if error.name in (BusError.DISCONNECTED, BusError.NO_REPLY):
                self.close()
            raise
