"""The spec's project at work, with budgets that the kernel holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.real_cgroups import need_cgroup2
from tests.spec.project import EXAMPLES, lines, logs_of_a_scene, shape


@pytest.mark.long
def test_the_logs_of_a_project_at_work(tmp_path: Path) -> None:
    """The helper's agents are in cgroups of their own; the logs have the spec's form."""
    need_cgroup2()
    logs = logs_of_a_scene(tmp_path)
    stats = lines(logs / "subprocess-stats.jsonl")
    alerts = lines(logs / "memory-alerts.log")

    ours = [line["cgmem"] for line in stats]
    assert all(one["enforced"] and one["metric"] == "cgroup" for one in ours)
    assert [one["cause"] for one in ours] == ["exited", "hard_limit", "aborted"]
    assert [shape(line) for line in stats] == [shape(EXAMPLES["subprocess-stats.jsonl"])] * 3
    assert all(shape(line) == shape(EXAMPLES["memory-alerts.log"]) for line in alerts)
    assert stats[1]["memory_stats"]["peak_mb"] == 64.0
