"""Having systemd put a process in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgmem.errors import BackendUnavailable, ScopeVanished
from cgmem_backends.systemd_attacher import Attacher
from tests.unit.fake_manager import Refusal, manager_at

pytest.importorskip("jeepney")

WHERE = "/sys/fs/cgroup/cgmem.slice/cgmem-7-1-1.scope/cgmem-7-1"


def test_a_process_is_named_with_its_cgroup_in_the_unit(tmp_path: Path) -> None:
    """The unit, the cgroup's path inside it and the pid; one connection serves for all."""
    with manager_at(tmp_path / "bus") as (fake, address):
        attacher = Attacher(address, "cgmem-7-1-1.scope")
        attacher.attach(WHERE, 42)
        attacher.attach(WHERE, 43)
        attacher.close()

    assert [body for member, body in fake.calls if member != "Hello"] == [
        ("cgmem-7-1-1.scope", "/cgmem-7-1", [42]),
        ("cgmem-7-1-1.scope", "/cgmem-7-1", [43]),
    ]
    assert [member for member, _ in fake.calls].count("Hello") == 1


def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    """The bus may have been restarted since the last start."""
    with manager_at(tmp_path / "bus") as (fake, address):
        attacher = Attacher(address, "x.scope")
        attacher.attach(WHERE, 42)
        fake.hangs_up_after = 2
        attacher.attach(WHERE, 43)
        attacher.close()

    assert fake.members() == ["AttachProcessesToUnit", "AttachProcessesToUnit"]


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        (
            "org.freedesktop.DBus.Error.AccessDenied",
            "another user's",
            BackendUnavailable,
            r"process 42 .* another user's",
        ),
        (
            "org.freedesktop.systemd1.NoSuchUnit",
            "Unit x.scope not loaded.",
            ScopeVanished,
            r"x\.scope was stopped",
        ),
    ],
)
def test_a_refusal(tmp_path: Path, name: str, text: str, error: type[Exception], said: str) -> None:
    """What systemd says is in the error; a scope that is gone lets the next start ask anew."""

    def attach(*_: object) -> object:
        raise Refusal(name, text)

    with manager_at(tmp_path / "bus", AttachProcessesToUnit=attach) as (_, address):
        attacher = Attacher(address, "x.scope")
        with pytest.raises(error, match=said):
            attacher.attach(WHERE, 42)
        attacher.close()
