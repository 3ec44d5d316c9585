"""Build Vagrant's box: the test guest's recipe on a disk that boots by itself."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from pathlib import Path

from . import host
from .cache import build_once, cache_root, prune
from .image import make_disk
from .mbr import SECTOR, boot_gap
from .recipe import BOX_DISK_MB, Release, box_recipe
from .report import say

#: Where the partition begins; what is before it belongs to the boot loader.
PARTITION_AT = 1 << 20
#: GRUB reads it: it must not have the one incompatible feature that GRUB may not know.
MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum_seed", "-E", f"offset={PARTITION_AT}")
#: The whole disk, in the unit that vagrant-libvirt wants.
SIZE_GB = (BOX_DISK_MB << 20) + PARTITION_AT >> 30
#: vagrant-libvirt's box format, version 1.
METADATA = {"provider": "libvirt", "format": "qcow2", "virtual_size": SIZE_GB}


def ensure_box(release: Release) -> Path:
    """Return the .box file of `release`, building it when the cache has none of this recipe.

    Takes two minutes when it builds. Raises GuestError when it can't.
    """
    recipe = box_recipe(release)
    folder = cache_root()
    target = folder / f"box-{release.name}-{recipe.key()}"
    build_once(target, lambda work: _build(release, work))
    prune(folder, f"box-{release.name}-*", keep=target, older_than_days=0)
    return target / "cgmem.box"


def _build(release: Release, work: Path) -> None:
    host.require(["qemu-img"])
    say(f"building the {release.name} box (two minutes)")
    began = time.monotonic()
    log = cache_root() / f"build-box-{release.name}.log"
    make_disk(box_recipe(release), work, MKE2FS, log)
    _make_bootable(work)
    disk, image = work / "disk.img", work / "box.img"
    host.run_logged(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(image)], log)
    _pack(image, work / "cgmem.box")
    for path in (disk, image):
        path.unlink()
    shutil.rmtree(work / "root")
    say(f"built the {release.name} box in {time.monotonic() - began:.0f} s")


def _make_bootable(work: Path) -> None:
    """Write GRUB, which the box's own packages brought and made, before the partition."""
    disk, root = work / "disk.img", work / "root"
    sectors = ((BOX_DISK_MB << 20) + PARTITION_AT) // SECTOR
    gap = boot_gap(
        (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(),
        (root / "boot/grub/core.img").read_bytes(),
        first=PARTITION_AT // SECTOR,
        sectors=sectors,
    )
    with disk.open("r+b") as handle:
        handle.write(gap)
        handle.truncate(sectors * SECTOR)


def _pack(image: Path, target: Path) -> None:
    """Write the box; not compressed, because it only goes from one folder to another."""
    metadata = image.with_name("metadata.json")
    metadata.write_text(json.dumps(METADATA))
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in (metadata, image):
            tar.add(path, arcname=path.name)
    metadata.unlink()
