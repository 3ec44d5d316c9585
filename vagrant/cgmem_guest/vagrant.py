"""What Vagrant needs of us: a box, wheels, and for the test of it all a stage with a daemon."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from . import host
from .box import ensure_box
from .cache import cache_root
from .errors import GuestError
from .image import ensure_image
from .qemu import choose_accelerator
from .recipe import GUESTS, Guest
from .report import say
from .wheelhouse import ensure_wheelhouse

#: Those that Vagrant can log in to.
BOXES = tuple(
    guest.name for guest in GUESTS.values() if guest.init == "systemd" and not guest.packages
)

#: Debian 12's: Vagrant with its provider, a libvirt with QEMU and NAT, and what they call.
PACKAGES = (
    *("vagrant", "vagrant-libvirt", "rsync", "openssh-client", "qemu-utils"),
    *("libvirt-daemon-driver-qemu", "libvirt-clients"),
    *("qemu-system-x86", "dnsmasq-base", "iptables", "iproute2", "mount"),
)
#: Without systemd only the daemon: the other's init script starts it when it is installed, and it
#: makes cgroups.
DAEMON = {True: "libvirt-daemon-system", False: "libvirt-daemon"}


class Stock(NamedTuple):
    """What a guest is made from: the box's name and file, and the folder of wheels."""

    name: str
    box: Path
    wheelhouse: Path


def ensure_stock(guest: Guest, tree: Path) -> Stock:
    """Return the box of `guest` and the wheels for `tree`, built where the cache has none.

    Raises GuestError.
    """
    return Stock(
        f"cgmem/{guest.name}",
        ensure_box(guest.release),
        ensure_wheelhouse(guest.release, tree),
    )


def how_to_use(stock: Stock, tree: Path) -> str:
    """Return the commands that make a guest of `stock`."""
    lines = [
        ["vagrant", "box", "add", "--force", "--name", stock.name, str(stock.box)],
        ["export", f"CGMEM_BOX={stock.name}", f"CGMEM_WHEELHOUSE={stock.wheelhouse}"],
        ["cd", str(tree / "vagrant")],
        ["vagrant", "up"],
    ]
    return "\n".join(map(shlex.join, lines))


def run_cycle(guest: Guest, tree: Path) -> int:
    """Run vagrant/cycle.sh with a box, a Vagrant home and a machine of its own; return its status.

    The user's boxes and machines are not touched. Where no libvirt daemon answers, one is started
    for as long as it takes (with-libvirt.sh), which only root can. Raises GuestError.
    """
    host.require_amd64()
    host.require_packages((*PACKAGES, DAEMON[_has_systemd()]))
    stock = ensure_stock(guest, tree)
    accelerator = choose_accelerator(ensure_image(guest))
    runs = cache_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vagrant-", dir=runs))
    command = ["sh", str(tree / "vagrant/cycle.sh"), str(stock.box)]
    if not _daemon_answers():
        if os.geteuid() != 0:
            raise GuestError("no libvirt daemon answers, and only root can start one for this test")
        say("no libvirt daemon answers: starting one for this test")
        command = ["sh", str(tree / "vagrant/with-libvirt.sh"), str(folder / "libvirt"), *command]
    say(f"Vagrant with {guest.name} ({accelerator})")
    try:
        status = call(command, environment(stock, accelerator, folder, os.environ))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return status


def environment(
    stock: Stock, accelerator: str, folder: Path, base: Mapping[str, str]
) -> dict[str, str]:
    """Return `base` and the variables that keep a test's guest apart from the user's own."""
    return {
        **base,
        "CGMEM_BOX": stock.name.replace("cgmem/", "cgmem-test/"),
        "CGMEM_VM": "cgmem-test",
        "CGMEM_WHEELHOUSE": str(stock.wheelhouse),
        "CGMEM_GUEST_ACCEL": accelerator,
        "VAGRANT_HOME": str(folder / "home"),
        "VAGRANT_DOTFILE_PATH": str(folder / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }


def call(command: list[str], env: Mapping[str, str]) -> int:
    """Run `command`; when we are stopped, have it clean up and end first."""
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            # All of it: unshare, which waits for the rest, takes no SIGTERM.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _daemon_answers() -> bool:
    asked = ["virsh", "--quiet", "--connect", "qemu:///system", "list"]
    done = subprocess.run(asked, check=False, capture_output=True)
    return done.returncode == 0
