"""A Linux host's processes, read from /proc in one cheap pass.

psutil would open several files a process for the same answer. Sources: proc(5),
Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cgmem.contract import Metric, Snapshot, Usability
from cgmem.errors import out_of_descriptors
from cgmem_backends.patient_reader import PatientReader
from cgmem_backends.proc_files import Rollup, parse_smaps_rollup, parse_stat
from cgmem_backends.process_tree import (
    MARK,
    MARK_SEPARATOR,
    Identity,
    Measurement,
    Process,
)


def parse_mark(environ: bytes) -> tuple[str, ...]:
    """Find the scopes' tokens in /proc/PID/environ."""
    _, found, rest = (b"\0" + environ).partition(b"\0" + MARK.encode() + b"=")
    if not found:
        return ()
    value = rest.partition(b"\0")[0].decode("ascii", "replace")
    return tuple(token for token in value.split(MARK_SEPARATOR) if token)


def parse_hidepid(mountinfo: str, mount_point: str) -> str | None:
    """Find the hidepid option of the proc file system at `mount_point` (proc.rst, chapter 4)."""
    for line in reversed(mountinfo.splitlines()):
        left, _, right = line.partition(" - ")
        mount, filesystem = left.split(), right.split()
        if len(mount) < 5 or len(filesystem) < 3 or mount[4] != mount_point:
            continue
        for option in filesystem[2].split(","):
            name, _, value = option.partition("=")
            if name == "hidepid" and value not in ("0", "off"):
                return value
        return None
    return None


class LinuxProcesses:
    """Reads /proc. `proc` is another directory in tests."""

    metric: Metric = "pss"

    def __init__(self, proc: Path, reader: PatientReader | None = None) -> None:
        self._proc = str(proc)
        self._root = proc
        self._reader = reader or PatientReader()

    def usability(self) -> Usability:
        """/proc must show this process; a hidepid mount is named."""
        if self.process(os.getpid()) is None:
            return Usability(
                usable=False,
                reason=f"{self._proc} does not show this process",
                fix=f"mount -t proc proc {self._proc}",
            )
        hidepid = None if os.geteuid() == 0 else self._hidepid()
        if hidepid is None:
            return Usability(usable=True, reason=f"polls the process tree in {self._proc}")
        return Usability(
            usable=True,
            reason=f"polls the process tree in {self._proc}, which is mounted with "
            f"hidepid={hidepid}: a descendant that runs as another user is not seen",
        )

    def _hidepid(self) -> str | None:
        try:
            mountinfo = (self._root / "self" / "mountinfo").read_text(errors="replace")
        except OSError:
            return None
        return parse_hidepid(mountinfo, self._proc)

    def table_id(self) -> str:
        """Boot id and pid namespace: elsewhere the same pid is another process."""
        try:
            boot = (self._root / "sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {(self._root / 'self/ns/pid').readlink()}"
        except OSError:
            return ""

    def processes(self) -> Iterator[Process]:
        """One readdir, one stat file a process. Raises OSError for want of descriptors."""
        with os.scandir(self._proc) as entries:
            names = [entry.name for entry in entries if entry.name.isdigit()]
        for name in names:
            process = self._stat(name)
            if process is not None:
                yield process

    def process(self, pid: int) -> Process | None:
        """Look at one process."""
        try:
            return self._stat(str(pid))
        except OSError:  # out of descriptors
            return None

    def _stat(self, name: str) -> Process | None:
        try:
            descriptor = os.open(f"{self._proc}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            # Whoever is missing in a scan passes for ended, and is not followed any more.
            if out_of_descriptors(error):
                raise
            return None  # ended, or hidden by hidepid
        try:
            return parse_stat(os.read(descriptor, 4096))
        except ProcessLookupError:
            return None
        finally:
            os.close(descriptor)

    def owner(self, pid: int) -> int | None:
        """Effective uid (root's for a process that may not be dumped)."""
        try:
            return (self._root / str(pid)).stat().st_uid
        except OSError:
            return None

    def marks(self, candidates: Sequence[Process]) -> dict[Identity, tuple[str, ...]]:
        """Read each environment; of another user's processes, and kernel threads, none."""
        paths: dict[str, Identity] = {}
        marks: dict[Identity, tuple[str, ...]] = {}
        for process in candidates:
            if process.ended or process.of_kernel or not self._may_read(process.pid):
                marks[process.identity] = ()
            else:
                paths[f"{self._proc}/{process.pid}/environ"] = process.identity
        found = self._reader.read(paths)
        empty = [path for path, content in found.items() if content == b""]
        through = self._without_environment(empty) if empty else ()
        for path, content in found.items():
            if content:
                marks[paths[path]] = parse_mark(content)
            elif content is None or path in through:
                marks[paths[path]] = ()
        return marks

    def _without_environment(self, paths: Sequence[str]) -> set[str]:
        """Those that are through with exec: `env -i`. Not yet through, neither is there.

        exec fills in the command line first (fs/binfmt_elf.c), so the environment is read again.
        """
        commands = {f"{path.removesuffix('environ')}cmdline": path for path in paths}
        executed = [commands[path] for path, text in self._reader.read(commands).items() if text]
        again = self._reader.read(executed) if executed else {}
        return {path for path, content in again.items() if content == b""}

    def _may_read(self, pid: int) -> bool:
        euid = os.geteuid()
        return euid == 0 or self.owner(pid) == euid

    def measure(self, members: Sequence[Process], detail_above: int | None) -> Measurement:
        """RSS; past `detail_above` PSS, so that shared pages count once.

        Where the PSS of one process can't be read its RSS stands in, and `metric` says `rss`.
        """
        resident = {process.pid: self._resident(process) for process in members}
        total = sum(resident.values())
        if detail_above is None or total <= detail_above:
            return Measurement(total, "rss")
        rollups = self._rollups(members)
        total = sum(
            rollups[pid].pss_bytes if pid in rollups else rss for pid, rss in resident.items()
        )
        swap = sum(rollup.swap_pss_bytes for rollup in rollups.values())
        return Measurement(total, "pss" if len(rollups) == len(resident) else "rss", swap)

    def _rollups(self, members: Sequence[Process]) -> dict[int, Rollup]:
        paths = {f"{self._proc}/{process.pid}/smaps_rollup": process for process in members}
        rollups = {}
        for path, content in self._reader.read(paths).items():
            process = paths[path]
            rollup = parse_smaps_rollup(content) if content else None
            if content == b"" and not self._lives(process):
                rollup = Rollup(0, 0)
            if rollup is not None:
                rollups[process.pid] = rollup
        return rollups

    def _lives(self, process: Process) -> bool:
        now = self.process(process.pid)
        return now is not None and now.start == process.start and not now.ended

    def _resident(self, process: Process) -> int:
        if process.state != "Z":
            return process.rss_bytes or 0
        # The leader has let go of its memory, its other threads still hold it.
        for stat in self._root.glob(f"{process.pid}/task/*/stat"):
            try:
                thread = parse_stat(stat.read_bytes())
            except OSError:
                continue
            if thread is not None and thread.rss_bytes:
                return thread.rss_bytes
        return 0

    def largest(self, members: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """By PSS, as far as it can be read."""
        # Most subprocesses never get so far.
        from cgmem_backends.largest_processes import LargestProcesses

        return LargestProcesses(self._proc).among(members, most)

    def swap_unbounded(self) -> bool:
        """RSS and PSS leave swapped pages out: true as soon as there is swap."""
        try:
            return len((self._root / "swaps").read_text().splitlines()) > 1
        except OSError:
            return False
