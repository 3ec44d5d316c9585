"""The largest processes of a group, from a fake /proc: ranked, then measured as far as it goes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import ProcessMemory, Snapshot
from cgmem_backends.largest_processes import (
    CANDIDATES,
    LONGEST_COMMAND,
    LargestProcesses,
    parse_cmdline,
)
from cgmem_backends.patient_reader import PatientReader
from cgmem_backends.proc_files import PAGE_SIZE, parse_stat
from tests.unit.test_psutil_linux_processes import stat_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

KB = 1024


class Proc:
    """A /proc in a directory, and a reader of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader = PatientReader()
        self.largest = LargestProcesses(str(path), self.reader)

    def add(
        self,
        pid: int,
        rss_pages: int,
        *,
        pss_kb: int | None = None,
        cmdline: bytes = b"",
        comm: bytes = b"name",
        start: int = 5,
    ) -> None:
        """A process; without `pss_kb` a kernel without smaps_rollup."""
        directory = self.path / str(pid)
        directory.mkdir(exist_ok=True)
        line = stat_line(pid, start=start, rss_pages=rss_pages, comm=comm)
        (directory / "stat").write_bytes(line)
        (directory / "cmdline").write_bytes(cmdline)
        if pss_kb is not None:
            (directory / "smaps_rollup").write_bytes(b"Rss: 9 kB\nPss: %d kB\n" % pss_kb)

    def pictures(self, *pids: int, most: int = 5) -> list[Snapshot]:
        """Every picture of these."""
        return list(self.largest.of(pids, most))

    def stuck(self, pid: int) -> None:
        """Reading its smaps_rollup blocks until `release`."""
        os.mkfifo(self.path / str(pid) / "smaps_rollup")

    def release(self, pid: int) -> None:
        """Let the reading thread go."""
        os.close(os.open(self.path / str(pid) / "smaps_rollup", os.O_WRONLY))
        for thread in threading.enumerate():
            if thread.name == "cgmem-reader":
                thread.join()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """An empty one."""
    return Proc(tmp_path)


def test_by_pss_with_its_command_line(proc: Proc) -> None:
    """Ranks by RSS come first, partial; the end is by PSS, whole, with the command lines."""
    proc.add(7, 30, pss_kb=40, cmdline=b"shared\0--x\0")
    proc.add(8, 20, pss_kb=80, cmdline=b"own\0")
    first, *_, last = proc.pictures(7, 8)

    assert first == Snapshot(
        processes=(
            ProcessMemory(7, ("name",), 30 * PAGE_SIZE, "rss"),
            ProcessMemory(8, ("name",), 20 * PAGE_SIZE, "rss"),
        )
    )
    assert last == Snapshot(
        processes=(
            ProcessMemory(8, ("own",), 80 * KB, "pss"),
            ProcessMemory(7, ("shared", "--x"), 40 * KB, "pss"),
        ),
        partial=False,
    )


def test_without_smaps_rollup_rss_says_so(proc: Proc) -> None:
    """A kernel without it, or another user's process, is shown by RSS, and that is all there is."""
    proc.add(7, 30, cmdline=b"old\0")
    last = proc.pictures(7)[-1]

    assert last == Snapshot(
        processes=(ProcessMemory(7, ("old",), 30 * PAGE_SIZE, "rss"),), partial=False
    )


def test_a_stuck_read_leaves_what_was_read(proc: Proc) -> None:
    """A target that holds its mmap lock yields partial pictures for as long as they are asked for;
    the next one asked for meanwhile has the ranks; afterwards all is well.
    """
    proc.add(7, 30, pss_kb=100, cmdline=b"good\0")
    proc.add(8, 20, cmdline=b"bad\0")
    proc.stuck(8)
    good = ProcessMemory(7, ("good",), 100 * KB, "pss")
    pictures = proc.largest.of((7, 8), 5)
    seen = [next(pictures) for _ in range(4)]
    while seen[-1].processes[0] != good or seen[-1].processes[1].command == ("name",):
        seen.append(next(pictures))
    assert all(picture.partial for picture in seen)
    assert seen[-1].processes == (good, ProcessMemory(8, ("bad",), 20 * PAGE_SIZE, "rss"))
    del pictures

    others = proc.largest.of((7,), 5)
    meanwhile = [next(others) for _ in range(3)]
    assert {picture.processes[0].metric for picture in meanwhile} == {"rss"}
    assert all(picture.partial for picture in meanwhile)
    del others

    proc.release(8)
    assert proc.pictures(7)[-1] == Snapshot(processes=(good,), partial=False)


def test_a_vanished_process(proc: Proc) -> None:
    """A process that ends before it is looked at is left out; nobody left is a whole picture."""
    assert proc.pictures(7, 8) == [Snapshot(partial=False)]
    proc.add(8, 1, pss_kb=1)
    assert [process.pid for process in proc.pictures(7, 8)[-1].processes] == [8]


def test_another_process_with_its_pid(proc: Proc) -> None:
    """A process that ended and whose pid is another's now is never shown with that one's words."""
    before = parse_stat(stat_line(7, start=5, rss_pages=3, comm=b"mine"))
    proc.add(7, 30, pss_kb=400, cmdline=b"stranger\0", start=6)
    assert before is not None
    last = list(proc.largest.among([before], 5))[-1]

    assert last.processes == (ProcessMemory(7, ("mine",), 3 * PAGE_SIZE, "rss"),)


def test_thousands_of_processes(proc: Proc) -> None:
    """Of many only the first few are asked for what takes a lock, and there are pictures on the
    way.
    """
    for pid in range(1, 601):
        proc.add(pid, pid, pss_kb=pid, cmdline=b"p\0")
    pictures = proc.pictures(*range(1, 601), most=2)

    assert len(pictures) >= 4
    assert [process.pid for process in pictures[0].processes] == [256, 255]
    assert [process.pid for process in pictures[-1].processes] == [600, 599]
    for pid in range(1, 600 - CANDIDATES * 2):
        (proc.path / str(pid) / "cmdline").unlink()
    assert proc.pictures(*range(1, 601), most=2)[-1] == pictures[-1]


def test_names_of_any_kind(proc: Proc) -> None:
    """Names and command lines that are no text are shown, one way or the other."""
    proc.add(7, 1, cmdline=b"\xff\n\0\x1b[2J\0", comm=b") R 1 (\xff")
    first, *_, last = proc.pictures(7)

    assert first.processes[0].command == (") R 1 (\udcff",)
    assert last.processes[0].command == ("\udcff\n", "\x1b[2J")


@given(st.binary(max_size=64), st.integers(0, 3))
def test_any_command_line(content: bytes, trailing: int) -> None:
    """Words are what stands between NULs; trailing NULs are none."""
    words = parse_cmdline(content + b"\0" * trailing)

    assert "\0".join(words) == os.fsdecode(content.rstrip(b"\0"))


def test_a_word_that_did_not_fit() -> None:
    """Of a command line that is too long the word that was cut is left out, be it the only one."""
    assert parse_cmdline(b"sh\0-c\0" + b"x" * LONGEST_COMMAND) == ("sh", "-c")
    assert parse_cmdline(b"x" * LONGEST_COMMAND) == ()
    assert parse_cmdline(b"sh\0" + b"x" * (LONGEST_COMMAND - 4) + b"\0")[0] == "sh"
