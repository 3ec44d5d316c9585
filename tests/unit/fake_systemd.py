"""A systemd manager as the family and group scopes see it, on a fake cgroupfs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cgmem_backends import systemd_family, systemd_group, systemd_held, systemd_manager
from cgmem_backends.systemd_address import Address
from cgmem_backends.systemd_bus import BusError
from cgmem_backends.systemd_manager import Manager
from tests.unit.fake_cgroupfs import FakeCgroupfs, install

SESSION = "/user.slice/session-1.scope"
MANAGER = "/user.slice/user@1000.service"


class FakeSystemd:
    """The part of systemd: a scope's cgroup is there, with the process inside."""

    def __init__(self, fake: FakeCgroupfs) -> None:
        self.fake = fake
        self.started: list[tuple[str, int, int | None]] = []
        self.entered: list[tuple[str, int]] = []
        self.limited: list[tuple[str, int]] = []
        self.others: list[systemd_held.Family] = []
        """Held by other processes of the story."""
        self.refusal: BusError | None = None

    def where(self, unit: str) -> Path:
        """Return the directory of a unit's cgroup."""
        return self.fake.at(f"{MANAGER}/cgmem.slice/{unit}")

    def start_scope(self, _bus: object, unit: str, pid: int, memory_max: int | None) -> None:
        """As systemd_scope_unit.start_scope."""
        if self.refusal is not None:
            raise self.refusal
        path = f"{MANAGER}/cgmem.slice/{unit}"
        if self.fake.at(path).exists():
            raise BusError("org.freedesktop.systemd1.UnitExists", f"{unit} already exists")
        self.started.append((unit, pid, memory_max))
        above = self.fake.at(f"{MANAGER}/cgmem.slice")
        if not above.exists():
            self.fake.mkdir(above)
            (above / "cgroup.subtree_control").write_text("memory\n")
        self.fake.mkdir(self.fake.at(path))
        if memory_max is not None:
            self.fake.put(path, "memory.max", f"{memory_max}\n")
        self._put(path, pid)

    def enter_scope(self, _bus: object, unit: str, leaf: str, pid: int) -> None:
        """As systemd_scope_unit.enter_scope."""
        path = f"{MANAGER}/cgmem.slice/{unit}"
        if not self.fake.at(path).exists():
            raise BusError("org.freedesktop.systemd1.NoSuchUnit", f"{unit} not loaded")
        self.entered.append((unit, pid))
        self._put(f"{path}/{leaf}", pid)

    def set_memory_max(self, _bus: object, unit: str, memory_max: int) -> None:
        """As systemd_scope_unit.set_memory_max."""
        self.limited.append((unit, memory_max))
        self.fake.put(f"{MANAGER}/cgmem.slice/{unit}", "memory.max", f"{memory_max}\n")

    def _put(self, path: str, pid: int) -> None:
        process = self.fake.proc / str(pid)
        process.mkdir(exist_ok=True)
        (process / "cgroup").write_text(f"0::{path}\n")
        self.fake.enter(path, pid)


class NoBus:
    """A connection that nothing is asked of."""

    def __init__(self, _address: Address) -> None:
        """Connect to nobody."""

    def __enter__(self) -> NoBus:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""


def a_session(directory: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """Make a host where this process is in a login session."""
    tree: dict[str, dict[str, str | None]] = {
        SESSION: {},
        MANAGER: {"cgroup.subtree_control": "memory\n"},
    }
    made = install(FakeCgroupfs(directory, tree, own=SESSION), monkeypatch)
    monkeypatch.setattr(systemd_manager, "os", made)
    (made.at("/user.slice") / "cgroup.procs").chmod(0o444)  # root's, as between session and user@
    monkeypatch.setattr(systemd_family, "get_xattr", made.get_xattr)
    monkeypatch.setattr(systemd_held, "set_xattr", made.set_xattr)
    return made


@contextmanager
def manager_of(fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    """Put a manager under the modules that ask one."""
    made = FakeSystemd(fake)
    manager = Manager(Address(Path("/bus"), True, True), 257, fake.at(MANAGER))
    monkeypatch.setattr(systemd_family, "find_manager", lambda *_: manager)
    for module in (systemd_family, systemd_group):
        monkeypatch.setattr(module, "start_scope", made.start_scope)
        monkeypatch.setattr(module, "Bus", NoBus)
    monkeypatch.setattr(systemd_group, "enter_scope", made.enter_scope)
    monkeypatch.setattr(systemd_group, "set_memory_max", made.set_memory_max)
    monkeypatch.setattr(systemd_family, "lingers", lambda _euid: True)
    state = systemd_family._State()
    monkeypatch.setattr(systemd_family, "_state", state)
    try:
        yield made
    finally:
        for family in (state.family, *state.groups.values(), *made.others):
            if family is not None:
                family.drop()
