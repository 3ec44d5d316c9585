"""Why a host has no usable memory controller on cgroup v2, and the command that changes it.

Covers: the machine's boot, WSL, containers, what the cgroups above don't pass on. Changes nothing.
Does not cover: whether the own cgroup is ours (subtree.py).
Source: cgroup-v2.rst "Basic Operations", kernel-parameters.txt (cgroup_no_v1, cgroup_disable),
systemd(1) "Kernel Command Line", systemd.resource-control(5) Delegate=, WSL's .wslconfig.
"""

from __future__ import annotations

from pathlib import Path

from cgmem.contract import Usability
from cgmem_backends import kernel_files as kf
from cgmem_backends.cgroup_directory import read_file
from cgmem_backends.hierarchy import Hierarchy
from cgmem_backends.placement_rule import innermost_unit

OLD_SYSTEMD_SWITCH = "systemd.unified_cgroup_hierarchy=0"
_SWITCHES_TO_V2 = "systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=memory"
_KERNEL_COMMAND_LINE = (
    "kernel command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub), and reboot"
)
_WSL = (
    "in Windows, in %UserProfile%\\.wslconfig below [wsl2], write"
    " kernelCommandLine=cgroup_no_v1=all, then run: wsl --shutdown"
)
CONTAINER = (
    "start the container with a cgroup namespace of its own that it may write to: podman run"
    " --cgroupns=private --security-opt unmask=/sys/fs/cgroup …, or docker run --cgroupns=private"
    " --security-opt writable-cgroups=true … (Docker 28)"
)


def no_v2(hierarchy: Hierarchy, proc: Path) -> Usability:
    """Say why `hierarchy`, which is not "v2", won't do."""
    if hierarchy.kind == "hybrid":
        return Usability(
            False, "hybrid cgroups: the memory controller is on a v1 hierarchy", _to_v2(proc)
        )
    if hierarchy.kind == "v1":
        return Usability(False, "only cgroup v1 is there", _to_v2(proc))
    if not (proc / "self/mountinfo").exists():
        return Usability(
            False, f"{proc} is not mounted, so no cgroup can be found", f"mount -t proc proc {proc}"
        )
    if _wsl(proc) == 1:
        return Usability(
            False, "WSL 1 has no cgroups", "in Windows: wsl --set-version DISTRIBUTION 2"
        )
    return Usability(
        False,
        "no cgroup2 file system is mounted",
        "mount -t cgroup2 none /sys/fs/cgroup (as root; in a chroot: mount --rbind /sys ROOT/sys)",
    )


def read_only(hierarchy: Hierarchy) -> Usability:
    """Say that nothing can be made in what is mounted."""
    fix = f"mount -o remount,rw,bind {hierarchy.mount} (as root)"
    if not hierarchy.root_is_hosts:
        fix = CONTAINER
    return Usability(False, f"cgroup2 is mounted read-only on {hierarchy.mount}", fix)


def out_of_sight() -> Usability:
    """Say that the own cgroup lies elsewhere than what is mounted."""
    return Usability(
        False,
        "this process's cgroup can't be seen in what is mounted",
        f"mount -t cgroup2 none /sys/fs/cgroup (as root); or {CONTAINER}",
    )


def no_controller(hierarchy: Hierarchy, base: Path, proc: Path) -> Usability:
    """Say where on the path from the root to `base` the memory controller gets lost."""
    there = _words(base, kf.CONTROLLERS)
    reason = f"no memory controller in {hierarchy.shown(base)} (there: {' '.join(there) or 'none'})"
    holder = _holder(hierarchy, base)
    if holder is not None:
        lost = hierarchy.shown(holder)
        return Usability(False, f"{reason}: {lost} does not pass it on", _delegation(base, lost))
    if not hierarchy.root_is_hosts:
        return Usability(
            False,
            f"{reason}: this container gets none",
            "on the host, give the user who starts the container the memory controller: "
            + _drop_in("user@.service"),
        )
    if "cgroup_disable=memory" in _command_line(proc):
        fix = f"remove cgroup_disable=memory from the {_KERNEL_COMMAND_LINE}"
    else:
        fix = f"add cgroup_enable=memory to the {_KERNEL_COMMAND_LINE}"
    return Usability(False, f"{reason}: the kernel has it switched off", fix)


def _to_v2(proc: Path) -> str:
    if _wsl(proc):
        return _WSL
    if OLD_SYSTEMD_SWITCH in _command_line(proc):
        return f"remove {OLD_SYSTEMD_SWITCH} from the {_KERNEL_COMMAND_LINE}"
    return f"add {_SWITCHES_TO_V2} to the {_KERNEL_COMMAND_LINE}"


def _holder(hierarchy: Hierarchy, base: Path) -> Path | None:
    """The nearest cgroup above that has the controller and keeps it."""
    for directory in base.parents:
        if "memory" in _words(directory, kf.CONTROLLERS):
            return directory
        if directory == hierarchy.mount:
            break
    return None


def _delegation(base: Path, lost: str) -> str:
    if "/user@" in str(base):
        return f"{_drop_in('user@.service')}, and log in again"
    unit = innermost_unit(str(base))
    if unit is None:
        return f"echo +memory > /sys/fs/cgroup{lost.rstrip('/')}/{kf.SUBTREE_CONTROL} (as root)"
    return f"systemctl set-property {unit} MemoryAccounting=yes (as root)"


def _drop_in(unit: str) -> str:
    return (
        f"mkdir -p /etc/systemd/system/{unit}.d && printf"
        f" '[Service]\\nDelegate=cpu memory pids\\n' > /etc/systemd/system/{unit}.d/delegate.conf"
        " && systemctl daemon-reload (as root)"
    )


def _words(directory: Path, name: str) -> list[str]:
    return (read_file(directory, name) or b"").decode(errors="replace").split()


def _wsl(proc: Path) -> int:
    """1 or 2 in that version of the Windows Subsystem for Linux, else 0."""
    release = _text(proc / "sys/kernel/osrelease")
    if "microsoft" not in release.lower():
        return 0
    return 2 if "microsoft-standard" in release else 1


def _command_line(proc: Path) -> list[str]:
    return _text(proc / "cmdline").split()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
