"""The Task Tool helper: real processes under budgets, refused starts, ends of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem import selector
from cgmem.contract import (
    MB,
    EffectiveLimits,
    Headroom,
    LimitAbove,
    Limits,
    Scope,
    ScopeRecord,
    SystemMemory,
)
from cgmem.errors import ConfigurationError, UnknownIdError
from cgmem.monitoring import MemoryThresholds, SubprocessMemoryMonitor
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.supervisor import Supervisor
from cgmem.task_tool import TaskToolConfiguration, TaskToolHelper
from cgmem.tasks import agent_book
from cgmem_backends.psutil_backend import PsutilBackend
from tests.helpers.ending import end
from tests.helpers.waiting import PATIENCE, until

FOR_EVER = ["sleep", "3600"]
HOG = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "hog.py")]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor of the test's own, on the backend that works anywhere."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CGMEM_BACKEND", "psutil")
    monkeypatch.setenv("CGMEM_TICK", "0.1")
    made = Supervisor()
    yield made
    end(made)


Make = Callable[..., TaskToolHelper]


@pytest.fixture
def make(tmp_path: Path, supervisor: Supervisor) -> Iterator[Make]:
    """Makes helpers that work in the test's directory; what they leave is ended."""
    helpers = []

    def made(**config: Any) -> TaskToolHelper:
        helper = TaskToolHelper(tmp_path, TaskToolConfiguration(**config), supervisor=supervisor)
        helpers.append(helper)
        return helper

    yield made
    for helper in helpers:
        helper.cleanup(0)


def test_a_task_from_beginning_to_end(make: Make, tmp_path: Path) -> None:
    """The agent is a real process with its prompt, and every figure of its end is there."""
    helper = make(command=["sh", "-c", 'echo "$0"; cat; pwd; echo "$WHO" >&2', "{prompt}"],
                  stdin="in: {task}\n", env={"WHO": "{agent_type} {subprocess_id}"})  # fmt: skip
    result = helper.create_agent_subprocess(
        "data_engineer",
        "Load it",
        requirements=["fast"],
        deliverables=["a table"],
        dependencies=["the file"],
        priority="high",
        memory_categories=["bug"],
        escalation_triggers=["it fails"],
        integration_notes="soon",
        capture_output=True,
    )
    done = helper.complete_subprocess(result["subprocess_id"], {"summary": "loaded"})

    prompt = (
        "**Data Engineer**: Load it\n\nRequirements:\n- fast\n\nDeliverables:\n- a table\n\n"
        "Dependencies:\n- the file\n\nMemory categories:\n- bug\n\nEscalate when:\n- it fails\n\n"
        "Priority: high\n\nNotes: soon"
    )
    assert result["success"] is True
    assert result["prompt"] == prompt
    assert result["subprocess_id"].startswith("data_engineer_")
    assert isinstance(result["pid"], int)
    assert result["memory_monitoring"] == {
        "enabled": True,
        "thresholds": {"warning_mb": 1024, "critical_mb": 2048, "max_mb": 4096},
        "preflight": "OK",
        "backend": "psutil",
        "enforced": False,
        "log_dir": str(tmp_path / ".claude-pm" / "logs" / "memory"),
    }
    assert (done["success"], done["status"], done["exit_code"]) == (True, "completed", 0)
    assert done["stdout"] == f"{prompt}\nin: Load it\n{tmp_path}\n"
    assert done["stderr"] == f"data_engineer {result['subprocess_id']}\n"
    assert done["results"] == {"summary": "loaded"}
    lines = (tmp_path / ".claude-pm/logs/memory/subprocess-stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["subprocess_id"] for line in lines] == [result["subprocess_id"]]
    assert json.loads(lines[0])["memory_stats"] == done["memory_stats"]
    assert helper.memory_monitor.active_monitors == {}
    assert helper.complete_subprocess(result["subprocess_id"])["results"] == {"summary": "loaded"}
    assert helper.complete_subprocess(result["subprocess_id"])["stdout"] == done["stdout"]


def test_memory_is_seen_while_it_runs(make: Make) -> None:
    """check_subprocess_memory gives (MB, status), also from another helper of the process."""
    helper = make(memory_warning_mb=16, memory_max_mb=512, command=[*HOG, "--mb=40", "--hold=600"])
    result = helper.create_agent_subprocess("engineer", "Leak", capture_output=True)
    name = result["subprocess_id"]

    assert until(lambda: helper.check_subprocess_memory(name)[1] == "WARNING")
    memory_mb, status = make().check_subprocess_memory(name)
    assert memory_mb > 16
    assert status == "WARNING"
    assert helper.memory_monitor.active_monitors[name]["agent_type"] == "engineer"
    everything = helper.get_subprocess_status()[name]
    assert everything["status"] == "running"
    assert everything["memory_status"]["status"] == "WARNING"
    assert helper.memory_monitor.get_all_subprocess_stats()[name]["agent_type"] == "engineer"
    assert helper.check_subprocess_memory("nobody") == (0.0, "NOT_MONITORED")


def test_the_hard_limit(make: Make, supervisor: Supervisor) -> None:
    """At the hard limit it is aborted, and whoever asks afterwards is told so, any monitor too."""
    helper = make(command=[*HOG, "--mb=200", "--hold=600"])
    result = helper.create_agent_subprocess(
        "engineer", "Leak", thresholds=MemoryThresholds(max_mb=64), capture_output=True
    )
    name = result["subprocess_id"]
    done = helper.complete_subprocess(name, timeout=PATIENCE)

    assert (done["success"], done["status"], done["cause"]) == (False, "aborted", "hard_limit")
    assert done["memory_stats"]["aborted"] is True
    assert "CRITICAL: Memory exceeded 64MB limit" in done["memory_stats"]["warnings"][-1]
    assert helper.check_subprocess_memory(name)[1] == "ABORTED"
    for monitor in (helper.memory_monitor, SubprocessMemoryMonitor(supervisor=supervisor)):
        assert monitor.should_abort(name)
        assert monitor.check_memory(name)[1] == "ABORTED"


def test_abort(make: Make) -> None:
    """An abort ends the whole group and returns how; the outcome is an abort, not a failure."""
    helper = make(command=["sh", "-c", "sleep 3600 & sleep 3600"])
    ended: list[Outcome] = []
    name = helper.create_agent_subprocess("qa", "Wait", on_end=ended.append)["subprocess_id"]
    done = helper.abort_subprocess(name, grace_seconds=PATIENCE)

    assert (done["status"], done["cause"]) == ("aborted", "aborted")
    assert until(lambda: len(ended) == 1)
    assert ended[0].subprocess_id == name


def test_timeout(make: Make) -> None:
    """A subprocess that runs longer than its timeout is ended for it."""
    helper = make(command=FOR_EVER, timeout_seconds=0.2)
    by_config = helper.create_agent_subprocess("qa", "Wait")
    by_argument = helper.create_agent_subprocess("qa", "Wait", timeout_seconds=0.1)

    assert by_config["timeout_seconds"] == 0.2
    for result in (by_config, by_argument):
        done = helper.complete_subprocess(result["subprocess_id"], timeout=PATIENCE)
        assert (done["success"], done["status"]) == (False, "timeout")


def test_waiting_has_a_timeout_of_its_own(make: Make) -> None:
    """complete_subprocess gives up waiting without ending anything."""
    helper = make(command=FOR_EVER)
    name = helper.create_agent_subprocess("qa", "Wait")["subprocess_id"]

    with pytest.raises(subprocess.TimeoutExpired):
        helper.complete_subprocess(name, timeout=0.05)
    assert helper.get_subprocess_status(name)["status"] == "running"


def test_cleanup_ends_what_runs(make: Make) -> None:
    """As a context manager the helper leaves nothing running and nothing tracked."""
    with make(command=FOR_EVER) as helper:
        pids = [helper.create_agent_subprocess("qa", "Wait")["pid"] for _ in range(3)]
        done = helper.create_agent_subprocess("qa", "End", command="true")["subprocess_id"]
        helper.complete_subprocess(done)

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert helper.get_subprocess_status() == {}
    assert helper.memory_monitor.active_monitors == {}


def test_too_little_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused pre-flight starts nothing and returns the spec's message."""
    scarce = SystemMemory(16384 * MB, int(512.3 * MB))
    monkeypatch.setattr(selector, "system_memory", lambda: scarce)
    helper = make(command=FOR_EVER)
    result = helper.create_agent_subprocess("qa", "Wait")

    assert result["success"] is False
    assert result["error"] == "Insufficient memory: only 512.2MB available (need at least 1GB)"
    assert result["subprocess_id"] is None
    assert result["pid"] is None
    assert helper.get_subprocess_status() == {}


def test_a_group_without_room(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper refuses for a limit above the agent too, though nothing says `required`."""
    opened = PsutilBackend.open_scope

    def crowded(
        self: PsutilBackend, record: ScopeRecord, limits: Limits
    ) -> tuple[Scope, EffectiveLimits]:
        scope, effective = opened(self, record, limits)
        left = Headroom(16 * MB, LimitAbove("group build", 512 * MB))
        return scope, effective._replace(headroom=left)

    monkeypatch.setattr(PsutilBackend, "open_scope", crowded)
    helper = make(command=FOR_EVER, memory_max_mb=64)
    result = helper.create_agent_subprocess("qa", "Wait")

    assert result["success"] is False
    assert result["error"] == (
        "Insufficient memory: only 16.0MB available (need at least 64MB):"
        " group build, memory.max 512M, leaves no more"
    )
    assert helper.get_subprocess_status() == {}


def test_low_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between 1 and 2 GB it starts, and the warning is told and returned."""
    low = SystemMemory(16384 * MB, 1536 * MB)
    monkeypatch.setattr(selector, "system_memory", lambda: low)
    result = make(command="true").create_agent_subprocess("qa", "End")

    assert result["success"] is True
    word = result["memory_monitoring"]["preflight"]
    assert word == "WARNING: Low memory - only 1536.0MB available"


def test_the_family_budget(make: Make) -> None:
    """Agents start while their hard limits fit together, in every helper of the process."""
    limits = {"family_max_mb": 200, "memory_max_mb": 80, "command": FOR_EVER}
    helper, other = make(**limits), make(**limits)
    first = helper.create_agent_subprocess("qa", "Wait")
    second = other.create_agent_subprocess("qa", "Wait")
    third = helper.create_agent_subprocess("qa", "Wait")
    small = helper.create_agent_subprocess("qa", "Wait", thresholds=MemoryThresholds(max_mb=40))

    assert (first["success"], second["success"], small["success"]) == (True, True, True)
    assert third["success"] is False
    assert third["error"].startswith("Insufficient memory: only 40.0MB available in the family")
    assert first["subprocess_id"] in third["hint"]
    helper.abort_subprocess(first["subprocess_id"], 0)
    assert helper.create_agent_subprocess("qa", "Wait")["success"] is True
    with pytest.raises(ConfigurationError, match="larger than the family budget"):
        helper.create_agent_subprocess("qa", "Wait", thresholds=MemoryThresholds(max_mb=400))


def test_what_can_not_be_started(make: Make, tmp_path: Path) -> None:
    """A command that isn't there is the machine's refusal; its reservation is given back."""
    helper = make(command=["no-such-agent"], memory_max_mb=100, family_max_mb=100)
    for _ in range(2):
        result = helper.create_agent_subprocess("qa", "Try", capture_output=True)
        assert result["success"] is False
        assert "no-such-agent" in result["error"]


def test_prompts_that_no_argument_can_be(make: Make) -> None:
    """Too long a prompt, or one with a NUL, starts nothing; the hint says what to do."""
    helper = make(command=["true", "{prompt}"])
    long = helper.create_agent_subprocess("qa", "x", prompt="y" * 3_000_000)
    nul = helper.create_agent_subprocess("qa", "x", prompt="a\0b")

    assert (long["success"], nul["success"]) == (False, False)
    assert "stdin" in long["hint"]
    assert "null" in nul["error"]


def test_only_so_many_results_are_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The book doesn't grow for ever; what runs stays in it."""
    monkeypatch.setattr(agent_book, "REMEMBERED", 3)
    helper = make(command="true")
    runs = helper.create_agent_subprocess("qa", "Wait", command=FOR_EVER)["subprocess_id"]
    names = []
    for _ in range(4):
        names.append(helper.create_agent_subprocess("qa", "End")["subprocess_id"])
        helper.complete_subprocess(names[-1])

    assert list(helper.get_subprocess_status()) == [runs, *names[-2:]]


def test_a_forked_child_has_started_nothing(make: Make) -> None:
    """In a forked child the helper's book is empty: the agents are the parent's."""
    helper = make(command=FOR_EVER)
    helper.create_agent_subprocess("qa", "Wait")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: it is one
        pid = os.fork()
    if pid == 0:
        os._exit(len(helper.get_subprocess_status()))

    assert os.waitpid(pid, 0)[1] == 0
    assert len(helper.get_subprocess_status()) == 1


def test_wrong_calls(make: Make) -> None:
    """No command for the agent type, no words, no such id: errors that name what is wrong."""
    helper = make()
    with pytest.raises(ConfigurationError, match="no command is configured for agent type 'qa'"):
        helper.create_agent_subprocess("qa", "Try")
    with pytest.raises(ConfigurationError, match="agent_type"):
        helper.create_agent_subprocess("", "Try", command="true")
    with pytest.raises(ConfigurationError, match=r"nowhere. is not a directory"):
        TaskToolHelper(Path(helper.working_directory) / "nowhere")
    with pytest.raises(ConfigurationError, match="task_description"):
        helper.create_agent_subprocess("qa", " ", command="true")
    for call in (helper.complete_subprocess, helper.abort_subprocess, helper.get_subprocess_status):
        with pytest.raises(UnknownIdError, match="'qa_1'"):
            call("qa_1")


def test_monitoring_disabled(make: Make, tmp_path: Path) -> None:
    """Without monitoring the agent runs as under Popen: no pre-flight, no logs, and it can end."""
    helper = make(enable_memory_monitoring=False, command=["sh", "-c", "exit 3"])
    result = helper.create_agent_subprocess("qa", "Fail")
    done = helper.complete_subprocess(result["subprocess_id"])

    assert result["memory_monitoring"]["enabled"] is False
    assert (done["status"], done["exit_code"]) == ("failed", 3)
    assert not (tmp_path / ".claude-pm").exists()


def test_ids_are_unique_under_concurrency(make: Make) -> None:
    """Many threads that start agents of one type get as many ids, each fit to be typed."""
    helper, names = make(command="true"), []

    def work() -> None:
        for _ in range(5):
            names.append(helper.create_agent_subprocess("engineer", "Work")["subprocess_id"])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert helper.complete_subprocess(name, timeout=PATIENCE)["status"] == "completed"

    assert len(set(names)) == 30
    assert all(name.startswith("engineer_") and name[9:].isalnum() for name in names)


def test_a_prompt_larger_than_a_pipe(make: Make) -> None:
    """A prompt on the standard input may be as long as it likes: nobody has to write it."""
    helper = make(command="wc -c", stdin="{prompt}")
    result = helper.create_agent_subprocess("qa", "x", prompt="y" * 3_000_000, capture_output=True)

    assert helper.complete_subprocess(result["subprocess_id"])["stdout"].strip() == "3000000"
