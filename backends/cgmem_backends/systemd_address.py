"""Which service manager serves this process, and at which socket.

Root is served by the system's manager, everybody else by the user's own. The paths are those that
systemd and logind fix; nothing is taken from the environment, which after `su` or `sudo -E` may be
another user's. See also: systemd_bus.py (the connection).
Source: file-hierarchy(7) "/run/user/", pam_systemd(8), the D-Bus specification's well-known bus.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cgmem.shapes import NamedTuple


class Address(NamedTuple):
    """A manager's socket."""

    socket: Path
    is_bus: bool
    """A message bus in between, which wants a greeting and passes on only what is asked for."""
    user: bool
    """The manager of one user, not the system's."""


def manager_address(euid: int, run: Path = Path("/run")) -> Address | str:
    """Find the socket of the manager that serves `euid`, or say why there is none.

    A message bus comes first: the manager's own socket is systemd's internal affair, and serves
    where no bus is installed.
    """
    if euid == 0:
        candidates = (
            Address(run / "dbus/system_bus_socket", True, False),
            Address(run / "systemd/private", False, False),
        )
    else:
        runtime = run / "user" / str(euid)
        candidates = (
            Address(runtime / "bus", True, True),
            Address(runtime / "systemd/private", False, True),
        )
    why_not = ""
    for address in candidates:
        found = _problem(address.socket, euid)
        if found is None:
            return address
        why_not = why_not or found
    return why_not


def _problem(path: Path, euid: int) -> str | None:
    try:
        found = path.stat()
    except OSError as error:
        return f"{path}: {os.strerror(error.errno or 0)}"
    if not stat.S_ISSOCK(found.st_mode):
        return f"{path} is no socket"
    # The user manager may have been given its socket by root's.
    if found.st_uid not in (0, euid):
        return f"{path} belongs to uid {found.st_uid}"
    return None
