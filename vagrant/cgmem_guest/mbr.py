"""The sectors before a disk's only partition: master boot record and GRUB's core; pure."""

from __future__ import annotations

import struct

from .errors import GuestError

SECTOR = 512
#: The boot code ends where the disk's signature and the partition table begin.
CODE_END = 440
TABLE_AT = 446
LINUX = 0x83
BOOTABLE = 0x80
#: Cylinder, head and sector that say "use the sector numbers" (beyond what they can express).
NO_CHS = b"\xfe\xff\xff"


def boot_gap(boot: bytes, core: bytes, first: int, sectors: int) -> bytes:
    """Return what precedes sector `first`, where the one partition of a disk of `sectors` begins.

    `boot` is GRUB's boot.img, which loads `core`, made by grub-mkimage, from sector 1 on: the
    defaults built into both (grub-core/boot/i386/pc/boot.S and diskboot.S). Raises GuestError
    when the core is too large for the gap.
    """
    if SECTOR + len(core) > first * SECTOR:
        raise GuestError(f"GRUB's core of {len(core)} bytes does not fit before the partition")
    chs = NO_CHS
    entry = struct.pack("<B3sB3sII", BOOTABLE, chs, LINUX, chs, first, sectors - first)
    record = boot[:CODE_END].ljust(TABLE_AT, b"\0") + entry
    return record.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + core
