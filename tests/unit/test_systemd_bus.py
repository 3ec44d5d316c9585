"""The connection to a manager: calls, jobs, and everything that can go wrong with it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from cgmem_backends.systemd_address import Address
from cgmem_backends.systemd_bus import Bus, BusError
from cgmem_backends.systemd_scope_unit import properties, start_scope
from tests.unit.fake_manager import Refusal, manager_at

pytest.importorskip("jeepney")

JOB = ("o", ("/job/77",))


def test_a_property(tmp_path: Path) -> None:
    """A property comes back as its value, with the greeting before it."""
    with manager_at(tmp_path / "bus") as (fake, address), Bus(address) as bus:
        assert bus.manager_property("Version") == "257.9"
        assert fake.calls[0][0] == "Hello"


def test_a_managers_own_socket_gets_no_greeting(tmp_path: Path) -> None:
    """Without a bus in between there is nobody to greet and nothing to ask the bus for."""
    with manager_at(tmp_path / "private", StartTransientUnit=lambda *_: JOB) as (fake, address):
        with Bus(address._replace(is_bus=False)) as bus:
            start_scope(bus, "x.scope", 1, None)

        assert fake.members() == ["Subscribe", "StartTransientUnit", "Unsubscribe"]
        assert "Hello" not in [member for member, _ in fake.calls]


def test_a_job_is_waited_for(tmp_path: Path) -> None:
    """A start returns at its own job's signal, and signals are not asked for after it."""
    with manager_at(tmp_path / "bus", StartTransientUnit=lambda *_: JOB) as (fake, address):
        with Bus(address) as bus:
            start_scope(bus, "x.scope", 42, 64 << 20)

        assert fake.members() == [
            "AddMatch", "Subscribe", "StartTransientUnit", "RemoveMatch", "Unsubscribe",
        ]  # fmt: skip
        unit, mode, asked, _ = dict(fake.calls)["StartTransientUnit"]
        assert (unit, mode) == ("x.scope", "fail")
        assert dict(asked)["PIDs"] == ("au", [42])
        assert dict(asked)["Delegate"] == ("b", True)
        assert dict(asked)["MemoryMax"] == ("t", 64 << 20)


def test_a_job_that_fails(tmp_path: Path) -> None:
    """A start whose job did not get done is an error that says how it ended."""
    with manager_at(tmp_path / "bus", StartTransientUnit=lambda *_: JOB) as (fake, address):
        fake.job_result = "failed"
        with Bus(address) as bus, pytest.raises(BusError, match="ended as 'failed'"):
            start_scope(bus, "x.scope", 1, None)


def test_an_older_manager_rejects_the_oom_policy(tmp_path: Path) -> None:
    """Where a scope has no OOMPolicy it is asked for once more without."""

    def start(_unit: str, _mode: str, asked: list[tuple[str, object]], _aux: object) -> object:
        if "OOMPolicy" in dict(asked):
            text = "Cannot set property OOMPolicy, or unknown property."
            raise Refusal("org.freedesktop.DBus.Error.PropertyReadOnly", text)
        return JOB

    with manager_at(tmp_path / "bus", StartTransientUnit=start) as (fake, address):
        with Bus(address) as bus:
            start_scope(bus, "x.scope", 1, None)
        assert fake.members().count("StartTransientUnit") == 2


def test_another_refusal_is_final(tmp_path: Path) -> None:
    """An error of the manager's keeps its name and text."""

    def start(*_: object) -> object:
        raise Refusal("org.freedesktop.DBus.Error.AccessDenied", "no")

    with manager_at(tmp_path / "bus", StartTransientUnit=start) as (_, address):
        with Bus(address) as bus, pytest.raises(BusError, match="no") as caught:
            start_scope(bus, "x.scope", 1, None)
    assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"


def test_nothing_of_ours_reaches_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The properties are the same whatever the environment and the command line hold."""
    before = properties(1, None)
    monkeypatch.setenv("CGMEM_LOG_DIR", "evil\n[Service]")
    monkeypatch.setattr(sys, "argv", ["evil"])

    assert properties(1, None) == before
    assert "evil" not in repr(before)


@pytest.mark.parametrize("hangs_at", ["Hello", "Get"])
def test_a_manager_that_hangs(tmp_path: Path, hangs_at: str) -> None:
    """No call waits longer than its bound."""
    with manager_at(tmp_path / "bus", **{hangs_at: None}) as (_, address):
        with pytest.raises(BusError, match=r"no reply within 0\.2 s") as caught:
            with Bus(address, timeout=0.2) as bus:
                bus.manager_property("Version")
    assert caught.value.name == BusError.NO_REPLY


def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    """A listener that never accepts (a stopped daemon) is given up too."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen(1)
        with pytest.raises(BusError) as caught:
            Bus(Address(tmp_path / "bus", True, True), timeout=0.2)
    assert caught.value.name == BusError.NO_REPLY


def test_a_connection_that_breaks(tmp_path: Path) -> None:
    """Being hung up on is told apart from a refusal."""
    with manager_at(tmp_path / "bus") as (fake, address):
        fake.hangs_up_after = 1
        with Bus(address) as bus, pytest.raises(BusError) as caught:
            bus.manager_property("Version")
    assert caught.value.name == BusError.DISCONNECTED


def test_no_listener(tmp_path: Path) -> None:
    """A socket file that was left behind refuses the connection."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "bus"))
    with pytest.raises(BusError) as caught:
        Bus(Address(tmp_path / "bus", True, True))
    assert caught.value.name == BusError.DISCONNECTED


def test_without_jeepney(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing package is named."""
    monkeypatch.setitem(sys.modules, "jeepney", None)
    with pytest.raises(BusError, match="jeepney") as caught:
        Bus(Address(tmp_path / "bus", True, True))
    assert caught.value.name == BusError.NOT_INSTALLED
