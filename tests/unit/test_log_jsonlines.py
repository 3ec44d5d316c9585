"""Log files under many writers, full disks, and people who move things away."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.logs import jsonlines
from cgmem.logs.jsonlines import BUFFER_BYTES, FLUSH_BYTES, JsonLinesFile


@pytest.fixture
def warned() -> list[str]:
    """What was told to `warn`."""
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log file that isn't there yet, nor its directory."""
    return tmp_path / "logs" / "a.log"


def records(path: Path) -> list[Any]:
    """The lines of a file, each parsed."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def everywhere(path: Path) -> list[Path]:
    """The file and what it was rotated to."""
    return sorted(path.parent.glob(path.name + "*"))


def test_nothing_happens_before_the_first_write(path: Path, warned: list[str]) -> None:
    """Construction and a buffered line touch nothing; the flush makes directory and file."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=False)
    assert not path.parent.exists()
    file.flush()

    assert records(path) == [{"n": 1}]
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o022 == 0
    file.close()


def test_lines_keep_their_order(path: Path, warned: list[str]) -> None:
    """A line written at once takes along, before it, what was waiting."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=False)
    file.append('{"n":\n2}', now=True)

    assert records(path) == [{"n": 1}, {"n": 2}]
    file.close()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_one_record_is_one_line(value: Any) -> None:
    """Any record is one line that reads back the same, newlines and surrogates included."""
    line = jsonlines._line({"value": value})

    assert line.count(b"\n") == 1
    assert json.loads(line) == {"value": value}


@pytest.mark.parametrize("bad", [float("nan"), {1: 2, (3,): 4}])
def test_a_record_that_is_no_json_is_told_not_raised(
    bad: Any, path: Path, warned: list[str]
) -> None:
    """What can't be JSON costs a warning and its own line, and no other."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"bad": bad}, now=True)
    file.append({"path": Path("/x")}, now=True)

    assert len(warned) == 1
    assert records(path) == [{"path": "/x"}]
    file.close()


def test_steady_state_is_one_lstat_and_one_write(
    path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line to a file that nobody else touched opens, reads and locks nothing."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 0}, now=True)
    calls: list[str] = []

    def noted(name: str) -> Any:
        call = getattr(os, name)

        def note_and_call(*args: Any, **more: Any) -> Any:
            calls.append(name)
            return call(*args, **more)

        return note_and_call

    with monkeypatch.context() as patched:
        for name in ("open", "close", "read", "pread", "stat", "fstat", "lstat", "write", "mkdir"):
            patched.setattr(os, name, noted(name))
        patched.setattr(fcntl, "flock", None)
        file.append({"n": 1}, now=True)

    assert calls == ["lstat", "write"]
    assert len(records(path)) == 2
    file.close()


def test_removed_file_is_made_again(path: Path, warned: list[str]) -> None:
    """A file that somebody removed, or moved away as logrotate does, is made again."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)
    path.rename(path.with_suffix(".moved"))
    file.append({"n": 2}, now=True)
    path.unlink()
    file.append({"n": 3}, now=True)

    assert records(path.with_suffix(".moved")) == [{"n": 1}]
    assert records(path) == [{"n": 3}]
    assert warned == []
    file.close()


def test_a_symlink_in_its_place_is_refused(path: Path, warned: list[str]) -> None:
    """A file replaced by a symbolic link: the target stays untouched, one warning says why."""
    target = path.parent.parent / "target"
    target.write_text("")
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)
    path.unlink()
    path.symlink_to(target)
    for _ in range(3):
        file.append({"n": 2}, now=True)

    assert target.read_text() == ""
    assert len(warned) == 1
    assert "symbolic links are refused" in warned[0]
    file.close()


def test_a_failing_close_costs_a_warning_and_no_strangers_file(
    path: Path, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """close(2) gives the number back also where it fails: the next owner's file is left alone."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)
    close = os.close

    def failing(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", failing)
        file.close()
    with (tmp_path / "strangers").open("wb") as stranger:  # it gets the free number
        file.append({"n": 2}, now=True)
        assert os.fstat(stranger.fileno()).st_size == 0
    file.close()

    assert records(path) == [{"n": 1}, {"n": 2}]
    assert warned == [f"{path}: Disk quota exceeded; its last lines may not be on the disk"]


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_refused_without_blocking(
    kind: str, path: Path, warned: list[str]
) -> None:
    """A FIFO or a directory at the path costs one warning and does not block."""
    path.parent.mkdir()
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)
    file.append({"n": 2}, now=True)

    assert len(warned) == 1
    file.close()


def test_a_failure_costs_one_warning_until_it_works_again(path: Path, warned: list[str]) -> None:
    """One warning per failure, none while it lasts; the lines come when it is over."""
    failing = True

    def make_directory() -> None:
        if failing:
            raise OSError(errno.EROFS, "Read-only file system")
        path.parent.mkdir(exist_ok=True)

    file = JsonLinesFile(path, warn=warned.append, make_directory=make_directory)
    for number in range(5):
        file.append({"n": number}, now=number % 2 == 0)
        file.flush()
    assert len(warned) == 1
    assert str(path) in warned[0]
    assert "Read-only file system" in warned[0]
    failing = False
    file.flush()
    assert [record["n"] for record in records(path)] == [0, 1, 2, 3, 4]
    failing = True
    path.unlink()
    file.append({"n": 5}, now=True)

    assert len(warned) == 2
    file.close()


def test_the_buffer_is_bounded_and_says_what_was_lost(path: Path, warned: list[str]) -> None:
    """While nothing can be written the oldest lines go, and their number is told afterwards."""
    path.parent.mkdir()
    path.mkdir()
    file = JsonLinesFile(path, warn=warned.append)
    filler = "x" * 1000
    count = 2 * BUFFER_BYTES // 1000
    for number in range(count):
        file.append({"n": number, "filler": filler}, now=False)
    assert file._buffered <= BUFFER_BYTES
    path.rmdir()
    file.flush()
    kept = [record["n"] for record in records(path)]

    assert kept == list(range(count - len(kept), count))
    assert len(kept) > BUFFER_BYTES // 1100
    assert warned[1:] == [f"{path}: {count - len(kept)} lines were lost"]
    file.close()


def test_a_line_longer_than_the_buffer_is_lost_alone(path: Path, warned: list[str]) -> None:
    """A line of more than the bound is not written, and pushes no other out."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=False)
    file.append({"n": "x" * BUFFER_BYTES}, now=True)

    assert records(path) == [{"n": 1}]
    assert warned == [f"{path}: 1 lines were lost"]
    file.close()


def test_many_lines_do_not_wait_for_the_tick(path: Path, warned: list[str]) -> None:
    """A burst is written once enough of it waits, so that none of it is dropped."""
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": "x" * FLUSH_BYTES}, now=False)

    assert len(records(path)) == 1
    file.close()


def test_a_raising_or_reentrant_warn_hurts_nobody(path: Path) -> None:
    """`warn` may raise, and may log to the same file, without an exception or a deadlock."""
    path.parent.mkdir()
    path.mkdir()

    def warn(message: str) -> None:
        file.append({"warned": message}, now=True)
        raise RuntimeError(message)

    file = JsonLinesFile(path, warn=warn)
    file.append({"n": 1}, now=True)
    path.rmdir()
    file.flush()

    assert [list(record) for record in records(path)] == [["n"], ["warned"]]
    file.close()


def test_rotation_keeps_so_many_files(path: Path, warned: list[str]) -> None:
    """The file is renamed before it would pass the bound; the oldest backup goes."""
    file = JsonLinesFile(path, warn=warned.append, rotate_bytes=100, backups=2)
    for number in range(10):
        file.append({"n": number, "filler": "x" * 30}, now=True)

    assert [found.name for found in everywhere(path)] == ["a.log", "a.log.1", "a.log.2"]
    kept = [record["n"] for found in reversed(everywhere(path)) for record in records(found)]
    assert kept == list(range(10 - len(kept), 10))
    assert all(found.stat().st_size <= 100 for found in everywhere(path))
    assert warned == []
    file.close()


def test_a_file_that_cannot_be_rotated_grows_on(path: Path, warned: list[str]) -> None:
    """Where renaming fails no line is lost, and one warning says that the file grows."""
    file = JsonLinesFile(path, warn=warned.append, rotate_bytes=100, backups=1)
    (path.parent / "a.log.1" / "in the way").mkdir(parents=True)
    for number in range(9):
        file.append({"n": number, "filler": "x" * 30}, now=True)

    assert len(records(path)) == 9
    assert len(warned) == 1
    assert "can't be rotated" in warned[0]
    file.close()


def test_a_foreign_lock_puts_rotation_off(path: Path, warned: list[str]) -> None:
    """While another process holds the file locked it is written to and not waited for."""
    file = JsonLinesFile(path, warn=warned.append, rotate_bytes=50)
    file.append({"filler": "x" * 30}, now=True)
    with path.open() as foreign:
        fcntl.flock(foreign, fcntl.LOCK_EX)
        file.append({"filler": "y" * 30}, now=True)
        assert len(records(path)) == 2
    file.append({"filler": "z" * 30}, now=True)

    assert len(records(path)) == 1
    assert warned == []
    file.close()


def test_two_files_at_one_path_rotate_once(path: Path, warned: list[str]) -> None:
    """A writer whose file a peer has rotated goes to the new file and does not rotate that."""
    ours, peers = (JsonLinesFile(path, warn=warned.append, rotate_bytes=100) for _ in range(2))
    for file in (ours, peers, ours, peers):
        file.append({"filler": "x" * 30}, now=True)

    assert [found.name for found in everywhere(path)] == ["a.log", "a.log.1"]
    assert [len(records(found)) for found in everywhere(path)] == [2, 2]
    ours.close()
    peers.close()


def test_a_peer_that_was_faster_has_rotated_for_us(
    path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer rotates between our look at the size and our lock: its new file is not rotated."""
    file = JsonLinesFile(path, warn=warned.append, rotate_bytes=50)
    file.append({"filler": "x" * 30}, now=True)
    flock = fcntl.flock

    def late_flock(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            path.rename(f"{path}.1")
            path.write_text('{"peer": 1}\n')
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late_flock)
    file.append({"n": 2}, now=True)

    assert [found.name for found in everywhere(path)] == ["a.log", "a.log.1"]
    assert records(path) == [{"peer": 1}, {"n": 2}]
    file.close()


def test_a_torn_last_line_is_ended_first(path: Path, warned: list[str]) -> None:
    """After a line that somebody left without its end, the next begins on a line of its own."""
    path.parent.mkdir()
    path.write_text('{"torn": 1')
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)
    with path.open("a") as peer:
        peer.write('{"also torn')
    file.append({"n": 2}, now=True)

    assert path.read_text() == '{"torn": 1\n{"n": 1}\n{"also torn\n{"n": 2}\n'
    file.close()


def test_a_line_that_is_being_written_is_not_torn(
    path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's write that is seen half-way is waited for: no empty line comes of it."""
    path.parent.mkdir()
    path.write_text('{"peer": ')
    lseek = os.lseek

    def peer_goes_on(descriptor: int, offset: int, whence: int) -> int:
        with path.open("a") as peer:
            peer.write("1}\n")
        return lseek(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", peer_goes_on)
    file = JsonLinesFile(path, warn=warned.append)
    file.append({"n": 1}, now=True)

    assert path.read_text() == '{"peer": 1}\n{"n": 1}\n'
    file.close()


# A real short write: the kernel cuts a write at RLIMIT_FSIZE and then answers EFBIG.
FULL_DISK = """
import json, resource, sys
from cgmem.logs.jsonlines import JsonLinesFile
warned = []
file = JsonLinesFile(sys.argv[1], warn=warned.append)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
for number in range(10):
    file.append({"n": number, "filler": "x" * 20}, now=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.flush()
file.append({"n": 10}, now=True)
print(json.dumps(warned))
"""


def test_a_full_disk_loses_no_line_and_glues_none(path: Path) -> None:
    """A write cut short: the fragment stays alone on its line, and every line comes whole later."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], check=True, capture_output=True, text=True
    )
    warned = json.loads(done.stdout)
    lines = path.read_text().splitlines()
    whole = [json.loads(line)["n"] for line in lines if line.endswith("}")]

    assert len(warned) == 1
    assert os.strerror(errno.EFBIG) in warned[0]
    assert whole == list(range(11))
    assert len(lines) == 12


READ_ONLY = """
import json, os, sys
from cgmem.logs.jsonlines import JsonLinesFile
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
warned = []
file = JsonLinesFile(sys.argv[1], warn=warned.append)
for number in range(3):
    file.append({"n": number}, now=True)
file.close()
print(json.dumps(warned))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_an_unwritable_directory_costs_two_warnings(mode: int, tmp_path: Path) -> None:
    """A directory that the user can't write, or not even search: a warning, another at the end."""
    logs = tmp_path / "logs"
    logs.mkdir()
    logs.chmod(mode)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # A relative path: the directories above belong to root alone.
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, "a.log"],
        check=True, capture_output=True, text=True, env=environ, cwd=logs,
    )  # fmt: skip

    message, last = json.loads(done.stdout)
    assert "Permission denied" in message
    assert last == "3 lines could not be written to a.log"
    assert not list(logs.iterdir())


WRITER = """
import sys, threading
from cgmem.logs.jsonlines import JsonLinesFile
path, name, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
warned = []
file = JsonLinesFile(path, warn=warned.append, rotate_bytes=20_000, backups=200)
print("ready", flush=True)
sys.stdin.readline()
def write(thread):
    for number in range(lines):
        record = {"who": name + thread, "n": number, "filler": "x" * (number % 200)}
        file.append(record, now=number % 3 != 0)
        if number % 50 == 0:
            file.flush()
threads = [threading.Thread(target=write, args=(t,)) for t in "ab"]
[t.start() for t in threads]
[t.join() for t in threads]
file.close()
sys.exit(repr(warned) if warned else 0)
"""
PROCESSES, LINES = 8, 400


def test_eight_processes_tear_and_lose_nothing(path: Path) -> None:
    """Two threads in each of eight processes, with rotation: each line is there once and whole."""
    argv = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen(
            [*argv, str(number), str(LINES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all are told before one is waited for: they write at the same time
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    found = everywhere(path)
    lines = [record for each in found for record in records(each)]

    # Who finds a peer rotating writes on: how many files there are is the scheduler's.
    assert len(found) > 2
    assert Counter((line["who"], line["n"]) for line in lines) == {
        (f"{number}{thread}", line): 1
        for number in range(PROCESSES)
        for thread in "ab"
        for line in range(LINES)
    }


FORK = """
import os, sys
from cgmem.logs.jsonlines import JsonLinesFile
file = JsonLinesFile(sys.argv[1], warn=print)
file.append({"n": 1}, now=True)
file.append({"n": 2}, now=False)
child = os.fork()
if child == 0:
    file.append({"n": 3}, now=True)
    file.close()
    os._exit(0)
os.waitpid(child, 0)
file.close()
"""


def test_a_forked_child_repeats_no_line(path: Path) -> None:
    """What the parent has buffered is written by the parent alone; the child can log too."""
    done = subprocess.run([sys.executable, "-c", FORK, path], check=True, capture_output=True)

    assert done.stdout == b""
    assert records(path) == [{"n": 1}, {"n": 3}, {"n": 2}]


def test_lines_that_were_never_written_are_told_at_the_end(tmp_path: Path) -> None:
    """What still waits when the file is closed is counted, for it may be lost."""
    told: list[str] = []
    file = JsonLinesFile(tmp_path, warn=told.append)  # a directory: can't be written
    file.append({"n": 1}, now=True)
    file.append({"n": 2}, now=False)
    file.close()

    assert len(told) == 2
    assert told[1] == f"2 lines could not be written to {tmp_path}"
    file.close()
    assert len(told) == 2
