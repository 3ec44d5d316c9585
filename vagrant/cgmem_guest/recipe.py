"""Which guests exist and what an image is made of; pure data, and the key that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Init = Literal["systemd", "plain", "container"]

#: Raise it when image.py changes in a way that the other parts of the key do not show.
BUILD_VERSION = 1

#: Laid over the guest's root before its kernel is installed, so that its initrd obeys it.
OVERLAY = Path(__file__).with_name("image")
#: Laid over that in Vagrant's box: what makes a machine to log in to of a machine for one job.
BOX_OVERLAY = Path(__file__).with_name("box")

DISK_SIZE = "2G"
#: With the gap before its partition the disk has 8 GiB.
BOX_DISK_MB = 8191

PACKAGES = (
    "attr",
    "bash",
    "dbus",
    "dbus-user-session",
    "earlyoom",
    "initramfs-tools",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "login",
    "mount",
    "passwd",
    "procps",
    "python3",
    "python3-venv",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
    "zstd",
)

#: grub-pc-bin: the boot loader is made by the box's own GRUB, whatever the host has.
BOX_PACKAGES = (
    "grub-pc-bin",
    "make",
    "openssh-server",
    "rsync",
    "sudo",
    "systemd-resolved",
)

#: What `python3 -m bench` compares with, and what the programs that it slows down need.
BENCH_PACKAGES = (
    "cgroup-tools",
    "gcc",
    "git",
    "libc6-dev",
    "libseccomp2",
    "make",
    "nodejs",
    "time",
)

#: A test guest reads no manuals; leaving them out saves dpkg half its time.
EXCLUDED_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    # devtmpfs alone makes the one node that the initrd needs; udev there costs seconds.
    "/usr/share/initramfs-tools/*/udev",
)


@dataclass(frozen=True)
class Release:
    """A Debian release and the version of the Python it ships."""

    name: str
    python: str


@dataclass(frozen=True)
class Guest:
    """A bootable guest: a release, and what prepares the job's cgroup in it.

    "systemd" makes it a delegated service, "plain" has nothing but a cgroup2 mount and leaves the
    job in its root, "container" puts it in a cgroup and a cgroup namespace, as runtimes do.
    """

    name: str
    release: Release
    init: Init
    packages: tuple[str, ...] = ()
    """Debian's, beyond those that every guest has; with any it has an image of its own."""
    groups: tuple[str, ...] = ("test",)
    """The dependency groups of pyproject.toml that its jobs find installed."""


TRIXIE = Release("trixie", "3.13")
BOOKWORM = Release("bookworm", "3.11")

GUESTS = {
    guest.name: guest
    for guest in (
        Guest("debian13", TRIXIE, "systemd"),
        Guest("debian12", BOOKWORM, "systemd"),
        Guest("plain", TRIXIE, "plain"),
        Guest("container", TRIXIE, "container"),
        Guest("bench", TRIXIE, "systemd", BENCH_PACKAGES, ("bench",)),
    )
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the content of an image."""

    release: Release
    packages: tuple[str, ...] = PACKAGES
    excluded_paths: tuple[str, ...] = EXCLUDED_PATHS
    disk_size: str = DISK_SIZE
    overlays: tuple[Path, ...] = (OVERLAY,)
    build_version: int = BUILD_VERSION

    def key(self) -> str:
        """Return 12 hex digits that change whenever an image built from this would."""
        parts = [
            self.release.name,
            self.release.python,
            sorted(self.packages),
            sorted(self.excluded_paths),
            self.disk_size,
            *map(tree_digest, self.overlays),
            self.build_version,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def guest_recipe(guest: Guest) -> Recipe:
    """Return the recipe of a guest's image; guests of one release without packages share it."""
    return Recipe(guest.release, packages=(*PACKAGES, *guest.packages))


def box_recipe(release: Release) -> Recipe:
    """Return the recipe of Vagrant's box: the test guest's, and what is laid over it."""
    return Recipe(
        release,
        packages=(*PACKAGES, *BOX_PACKAGES),
        disk_size=f"{BOX_DISK_MB}M",
        overlays=(OVERLAY, BOX_OVERLAY),
    )


def tree_digest(root: Path) -> str:
    """Return a digest of the names, modes (x or not) and contents of all files under `root`."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)}\0{executable}\0{content}\n".encode())
    return digest.hexdigest()
