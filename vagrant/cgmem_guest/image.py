"""Build a guest's image: root disk, kernel, initrd, and its Python to compile things for it."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import apt, host
from .cache import build_once, cache_root, prune
from .recipe import GUESTS, Guest, Recipe, Release, guest_recipe
from .report import say

#: What is thrown away after one run needs no journal.
MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0")
#: What mmdebstrap and we need in place of root.
UNPRIVILEGED = ("fakeroot", "newuidmap")
LIBRARIES = ("libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1", "ld-linux-x86-64.so.2")


@dataclass(frozen=True)
class Image:
    """A built image in the cache."""

    folder: Path
    release: Release

    @property
    def disk(self) -> Path:
        """The root file system, ext4, never written to."""
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        """The kernel, as QEMU's -kernel wants it."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk for the kernel."""
        return self.folder / "initrd.img"

    def python_command(self) -> list[str]:
        """Return the command that runs the guest's Python on the host, through its own libc.

        Set PYTHONHOME to `python_home` for it. It is here for compiling bytecode alone.
        """
        libraries = self.python_home / "libraries"
        return [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            str(libraries),
            str(self.python_home / "bin" / "python3"),
        ]

    @property
    def python_home(self) -> Path:
        """The prefix of the guest's Python, copied out of the image."""
        return self.folder / "python"


def ensure_image(guest: Guest) -> Image:
    """Return the image of `guest`, building it when the cache has none of this recipe.

    Takes about a minute when it builds. Raises GuestError when it can't.
    """
    recipe = guest_recipe(guest)
    folder = cache_root()
    target = folder / f"{_family(guest)}-{recipe.key()}"
    build_once(target, lambda work: _build(recipe, work, _family(guest)))
    prune(folder, f"{_family(guest)}-*", keep=target, older_than_days=0)
    return Image(target, guest.release)


def ensure_images(guests: Iterable[str]) -> list[Image]:
    """Have the images of all these guests; different ones are built side by side."""
    different = {_family(GUESTS[name]): GUESTS[name] for name in sorted(guests)}
    with ThreadPoolExecutor(len(different)) as pool:
        return list(pool.map(ensure_image, different.values()))


def _family(guest: Guest) -> str:
    """What its image is called: after the release, where the guest adds nothing to it."""
    return f"{guest.name}-{guest.release.name}" if guest.packages else guest.release.name


def _build(recipe: Recipe, work: Path, family: str) -> None:
    say(f"building the {family} image (about a minute)")
    began = time.monotonic()
    make_disk(recipe, work, MKE2FS, cache_root() / f"build-{family}.log")
    _take_out(work)
    shutil.rmtree(work / "root")
    say(f"built the {family} image in {time.monotonic() - began:.0f} s")


def make_disk(recipe: Recipe, work: Path, mke2fs: Sequence[str], log: Path) -> None:
    """Make `work`/disk.img with the command `mke2fs`, and leave its content in `work`/root.

    Raises GuestError with the end of `log`, which begins anew.
    """
    host.require_amd64()
    host.require(["mmdebstrap", "mke2fs", "tar", *([] if _is_root() else UNPRIVILEGED)])
    log.unlink(missing_ok=True)
    host.run_logged(mmdebstrap_command(recipe, work / "root.tar"), log)
    host.run_logged(_disk_command(recipe, work, mke2fs), log)
    (work / "root.tar").unlink()


def _is_root() -> bool:
    return os.geteuid() == 0


def mmdebstrap_command(recipe: Recipe, target: Path) -> list[str]:
    """Return the command that makes `target`, a tar of the guest's root file system."""
    return [
        "mmdebstrap",
        "--mode=auto",
        "--variant=essential",
        "--architectures=amd64",
        "--components=main",
        f"--include={','.join(recipe.packages)}",
        *(f"--aptopt={option}" for option in apt.transport_options()),
        *(f"--dpkgopt=path-exclude={path}" for path in recipe.excluded_paths),
        "--dpkgopt=force-unsafe-io",
        # Before the kernel is installed, so that its initrd is made once and the right way.
        *(f"--essential-hook=sync-in {shlex.quote(str(path))} /" for path in recipe.overlays),
        *(f'--customize-hook=chroot "$1" sh {customize(path)}' for path in recipe.overlays),
        recipe.release.name,
        str(target),
        apt.mirror(),
    ]


def customize(overlay: Path) -> str:
    """Return the path in the guest of the script that an overlay brings to run in the chroot."""
    (script,) = overlay.glob("usr/lib/*/customize")
    return f"/{script.relative_to(overlay)}"


def _disk_command(recipe: Recipe, work: Path, mke2fs: Sequence[str]) -> list[str]:
    """Turn root.tar into root/ and disk.img, with the right owners also when not root."""
    script = (
        'set -eu; cd "$1"; mkdir root; tar -xf root.tar -C root --exclude="./dev/*"; '
        f'{shlex.join(mke2fs)} -d root disk.img "$2"'
    )
    command = ["sh", "-c", f"PATH=$PATH{host.SBIN}; {script}", "sh", str(work), recipe.disk_size]
    return command if _is_root() else ["fakeroot", *command]


def _take_out(work: Path) -> None:
    """Copy what the host needs out of root/: kernel, initrd, and the guest's Python."""
    root = work / "root"
    (kernel,) = root.glob("boot/vmlinuz-*")
    (initrd,) = root.glob("boot/initrd.img-*")
    shutil.copyfile(kernel, work / "vmlinuz")
    shutil.copyfile(initrd, work / "initrd.img")
    (interpreter,) = root.glob("usr/bin/python3.??")
    home = work / "python"
    for folder in ("bin", "libraries"):
        (home / folder).mkdir(parents=True)
    shutil.copy(interpreter, home / "bin" / "python3")
    for library in LIBRARIES:
        shutil.copy(root / "usr/lib/x86_64-linux-gnu" / library, home / "libraries" / library)
    shutil.copytree(
        root / "usr/lib" / interpreter.name,
        home / "lib" / interpreter.name,
        ignore=shutil.ignore_patterns("ensurepip", "config-*", "sitecustomize.py"),
    )
