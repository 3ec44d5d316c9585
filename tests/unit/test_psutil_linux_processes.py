"""/proc as LinuxProcesses reads it: the parsers, and a fake /proc."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem_backends.linux_processes import LinuxProcesses, parse_hidepid, parse_mark
from cgmem_backends.patient_reader import PatientReader
from cgmem_backends.proc_files import PAGE_SIZE, Rollup, parse_smaps_rollup, parse_stat
from cgmem_backends.process_tree import Process
from tests.helpers.waiting import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def stat_line(
    pid: int,
    ppid: int = 1,
    session: int = 1,
    start: int = 5,
    rss_pages: int = 10,
    *,
    comm: bytes = b"name",
    state: str = "R",
    threads: int = 1,
) -> bytes:
    """One /proc/PID/stat as fs/proc/array.c prints it: 52 fields."""
    fields = [0] * 49
    fields[0], fields[2], fields[16], fields[18], fields[20] = (
        ppid,
        session,
        threads,
        start,
        rss_pages,
    )
    numbers = " ".join(str(field) for field in fields)
    return b"%d (%s) %s %s\n" % (pid, comm, state.encode(), numbers.encode())


class FakeProc:
    """A /proc in a temporary directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int, stat: bytes, **files: bytes) -> None:
        """Add a process."""
        directory = self.path / str(pid)
        directory.mkdir()
        (directory / "stat").write_bytes(stat)
        for name, content in files.items():
            (directory / name).write_bytes(content)

    def source(self, reader: PatientReader | None = None) -> LinuxProcesses:
        """What reads it, however slow the machine is."""
        return LinuxProcesses(self.path, reader or PatientReader(PATIENCE))


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """An empty /proc."""
    return FakeProc(tmp_path)


numbers = st.integers(0, 2**31)


@given(st.binary(max_size=15), numbers, numbers, numbers, st.sampled_from("RSDTtIX"))
def test_stat_of_any_command_name(
    comm: bytes, ppid: int, session: int, start: int, state: str
) -> None:
    """Spaces, parentheses and newlines in a command name move no field."""
    process = parse_stat(stat_line(7, ppid, session, start, 3, comm=comm, state=state))

    assert process is not None
    assert process[:6] == (7, ppid, session, state, start, 3 * PAGE_SIZE)


@pytest.mark.parametrize("comm", [b"a) R 1 2 3", b")(", b"a\nb) Z 9", b" ", b""])
def test_stat_of_a_hostile_command_name(comm: bytes) -> None:
    """A name made to look like the fields behind it fools nobody."""
    process = parse_stat(stat_line(7, 42, comm=comm))

    assert process is not None
    assert (process.ppid, process.state) == (42, "R")


@given(st.binary(max_size=200))
def test_what_is_no_stat_line_is_none_or_a_process(content: bytes) -> None:
    """No bytes at all make the parser raise."""
    assert isinstance(parse_stat(content), Process | None)


@given(st.integers(0, 53))
def test_a_torn_stat_line_is_none(length: int) -> None:
    """A line that ends before the resident set is not half believed."""
    assert parse_stat(stat_line(7)[:length]) is None


def test_a_scan_without_descriptors(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails: whoever was left out would pass for ended, and be lost to its scope."""
    proc.add(7, stat_line(7))
    source = proc.source()

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        one = source.process(7)
        with pytest.raises(OSError, match="Too many open files"):
            list(source.processes())

    assert one is None
    assert [process.pid for process in source.processes()] == [7]


def test_a_zombie_has_ended_unless_threads_run_on() -> None:
    """A leader that called pthread_exit shows as Z while its process lives."""
    assert parse_stat(stat_line(7, state="Z", threads=1)).ended  # type: ignore[union-attr]  # a failure either way
    assert not parse_stat(stat_line(7, state="Z", threads=2)).ended  # type: ignore[union-attr]  # as above


ROLLUP = b"""\
55d0c0a00000-7ffc3f1fe000 ---p 00000000 00:00 0                          [rollup]
Rss:                6844 kB
Pss:                3021 kB
Pss_Dirty:          1484 kB
SwapPss:              12 kB
"""


def test_rollup_sums() -> None:
    """Pss and SwapPss are in kB there and in bytes here."""
    assert parse_smaps_rollup(ROLLUP) == Rollup(3021 * 1024, 12 * 1024)


@given(
    numbers, st.none() | numbers, st.lists(st.sampled_from([b"Rss: 1 kB", b"junk", b"Pss_X: 9 kB"]))
)
def test_rollup_of_any_kernel(pss: int, swap: int | None, others: list[bytes]) -> None:
    """Keys that other kernels add or lack change nothing."""
    swap_line = [] if swap is None else [b"SwapPss: %d kB" % swap]
    content = b"\n".join([*others, b"Pss:   %d kB" % pss, *swap_line])

    assert parse_smaps_rollup(content) == Rollup(pss * 1024, (swap or 0) * 1024)


@given(st.binary(max_size=200).filter(lambda content: b"Pss" not in content))
def test_no_rollup_is_none(content: bytes) -> None:
    """Without the key there is no number, and never a 0."""
    assert parse_smaps_rollup(content) is None


@pytest.mark.parametrize(
    ("environ", "tokens"),
    [
        (b"", ()),
        (b"A=1\0CGMEM_SCOPE=abc\0B=2\0", ("abc",)),
        (b"CGMEM_SCOPE=outer,inner", ("outer", "inner")),
        (b"X=CGMEM_SCOPE=abc\0", ()),
        (b"NOT_CGMEM_SCOPE=abc\0", ()),
        (b"CGMEM_SCOPE=\0", ()),
        (b"CGMEM_SCOPE=\xff\0", ("\ufffd",)),
    ],
)
def test_mark_in_an_environment(environ: bytes, tokens: tuple[str, ...]) -> None:
    """Only the variable itself counts, with the scopes around this one first."""
    assert parse_mark(environ) == tokens


MOUNTINFO = "22 27 0:20 / {at} rw,nosuid,nodev - proc proc rw,{options}\n"


@pytest.mark.parametrize(
    ("mountinfo", "hidepid"),
    [
        (MOUNTINFO.format(at="/proc", options="hidepid=invisible"), "invisible"),
        (MOUNTINFO.format(at="/proc", options="gid=4,hidepid=2"), "2"),
        (MOUNTINFO.format(at="/proc", options="hidepid=off"), None),
        (MOUNTINFO.format(at="/other", options="hidepid=2"), None),
        (MOUNTINFO.format(at="/proc", options="x") + "torn", None),
        ("", None),
    ],
)
def test_hidepid_of_a_mount(mountinfo: str, hidepid: str | None) -> None:
    """The option is told apart in the old and the new spelling."""
    assert parse_hidepid(mountinfo, "/proc") == hidepid


def test_scan_skips_what_is_no_process_or_just_ended(proc: FakeProc) -> None:
    """Files, torn lines and empty directories are passed over."""
    proc.add(7, stat_line(7))
    proc.add(8, b"")
    (proc.path / "9").mkdir()
    (proc.path / "meminfo").write_bytes(b"")

    assert [process.pid for process in proc.source().processes()] == [7]


def test_marks_of_processes(proc: FakeProc) -> None:
    """A mark is read; where exec is under way (nothing is there) it is to be asked for again."""
    proc.add(7, stat_line(7), environ=b"CGMEM_SCOPE=abc\0")
    proc.add(8, stat_line(8), environ=b"PATH=/\0")
    proc.add(9, stat_line(9), environ=b"", cmdline=b"")
    proc.add(10, stat_line(10), environ=b"", cmdline=b"env\0-i\0")
    proc.add(11, stat_line(11, ppid=2, session=0), environ=b"", cmdline=b"")
    source = proc.source()

    marks = source.marks(list(source.processes()))
    assert {identity.pid: tokens for identity, tokens in marks.items()} == {
        7: ("abc",), 8: (), 10: (), 11: (),
    }  # fmt: skip


def test_small_memory_is_resident_memory(proc: FakeProc) -> None:
    """Below the threshold the dear file is not opened, and the metric says so."""
    proc.add(7, stat_line(7, rss_pages=10), smaps_rollup=b"Pss: 4 kB\n")
    source = proc.source()
    members = list(source.processes())

    assert source.measure(members, None) == (10 * PAGE_SIZE, "rss", None)
    assert source.measure(members, 10 * PAGE_SIZE) == (10 * PAGE_SIZE, "rss", None)


def test_large_memory_is_proportional(proc: FakeProc) -> None:
    """Past the threshold shared pages count once, and swapped ones are named."""
    proc.add(7, stat_line(7), smaps_rollup=b"Pss: 4 kB\nSwapPss: 1 kB\n")
    proc.add(8, stat_line(8), smaps_rollup=b"Pss: 5 kB\nSwapPss: 1 kB\n")
    source = proc.source()

    assert source.measure(list(source.processes()), 0) == (9 * 1024, "pss", 2 * 1024)


def test_an_unreadable_process_counts_with_its_resident_memory(proc: FakeProc) -> None:
    """One process without a readable rollup makes the sum an rss, and no hole."""
    proc.add(7, stat_line(7), smaps_rollup=b"Pss: 4 kB\n")
    proc.add(8, stat_line(8, rss_pages=2))
    source = proc.source()

    total, metric, _ = source.measure(list(source.processes()), 0)
    assert (total, metric) == (4 * 1024 + 2 * PAGE_SIZE, "rss")


def test_a_process_that_ended_meanwhile_counts_nothing(proc: FakeProc) -> None:
    """Gone between the scan and the rollup: its memory is free, the metric stays."""
    proc.add(7, stat_line(7), smaps_rollup=b"Pss: 4 kB\n")
    gone = Process(8, 1, 1, "R", 5, rss_bytes=1 << 30)
    source = proc.source()

    total, metric, _ = source.measure([*source.processes(), gone], 0)
    assert (total, metric) == (4 * 1024, "pss")


def test_threads_that_outlive_their_leader_are_measured(proc: FakeProc) -> None:
    """The memory of a process whose leader called pthread_exit is not lost."""
    proc.add(7, stat_line(7, state="Z", threads=2, rss_pages=0))
    thread = proc.path / "7" / "task" / "9"
    thread.mkdir(parents=True)
    (thread / "stat").write_bytes(stat_line(9, rss_pages=6))
    source = proc.source()

    assert source.measure(list(source.processes()), None).total_bytes == 6 * PAGE_SIZE


class NeverReads(PatientReader):
    """A reader whose targets hold their lock."""

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes | None]:
        """Nothing in time."""
        del paths
        return {}


def test_a_reader_that_gives_up_leaves_resident_memory(proc: FakeProc) -> None:
    """A target that holds its mmap lock costs precision, not the sample."""
    proc.add(7, stat_line(7, rss_pages=2), smaps_rollup=b"Pss: 4 kB\n", environ=b"A=1\0")
    source = proc.source(NeverReads())
    members = list(source.processes())

    assert source.measure(members, 0)[:2] == (2 * PAGE_SIZE, "rss")
    assert source.marks(members) == {}


def test_reader_gives_up_on_a_blocking_file(tmp_path: Path) -> None:
    """What was read before the file that blocks is returned; while it blocks nothing is read."""
    (tmp_path / "good").write_bytes(b"x")
    blocking = tmp_path / "fifo"
    os.mkfifo(blocking)
    reader = PatientReader(patience=1.0)
    first = reader.read([str(tmp_path / "good"), str(blocking)])
    second = reader.read([str(tmp_path / "good")])
    # Opening the other end lets the reading thread go.
    os.close(os.open(blocking, os.O_WRONLY))
    for thread in threading.enumerate():
        if thread.name == "cgmem-reader":
            thread.join()

    assert (first, second) == ({str(tmp_path / "good"): b"x"}, {})
    assert reader.read([str(tmp_path / "good")]) == {str(tmp_path / "good"): b"x"}


def test_a_proc_that_does_not_show_us_is_unusable(proc: FakeProc) -> None:
    """The reason names the directory, and the fix is a command."""
    usability = proc.source().usability()

    assert not usability.usable
    assert str(proc.path) in usability.reason
    assert usability.fix is not None


def test_hidepid_is_named(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user under hidepid is told what is not seen; root sees all."""
    proc.add(os.getpid(), stat_line(os.getpid()))
    (proc.path / "self").mkdir()
    (proc.path / "self" / "mountinfo").write_text(
        MOUNTINFO.format(at=proc.path, options="hidepid=invisible")
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    as_user = proc.source().usability()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    as_root = proc.source().usability()

    assert as_user.usable
    assert "hidepid=invisible" in as_user.reason
    assert "hidepid=" not in as_root.reason


def test_swap_is_seen(proc: FakeProc) -> None:
    """Swap means that resident memory can shrink without being given back."""
    assert not proc.source().swap_unbounded()
    (proc.path / "swaps").write_text("Filename Type Size\n/dev/vda2 partition 1\n")

    assert proc.source().swap_unbounded()


def test_this_host_shows_this_process() -> None:
    """The real /proc parses: this process, its parent, some memory, a table of its own."""
    source = LinuxProcesses(Path("/proc"))
    me = {process.pid: process for process in source.processes()}[os.getpid()]

    assert (me.ppid, me.session) == (os.getppid(), os.getsid(0))
    assert (me.rss_bytes or 0) > 1 << 20
    assert source.process(me.pid) is not None
    assert source.owner(me.pid) == os.geteuid()
    assert source.table_id() != ""
