"""QEMU's command line, and whether KVM works here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from . import host
from .errors import GuestError
from .image import Image
from .recipe import Guest

#: "count": emulated, one instruction a nanosecond of the guest's clock, whatever the host does.
Accelerator = Literal["kvm", "tcg", "count"]

PROBE_SECONDS = 5.0

# Without -cx16 kernel 6.12 oopses at random under QEMU 7.2's emulation. With erms a page is cleared
# by one instruction that is emulated byte by byte: a fault costs half as much again.
CPU_OPTIONS: dict[Accelerator, list[str]] = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-erms"],
    "count": ["-accel", "tcg,thread=single", "-icount", "shift=0", "-cpu", "max,-cx16,-erms"],
}

#: An oops ends the guest (-no-reboot): a broken kernel must never look like a passing test.
CMDLINE = (
    "console=ttyS0 root=/dev/vda rw loglevel=4 panic=-1 oops=panic mitigations=off "
    "systemd.show_status=auto"
)


@dataclass(frozen=True)
class Disk:
    """A raw disk; the guest finds it by its serial number."""

    serial: str
    path: Path
    read_only: bool = False


@dataclass(frozen=True)
class Machine:
    """A guest's hardware and where its two serial ports go."""

    image: Image
    guest: Guest
    accelerator: Accelerator
    smp: int
    memory: str
    disks: Sequence[Disk]
    console: Path
    live: Path
    cmdline: str = ""


def qemu_argv(machine: Machine) -> list[str]:
    """Return the command that boots `machine` and ends when the guest powers off."""
    return [
        "qemu-system-x86_64",
        *CPU_OPTIONS[machine.accelerator],
        *("-smp", str(machine.smp), "-m", machine.memory),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(machine.image.kernel), "-initrd", str(machine.image.initrd)),
        *("-append", kernel_cmdline(machine.guest, machine.cmdline)),
        *("-serial", f"file:{machine.console}", "-serial", f"file:{machine.live}"),
        # The root disk comes first, so that it is /dev/vda.
        *_disk_words(Disk("root", machine.image.disk), "snapshot=on"),
        *(word for disk in machine.disks for word in _disk_words(disk)),
    ]


def kernel_cmdline(guest: Guest, extra: str) -> str:
    """Return the kernel's command line; `extra` comes last, so it can overrule."""
    init = "init=/usr/lib/cgmem-guest/plain-init" if guest.init != "systemd" else ""
    return " ".join(part for part in (CMDLINE, init, extra.strip()) if part)


def _disk_words(disk: Disk, *options: str) -> list[str]:
    mode = "readonly=on" if disk.read_only else "readonly=off"
    file = f"file={_escaped(disk.path)}"
    # Nothing on these disks has to survive a crash of the host.
    settings = [file, "format=raw", "if=none", f"id={disk.serial}", "cache=unsafe", mode, *options]
    return [
        "-drive",
        ",".join(settings),
        "-device",
        f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}",
    ]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # QEMU's own quoting in option lists


def choose_accelerator(image: Image) -> Accelerator:
    """Return "kvm" when a kernel really boots with it here within 5 s, else "tcg".

    /dev/kvm may exist and hang, so nothing less than a boot in a process of its own proves it.
    CGMEM_GUEST_ACCEL=kvm|tcg decides without a probe.
    """
    wanted = os.environ.get("CGMEM_GUEST_ACCEL")
    if wanted in ("kvm", "tcg"):
        return "kvm" if wanted == "kvm" else "tcg"
    if wanted:
        raise GuestError(f"CGMEM_GUEST_ACCEL is {wanted!r}; it may be kvm or tcg")
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_boots(image) else "tcg"


def _kvm_boots(image: Image) -> bool:
    """Boot the kernel without any disk: it panics, and -no-reboot makes QEMU end."""
    with tempfile.TemporaryDirectory(prefix="cgmem-kvm-") as scratch:
        console = Path(scratch) / "console"
        command = [
            host.find("qemu-system-x86_64") or "qemu-system-x86_64",
            *CPU_OPTIONS["kvm"],
            *("-m", "256M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(image.kernel), "-append", "console=ttyS0 panic=-1"),
            *("-serial", f"file:{console}"),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            # Stuck in the kernel, not even SIGKILL ends it soon; it is not worth waiting for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        return console.exists() and "Kernel panic" in console.read_text(errors="replace")
