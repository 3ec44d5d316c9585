"""Records of live scopes on disk: whole, private, and read with suspicion."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import ScopeRecord
from cgmem.errors import CgmemError
from cgmem_backends import run_directory as module
from cgmem_backends.process_tree import Identity
from cgmem_backends.run_directory import (
    TORN_SECONDS,
    RunDirectory,
    lock_directory,
    own_directory,
    parse,
    read_all,
)
from tests.unit.fakes import NOBODY

RECORD = ScopeRecord("engineer_1", 10, 20, 30.5, ("sh", "-c", "\udcff"), max_bytes=1 << 30)
TOKEN = "0123456789abcdef" * 2
ROOT = Identity(100, 200)


@pytest.fixture
def runs(tmp_path: Path) -> RunDirectory:
    """A run directory that is not there yet."""
    return RunDirectory(tmp_path / "cgmem")


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return [path.name for path in directory.iterdir()]


def save(runs: RunDirectory, token: str = TOKEN) -> None:
    """Write one record."""
    runs.save(token, RECORD, ROOT, marked=True, table_id="here")


def test_a_record_comes_back_as_it_was_written(runs: RunDirectory) -> None:
    """Any command survives; the file is named by the token, for its owner only."""
    save(runs)

    assert read_all([runs.path]) == [(TOKEN, RECORD, ROOT, True, "here", os.geteuid(), runs.path)]
    assert names(runs.path) == [TOKEN]
    assert (runs.path / TOKEN).stat().st_mode & 0o777 == 0o600
    assert runs.path.stat().st_mode & 0o777 == 0o700


def test_a_second_save_replaces_the_first(runs: RunDirectory) -> None:
    """A scope whose next process starts is still one file."""
    save(runs)
    runs.save(TOKEN, RECORD, Identity(7, 8), marked=True, table_id="here")

    assert [entry.root for entry in read_all([runs.path])] == [Identity(7, 8)]


def test_a_removed_record_is_gone(runs: RunDirectory) -> None:
    """Removing works once, and again, and where there has never been anything."""
    runs.remove(TOKEN)
    save(runs)
    runs.remove(TOKEN)
    runs.remove(TOKEN)

    assert read_all([runs.path]) == []


def test_torn_and_foreign_files_are_passed_over(runs: RunDirectory) -> None:
    """Half a record, another program's file, a link, a FIFO and a directory hurt nobody."""
    save(runs)
    content = (runs.path / TOKEN).read_bytes()
    (runs.path / ("1" * 32)).write_bytes(content[: len(content) // 2])
    (runs.path / "notes.txt").write_bytes(b"x")
    (runs.path / ("2" * 32)).symlink_to(runs.path / TOKEN)
    os.mkfifo(runs.path / ("3" * 32))
    (runs.path / ("4" * 32)).mkdir()
    (runs.path / f".{'5' * 32}.77").write_bytes(b"being written")

    assert [entry.token for entry in read_all([runs.path])] == [TOKEN]


def test_a_link_in_place_of_the_directory_is_refused(runs: RunDirectory, tmp_path: Path) -> None:
    """Whoever puts a link there can't choose where we write."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    runs.path.symlink_to(elsewhere)

    with pytest.raises(CgmemError, match="is no directory") as caught:
        save(runs)
    assert caught.value.hint == f"rm {runs.path}"
    assert names(elsewhere) == []
    assert read_all([runs.path]) == []


def test_a_directory_that_others_may_enter_is_refused(runs: RunDirectory) -> None:
    """A directory with wider rights is named, with the command that fixes it."""
    runs.path.mkdir()
    runs.path.chmod(0o755)

    with pytest.raises(CgmemError, match="others may enter it") as caught:
        save(runs)
    assert caught.value.hint == f"chmod 700 {runs.path}"
    assert "others may enter it" in (runs.problem() or "")


def test_another_users_directory_is_refused(runs: RunDirectory) -> None:
    """/tmp/cgmem-UID made by somebody else is not ours."""
    runs.path.mkdir(mode=0o700)
    stranger = RunDirectory(runs.path, uid=os.geteuid() + 1)

    with pytest.raises(CgmemError, match="belongs to uid"):
        save(stranger)


def test_a_file_in_place_of_the_directory_is_refused(runs: RunDirectory) -> None:
    """A file of that name is no reason for a traceback of the wrong kind."""
    runs.path.write_bytes(b"")

    with pytest.raises(CgmemError, match="is no directory"):
        save(runs)


def test_a_full_disk_leaves_nothing_half_written(
    runs: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is an error, and the temporary file goes."""
    runs.path.mkdir(mode=0o700)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))

    with pytest.raises(OSError, match="No space left") as caught:
        save(runs)
    assert caught.value.errno == errno.ENOSPC
    assert names(runs.path) == []


def test_what_a_killed_writer_left_is_removed(runs: RunDirectory) -> None:
    """Only a temporary file of ours, that is old, and whose writer is gone."""
    save(runs)
    gone = {f".{'1' * 32}.{NOBODY}", f".{'2' * 32}.9999999999"}
    stay = {
        f".{'3' * 32}.{os.getpid()}",
        f".{'4' * 32}",
        f".{'5' * 31}.{NOBODY}",
        f".{'6' * 32}.{NOBODY}x",
        f".{'7' * 32}.0{NOBODY}",
        f"{'8' * 32}.{NOBODY}",
    }
    for name in gone | stay:
        (runs.path / name).write_bytes(b"{")
        then = time.time() - 2 * TORN_SECONDS
        os.utime(runs.path / name, (then, then))
    young = f".{'9' * 32}.{NOBODY}"
    (runs.path / young).write_bytes(b"{")
    runs.remove_torn()

    assert set(names(runs.path)) == {TOKEN, young, *stay}


def test_nothing_is_removed_where_it_is_not_safe(runs: RunDirectory) -> None:
    """A directory that others may enter, or that is not there, is left alone without a word."""
    runs.remove_torn()
    runs.path.mkdir()
    runs.path.chmod(0o755)
    torn = runs.path / f".{'1' * 32}.{NOBODY}"
    torn.write_bytes(b"{")
    os.utime(torn, (1.0, 1.0))
    runs.remove_torn()

    assert torn.exists()


def test_problem_of_a_usable_place_is_none(runs: RunDirectory) -> None:
    """Looking makes nothing, before the directory exists and after."""
    assert runs.problem() is None
    assert not runs.path.exists()
    save(runs)

    assert runs.problem() is None


def test_problem_of_a_missing_parent(tmp_path: Path) -> None:
    """A runtime directory that is gone is said before anything starts."""
    assert "not writable" in (RunDirectory(tmp_path / "gone" / "cgmem").problem() or "")


def test_own_directory_is_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_RUNTIME_DIR serves where it is this user's."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert own_directory() == tmp_path / "cgmem"


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent"])
def test_own_directory_without_a_runtime_directory(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one that can be used it is a directory of this user's own in the temporary one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)

    assert own_directory() == module.temporary_root() / f"cgmem-{os.geteuid()}"


def test_own_directory_is_never_in_another_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After su the variable still names the other user's directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    uid = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert own_directory().name == f"cgmem-{uid}"


@pytest.mark.parametrize("value", ["", "/nonexistent"])
def test_a_lock_is_where_the_logins_of_the_user_have_theirs(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cron has no XDG_RUNTIME_DIR: it takes the same lock as a login, as long as there is one."""
    monkeypatch.setattr(module, "_USERS", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    without = lock_directory()
    runtime = tmp_path / str(os.geteuid())
    runtime.mkdir()
    of_cron, records = lock_directory(), own_directory()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    assert of_cron == lock_directory() == runtime / "cgmem"
    assert without == records == module.temporary_root() / f"cgmem-{os.geteuid()}"


def test_a_lock_follows_a_runtime_directory_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets another one, as tests do, has locks of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert lock_directory() == tmp_path / "cgmem"


def test_a_lock_is_never_in_another_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of that name that isn't ours is nobody we share a lock with."""
    uid = os.geteuid() + 1
    (tmp_path / str(uid)).mkdir()
    monkeypatch.setattr(module, "_USERS", tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert lock_directory() == module.temporary_root() / f"cgmem-{uid}"


@pytest.mark.skipif(sys.platform == "darwin", reason="there it is the user's own directory")
def test_temporary_root_does_not_follow_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of a user looks in the same place, whatever its TMPDIR."""
    monkeypatch.setenv("TMPDIR", "/elsewhere")

    assert module.temporary_root() == Path("/tmp")


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_raise(content: bytes) -> None:
    """Whatever is in a file, it is a record or none."""
    assert parse(content, TOKEN, 0, Path("/x")) is None


@pytest.mark.parametrize(
    "root", [[0, 1], [-1, 1], [2**31, 1], [1, -1], [1, 2**64], [True, 1], [1, 1.5]]
)
def test_a_root_that_is_no_process(root: list[object]) -> None:
    """A pid or a start time that no process has makes it no record."""
    good = {"record": RECORD._asdict(), "root": [1, 2], "marked": True, "table_id": ""}

    assert parse(json.dumps(good).encode(), TOKEN, 0, Path("/x")) is not None
    assert parse(json.dumps({**good, "root": root}).encode(), TOKEN, 0, Path("/x")) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(["record", "root", "marked", "table_id"]), json_values)
def test_a_record_with_one_wrong_value(key: str, value: object) -> None:
    """A value of the wrong kind under any key makes it no record; never an error."""
    good = {"record": RECORD._asdict(), "root": [1, 2], "marked": True, "table_id": ""}
    entry = parse(json.dumps({**good, key: value}).encode(), TOKEN, 0, Path("/x"))

    assert entry is None or (
        isinstance(entry.record, ScopeRecord)
        and all(type(number) is int for number in entry.root)
        and type(entry.marked) is bool
        and type(entry.table_id) is str
    )
