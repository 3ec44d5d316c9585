"""What is made for Vagrant: the boot sectors of its box, its wheels, the stage of its test."""

from __future__ import annotations

import os
import re
import signal
import struct
import threading
import time
from pathlib import Path

import pytest

from cgmem_guest import box, host, recipe, vagrant
from cgmem_guest.cli import parse
from cgmem_guest.errors import GuestError
from cgmem_guest.mbr import SECTOR, boot_gap
from cgmem_guest.wheelhouse import all_requirements

TREE = Path(recipe.__file__).parents[2]
STOCK = vagrant.Stock("cgmem/debian13", Path("/cache/cgmem.box"), Path("/cache/wheels"))


def test_boot_gap() -> None:
    """Boot code, one bootable Linux partition up to the disk's end, the signature, then GRUB."""
    boot = bytes(range(256)) * 2
    gap = boot_gap(boot, b"core" * 200, first=2048, sectors=16384)
    flag, kind, first, count = struct.unpack("<B3xB3xII", gap[446:462])

    assert gap[:440] == boot[:440]
    assert (flag, kind, first, count) == (0x80, 0x83, 2048, 16384 - 2048)
    assert gap[462:510] == bytes(48)
    assert gap[510:SECTOR] == b"\x55\xaa"
    assert gap[SECTOR:] == b"core" * 200


def test_boot_gap_has_an_end() -> None:
    """A core that would reach into the partition is refused."""
    assert boot_gap(bytes(512), bytes(2047 * SECTOR), first=2048, sectors=4096)
    with pytest.raises(GuestError, match="does not fit"):
        boot_gap(bytes(512), bytes(2047 * SECTOR + 1), first=2048, sectors=4096)


def test_the_disk_is_as_large_as_the_box_says() -> None:
    """Gap and partition together have the whole GB that vagrant-libvirt is told."""
    size = (recipe.BOX_DISK_MB << 20) + box.PARTITION_AT

    assert size == box.SIZE_GB << 30


def test_wheels_for_all_that_make_installs() -> None:
    """The wheelhouse holds what runs, tests, checks and builds the project, extras and pip."""
    names = {re.split(r"[<>=]", one)[0] for one in all_requirements(TREE / "pyproject.toml")}

    assert {"click", "psutil", "pytest", "mypy", "ruff", "build", "hatchling", "pip"} <= names
    assert {"plotext", "matplotlib", "textual", "pyroute2"} <= names
    assert not any(name.startswith("cgmem") for name in names)


@pytest.mark.parametrize("text", ["", "[project", "[dependency-groups]\na = [{include-group='b'}]"])
def test_bad_requirements(tmp_path: Path, text: str) -> None:
    """A pyproject.toml that is missing or incomplete is an error that names it."""
    pyproject = tmp_path / "pyproject.toml"
    if text:
        pyproject.write_text(text)

    with pytest.raises(GuestError, match="pyproject"):
        all_requirements(pyproject)


def test_the_test_keeps_to_itself(tmp_path: Path) -> None:
    """The test's box, machine and Vagrant home are not those that a user has."""
    values = vagrant.environment(STOCK, "tcg", tmp_path, {"PATH": "/bin", "VAGRANT_HOME": "/mine"})

    assert values["PATH"] == "/bin"
    assert values["CGMEM_BOX"] == "cgmem-test/debian13"
    assert values["CGMEM_VM"] == "cgmem-test"
    assert values["VAGRANT_HOME"] == str(tmp_path / "home")
    assert values["VAGRANT_DOTFILE_PATH"] == str(tmp_path / "machines")


def test_how_to_use() -> None:
    """The commands that are shown name the box, its file, the wheels and the folder."""
    assert vagrant.how_to_use(STOCK, Path("/src/my cgmem")).splitlines() == [
        "vagrant box add --force --name cgmem/debian13 /cache/cgmem.box",
        "export CGMEM_BOX=cgmem/debian13 CGMEM_WHEELHOUSE=/cache/wheels",
        "cd '/src/my cgmem/vagrant'",
        "vagrant up",
    ]


def test_a_box_has_systemd() -> None:
    """Only guests that one can log in to are offered as boxes; Debian 13 is the default."""
    assert parse(["box"]).guest == "debian13"
    assert parse(["cycle", "--guest", "debian12"]).guest == "debian12"
    with pytest.raises(SystemExit):
        parse(["box", "--guest", "plain"])


def test_a_stopped_test_cleans_up(tmp_path: Path) -> None:
    """Stopped in the middle, what was started gets SIGTERM, all of it, and is waited for."""
    cleaned, ready = tmp_path / "cleaned", tmp_path / "ready"
    inner = f"trap 'touch {cleaned}; exit' TERM; touch {ready}; while :; do sleep 0.1; done"
    # As unshare, which takes no SIGTERM and ends with its child.
    outer = ["sh", "-c", 'trap : TERM; sh -c "$1" & wait; wait', "sh", inner]
    stopper = threading.Thread(target=_stop_when, args=(ready,))
    before = signal.signal(signal.SIGTERM, _stopped)
    stopper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            vagrant.call(outer, os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)
        stopper.join()

    assert cleaned.exists()


def _stop_when(ready: Path) -> None:
    while not ready.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def _stopped(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What dpkg does not call installed is installed: unknown, removed and half-done packages."""
    answer = tmp_path / "dpkg-query"
    answer.write_text("#!/bin/sh\necho 'here installed'; echo 'gone config-files'\nexit 1\n")
    answer.chmod(0o755)
    asked: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(host, "install", asked.extend)
    host.require_packages(["here", "gone", "unknown"])

    assert asked == ["gone", "unknown"]


def test_packages_need_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without dpkg the error names the packages."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(GuestError, match="one, two"):
        host.require_packages(["one", "two"])
