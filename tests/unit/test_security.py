"""What docs/security.md promises and no other test shows."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cgmem import selector
from cgmem.cli.output import print_field, print_table, say
from cgmem.contract import ScopeRecord
from cgmem.inspecting import orders
from cgmem.supervising.supervisor import Supervisor
from cgmem_backends.process_tree import Identity
from cgmem_backends.run_directory import RunDirectory
from cgmem_backends.scope_record import decode, encode
from cgmem_backends.systemd_scope_unit import properties
from tests.helpers.waiting import until

SECRET = "sesame-7d1e"
HOSTILE = "a\x1b]0;owned\x07\n\u202eb\x9b31m"

linux = pytest.mark.skipif(sys.platform != "linux", reason="pidfd and /proc are Linux's")


def test_nothing_of_ours_reaches_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's properties are everybody's to read: no environment and no command line is in."""
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["cgmem", SECRET])
    said = repr(properties(os.getpid(), 1 << 30))

    assert SECRET not in said
    assert os.environ["PATH"] not in said


def test_nothing_of_the_environment_is_written(tmp_path: Path) -> None:
    """Neither this process's variables nor the subprocess's are in a log."""
    logs = tmp_path / "logs"
    supervisor = Supervisor(
        {"backend": "psutil", "log_dir": str(logs), "preflight": False, "max": "8M", "tick": 0.1}
    )
    hog = "import time; x = bytearray(b'x') * (64 << 20); time.sleep(60)"
    process = supervisor.spawn(
        [sys.executable, "-I", "-S", "-c", hog],
        {"env": {**os.environ, "TOKEN": SECRET}},
        settings=supervisor.settings(),
    )
    process.wait()
    assert process.outcome().cause == "hard_limit"
    supervisor.close()
    written = {path.name: path.read_text() for path in logs.iterdir()}

    assert {"memory-alerts.log", "subprocess-stats.jsonl"} <= set(written)
    for name, text in written.items():
        assert SECRET not in text, name
        assert stat.S_IMODE((logs / name).stat().st_mode) == 0o600


def test_run_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Directory 0700 and files 0600, whatever the umask."""
    runs = RunDirectory(tmp_path / "cgmem")
    before = os.umask(0)
    try:
        runs.save("1" * 32, ScopeRecord("a", 1, 1, 1.0), Identity(1, 1), marked=True, table_id="x")
    finally:
        os.umask(before)

    assert stat.S_IMODE(runs.path.stat().st_mode) == 0o700
    for path in runs.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_another_process_wrote_is_printed_harmlessly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A command in a record is its writer's word: no control character gets to the terminal.

    With such an id it is no record at all.
    """
    written = ScopeRecord("a", 1, 1, 1.0, (HOSTILE,))
    record = decode(encode(written))
    assert record is not None
    assert decode(encode(written._replace(subprocess_id=HOSTILE))) is None
    print_table(("ID", "COMMAND"), [(HOSTILE, " ".join(record.command))])
    print_field("id", HOSTILE)
    say(HOSTILE)
    printed = "".join(capfd.readouterr()).replace("\n", "")

    assert "owned" in printed
    assert printed.isprintable()


@linux
@pytest.mark.parametrize("same", [True, False])
def test_a_supervisor_s_pid_alone_gets_no_signal(same: bool) -> None:
    """A reused pid, or one that a record claims, is another process: its start time says so."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    try:
        os.kill(process.pid, signal.SIGSTOP)
        assert until(lambda: _state(process.pid) == "T")
        start = selector.process_start(process.pid)
        assert start is not None
        orders._let_run(ScopeRecord("a", process.pid, start + (not same), 1.0))
        if same:
            assert until(lambda: _state(process.pid) != "T")
        else:  # SIGCONT takes effect as it is sent: there is nothing to wait for
            assert _state(process.pid) == "T"
    finally:
        process.kill()
        process.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
