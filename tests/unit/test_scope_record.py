"""A scope's record on disk: it survives the way there and back, and lies can't hurt its reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import ScopeRecord
from cgmem.errors import InvalidIdError
from cgmem.text.ids import check_id
from cgmem_backends import scope_record
from cgmem_backends.scope_record import (
    MAX_BYTES,
    decode,
    encode,
    is_supervised,
    lives,
    pid_namespace,
    process_start,
)

RECORD = ScopeRecord(
    "engineer_1", 42, 4242, 1_700_000_000.25, ("make", "-j8"), "engineer", 1, 2, None, "/var/log"
)

COUNTS = st.integers(min_value=0, max_value=2**63 - 1)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}", fullmatch=True)
RECORDS = st.builds(
    ScopeRecord,
    subprocess_id=IDS.filter(lambda text: ".." not in text),
    supervisor_pid=st.integers(min_value=0, max_value=2**31 - 1),
    supervisor_start=COUNTS,
    supervisor_namespace=COUNTS,
    started_at=st.floats(min_value=0, max_value=1e11),
    command=st.lists(st.text(max_size=200), max_size=20).map(tuple),
    agent_type=st.none() | st.text(max_size=500),
    warning_bytes=st.none() | COUNTS,
    critical_bytes=st.none() | COUNTS,
    max_bytes=st.none() | COUNTS,
    log_dir=st.none() | st.text(max_size=4000),
    high_bytes=st.none() | COUNTS,
)


def stripped(record: ScopeRecord) -> ScopeRecord:
    """Return the record without what may be cut."""
    return record._replace(command=(), agent_type=None, log_dir=None)


@given(RECORDS)
def test_round_trip(record: ScopeRecord) -> None:
    """What says whose scope it is always survives; what is long may be cut to fit the limit."""
    text = encode(record)
    found = decode(text)

    assert len(text) <= MAX_BYTES
    assert found is not None
    assert stripped(found) == stripped(record)
    assert found.log_dir in (record.log_dir, None)
    assert found.agent_type in (record.agent_type, None)


def test_a_short_record_is_kept_whole() -> None:
    """Nothing is cut that fits, text that is not UTF-8 included."""
    record = RECORD._replace(command=("ls", os.fsdecode(b"\xff\xfe"), "ä\0\n"))

    assert decode(encode(record)) == record


def test_a_long_command_is_cut_first() -> None:
    """The log directory, without which nobody finds the logs, outlives the command."""
    record = RECORD._replace(command=("x" * 500,) * 50, log_dir="/" + "d" * 2000)
    found = decode(encode(record))

    assert found is not None
    assert found.log_dir == record.log_dir
    assert found.command[-1:] == ("…",)

    longer = record._replace(log_dir="/" + "d" * 2700)
    found = decode(encode(longer))
    assert found is not None
    assert found.log_dir == longer.log_dir
    assert found.command == ()


def changed(**values: Any) -> bytes:
    """Return the record with other values."""
    return json.dumps({**RECORD._asdict(), **values}).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"[1, 2, 3, 4]",
        b"\xff\xfe",
        b'"engineer_1"',
        b"{}",
        encode(RECORD)[:-7],
        b"[" * 100_000,
        b'{"subprocess_id":' * 20_000,
        changed(subprocess_id=1),
        changed(subprocess_id=None),
        changed(supervisor_pid="42"),
        changed(supervisor_pid=True),
        changed(supervisor_pid=4.2),
        changed(supervisor_pid=-1),
        changed(supervisor_pid=2**31),
        changed(supervisor_start=None),
        changed(supervisor_start=-1),
        changed(supervisor_start=2**64),
        changed(started_at="now"),
        changed(started_at=-1),
        changed(started_at=1e15),
        changed(started_at=10**400),
        changed(started_at=float("inf")),
        changed(started_at=float("-inf")),
        changed(started_at=float("nan")),
        changed(command=None),
        changed(command=7),
        changed(command=["make", 8]),
        changed(agent_type=5),
        changed(log_dir=["/"]),
        changed(max_bytes="64M"),
        changed(warning_bytes=True),
        changed(high_bytes="32M"),
        changed(max_bytes=2**63),
        changed(critical_bytes=-1),
        changed(supervisor_namespace=None),
        changed(supervisor_namespace=2**64),
        changed(concluded=1),
        changed(a_key_of_a_later_version=1),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_record(text: bytes) -> None:
    """Torn, foreign, of another version, of the wrong types or out of all range: None."""
    assert decode(text) is None


@given(st.text(max_size=140) | st.text("aZ0._:@+-/ $\n", max_size=140))
def test_the_ids_of_a_record(text: str) -> None:
    """Only what can be an id: it is printed in commands, which are pasted into shells."""
    try:
        check_id(text, source="record")
    except InvalidIdError:
        assert decode(changed(subprocess_id=text)) is None
    else:
        assert decode(changed(subprocess_id=text)) is not None


@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    """Nothing raises."""
    assert decode(text) is None or isinstance(decode(text), ScopeRecord)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ScopeRecord._fields, JSON)))
def test_any_values(values: dict[str, Any]) -> None:
    """Whatever the values, decode raises nothing, and what it takes has the right types."""
    found = decode(changed(**values))

    assert found is None or all(isinstance(word, str) for word in found.command)


def stat_line(tmp_path: Path, text: str) -> Path:
    """Write a process's stat file."""
    (tmp_path / "7").mkdir(exist_ok=True)
    (tmp_path / "7/stat").write_text(text)
    return tmp_path


FIELDS = " ".join(str(number) for number in range(4, 53))


@pytest.mark.parametrize("comm", ["cat", "a b", "a) S 1 (b", "((", ")"])
def test_process_start(tmp_path: Path, comm: str) -> None:
    """Field 22, whatever spaces and parentheses the command's name holds."""
    assert process_start(7, stat_line(tmp_path, f"7 ({comm}) S {FIELDS}\n")) == 22


@pytest.mark.parametrize("text", ["", "7", "7 (cat", "7 (cat) S 1 2", "7 (cat) " + "x " * 40])
def test_process_start_of_garbage(tmp_path: Path, text: str) -> None:
    """A torn file gives None."""
    assert process_start(7, stat_line(tmp_path, text)) is None


@pytest.mark.parametrize("state", "ZX")
def test_process_start_of_one_that_has_ended(tmp_path: Path, state: str) -> None:
    """A zombie whose parent does not care has ended."""
    assert process_start(7, stat_line(tmp_path, f"7 (x) {state} {FIELDS}\n")) is None


def test_who_is_supervised(tmp_path: Path) -> None:
    """By the process with this pid and start time, unless that has told the end."""
    proc = stat_line(tmp_path, f"7 (x) S {FIELDS}\n")
    record = RECORD._replace(supervisor_pid=7, supervisor_start=22)

    assert is_supervised(record, proc)
    assert is_supervised(record._replace(supervisor_start=0), proc)
    assert not is_supervised(record._replace(supervisor_start=23), proc)
    assert not is_supervised(record._replace(supervisor_pid=8), proc)
    assert not is_supervised(record._replace(concluded=True), proc)


def test_a_supervisor_in_another_pid_namespace(tmp_path: Path) -> None:
    """Its pid says nothing here, so it is taken to live; in the own namespace it counts."""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()
    own = pid_namespace(tmp_path)
    gone = RECORD._replace(supervisor_pid=8)

    assert own > 0
    assert pid_namespace(tmp_path / "nowhere") == 0
    assert not is_supervised(gone._replace(supervisor_namespace=own), tmp_path)
    assert is_supervised(gone._replace(supervisor_namespace=own + 1), tmp_path)


def test_a_supervisor_that_can_not_be_looked_at(tmp_path: Path) -> None:
    """Out of descriptors, or hidden: nobody knows whether it has ended, so it lives."""
    (tmp_path / "7/stat").mkdir(parents=True)  # reading it fails, and not for want of a process
    record = RECORD._replace(supervisor_pid=7)

    with pytest.raises(IsADirectoryError):
        process_start(7, tmp_path)
    assert lives(7, 22, tmp_path)
    assert is_supervised(record, tmp_path)
    assert not is_supervised(record._replace(concluded=True), tmp_path)


@pytest.mark.parametrize(("owner", "alive"), [(os.geteuid(), True), (0, True), (4711, False)])
def test_a_process_of_another_user_that_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, alive: bool
) -> None:
    """hidepid=1: who may not be looked at can be the supervisor if this user's, or root's."""

    def refuse(_pid: int, _proc: Path) -> list[bytes]:
        raise PermissionError

    monkeypatch.setattr(scope_record, "stat_fields", refuse)
    monkeypatch.setattr(scope_record, "_owner", lambda _process: owner)

    assert lives(7, 22, tmp_path) == alive


@pytest.mark.parametrize(
    ("error", "alive"),
    [(None, True), (PermissionError(), True), (ProcessLookupError(), False)],
)
def test_a_supervisor_where_there_is_no_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, alive: bool
) -> None:
    """macOS: whoever has the id is taken for it."""
    asked: list[tuple[int, int]] = []

    def kill(pid: int, signum: int) -> None:
        asked.append((pid, signum))
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    record = RECORD._replace(supervisor_pid=7, supervisor_start=0)

    assert is_supervised(record, tmp_path / "proc") is alive
    assert asked == [(7, 0)]


def test_nobody_lives_where_there_is_no_proc(tmp_path: Path) -> None:
    """0 is our own group to kill(2), no process; 2**40 is no id at all."""
    assert not lives(0, proc=tmp_path / "proc")
    assert not lives(2**40, proc=tmp_path / "proc")
    assert lives(os.getpid(), proc=tmp_path / "proc")


def test_process_start_of_no_process(tmp_path: Path) -> None:
    """A process that is gone gives None."""
    (tmp_path / "8").touch()

    assert process_start(7, tmp_path) is None
    assert process_start(8, tmp_path) is None


@given(text=st.binary(max_size=200))
def test_process_start_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """Nothing raises."""
    directory = tmp_path_factory.mktemp("proc")
    (directory / "7").mkdir()
    (directory / "7/stat").write_bytes(text)

    assert process_start(7, directory) is None or b")" in text
