"""The spec's names: what each call takes and gives, to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import cgmem
from cgmem import monitoring, selector
from cgmem.contract import MB, Counters, MemoryEvents, SystemMemory
from cgmem.errors import ConfigurationError, InvalidIdError
from cgmem.monitoring import (
    MemoryMonitor,
    MemoryThresholds,
    SubprocessMemoryMonitor,
    SubprocessMemoryStats,
    get_memory_monitor,
    get_subprocess_memory_monitor,
)
from cgmem.supervising.supervisor import Supervisor
from tests.helpers.ending import end
from tests.helpers.waiting import until
from tests.unit.fakes import FakeBackend, FakeClock, FakeScope, a_record

PATIENCE = 30.0
FOR_EVER = ["sleep", "3600"]
STATS = {
    "subprocess_id", "start_mb", "peak_mb", "end_mb", "duration_seconds", "warnings", "aborted",
    "memory_stats",
}  # fmt: skip
LEAK = "import time; x = bytearray(96 << 20); time.sleep(3600)"


@pytest.fixture
def told() -> list[str]:
    """What was warned of."""
    return []


@pytest.fixture
def supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> Iterator[Supervisor]:
    """A supervisor of the test's own, on the backend that works anywhere."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = Supervisor(
        {"backend": "psutil", "log_dir": str(tmp_path / "logs"), "preflight": False},
        warn=told.append,
    )
    yield made
    end(made)


@pytest.fixture
def monitor(supervisor: Supervisor) -> SubprocessMemoryMonitor:
    """A monitor with the defaults."""
    return SubprocessMemoryMonitor(supervisor=supervisor)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that cgmem did not start."""
    with subprocess.Popen(FOR_EVER) as process:
        # Right after exec there is hardly more than a stack, which is 0.0 MB.
        assert until(lambda: psutil.Process(process.pid).memory_info().rss > MB / 10)
        yield process
        process.kill()


def stats_lines(tmp_path: Path) -> list[dict[str, Any]]:
    """What stands in subprocess-stats.jsonl."""
    lines = (tmp_path / "logs" / "subprocess-stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_unknown_ids(monitor: SubprocessMemoryMonitor) -> None:
    """An id that nobody monitors is no error anywhere."""
    assert monitor.check_memory("nobody") == (0.0, "NOT_MONITORED")
    assert monitor.should_abort("nobody") is False
    assert monitor.stop_monitoring("nobody") == {}


def test_without_a_process(
    monitor: SubprocessMemoryMonitor, told: list[str], tmp_path: Path
) -> None:
    """With no process named nothing is measured, above all not the caller; it is told once."""
    monitor.start_monitoring("engineer_1", {"agent_type": "engineer"})

    assert monitor.check_memory("engineer_1") == (0.0, "OK")
    assert monitor.should_abort("engineer_1") is False
    assert len(told) == 1
    assert "engineer_1" in told[0]
    assert monitor.active_monitors == {"engineer_1": {"agent_type": "engineer"}}
    found = monitor.stop_monitoring("engineer_1")
    assert set(found) == STATS
    assert found["peak_mb"] == 0.0
    assert stats_lines(tmp_path)[0]["memory_stats"].keys() == STATS - {
        "subprocess_id", "memory_stats",
    }  # fmt: skip
    assert found["memory_stats"] == stats_lines(tmp_path)[0]["memory_stats"]
    assert monitor.active_monitors == {}


@pytest.mark.parametrize("form", ["pid", "mapping", "process-none"])
def test_a_process_by_pid(
    monitor: SubprocessMemoryMonitor, sleeper: subprocess.Popen[bytes], form: str, tmp_path: Path
) -> None:
    """A process that runs already is observed; stopping lets it live and writes its statistics."""
    info: Any = {
        "pid": sleeper.pid,
        "mapping": {"pid": sleeper.pid, "agent_type": "qa"},
        "process-none": {"process": None, "pid": sleeper.pid},
    }[form]
    monitor.start_monitoring("qa_1", info)
    memory_mb, status = monitor.check_memory("qa_1")

    assert memory_mb > 0
    assert status == "OK"
    found = monitor.stop_monitoring("qa_1")
    assert set(found) == STATS
    assert found["start_mb"] > 0
    assert sleeper.poll() is None
    (line,) = stats_lines(tmp_path)
    assert line["subprocess_id"] == "qa_1"
    assert line["cgmem"]["enforced"] is False


def test_a_monitored_process(monitor: SubprocessMemoryMonitor, supervisor: Supervisor) -> None:
    """A handle may be passed, directly or by key, under its own id or another."""
    process = cgmem.spawn(FOR_EVER, supervisor=supervisor, subprocess_id="one")
    monitor.start_monitoring("one", process)
    monitor.start_monitoring("two", {"process": process})

    assert until(lambda: monitor.check_memory("one")[0] > 0)  # see `sleeper`
    assert monitor.check_memory("two")[1] == "OK"
    process.kill()
    process.outcome(PATIENCE)
    assert monitor.stop_monitoring("one")["subprocess_id"] == "one"
    assert monitor.stop_monitoring("two")["subprocess_id"] == "two"


def test_our_own_by_id_and_pid(monitor: SubprocessMemoryMonitor, supervisor: Supervisor) -> None:
    """What cgmem.spawn started is known by its id, with its pid or without."""
    process = cgmem.spawn(FOR_EVER, supervisor=supervisor, subprocess_id="one")
    assert until(lambda: monitor.check_memory("one")[0] > 0)  # see `sleeper`
    monitor.start_monitoring("one", {"pid": process.pid})
    assert monitor.check_memory("one")[0] > 0
    assert len(supervisor.live()) == 1
    process.kill()


@pytest.mark.parametrize(
    "info", [{"pid": "17"}, {"pid": 0}, {"pid": -1}, {"pid": True}, {"pid": 1.5}, -5]
)
def test_no_process_ids(monitor: SubprocessMemoryMonitor, info: Any) -> None:
    """What can't be a process id is refused, and the id is not taken."""
    with pytest.raises(ConfigurationError, match="process id"):
        monitor.start_monitoring("one", info)
    assert monitor.active_monitors == {}


def test_a_process_that_is_gone(monitor: SubprocessMemoryMonitor) -> None:
    """Nobody's pid is the caller's error; the id stays free."""
    with pytest.raises(ProcessLookupError):
        monitor.start_monitoring("one", {"pid": 2**22 + 7})
    monitor.start_monitoring("one")


def test_ids(monitor: SubprocessMemoryMonitor) -> None:
    """Bad ids and those that are monitored are refused; a stopped one is free."""
    with pytest.raises(InvalidIdError):
        monitor.start_monitoring("a/b")
    monitor.start_monitoring("one")
    with pytest.raises(InvalidIdError, match="already"):
        monitor.start_monitoring("one")
    monitor.stop_monitoring("one")
    monitor.start_monitoring("one")


def test_should_abort(supervisor: Supervisor) -> None:
    """After the hard limit `should_abort` is true: before, during and after stop_monitoring."""
    monitor = SubprocessMemoryMonitor(MemoryThresholds(max_mb=64), supervisor=supervisor)
    process = cgmem.spawn(
        [sys.executable, "-c", LEAK], supervisor=supervisor, subprocess_id="one", max="64M"
    )
    monitor.start_monitoring("one", process)
    outcome = process.outcome(PATIENCE)

    assert outcome.cause == "hard_limit"
    assert monitor.should_abort("one") is True
    assert monitor.check_memory("one")[1] == "ABORTED"
    assert monitor.stop_monitoring("one")["aborted"] is True
    assert monitor.should_abort("one") is True


def test_an_ordinary_end_is_no_abort(
    monitor: SubprocessMemoryMonitor, supervisor: Supervisor
) -> None:
    """A subprocess that ended by itself need not be aborted."""
    process = cgmem.spawn(["true"], supervisor=supervisor, subprocess_id="one")
    monitor.start_monitoring("one", process)
    process.outcome(PATIENCE)

    assert monitor.should_abort("one") is False
    found = monitor.stop_monitoring("one")
    assert found["aborted"] is False
    assert found["warnings"] == []


def test_thresholds_of_the_monitor(
    supervisor: Supervisor, sleeper: subprocess.Popen[bytes]
) -> None:
    """The monitor's thresholds judge what it observes; without any the settings' ones are shown."""
    thresholds = MemoryThresholds(warning_mb=0.1, critical_mb=512, max_mb=1024)
    monitor = SubprocessMemoryMonitor(thresholds, supervisor=supervisor)
    monitor.start_monitoring("one", sleeper.pid)

    assert monitor.thresholds == thresholds
    assert monitor.check_memory("one")[1] == "WARNING"
    default = SubprocessMemoryMonitor(supervisor=supervisor).thresholds
    assert (default.warning_mb, default.critical_mb, default.max_mb) == (1024, 2048, 4096)
    assert monitor.stop_monitoring("one")["warnings"]


@pytest.mark.parametrize(
    ("available_mb", "answer"),
    [
        (512, (False, "Insufficient memory: only 512.0MB available (need at least 1GB)")),
        (1536, (True, "WARNING: Low memory - only 1536.0MB available")),
        (4096, (True, "OK")),
    ],
)
def test_preflight(
    monitor: SubprocessMemoryMonitor,
    monkeypatch: pytest.MonkeyPatch,
    available_mb: int,
    answer: tuple[bool, str],
) -> None:
    """The pre-flight check answers in the spec's words."""
    memory = SystemMemory(8192 * MB, available_mb * MB)
    monkeypatch.setattr(selector, "system_memory", lambda: memory)

    assert monitor.can_create_subprocess() == answer


def test_system_memory(monitor: SubprocessMemoryMonitor) -> None:
    """Exactly the spec's four keys."""
    found = monitor.get_system_memory()

    assert set(found) == {"total_mb", "available_mb", "used_mb", "percent"}
    assert 0 < found["available_mb"] <= found["total_mb"]


def test_stats_shape() -> None:
    """`SubprocessMemoryStats.to_dict` is the spec's `memory_stats`."""
    found = SubprocessMemoryStats(1.0, 2.0, 1.5, 3.0, ("w",), aborted=True).to_dict()

    assert found == {
        "start_mb": 1.0,
        "peak_mb": 2.0,
        "end_mb": 1.5,
        "duration_seconds": 3.0,
        "warnings": ["w"],
        "aborted": True,
    }


def test_all_stats(
    monitor: SubprocessMemoryMonitor, supervisor: Supervisor, sleeper: subprocess.Popen[bytes]
) -> None:
    """Spawned, observed and merely named ones are all there, measured where they can be."""
    process = cgmem.spawn(FOR_EVER, supervisor=supervisor, subprocess_id="spawned")
    monitor.start_monitoring("other-name", process)
    monitor.start_monitoring("observed", {"pid": sleeper.pid, "agent_type": "qa"})
    monitor.start_monitoring("named")
    assert until(lambda: monitor.check_memory("spawned")[0] > 0)  # see `sleeper`
    found = monitor.get_all_subprocess_stats()

    assert set(found) >= {"spawned", "other-name", "observed", "named"}
    for name in ("spawned", "other-name", "observed"):
        assert found[name]["memory_mb"] > 0, name
        assert found[name]["status"] == "OK"
    assert found["observed"]["agent_type"] == "qa"
    assert found["observed"]["enforced"] is False
    assert found["named"]["memory_mb"] == 0.0
    json.dumps(found)
    process.kill()


def test_all_stats_from_another_process(supervisor: Supervisor) -> None:
    """A fresh process sees a scope that this one started (the spec's debug command)."""
    process = cgmem.spawn(
        [sys.executable, "-c", LEAK],
        supervisor=supervisor,
        subprocess_id="seen",
        warning="64M",
        critical="512M",
        max="1G",
        agent_type="engineer",
    )
    roots = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "backends")]
    code = (
        "import json; from cgmem.monitoring import get_subprocess_memory_monitor as get;"
        "print(json.dumps(get().get_all_subprocess_stats()['seen']))"
    )
    deadline = time.monotonic() + PATIENCE
    while process.check_memory()[1] != "WARNING":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
    )
    found = json.loads(fresh.stdout)
    process.kill()

    assert found["memory_mb"] > 64
    assert found["status"] == "WARNING"
    assert found["agent_type"] == "engineer"
    assert found["pids"] == [process.pid]
    assert found["supervisor_pid"] == os.getpid()
    assert fresh.stderr == ""


def test_all_stats_leave_out_what_has_ended(
    monitor: SubprocessMemoryMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty scope of a supervisor that was killed is no live subprocess; old kills no news."""
    clock = FakeClock()
    backend = FakeBackend(clock)
    ended, live = (FakeScope(clock, a_record()._replace(subprocess_id=name)) for name in "ab")
    ended.end()
    live.next_counters = Counters(MemoryEvents(0, 0, 1, 1, 1))
    backend.opened = [ended, live]
    monkeypatch.setattr(selector, "load", lambda _name: backend)
    found = monitor.get_all_subprocess_stats()

    assert set(found) == {"b"}
    assert found["b"]["status"] == "OK"


def test_locks_that_a_fork_copied(tmp_path: Path) -> None:
    """A forked child can use the monitors although another thread held their locks."""
    roots = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "backends")]
    code = (
        "import os, signal\n"
        "from cgmem import monitoring\n"
        "monitor = monitoring.get_subprocess_memory_monitor()\n"
        "with monitoring._lock, monitor._lock:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        signal.alarm(20)\n"
        "        same = monitoring.get_subprocess_memory_monitor() is monitor\n"
        "        os._exit(0 if same and monitor.active_monitors == {} else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
    )


@pytest.mark.parametrize("make", [SubprocessMemoryMonitor, get_subprocess_memory_monitor])
@pytest.mark.parametrize(
    ("name", "value"), [("thresholds", "x"), ("thresholds", {"max_mb": 1}), ("log_dir", 5)]
)
def test_arguments_of_a_wrong_type(make: Any, name: str, value: object) -> None:
    """The error names the argument and the value."""
    with pytest.raises(ConfigurationError, match=f"{name}: {re.escape(repr(value))} is no"):
        make(**{name: value})


def test_getters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The getters give one monitor for each (thresholds, log_dir)."""
    monkeypatch.setattr(monitoring, "_monitors", {})
    (tmp_path / ".claude-pm").mkdir()  # the nearest one upwards, whatever lies above
    monkeypatch.chdir(tmp_path)
    first = get_subprocess_memory_monitor()

    assert get_subprocess_memory_monitor() is first
    other = get_subprocess_memory_monitor(MemoryThresholds(max_mb=512))
    assert other is not first
    assert get_subprocess_memory_monitor(MemoryThresholds(max_mb=512)) is other
    assert get_subprocess_memory_monitor(log_dir=tmp_path / "a").log_dir == tmp_path / "a"
    assert first.log_dir == tmp_path / ".claude-pm" / "logs" / "memory"
    assert not first.log_dir.exists()


def test_memory_monitor() -> None:
    """`get_memory_monitor().get_memory_status()` is the spec's debug command."""
    monitor = get_memory_monitor()
    status = monitor.get_memory_status()

    assert isinstance(monitor, MemoryMonitor)
    assert set(status) >= {"timestamp", "level", "status", "alerts", "system_memory"}
    json.dumps(status)


def test_disabled(tmp_path: Path, told: list[str], sleeper: subprocess.Popen[bytes]) -> None:
    """Where monitoring is disabled nothing is measured or written, and nothing fails."""
    off = Supervisor({"log_dir": str(tmp_path / "logs"), "disabled": True}, warn=told.append)
    monitor = SubprocessMemoryMonitor(supervisor=off)
    monitor.start_monitoring("observed", {"pid": sleeper.pid})
    process = cgmem.spawn(FOR_EVER, supervisor=off)
    monitor.start_monitoring("spawned", process)

    assert told == []
    assert monitor.check_memory("observed") == (0.0, "NOT_MONITORED")
    assert monitor.check_memory("spawned") == (0.0, "NOT_MONITORED")
    assert monitor.should_abort("spawned") is False
    monitor.stop_monitoring("observed")
    assert monitor.stop_monitoring("spawned") == {}
    process.kill()
    process.wait()
    off.close()
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("nobody_kills", [{"enforcement": "off"}, {"abort_on_memory_limit": False}])
def test_past_a_limit_that_nobody_holds(
    supervisor: Supervisor, nobody_kills: dict[str, Any]
) -> None:
    """`should_abort` is how the caller finds out, where nothing ends it at its hard limit."""
    how = {"max": "64M", "supervisor": supervisor, **nobody_kills}
    with cgmem.spawn([sys.executable, "-c", LEAK], **how) as process:
        monitor = SubprocessMemoryMonitor(supervisor=supervisor)
        monitor.start_monitoring(process.subprocess_id, process)

        assert until(lambda: monitor.should_abort(process.subprocess_id))
        assert process.poll() is None
        process.kill()


def test_the_thresholds_in_force_are_shown(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left out comes from the environment, and that is what `thresholds` says."""
    monkeypatch.setenv("CLAUDE_PM_MEMORY_MAX_MB", "512")
    shown = SubprocessMemoryMonitor(MemoryThresholds(warning_mb=100), supervisor=supervisor)

    assert shown.thresholds == MemoryThresholds(100, 256, 512)


def test_many_threads(monitor: SubprocessMemoryMonitor) -> None:
    """Threads that start, look and stop at once disturb each other nowhere."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                name = f"t{number}_{turn}"
                monitor.start_monitoring(name)
                monitor.check_memory(name)
                monitor.active_monitors  # noqa: B018  (is copied while others write)
                assert set(monitor.stop_monitoring(name)) == STATS
        except BaseException as error:  # noqa: BLE001  (shown by the test's own thread)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_what_is_remembered_is_bounded(
    monitor: SubprocessMemoryMonitor,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host that runs for weeks does not keep every subprocess that it ever stopped."""
    monkeypatch.setattr(monitoring, "REMEMBERED", 2)
    for number in range(4):
        process = cgmem.spawn(["true"], supervisor=supervisor, subprocess_id=f"n{number}")
        monitor.start_monitoring(f"n{number}", process)
        process.outcome(PATIENCE)
        monitor.stop_monitoring(f"n{number}")

    assert list(monitor._ended) == ["n2", "n3"]
