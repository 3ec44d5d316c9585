"""The verbs that show: ps, show, status, check, doctor, config; help, version, pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgmem import selector
from cgmem.cli.group import VERBS
from tests.cli.command import HOG, POLLED, cgmem, environment, start, until


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A live subprocess of 40 MB under a budget of 64 MB: its id and the pid of its process."""
    name = f"live-{os.getpid()}"
    process = start(
        "run", *POLLED, "-q", "--id", name, "--agent-type", "engineer", "--max", "64M", "--",
        sys.executable, HOG, "--mb", "30", "--hold", "300", cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[1])
    yield name, pid
    process.terminate()
    process.communicate(timeout=60)


def test_ps_sees_the_subprocess_of_another_process(live: tuple[str, int], tmp_path: Path) -> None:
    """The table and its JSON have the id, the level, the memory and who supervises it."""
    name, pid = live
    table = cgmem("ps", cwd=tmp_path)
    listed = json.loads(cgmem("ps", "--json", cwd=tmp_path).stdout)
    mine = next(seen for seen in listed if seen["subprocess_id"] == name)
    row = next(line for line in table.stdout.splitlines() if line.startswith(name))

    assert table.stdout.splitlines()[0].split()[:3] == ["ID", "LEVEL", "USED"]
    assert row.split()[1] == mine["level"]
    assert mine["level"] in ("WARNING", "CRITICAL")
    assert 30 < mine["memory_mb"] < 64
    assert mine["pids"] == [pid]
    assert mine["supervisor"]["alive"] is True
    assert mine["agent_type"] == "engineer"
    assert mine["backend"] == "psutil"


def test_show_a_live_subprocess(live: tuple[str, int], tmp_path: Path) -> None:
    """Its command, budget, process and log directory are shown, and as JSON."""
    name, pid = live
    shown = cgmem("show", name, cwd=tmp_path)
    found = json.loads(cgmem("show", name, "--json", cwd=tmp_path).stdout)

    assert shown.returncode == 0
    assert "budget      warning 16M, critical 32M, max 64M" in shown.stdout
    assert str(pid) in shown.stdout
    assert found["processes"][0]["pid"] == pid
    assert "hog.py" in found["processes"][0]["command"]
    if sys.platform == "linux":
        assert found["processes"][0]["rss_mb"] >= found["processes"][0]["pss_mb"] > 30
    assert found["log_dir"] == str(tmp_path / ".claude-pm" / "logs" / "memory")
    assert found["limits"]["max_bytes"] == 64 << 20


def test_show_has_the_alerts_and_what_to_do(live: tuple[str, int], tmp_path: Path) -> None:
    """The last alerts of this subprocess, and the command that would give it room."""
    name, _ = live

    def logged() -> list[str]:
        return cgmem("alerts", "--json", "--id", name, cwd=tmp_path).stdout.splitlines()

    alerts = until(logged, "alerts")
    shown = cgmem("show", name, cwd=tmp_path).stdout

    assert json.loads(alerts[0])["message"] in shown
    assert f"cgmem set {name} --warning 32M --critical 64M --max 128M" in shown


def test_ps_filters_and_watches(live: tuple[str, int], tmp_path: Path) -> None:
    """A pattern, a type; with --watch and --json one look a line, with growth from the second."""
    name, _ = live
    mine = ("--id", name, "--sort", "used")
    other = cgmem("ps", *mine, "--agent-type", "other", "--json", cwd=tmp_path)
    with start("ps", *mine, "--watch", "--every", "0.1", "--json", cwd=tmp_path) as watching:
        assert watching.stdout is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.terminate()

    assert json.loads(other.stdout) == []
    assert [look[0]["subprocess_id"] for look in looks] == [name, name]
    assert looks[0][0]["growth_bytes_per_minute"] is None
    assert isinstance(looks[1][0]["growth_bytes_per_minute"], float)


def test_alerts_are_followed(live: tuple[str, int], tmp_path: Path) -> None:
    """With -f, what is written later comes too; foreign lines are counted."""
    name, _ = live
    log = tmp_path / ".claude-pm/logs/memory/memory-alerts.log"
    until(lambda: log.exists() and log.read_text(), "an alert")
    with log.open("a") as file:
        file.write("[]\n")
    with start("alerts", "-f", "--json", "--id", name, cwd=tmp_path) as following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        with log.open("a") as file:
            file.write(json.dumps({**first, "message": "WARNING: later"}) + "\n")
        assert any("WARNING: later" in line for line in following.stdout)
        following.terminate()
        _, said = following.communicate(timeout=60)

    assert first["subprocess_id"] == name
    assert "1 torn or foreign line was skipped" in said


def test_alerts_and_stats_without_logs(tmp_path: Path) -> None:
    """Where nothing was logged yet there is nothing to show, and it is told where; no mistake."""
    for verb, status in (("alerts", 0), ("stats", 1)):
        done = cgmem(verb, cwd=tmp_path)
        elsewhere = cgmem(verb, cwd=tmp_path, env={"CGMEM_LOG_DIR": "later"})

        assert (done.returncode, elsewhere.returncode) == (status, status)
        assert f"nothing is logged in {tmp_path}/.claude-pm/logs/memory yet" in done.stderr
        assert f"nothing is logged in {tmp_path}/later yet" in elsewhere.stderr
        assert done.stderr.count("\n") == 1


def test_a_log_directory_that_is_not_there(tmp_path: Path) -> None:
    """One that --log-dir names must be there: it is mistyped."""
    for verb in ("alerts", "stats"):
        done = cgmem(verb, "--log-dir", "nosuch", cwd=tmp_path)

        assert done.returncode == 2
        assert f"--log-dir: there is no directory {tmp_path}/nosuch" in done.stderr
        assert "try: " in done.stderr


def test_no_suggestion_for_each_id(tmp_path: Path) -> None:
    """Budgets are by agent type; the answer says how to ask."""
    for more in ((), ("--json",)):
        done = cgmem("stats", "--by", "id", "--suggest", *more, cwd=tmp_path)

        assert (done.returncode, done.stdout) == (2, "")
        assert "--by agent-type" in done.stderr


def test_stats_suggest_what_can_be_pasted(tmp_path: Path) -> None:
    """The suggestion for an agent type is a configuration file that `cgmem config` takes."""
    hog = (sys.executable, HOG, "--mb", "20", "--hold", "0.5")
    for _ in range(2):
        run = ("run", *POLLED, "-q", "--agent-type", "engineer", "--", *hog)
        cgmem(*run, cwd=tmp_path, env={"CGMEM_TICK": "0.1"})
    table = cgmem("stats", "--by", "agent-type", cwd=tmp_path).stdout
    answer = json.loads(cgmem("stats", "--json", cwd=tmp_path).stdout)
    suggested = cgmem("stats", "--by", "agent-type", "--suggest", cwd=tmp_path).stdout
    (tmp_path / "cgmem.yaml").write_text(suggested)
    config = json.loads(cgmem("config", "--json", "--agent-type", "engineer", cwd=tmp_path).stdout)

    assert table.splitlines()[1].split()[:3] == ["engineer", "2", "0"]
    assert answer["groups"]["all"]["peak_mb"]["max"] > 20
    (chosen,) = [row for row in config["settings"] if row["name"] == "max"]
    assert chosen["value"].endswith("M")
    assert "cgmem.yaml" in chosen["origin"]


def test_show_an_unknown_id_names_the_live_ones(live: tuple[str, int], tmp_path: Path) -> None:
    """A wrong id is answered with 1 and the ids that there are."""
    done = cgmem("show", "nobody", cwd=tmp_path)

    assert done.returncode == 1
    assert "no live subprocess has the id 'nobody'" in done.stderr
    assert live[0] in done.stderr


def test_show_refuses_what_is_no_id(tmp_path: Path) -> None:
    """An id with a slash or a control character is told so."""
    for name in ("../x", "a\x1b[31mb", ""):
        done = cgmem("show", name, cwd=tmp_path)

        assert done.returncode == 2
        assert "subprocess id" in done.stderr
        assert "\x1b" not in done.stderr


def test_status(tmp_path: Path) -> None:
    """The spec's status comes with backend, reason and log directory."""
    status = json.loads(cgmem("status", "--json", cwd=tmp_path).stdout)
    shown = cgmem("status", cwd=tmp_path)

    assert set(status["system_memory"]) == {"total_mb", "available_mb", "used_mb", "percent"}
    assert status["level"] in ("OK", "WARNING", "CRITICAL")
    assert status["cgmem"]["backend"] in selector.NAMES
    assert status["cgmem"]["log_dir"].startswith("/")
    assert "available of" in shown.stdout


def test_check(tmp_path: Path) -> None:
    """0 with enough memory, 1 with the spec's message without, 2 for a wrong size."""
    enough = cgmem("check", "--need", "1M", cwd=tmp_path)
    short = cgmem("check", "--need", "1000T", cwd=tmp_path)
    wrong = [cgmem("check", "--need", size, cwd=tmp_path) for size in ("max", "12XB", "5", "")]
    answer = json.loads(cgmem("check", "--need", "1000T", "--json", cwd=tmp_path).stdout)

    assert enough.returncode == 0
    assert short.returncode == 1
    assert short.stdout.startswith("Insufficient memory: only ")
    assert answer["allowed"] is False
    assert [done.returncode for done in wrong] == [2, 2, 2, 2]
    assert all("--need" in done.stderr for done in wrong)


def test_doctor_tries_the_usable_backends(tmp_path: Path) -> None:
    """Each usable backend ends a hog at 32 MB; 0 only where the kernel did."""
    done = cgmem("doctor", "--json", cwd=tmp_path)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    found = {finding["backend"]: finding for finding in answer["backends"]}

    assert found["psutil"]["trial"]["passed"] is True
    assert found["psutil"]["trial"]["enforced"] is False
    assert found["psutil"]["cannot"]
    assert done.returncode == (0 if answer["kernel_enforcement"] else 1)
    for finding in found.values():
        assert finding["usable"] or finding["reason"]
        assert finding["trial_error"] is None


def test_doctor_is_not_misled_by_the_users_settings(tmp_path: Path) -> None:
    """Its trial has its own budget, whatever file and environment say."""
    (tmp_path / "cgmem.yaml").write_text("max: 3G\nbackend: psutil\n")
    env = {"CLAUDE_PM_DISABLE_MEMORY_MONITOR": "1", "CLAUDE_PM_MEMORY_MAX_MB": "broken"}
    answer = json.loads(cgmem("doctor", "--json", cwd=tmp_path, env=env).stdout)

    assert answer["backends"][-1]["trial"]["passed"] is True


def test_config_shows_where_values_come_from(tmp_path: Path) -> None:
    """Default, file, environment and what was derived are told apart."""
    (tmp_path / "cgmem.yaml").write_text("max: 512M\nagent_types:\n  tester:\n    max: 256M\n")
    env = {"CGMEM_GRACE": "7"}
    shown = cgmem("config", cwd=tmp_path, env=env)
    answer = json.loads(cgmem("config", "--json", cwd=tmp_path, env=env).stdout)
    tester = json.loads(
        cgmem("config", "--json", "--agent-type", "tester", cwd=tmp_path, env=env).stdout
    )
    by_name = {row["name"]: row for row in answer["settings"]}

    assert by_name["max"]["value"] == "512M"
    assert by_name["max"]["origin"].startswith(str(tmp_path / "cgmem.yaml"))
    assert by_name["critical"]["origin"].startswith("derived")
    assert by_name["grace"]["origin"] == "CGMEM_GRACE"
    assert by_name["swap"]["origin"] == "default"
    assert {row["name"]: row["value"] for row in tester["settings"]}["max"] == "256M"
    assert f"file: {tmp_path / 'cgmem.yaml'}" in shown.stdout


def test_wrong_setting_is_named_with_its_source(tmp_path: Path) -> None:
    """A verb other than `run` answers 2."""
    done = cgmem("config", cwd=tmp_path, env={"CLAUDE_PM_MEMORY_MAX_MB": "lots"})

    assert done.returncode == 2
    assert "CLAUDE_PM_MEMORY_MAX_MB" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_exit_statuses(tmp_path: Path, verb: str) -> None:
    """Every --help fits into 80 columns and has both."""
    done = cgmem(verb, "--help", cwd=tmp_path)

    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "Exit status:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version_and_module_form(tmp_path: Path) -> None:
    """`cgmem --version` and `python -m cgmem --version` say the same."""
    env = environment(PYTHONPATH=":".join(map(str, _roots())))
    module = subprocess.run(
        [sys.executable, "-m", "cgmem", "--version"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert module.stdout == cgmem("--version", cwd=tmp_path).stdout
    assert module.stdout.startswith("cgmem ")


def _roots() -> tuple[Path, Path]:
    checkout = Path(__file__).parents[2]
    return checkout, checkout / "backends"


def test_mistyped_verb(tmp_path: Path) -> None:
    """The one that was meant is named."""
    done = cgmem("statuss", cwd=tmp_path)

    assert done.returncode == 2
    assert "did you mean status?" in done.stderr


def test_help_and_run_import_only_what_they_use(tmp_path: Path) -> None:
    """Start-up pays for no YAML, no psutil and no asyncio that isn't used."""
    script = (
        "import sys\n"
        "from cgmem.cli import main\n"
        "main(sys.argv[1:])\n"
        "heavy = ('yaml', 'psutil', 'asyncio', 'cgmem.supervising.supervisor')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    env = environment(PYTHONPATH=":".join(map(str, _roots())))

    def loaded(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    assert loaded("--help") == "[]"
    if sys.platform == "linux":
        assert loaded("run", *POLLED, "--", "true") == "['cgmem.supervising.supervisor']"


@pytest.mark.parametrize("words", [("config", "--json"), ("check",), ("ps",), ("--version",)])
def test_reader_that_leaves_is_no_trouble(words: tuple[str, ...], tmp_path: Path) -> None:
    """A pipe that nobody reads any more ends a verb by SIGPIPE, not with the status of a no."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = cgmem(*words, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("words", [("ps",), ("check",), ("config", "--json")])
def test_closed_stdout_is_told(words: tuple[str, ...], tmp_path: Path) -> None:
    """What is to be printed where stdout was closed from the start is 2 and a message."""
    done = cgmem(*words, cwd=tmp_path, preexec_fn=lambda: os.close(1))

    assert done.returncode == 2
    assert done.stderr == "cgmem: stdout: Bad file descriptor\n"


def test_full_stdout_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that can't be written is 2 and a message."""
    if not Path("/dev/full").exists():
        pytest.skip("macOS has no /dev/full")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with Path("/dev/full").open("w") as full:
        done = cgmem("config", cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 2
    assert done.stderr == "cgmem: stdout: No space left on device\n"  # and no traceback at exit


def test_a_suggestion_can_be_read_back(tmp_path: Path) -> None:
    """Also one from runs too short to be measured is a file that cgmem takes."""
    cgmem("run", *POLLED, "-q", "--", "true", cwd=tmp_path)
    told = cgmem("stats", "--by", "agent-type", "--suggest", cwd=tmp_path)
    (tmp_path / "cgmem.yaml").write_text(told.stdout)

    assert told.returncode == 0
    assert cgmem("config", cwd=tmp_path).returncode == 0
