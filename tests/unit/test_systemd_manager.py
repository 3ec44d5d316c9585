"""Which manager serves whom, at which socket, and why one can't."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cgmem.contract import Usability
from cgmem_backends import systemd_manager
from cgmem_backends.hierarchy import Hierarchy
from cgmem_backends.systemd_address import Address, manager_address
from cgmem_backends.systemd_bus import Bus, BusError
from cgmem_backends.systemd_manager import (
    find_manager,
    lingers,
    may_enter,
    no_answer,
    parse_version,
)
from tests.unit.fake_manager import manager_at

pytest.importorskip("jeepney")


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Let there be a socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield


def hierarchy(tmp_path: Path, controllers: str = "cpu memory pids") -> Hierarchy:
    """Describe a mount whose /user.slice is the manager's."""
    directory = tmp_path / "cgroup/user.slice"
    directory.mkdir(parents=True)
    (directory / "cgroup.controllers").write_text(f"{controllers}\n")
    return Hierarchy("v2", tmp_path / "cgroup", directory)


def bus_path(tmp_path: Path) -> Path:
    """Return where this user's bus is looked for."""
    uid = os.geteuid()
    return tmp_path / (f"user/{uid}/bus" if uid else "dbus/system_bus_socket")


def test_root_and_the_others(tmp_path: Path) -> None:
    """Root is served by the system's bus, another user by the own one, whatever HOME says."""
    uid = os.geteuid() or 1000
    with listening(tmp_path / "dbus/system_bus_socket"), listening(tmp_path / f"user/{uid}/bus"):
        system, own = manager_address(0, tmp_path), manager_address(uid, tmp_path)
    assert not isinstance(system, str)
    assert (system.socket, system.user) == (tmp_path / "dbus/system_bus_socket", False)
    assert own == Address(tmp_path / f"user/{uid}/bus", is_bus=True, user=True)


def test_without_a_bus_the_managers_own_socket_serves(tmp_path: Path) -> None:
    """A system without a message bus has the manager's private socket."""
    with listening(tmp_path / "systemd/private"):
        found = manager_address(0, tmp_path)
    assert not isinstance(found, str)
    assert not found.is_bus


def test_the_environment_names_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS may be another user's: nobody looks."""
    with listening(tmp_path / "elsewhere/bus"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/elsewhere/bus")
        found = manager_address(1000, tmp_path)
    assert isinstance(found, str)
    assert "user/1000/bus" in found


def test_a_strangers_socket(tmp_path: Path) -> None:
    """A socket that belongs to neither root nor this user is not talked to."""
    path = tmp_path / "user/4711/bus"
    with listening(path):
        path.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(path, 4242, -1)
        found = manager_address(4711, tmp_path)
    assert isinstance(found, str)
    assert "belongs to uid" in found


def test_what_is_no_socket(tmp_path: Path) -> None:
    """A file in the socket's place is named."""
    (tmp_path / "user/1000").mkdir(parents=True)
    (tmp_path / "user/1000/bus").touch()

    assert "no socket" in str(manager_address(1000, tmp_path))


def test_a_manager_that_serves(tmp_path: Path) -> None:
    """Version and cgroup are the manager's own words."""
    with manager_at(bus_path(tmp_path)):
        found = find_manager(hierarchy(tmp_path), os.geteuid(), tmp_path)

    assert not isinstance(found, Usability)
    assert found.version == 257
    assert found.directory == tmp_path / "cgroup/user.slice"
    assert found.name.endswith("manager (systemd 257)")


def test_no_manager(tmp_path: Path) -> None:
    """A user without a manager is told how to get one."""
    found = find_manager(hierarchy(tmp_path), 4711, tmp_path)

    assert isinstance(found, Usability)
    assert "no user manager runs for uid 4711" in found.reason
    assert found.fix == "loginctl enable-linger 4711"


def test_a_manager_without_the_controller(tmp_path: Path) -> None:
    """A manager that was given no memory controller can't pass it on."""
    with manager_at(bus_path(tmp_path)):
        found = find_manager(hierarchy(tmp_path, "cpu pids"), os.geteuid(), tmp_path)

    assert isinstance(found, Usability)
    assert "no memory controller" in found.reason
    assert found.fix


def test_a_manager_that_is_too_old(tmp_path: Path) -> None:
    """The version is named."""
    with manager_at(bus_path(tmp_path)) as (fake, _):
        fake.properties["Version"] = "v237"
        found = find_manager(hierarchy(tmp_path), os.geteuid(), tmp_path)

    assert isinstance(found, Usability)
    assert "systemd 237" in found.reason


@pytest.mark.parametrize(
    ("name", "word", "fix"),
    [
        (BusError.NO_REPLY, "does not answer", "daemon-reexec"),
        (BusError.NOT_INSTALLED, "jeepney", "pip install jeepney"),
        (BusError.DISCONNECTED, "does not let us in", "busctl"),
        ("org.freedesktop.DBus.Error.AccessDenied", "does not let us in", "busctl"),
    ],
)
def test_every_trouble_has_a_fix(tmp_path: Path, name: str, word: str, fix: str) -> None:
    """What went wrong on the bus is told apart, with what to run next."""
    with listening(tmp_path / "dbus/system_bus_socket"):
        address = manager_address(0, tmp_path)
    assert not isinstance(address, str)
    found = no_answer(BusError(name, "jeepney said so"), address)

    assert not found.usable
    assert word in found.reason
    assert fix in (found.fix or "")


@pytest.mark.parametrize(
    ("text", "number"), [("257.9-1~deb13u1", 257), ("v252", 252), ("253~rc1", 253), ("", 0)]
)
def test_versions(text: str, number: int) -> None:
    """Distributions append what they like."""
    assert parse_version(text) == number


def test_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """logind keeps a file named after each user who lingers."""
    monkeypatch.setattr(systemd_manager, "_user_name", lambda _uid: "ada")
    assert not lingers(1, tmp_path)
    (tmp_path / "ada").touch()

    assert lingers(1, tmp_path)
    assert not lingers(1, tmp_path / "nonesuch")


def test_who_may_enter(tmp_path: Path) -> None:
    """It takes the nearest cgroup above both; a missing one lets nobody in."""
    own, other = tmp_path / "user/app.slice/x", tmp_path / "user/cgmem.slice/y"
    for directory in (own, other):
        directory.mkdir(parents=True)
    assert not may_enter(own, other)
    (tmp_path / "user/cgroup.procs").touch()

    assert may_enter(own, other)


def test_a_manager_outside_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is bind-mounted here, but nothing that it makes can be seen."""
    monkeypatch.setattr(Bus, "peer_pid", lambda _bus: 0)
    with manager_at(bus_path(tmp_path)):
        found = find_manager(hierarchy(tmp_path), os.geteuid(), tmp_path)

    assert isinstance(found, Usability)
    assert not found.usable
    assert "outside of this container" in found.reason
    assert "--backend cgroup2" in str(found.fix)


@pytest.mark.parametrize(
    ("path", "outside"), [("/../../init.scope", True), ("/init.scope", False), (None, False)]
)
def test_another_cgroup_namespace(tmp_path: Path, path: str | None, outside: bool) -> None:
    """A process whose cgroup is above our namespace's root serves another one."""
    (tmp_path / "1").mkdir()
    if path is not None:
        (tmp_path / "1/cgroup").write_text(f"0::{path}\n")

    assert systemd_manager._outside(1, tmp_path) is outside
