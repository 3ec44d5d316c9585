"""The manager that serves this user, and whether it can give us a scope; changes nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cgmem.contract import Usability
from cgmem.shapes import NamedTuple
from cgmem_backends import host_advice
from cgmem_backends import kernel_files as kf
from cgmem_backends.cgroup_directory import read_file
from cgmem_backends.hierarchy import Hierarchy, parse_own_cgroup
from cgmem_backends.systemd_address import Address, manager_address
from cgmem_backends.systemd_bus import Bus, BusError

OLDEST_VERSION = 238
"""AttachProcessesToUnit() and CollectMode= are there since."""

_LINGER = Path("/var/lib/systemd/linger")


class Manager(NamedTuple):
    """A manager that answered."""

    address: Address
    version: int
    directory: Path
    """Its cgroup: what it starts is below."""

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{'user' if self.address.user else 'system'} manager (systemd {self.version})"


def find_manager(hierarchy: Hierarchy, euid: int, run: Path = Path("/run")) -> Manager | Usability:
    """Ask the manager that serves `euid` who it is, or say why it can't serve."""
    address = manager_address(euid, run)
    if isinstance(address, str):
        who = f"no user manager runs for uid {euid}" if euid else "the system manager has no socket"
        return Usability(False, f"{who}: {address}", linger_command(euid) if euid else None)
    try:
        with Bus(address) as bus:
            if _outside(bus.peer_pid()):
                return _other_side(address)
            version = parse_version(bus.manager_property("Version"))
            control_group = str(bus.manager_property("ControlGroup"))
    except BusError as error:
        return no_answer(error, address)
    # systemd may say nothing for the root.
    directory = (hierarchy.mount or Path("/")) / control_group.strip("/")
    manager = Manager(address, version, directory)
    return _refusal(manager, hierarchy) or manager


def _outside(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process is in another pid or cgroup namespace than this one, outside of it."""
    if pid == 0:
        return True
    try:
        path = parse_own_cgroup((proc / str(pid) / "cgroup").read_bytes())
    except OSError:
        return False
    return path is not None and path.startswith("/..")


def _other_side(address: Address) -> Usability:
    who = "user" if address.user else "system"
    return Usability(
        False,
        f"the {who} manager at {address.socket} is outside of this container: what it makes can't"
        " be reached from here",
        f"--backend cgroup2, in a cgroup of the container's own; {host_advice.CONTAINER}",
    )


def parse_version(text: str) -> int:
    """Take the number of `257.9-1~deb13u1`; 0 if there is none."""
    found = re.match(r"v?(\d+)", text)
    return int(found[1]) if found else 0


def no_answer(error: BusError, address: Address) -> Usability:
    """Say why a manager did not answer, and what may help."""
    if error.name == BusError.NOT_INSTALLED:
        return Usability(False, str(error), "pip install jeepney")
    user = "--user " if address.user else ""
    who = "user" if address.user else "system"
    if error.name == BusError.NO_REPLY:
        return Usability(
            False,
            f"the {who} manager does not answer at {address.socket}: {error}",
            f"systemctl {user}status; systemctl {user}daemon-reexec",
        )
    if error.name in ("org.freedesktop.DBus.Error.AccessDenied", BusError.DISCONNECTED):
        return Usability(
            False,
            f"the {who} manager does not let us in at {address.socket}: {error}",
            f"busctl {user}status  # says who may",
        )
    return Usability(False, f"the {who} manager refused: {error} ({error.name})")


def _refusal(manager: Manager, hierarchy: Hierarchy) -> Usability | None:
    if manager.version < OLDEST_VERSION:
        return Usability(
            False,
            f"the {manager.name} is too old",
            f"systemd {OLDEST_VERSION} or later",
        )
    controllers = (read_file(manager.directory, kf.CONTROLLERS) or b"").split()
    if b"memory" not in controllers:
        why = host_advice.no_controller(hierarchy, manager.directory, Path("/proc"))
        reason = f"the {manager.name} has no memory controller to pass on: {why.reason}"
        return why._replace(reason=reason)
    return None


def lingers(euid: int, directory: Path = _LINGER) -> bool:
    """Whether this user's manager outlives the last logout (loginctl(1) enable-linger)."""
    try:
        return (directory / _user_name(euid)).exists()
    except OSError:
        return False


def linger_command(euid: int) -> str:
    """What makes the user's manager run without a login."""
    return f"loginctl enable-linger {_user_name(euid)}"


def _user_name(euid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(euid).pw_name
    except KeyError:
        return str(euid)


def may_enter(own: Path, other: Path) -> bool:
    """Whether this process may put its children below `other` by itself.

    That takes write permission for cgroup.procs of the nearest cgroup above both (cgroup-v2.rst,
    "Delegation Containment").
    """
    return os.access(Path(os.path.commonpath([own, other])) / kf.PROCS, os.W_OK)
