"""The spec's formats, texts and loop: compared with what cgmem writes, to the letter."""

from __future__ import annotations

import json
import re
import signal
from datetime import datetime
from pathlib import Path

import pytest

from cgmem.contract import MB, Alert, SystemMemory, Thresholds
from cgmem.judging.judge import History, Policy, judge
from cgmem.logs.lines import alert_line, stats_line
from cgmem.supervising.supervision import Supervision
from tests.spec.blocks import BLOCKS
from tests.spec.markdown import ROOT, SPEC, fenced_blocks
from tests.spec.project import EXAMPLES, LISTED, lines, logs_of_a_scene, shape
from tests.unit.fakes import DrivenPoller, FakeClock, FakeScope, FakeSinks, a_plan

pytestmark = pytest.mark.timeout(300)

GB = 1024 * MB


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log directory of a project at work, when all its agents have ended."""
    return logs_of_a_scene(tmp_path_factory.mktemp("project"))


def pattern(text: str) -> str:
    """Return a pattern for a text with other numbers of the same form in it."""
    words = re.split(r"(\d+\.\d|\d+)", text)
    numbers = (r"\d+\.\d" if "." in word else r"\d+" for word in words[1::2])
    return "".join(re.escape(word) + next(numbers, "") for word in words[::2])


def test_the_patterns_can_fail() -> None:
    """What the comparisons below rest on tells one message from another."""
    warning = pattern("WARNING: Memory exceeded 1024MB at 1156.3MB")

    assert re.fullmatch(warning, "WARNING: Memory exceeded 16MB at 23.2MB")
    assert not re.fullmatch(warning, "WARNING: Memory exceeded 16MB at 23MB")
    assert not re.fullmatch(warning, "CRITICAL: Memory exceeded 16MB at 23.2MB")


def test_the_log_directory(logs: Path) -> None:
    """The tree of log files is the documented one: those names, no more and no less."""
    (tree,) = (fenced.text for block, fenced in LISTED if block.runner == "tree")
    named = re.findall(r"[├└]── (\S+)", tree)

    assert str(logs).endswith("/" + tree.splitlines()[0].rstrip("/"))
    assert sorted(path.name for path in logs.iterdir()) == sorted(named)


def test_alert_lines(logs: Path) -> None:
    """Each real alert line has the example's keys, order and types; threshold texts its words."""
    example, found = EXAMPLES["memory-alerts.log"], lines(logs / "memory-alerts.log")

    for line in found:
        assert shape(line) == shape(example)
        assert set(line) - set(example) == {"cgmem"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", line["timestamp"])
        assert line["level"] in ("WARNING", "CRITICAL")
        memory = line["system_memory"]
        assert memory["used_mb"] == round(memory["total_mb"] - memory["available_mb"], 1)
    warnings = [line["message"] for line in found if line["level"] == "WARNING"]
    assert warnings
    assert any(re.fullmatch(pattern(example["message"]), message) for message in warnings)
    limits = [line["message"] for line in found if "limit at" in line["message"]]
    assert re.fullmatch(r"CRITICAL: Memory exceeded 64MB limit at \d+\.\dMB", limits[0])


def test_statistics_lines(logs: Path) -> None:
    """Each real statistics line has the example's keys, order and types, aborted or not."""
    example, found = EXAMPLES["subprocess-stats.jsonl"], lines(logs / "subprocess-stats.jsonl")

    assert [line["memory_stats"]["aborted"] for line in found] == [False, True, True]
    for line in found:
        assert shape(line) == shape(example)
        assert set(line) - set(example) == {"cgmem"}
        assert re.fullmatch(r"[a-z]+_[a-z0-9]+", line["subprocess_id"])
    (warning,) = example["memory_stats"]["warnings"]
    assert re.fullmatch(pattern(warning), found[0]["memory_stats"]["warnings"][0])


def test_the_examples_to_the_letter() -> None:
    """With the examples' numbers cgmem writes the examples, and nothing else beside `cgmem`."""
    alert, stats = EXAMPLES["memory-alerts.log"], EXAMPLES["subprocess-stats.jsonl"]
    judged = int(1156.3 * MB)
    message = alerts_at(judged)[0].message

    line = alert_line(
        Alert("WARNING", message, "threshold", 0.0, judged, judged),
        now=datetime.fromisoformat(alert["timestamp"]).timestamp(),
        subprocess_id="engineer_abc123",
        system_memory=SystemMemory(16384 * MB, int(4096.5 * MB)),
        backend="cgroup2",
    )
    del line["cgmem"]
    assert json.dumps(line) == json.dumps(alert)
    line = stats_line(
        "researcher_xyz789",
        now=datetime.fromisoformat(stats["timestamp"]).timestamp(),
        start_mb=256.4, peak_mb=1892.7, end_mb=512.3, duration_seconds=45.2,
        warnings=[message], aborted=False, outcome={},
    )  # fmt: skip
    del line["cgmem"]
    assert json.dumps(line) == json.dumps(stats)


def alerts_at(current_bytes: int) -> tuple[Alert, ...]:
    """Return what the default thresholds say to so many bytes."""
    scope = FakeScope(FakeClock())
    scope.current_bytes = current_bytes
    sample = scope.sample()
    assert sample is not None
    thresholds = Thresholds(GB, 2 * GB, 4 * GB)
    return judge(
        thresholds, Policy(kernel_limits=False), History.start(sample.events), sample
    ).alerts


@pytest.mark.parametrize(
    ("current_mb", "message"),
    [
        (1156.3, "WARNING: Memory exceeded 1024MB at 1156.3MB"),
        (2150.1, "CRITICAL: Memory exceeded 2048MB at 2150.1MB"),
        (4200.0, "CRITICAL: Memory exceeded 4096MB limit at 4200.0MB"),
    ],
)
def test_threshold_messages(current_mb: float, message: str) -> None:
    """Above each default threshold the message is the documented one."""
    alerts = alerts_at(int(current_mb * MB) + 1)

    assert message in [alert.message for alert in alerts]
    assert all(message.startswith(alert.level) for alert in alerts if alert.message == message)


def test_the_monitoring_loop() -> None:
    """A look checks memory, tracks the peak, evaluates thresholds, warns, and aborts at the end."""
    clock = FakeClock()
    scope, sinks, poller = FakeScope(clock), FakeSinks(), DrivenPoller(clock)
    supervision = Supervision(scope, a_plan(kernel_limits=False), sinks, poller, clock=clock)
    supervision.begin(scope.popen.pid, scope.popen.as_popen())
    seen = []
    for current_mb in (50, 150, 50, 250, 450):
        scope.current_bytes = current_mb * MB
        poller.advance(60)
        seen.append((supervision.check()[0], supervision.level))
    poller.stop()

    assert seen[:4] == [(50, "OK"), (150, "WARNING"), (50, "OK"), (250, "CRITICAL")]
    assert seen[4][1] == "ABORTED"
    assert supervision.watch.figures.peak_mb == 450
    assert [alert.message for alert in sinks.alerts] == [
        "WARNING: Memory exceeded 100MB at 150.0MB",
        "WARNING: Memory exceeded 100MB at 250.0MB",
        "CRITICAL: Memory exceeded 200MB at 250.0MB",
        "CRITICAL: Memory exceeded 400MB limit at 450.0MB",
    ]
    assert scope.popen.status == -signal.SIGKILL


def test_prose_names_its_tests() -> None:
    """What is not code is checked by tests that are there."""
    for block in BLOCKS:
        assert bool(block.checked_by) == (block.runner == "prose")
        for name in block.checked_by:
            path, _, function = name.partition("::")
            assert f"def {function}(" in (ROOT / path).read_text()


def test_no_other_language() -> None:
    """The runners fit what the blocks say they are."""
    runners = {"python": {"python", "prose"}, "bash": {"shell"}, "json": {"json"}, "": {"tree"}}

    for block, fenced in zip(BLOCKS, fenced_blocks(SPEC.read_text()), strict=True):
        assert block.runner in runners[fenced.language]
