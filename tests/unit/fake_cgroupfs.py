"""A cgroup v2 hierarchy in a temporary directory, with the kernel's part played by this module.

Files are real files, so whatever reads can read them. What only a kernel does on a write (moving
a process, passing a controller on, rounding a limit, killing) is done by `FakeCgroupfs`, which
stands in for the `os` module in the modules under test. Works on any OS, touches nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cgmem_backends import (
    ancestry,
    cgroup2,
    cgroup_directory,
    cgroup_scope,
    remains,
    subtree,
)
from cgmem_backends.guard import Guard
from cgmem_backends.placement import Placement

PAGE = 4096

EVENTS = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
STAT = (
    "anon 8388608\nfile 4194304\nshmem 1048576\ninactive_file 1048576\nactive_file 2097152\n"
    "slab_reclaimable 262144\nslab_unreclaimable 65536\nworkingset_refault_file 42\n"
)
PRESSURE = (
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n"
)

CORE = {
    "cgroup.controllers": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.freeze": "0\n",
    "cgroup.kill": "",
    "cgroup.procs": "",
    "cgroup.subtree_control": "\n",
    "cgroup.type": "domain\n",
    "cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n",
}
MEMORY = {
    "memory.current": "12582912\n",
    "memory.events": EVENTS,
    "memory.events.local": EVENTS,
    "memory.high": "max\n",
    "memory.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.peak": "16777216\n",
    "memory.pressure": PRESSURE,
    "memory.stat": STAT,
    "memory.swap.current": "0\n",
    "memory.swap.max": "max\n",
}
NOT_IN_THE_ROOT = ("cgroup.events", "cgroup.freeze", "cgroup.kill", "cgroup.type")
LIMITS = ("memory.high", "memory.max", "memory.swap.max")
PATCHED: tuple[ModuleType, ...] = (
    ancestry,
    cgroup2,
    cgroup_directory,
    cgroup_scope,
    remains,
    subtree,
)

V2_LINE = "30 23 0:26 {root} {mount} {options} shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_LINES = (
    "31 23 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory",
    "32 23 0:28 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu,cpuacct",
)
OTHER_LINE = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw"


class FakeCgroupfs:
    """The hierarchy, its /proc, and the system calls of the modules under test.

    `tree` describes it as data: cgroup paths below the mount, each with the files that differ
    from a fresh cgroup's. A value of None means that this kernel lacks the file.
    """

    def __init__(
        self,
        directory: Path,
        tree: Mapping[str, Mapping[str, str | None]],
        *,
        own: str = "/job",
        namespaced: bool = False,
        kind: str = "v2",
        read_only: bool = False,
        lacks: tuple[str, ...] = (),
        controllers: str = "cpu memory pids",
    ) -> None:
        self.mount = directory / "cgroup"
        self.proc = directory / "proc"
        self.lacks = lacks
        self.namespaced = namespaced
        self.xattrs: dict[tuple[Path, str], bytes] = {}
        self.written: list[tuple[str, bytes]] = []
        self.refused: dict[str, int] = {}
        """Errno for each write to a file of this name, from now on."""
        self._paths: dict[int, Path] = {}
        self._make(self.mount, root=not namespaced, controllers=controllers)
        for path, files in tree.items():
            self._grow(path, controllers)
            for name, text in files.items():
                self.put(path, name, text)
        self._make_proc(own, kind, read_only)

    # --- the tree

    def at(self, path: str) -> Path:
        """Return the directory of a cgroup path."""
        return self.mount / path.strip("/")

    def put(self, path: str, name: str, text: str | None) -> None:
        """Give a file another content, or take it away."""
        file = self.at(path) / name
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)

    def get(self, path: str, name: str) -> str:
        """Return what a file holds."""
        return (self.at(path) / name).read_text().strip()

    def enter(self, path: str, *pids: int) -> None:
        """Let processes be in a cgroup."""
        for pid in pids:
            self._move(pid, self.at(path))

    def process(self, pid: int, parent: int, comm: str = "python3") -> None:
        """Describe a process to /proc."""
        directory = self.proc / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        fields = " ".join(["0"] * 17)
        (directory / "stat").write_text(f"{pid} ({comm}) S {parent} {fields} 4242 0\n")
        (directory / "comm").write_text(f"{comm}\n")

    def mkdir(self, path: Path) -> None:
        """mkdir(2) in cgroupfs: the files come with it."""
        memory = "memory" in self._passed_on(path.parent)
        self._make(path, root=False, controllers=" ".join(self._passed_on(path.parent)))
        if not memory:
            for name in MEMORY:
                (path / name).unlink(missing_ok=True)

    def rmdir(self, path: Path) -> None:
        """rmdir(2) in cgroupfs: the files go with it; busy while anything is inside."""
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        inside = (path / "cgroup.procs").read_text().split()
        if inside or any(entry.is_dir() for entry in path.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        for key in [key for key in self.xattrs if key[0] == path]:
            del self.xattrs[key]

    def vanish(self, path: str) -> None:
        """Remove a cgroup as somebody else would."""
        for child in [entry for entry in self.at(path).iterdir() if entry.is_dir()]:
            self.vanish(str(child.relative_to(self.mount)))
        (self.at(path) / "cgroup.procs").write_text("")
        self.rmdir(self.at(path))
        self._tell_events(self.mount)

    # --- extended attributes

    def get_xattr(self, path: Path, name: str) -> bytes | None:
        """As linux_calls.get_xattr."""
        return self.xattrs.get((path, name))

    def set_xattr(self, path: Path, name: str, value: bytes, *, new: bool = False) -> None:
        """As linux_calls.set_xattr."""
        if new and (path, name) in self.xattrs:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self.xattrs[path, name] = value

    # --- what stands in for the os module

    def __getattr__(self, name: str) -> Any:
        """Everything else is the real os module's."""
        return getattr(os, name)

    def open(self, path: Any, flags: int, *rest: Any) -> int:
        """Open, and remember what."""
        descriptor = os.open(path, flags, *rest)
        self._paths[descriptor] = Path(path)
        return descriptor

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read; of a removed cgroup there is nothing to read."""
        if not self._paths.get(descriptor, self.mount).exists():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return os.pread(descriptor, size, offset)

    def access(self, path: Any, mode: int) -> bool:
        """Go by the mode bits, whoever runs the tests."""
        return Path(path).exists() and bool(Path(path).stat().st_mode & 0o200)

    def write(self, descriptor: int, value: bytes) -> int:
        """Do what the kernel does on a write to one of its files."""
        path = self._paths[descriptor]
        if path.name in self.refused:
            refusal = self.refused[path.name]
            raise OSError(refusal, os.strerror(refusal))
        self.written.append((path.name, value))
        directory = path.parent
        if path.name == "cgroup.procs":
            if self._passed_on(directory) and not self._is_root(directory):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self._move(int(value) or os.getpid(), directory)
        elif path.name == "cgroup.subtree_control":
            self._pass_on(directory, value.decode())
        elif path.name == "cgroup.kill":
            for below in self._below(directory):
                (below / "cgroup.procs").write_text("")
            self._tell_events(self.mount)
        elif path.name in LIMITS:
            path.write_text(_rounded(value))
        else:
            path.write_bytes(value + b"\n")
            if path.name == "cgroup.freeze":
                self._tell_events(self.mount)
        return len(value)

    # --- the kernel's part

    def _grow(self, path: str, controllers: str) -> None:
        directory = self.mount
        for name in path.strip("/").split("/"):
            directory = directory / name if name else directory
            if not directory.exists():
                self._make(directory, root=False, controllers=controllers)

    def _make(self, directory: Path, *, root: bool, controllers: str) -> None:
        directory.mkdir()
        files = {**CORE, **({} if root else MEMORY), "cgroup.controllers": f"{controllers}\n"}
        for name, text in files.items():
            if name not in self.lacks and not (root and name in NOT_IN_THE_ROOT):
                (directory / name).write_text(text)

    def _passed_on(self, directory: Path) -> list[str]:
        return (directory / "cgroup.subtree_control").read_text().split()

    def _pass_on(self, directory: Path, words: str) -> None:
        if (directory / "cgroup.procs").read_text().split() and not self._is_root(directory):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        names = {*self._passed_on(directory), *(word.lstrip("+") for word in words.split())}
        (directory / "cgroup.subtree_control").write_text(" ".join(sorted(names)) + "\n")

    def _is_root(self, directory: Path) -> bool:
        return directory == self.mount and not self.namespaced

    def _move(self, pid: int, to: Path) -> None:
        for directory in self._below(self.mount):
            file = directory / "cgroup.procs"
            file.write_text("".join(f"{x}\n" for x in file.read_text().split() if x != str(pid)))
        with (to / "cgroup.procs").open("a") as file_of_new:
            file_of_new.write(f"{pid}\n")
        if pid == os.getpid():
            (self.proc / "self/cgroup").write_text(f"0::{self._shown(to)}\n")
        self._tell_events(self.mount)

    def _tell_events(self, directory: Path, frozen: bool = False) -> bool:
        """Let the cgroup.events of a subtree say what is so, and return whether it is populated.

        All stop at once when cgroup.freeze is written.
        """
        freeze, events = directory / "cgroup.freeze", directory / "cgroup.events"
        frozen = frozen or (freeze.exists() and freeze.read_text() == "1\n")
        below = [self._tell_events(x, frozen) for x in directory.iterdir() if x.is_dir()]
        populated = any(below) or bool((directory / "cgroup.procs").read_text().split())
        if events.exists():
            events.write_text(f"populated {populated:d}\nfrozen {frozen:d}\n")
        return populated

    def _shown(self, directory: Path) -> str:
        below = directory.relative_to(self.mount)
        return "/" if below == Path() else f"/{below}"

    def _below(self, directory: Path) -> Iterator[Path]:
        yield directory
        for entry in directory.iterdir():
            if entry.is_dir():
                yield from self._below(entry)

    def _make_proc(self, own: str, kind: str, read_only: bool) -> None:
        (self.proc / "self").mkdir(parents=True)
        lines = [OTHER_LINE]
        if kind in ("hybrid", "v1"):
            lines += V1_LINES
        if kind in ("v2", "hybrid"):
            options = "ro,nosuid" if read_only else "rw,nosuid"
            mount = str(self.mount).replace(" ", "\\040")
            lines.append(V2_LINE.format(root="/", mount=mount, options=options))
        (self.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")
        (self.proc / "self/cgroup").write_text(f"0::{own}\n")
        self.process(os.getpid(), os.getppid())
        self.process(os.getppid(), 0, "sh")
        if kind in ("v2", "hybrid") and self.at(own).is_dir():
            self.enter(own, os.getpid())


class NoGuard(Guard):
    """Starts no process; writes down for which scopes it was asked to."""

    def __init__(self) -> None:
        super().__init__(Placement(lambda: "not wanted here"))
        self.starts: list[str] = []
        self.closed = 0

    def start(self, base: Path, scopes: str) -> None:
        """Write down whose."""
        self.starts.append(f"{base}/{scopes}")

    def close(self) -> None:
        """Count."""
        self.closed += 1


def install(fake: FakeCgroupfs, patch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """Let the modules under test make their system calls to the fake."""
    for module in PATCHED:
        patch.setattr(module, "os", fake)
    for module in (subtree, cgroup2, cgroup_scope, remains):
        patch.setattr(module, "get_xattr", fake.get_xattr)
    for module in (cgroup2, cgroup_scope, remains):
        patch.setattr(module, "set_xattr", fake.set_xattr)
    patch.setattr(cgroup_scope, "pread", fake.pread)
    return fake


def _rounded(value: bytes) -> str:
    if value == b"max":
        return "max\n"
    if not value.isdigit():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return f"{int(value) // PAGE * PAGE}\n"
