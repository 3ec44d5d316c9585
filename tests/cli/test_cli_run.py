"""`cgmem run`: budgets, messages, reports, refusals."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from cgmem.cli import main
from cgmem.cli.start_failure import start_failure
from cgmem.errors import CgmemError
from tests.cli.command import HOG, POLLED, cgmem, start, until
from tests.helpers.proc import running

REPORT_KEYS = {
    "subprocess_id", "command", "backend", "cause", "exit_code", "signal", "message", "start_mb",
    "peak_mb", "end_mb", "duration_seconds", "warnings", "aborted", "enforced", "limits",
    "events", "system_memory", "log_dir",
}  # fmt: skip

LEAVES_A_SLEEPER = "sleep 300 </dev/null >/dev/null 2>&1 & echo $!"


def _hog(*words: str) -> tuple[str, ...]:
    return ("--", sys.executable, HOG, *words)


# --- budgets


def test_leak_is_ended_at_its_hard_limit(tmp_path: Path) -> None:
    """A leak past --max ends in 137, and one line says why and what to do next."""
    leak = _hog("--mb", "4000", "--step-mb", "1", "--pause", "0.02", "--hold", "300")
    done = cgmem("run", *POLLED, "--id", "leak", "--max", "48M", *leak, cwd=tmp_path)

    assert done.returncode == 137
    last = done.stderr.splitlines()[-1]
    assert last.startswith("cgmem: leak: hard limit: 48M passed after ")
    assert "Raise --max (say 96M)" in last
    assert "cgmem: leak: CRITICAL: Memory exceeded 48MB limit at " in done.stderr


def test_a_leaks_report_names_it_without_its_secret(tmp_path: Path) -> None:
    """The report and the last line name the largest process; a secret of its command line is in
    the report's own `command` alone.
    """
    code = "import time\nx = []\nwhile True: x.append(b'x' * (1 << 20)); time.sleep(0.02)"
    leak = ("--", sys.executable, "-c", code, "--token=hunter2", "--api-key", "hunter2")
    done = cgmem("run", *POLLED, "--max", "64M", "--report", "r.json", *leak, cwd=tmp_path)
    report = json.loads((tmp_path / "r.json").read_text())
    logged = "".join(path.read_text() for path in tmp_path.glob(".claude-pm/logs/memory/*"))

    assert done.returncode == 137
    largest = report["snapshot"]["processes"][0]
    assert largest["pid"] == report["pid"]
    assert largest["memory_mb"] > 16
    assert "--token=*** --api-key ***" in largest["command"]
    assert f"[{report['pid']}]" in done.stderr.splitlines()[-1]
    assert '"snapshot"' in logged
    assert "hunter2" not in logged + done.stderr
    assert report.pop("command")[-3:] == ["--token=hunter2", "--api-key", "hunter2"]
    assert "hunter2" not in json.dumps(report)


def test_quiet_leaves_only_the_end(tmp_path: Path) -> None:
    """With -q there are no alerts, but still the one line that says why it ended."""
    leak = _hog("--mb", "100", "--hold", "300")
    done = cgmem("run", *POLLED, "-q", "--id", "leak", "--max", "48M", *leak, cwd=tmp_path)

    assert [line[:23] for line in done.stderr.splitlines()] == ["cgmem: leak: hard limit"]


def test_verbose_says_backend_and_warnings(tmp_path: Path) -> None:
    """With -v the backend's choice is told, and WARNING alerts too."""
    words = _hog("--mb", "40", "--hold", "300")
    process = start("run", *POLLED, "-v", "--id", "v", "--max", "128M", *words, cwd=tmp_path)
    assert process.stderr is not None
    first = process.stderr.readline()
    warned = next(line for line in process.stderr if "WARNING" in line)
    process.terminate()
    process.communicate(timeout=60)

    assert first.startswith("cgmem: v: warning 32M, critical 64M, max 128M; psutil: asked for")
    assert warned.startswith("cgmem: v: WARNING: Memory exceeded 32MB at ")


def test_nothing_is_said_when_nothing_happened(tmp_path: Path) -> None:
    """A command that ends by itself, whatever its status, costs no line on stderr."""
    done = cgmem("run", *POLLED, "--", "sh", "-c", "exit 9", cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (9, "", "")


def test_timeout(tmp_path: Path) -> None:
    """--timeout ends the group with status 124 and says so."""
    done = cgmem("run", *POLLED, "--timeout", "0.3", "--", "sleep", "300", cwd=tmp_path)

    assert done.returncode == 124
    assert "timeout: its time of 0.3 s was up" in done.stderr


def test_timeout_of_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    """After --grace it is killed; the status stays 124."""
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    words = ("--timeout", "0.3", "--grace", "0.3", "--", "sh", "-c", stubborn)
    done = cgmem("run", *POLLED, *words, cwd=tmp_path)

    assert done.returncode == 124
    assert "SIGKILL was needed" in done.stderr


def test_leftovers_are_killed_and_named(tmp_path: Path) -> None:
    """What the command leaves behind is killed at its end, and the line names it."""
    done = cgmem("run", *POLLED, "--", "sh", "-c", LEAVES_A_SLEEPER, cwd=tmp_path)
    sleeper = int(done.stdout)

    assert done.returncode == 0
    assert f"killed 1 leftover process: {sleeper}" in done.stderr
    until(lambda: not running(sleeper), "the leftover to go")


def test_keep_leaves_leftovers_alone(tmp_path: Path) -> None:
    """With --keep they live on, are named, and `ps` shows them with their supervisor gone."""
    words = ("--keep", "--id", f"kept-{os.getpid()}", "--", "sh", "-c", LEAVES_A_SLEEPER)
    done = cgmem("run", *POLLED, *words, cwd=tmp_path)
    sleeper = int(done.stdout)
    try:
        listed = json.loads(cgmem("ps", "--json", cwd=tmp_path).stdout)
        mine = [live for live in listed if live["subprocess_id"] == f"kept-{os.getpid()}"]

        assert running(sleeper)
        assert f"kept 1 leftover process: {sleeper}" in done.stderr
        assert mine[0]["pids"] == [sleeper]
        assert mine[0]["supervisor"]["alive"] is False
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_logs_are_written_where_asked(tmp_path: Path) -> None:
    """--log-dir holds the files directly, and an end leaves its line of statistics."""
    cgmem("run", *POLLED, "--id", "one", "--log-dir", "logs", "--", "true", cwd=tmp_path)
    line = json.loads((tmp_path / "logs" / "subprocess-stats.jsonl").read_text())

    assert line["subprocess_id"] == "one"
    assert line["memory_stats"]["aborted"] is False


def test_unwritable_logs_cost_a_warning_only(tmp_path: Path) -> None:
    """A log directory that can't be made is one warning; the command runs and ends as ever."""
    (tmp_path / "file").write_text("")
    words = ("--log-dir", "file/logs", "--", "sh", "-c", "exit 4")
    done = cgmem("run", *POLLED, *words, cwd=tmp_path)

    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "file" in done.stderr


def test_disabled_monitoring_runs_the_command_all_the_same(tmp_path: Path) -> None:
    """With CLAUDE_PM_DISABLE_MEMORY_MONITOR nothing is limited, logged or said."""
    done = cgmem(
        "run", "--report", "r.json", "--", "sh", "-c", "kill -TERM $$",
        cwd=tmp_path, env={"CLAUDE_PM_DISABLE_MEMORY_MONITOR": "1"},
    )  # fmt: skip
    report = json.loads((tmp_path / "r.json").read_text())

    assert (done.returncode, done.stderr) == (143, "")
    assert (report["cause"], report["enforced"]) == ("signalled", False)
    assert not (tmp_path / ".claude-pm").exists()


# --- reports


def _checked(text: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(text)
    assert text.endswith("}\n")
    assert report.keys() >= REPORT_KEYS
    assert report["limits"].keys() >= {
        "high_bytes", "max_bytes", "swap_max_bytes", "effective_max_bytes",
    }  # fmt: skip
    assert set(report["events"]) == {"high", "max", "oom", "oom_kill", "oom_group_kill"}
    return report


def test_report_to_a_file(tmp_path: Path) -> None:
    """The file holds one JSON object with every documented key, an earlier one's text gone."""
    (tmp_path / "r.json").write_text("x" * 100_000)
    words = ("--id", "r", "--report", "r.json", "--", "sh", "-c", "exit 5")
    cgmem("run", *POLLED, *words, cwd=tmp_path)
    report = _checked((tmp_path / "r.json").read_text())

    assert (report["subprocess_id"], report["cause"], report["exit_code"]) == ("r", "exited", 5)
    assert report["command"] == ["sh", "-c", "exit 5"]


def test_report_to_stdout_comes_last(tmp_path: Path) -> None:
    """`-` is stdout after the command's own output."""
    done = cgmem("run", *POLLED, "--report", "-", "--", "echo", "hello", cwd=tmp_path)
    first, rest = done.stdout.split("\n", 1)

    assert first == "hello"
    assert _checked(rest)["cause"] == "exited"


def test_json_is_a_report_to_stdout(tmp_path: Path) -> None:
    """`--json` is short for `--report -`; both at once are wrong usage."""
    done = cgmem("run", *POLLED, "--json", "--", "echo", "hello", cwd=tmp_path)
    first, rest = done.stdout.split("\n", 1)
    both = cgmem("run", "--report", "r.json", "--json", "--", "touch", "ran", cwd=tmp_path)

    assert first == "hello"
    assert _checked(rest)["cause"] == "exited"
    assert both.returncode == 125
    assert "--json and --report" in both.stderr
    assert list(tmp_path.glob("r*")) == []


def test_json_says_also_why_nothing_was_started(tmp_path: Path) -> None:
    """A recording that can't be made is an error like others: JSON for who asked for it."""
    done = cgmem("run", *POLLED, "--json", "--record", "no/r.jsonl", "--", "echo", cwd=tmp_path)

    assert done.returncode == 125
    assert json.loads(done.stdout)["exit_code"] == 125


@pytest.mark.parametrize("where", ["fd:{}", "/dev/fd/{}"])
def test_report_to_a_descriptor(tmp_path: Path, where: str) -> None:
    """`fd:N` gets the report, and the child does not get the descriptor."""
    read_fd, write_fd = os.pipe()
    look = f"test ! -e /dev/fd/{write_fd} || echo inherited"
    words = ("--report", where.format(write_fd), "--", "sh", "-c", look)
    done = cgmem("run", *POLLED, *words, cwd=tmp_path, pass_fds=[write_fd])
    os.close(write_fd)
    with os.fdopen(read_fd) as reader:
        _checked(reader.read())

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "where", ["fd:77", "fd:x", "fd:", "fd:999999999", "nosuch/r.json", ".", "a\0b", ""]
)
def test_report_that_can_not_be_written_refuses_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    where: str,
) -> None:
    """A wrong place is told before the command runs."""
    monkeypatch.chdir(tmp_path)
    status = main(["run", "--report", where, "--", "touch", "ran"])

    assert status == 125
    assert "--report" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["-", "fd:1"])
def test_report_to_a_closed_stdout_is_refused(where: str, tmp_path: Path) -> None:
    """Nothing runs whose report would be lost; without a report a closed stdout is no trouble."""
    run, close = ("run", *POLLED), lambda: os.close(1)
    done = cgmem(*run, "--report", where, "--", "touch", "ran", cwd=tmp_path, preexec_fn=close)
    silent = cgmem(*run, "--", "true", cwd=tmp_path, preexec_fn=close)

    assert done.returncode == 125
    assert "--report" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert silent.returncode == 0


def test_a_wrong_log_directory_names_its_source(tmp_path: Path) -> None:
    """The flag, the variable or the file's key: where to mend it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "set.yaml").write_text("log_dir: file")
    run = ("run", *POLLED)
    flag = cgmem(*run, "--log-dir", "file", "--", "true", cwd=tmp_path)
    variable = cgmem(*run, "--", "true", cwd=tmp_path, env={"CGMEM_LOG_DIR": "file"})
    key = cgmem("alerts", "--config", "set.yaml", cwd=tmp_path)

    assert flag.stderr.startswith("cgmem: --log-dir ")
    assert "try: name a directory in --log-dir" in flag.stderr
    assert variable.stderr.startswith("cgmem: CGMEM_LOG_DIR ")
    assert key.stderr.startswith(f"cgmem: {tmp_path}/set.yaml: log_dir ")


def test_a_budget_larger_than_the_familys_names_both_sources(tmp_path: Path) -> None:
    """Where the hard limit comes from, and where the family's."""
    done = cgmem("run", *POLLED, "--", "true", cwd=tmp_path, env={"CGMEM_FAMILY_MAX": "10"})

    assert done.returncode == 125
    assert "4G (default) is larger than the family budget 10M (CGMEM_FAMILY_MAX)" in done.stderr


def test_report_on_a_full_disk_costs_a_warning(tmp_path: Path) -> None:
    """The command's status stays, one line tells of the lost report."""
    if not Path("/dev/full").exists():
        pytest.skip("macOS has no /dev/full")
    words = ("--report", "/dev/full", "--", "sh", "-c", "exit 6")
    done = cgmem("run", *POLLED, *words, cwd=tmp_path)

    assert done.returncode == 6
    assert "cgmem: warning: the report can't be written to /dev/full" in done.stderr


def test_report_of_a_start_that_failed(tmp_path: Path) -> None:
    """Where nothing was started the report says so."""
    done = cgmem("run", *POLLED, "--report", "r.json", "--", "nosuchcommand", cwd=tmp_path)
    report = json.loads((tmp_path / "r.json").read_text())

    assert report["exit_code"] == done.returncode == 127
    assert "nosuchcommand" in report["error"]


# --- refusals


def test_command_that_is_not_there(tmp_path: Path) -> None:
    """127, and the name; with and without a path, and empty."""
    for name in ("nosuchcommand", "./nosuch", "/no/such", "/etc/passwd/x", ""):
        done = cgmem("run", *POLLED, "--", name, cwd=tmp_path)

        assert done.returncode == 127
        assert name in done.stderr
        assert "cgmem: try: " in done.stderr


def test_command_that_can_not_be_executed(tmp_path: Path) -> None:
    """126: a file that is no program, a directory, a program without a format."""
    (tmp_path / "plain").write_text("echo hello\n")
    (tmp_path / "noformat").write_text("echo hello\n")
    (tmp_path / "noformat").chmod(0o755)
    for name, why in (("./plain", "permission denied"), (".", "is a directory"),
                      ("./noformat", "exec format error")):  # fmt: skip
        done = cgmem("run", *POLLED, "--", name, cwd=tmp_path)

        assert done.returncode == 126
        assert f"cgmem: {name}: {why}\n" in done.stderr


def test_script_without_its_interpreter(tmp_path: Path) -> None:
    """The message blames the interpreter, not the script that is plainly there."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = cgmem("run", *POLLED, "--", str(script), cwd=tmp_path)

    assert done.returncode == 127
    assert "its interpreter was not found" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--max", "12XB"),
        ("--max", "0"),
        ("--max", "0M"),
        ("--max", "-1M"),
        ("--max", "512"),
        ("--max", ""),
        ("--max", "1e3M"),
        ("--max", "200%"),
        ("--max", "4K"),
        ("--max", "9" * 30 + "G"),
        ("--warning", "max"),
        ("--critical", "max"),
        ("--critical", "8G"),
        ("--warning", "2G", "--critical", "1G"),
        ("--critical", "1G", "--max", "1G"),
        ("--swap", "lots"),
        ("--timeout", "soon"),
        ("--timeout", "-1"),
        ("--timeout", "nan"),
        ("--grace", "-5"),
        ("--on-stall", "panic"),
        ("--stall-after", "0"),
        ("--backend", "magic"),
        ("--enforcement", "perhaps"),
        ("--config", "nosuch.yaml"),
        ("--id", "a/b"),
        ("--id", ".."),
        ("--id", "a\nb"),
        ("--id", "x" * 300),
        ("--id", ""),
        ("--nosuch",),
        ("--max",),
    ],
)
def test_bad_option(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    """Each is refused with 125, in one message that names the option, before anything runs."""
    monkeypatch.chdir(tmp_path)
    # `--max` last takes `--` as its value, which is no size.
    status = main(["run", *words, "--", "touch", "ran"])
    first, *others = capfd.readouterr().err.splitlines()

    assert status == 125
    assert words[0] in first or words[0].removeprefix("--").replace("-", "_") in first
    assert all(line.startswith("cgmem: try: ") for line in others)
    assert not (tmp_path / "ran").exists()


def test_missing_command(tmp_path: Path) -> None:
    """Without a command `run` says how it is called."""
    for words in (("run",), ("run", "--max", "1G"), ("run", "--")):
        done = cgmem(*words, cwd=tmp_path)

        assert done.returncode == 125
        assert "CMD" in done.stderr
        assert "cgmem: try: cgmem run --help" in done.stderr


def test_options_of_the_command_are_its_own(tmp_path: Path) -> None:
    """What follows the command is not looked at, `--` or not."""
    for dashes in ((), ("--",)):
        done = cgmem("run", *POLLED, *dashes, "echo", "--max", "-q", "--", "--id", cwd=tmp_path)

        assert done.stdout == "--max -q -- --id\n"


def test_required_enforcement_where_there_is_none(tmp_path: Path) -> None:
    """`--enforcement required` with a backend that polls starts nothing."""
    words = ("--enforcement", "required", "--", "touch", "ran")
    done = cgmem("run", *POLLED, *words, cwd=tmp_path)

    assert done.returncode == 125
    assert "enforcement required" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 125, "no process"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 125, "no process"),
        (OSError(errno.EMFILE, "Too many open files"), 125, "no process"),
        (OSError(errno.E2BIG, "Argument list too long", "prog"), 126, "Argument list too long"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/run/x"), 125, "/run/x"),
        (CgmemError("cgroup trouble", hint="cgmem doctor"), 125, "cgroup trouble"),
        (ValueError("embedded null byte"), 125, "embedded null byte"),
    ],
)
def test_why_a_start_failed(error: Exception, status: int, said: str) -> None:
    """What is the command's fault is 126 or 127, all else is 125."""
    found, failure = start_failure(error, ["prog"])

    assert found == status
    assert said in failure.message
