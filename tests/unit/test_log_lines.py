"""The lines of the log files, compared with the spec's own examples."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import (
    MB,
    Alert,
    Headroom,
    LimitAbove,
    MemoryStat,
    ProcessMemory,
    Snapshot,
    SystemMemory,
)
from cgmem.logs.lines import (
    alert_line,
    local_timestamp,
    monitor_line,
    snapshot_mb,
    stats_line,
    system_memory_mb,
    utc_time,
)

DOCKER = Headroom(512 * MB, LimitAbove("/docker", 1024 * MB))

# Spec, "Alert Log Format" and "Subprocess Statistics Format", letter by letter.
SPEC_ALERT = """{
  "timestamp": "2025-07-20T10:30:45.123456",
  "level": "WARNING",
  "subprocess_id": "engineer_abc123",
  "message": "WARNING: Memory exceeded 1024MB at 1156.3MB",
  "system_memory": {
    "total_mb": 16384.0,
    "available_mb": 4096.5,
    "used_mb": 12287.5,
    "percent": 75.0
  }
}"""
SPEC_STATS = """{
  "subprocess_id": "researcher_xyz789",
  "memory_stats": {
    "start_mb": 256.4,
    "peak_mb": 1892.7,
    "end_mb": 512.3,
    "duration_seconds": 45.2,
    "warnings": [
      "WARNING: Memory exceeded 1024MB at 1156.3MB"
    ],
    "aborted": false
  },
  "timestamp": "2025-07-20T10:31:20.456789"
}"""
WARNING = "WARNING: Memory exceeded 1024MB at 1156.3MB"
SPEC_MEMORY = SystemMemory(total_bytes=16384 * MB, available_bytes=int(4096.5 * MB))


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not UTC."""
    monkeypatch.setenv("TZ", "CEST-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    """Seconds since the epoch of a time two hours east of UTC."""
    return datetime.fromisoformat(f"{text}+02:00").timestamp()


def ours_apart(line: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A line written as the spec writes its examples, and what is under `cgmem`."""
    assert list(line)[-1] == "cgmem"
    own = line.pop("cgmem")
    return json.dumps(line, indent=2), own


@pytest.mark.usefixtures("_berlin")
def test_alert_is_the_specs_example() -> None:
    """An alert's documented part equals the spec's example: keys, order, types, values."""
    alert = Alert("WARNING", WARNING, "threshold", 7.0, int(1156.3 * MB), int(1200.04 * MB))
    line = alert_line(
        alert,
        now=at("2025-07-20T10:30:45.123456"),
        subprocess_id="engineer_abc123",
        system_memory=SPEC_MEMORY._replace(headroom=DOCKER),
        backend="cgroup2",
        extra={"level": "WARNING"},
    )

    documented, own = ours_apart(line)

    assert documented == SPEC_ALERT
    assert own == {
        "time": "2025-07-20T08:30:45.123456Z",
        "backend": "cgroup2",
        "kind": "threshold",
        "judged_mb": 1156.3,
        "current_mb": 1200.0,
        "headroom_mb": 512.0,
        "headroom_source": "/docker",
        "level": "WARNING",
    }


@pytest.mark.usefixtures("_berlin")
def test_stats_are_the_specs_example() -> None:
    """A stats line's documented part equals the spec's example, the outcome is under `cgmem`."""
    line = stats_line(
        "researcher_xyz789",
        now=at("2025-07-20T10:31:20.456789"),
        start_mb=256.4,
        peak_mb=1892.7,
        end_mb=512.3,
        duration_seconds=45.2,
        warnings=(WARNING,),
        aborted=False,
        outcome={"cause": "exited", "exit_code": 0},
    )

    documented, own = ours_apart(line)

    assert documented == SPEC_STATS
    assert own == {"time": "2025-07-20T08:31:20.456789Z", "cause": "exited", "exit_code": 0}


def test_stats_figures_are_floats_whatever_comes_in() -> None:
    """Figures given as whole numbers are written as the floats of the spec."""
    line = stats_line(
        "id", now=0, start_mb=0, peak_mb=5, end_mb=1.26, duration_seconds=2,
        warnings=[], aborted=True, outcome={},
    )  # fmt: skip

    assert json.dumps(line["memory_stats"]) == (
        '{"start_mb": 0.0, "peak_mb": 5.0, "end_mb": 1.3, "duration_seconds": 2.0,'
        ' "warnings": [], "aborted": true}'
    )


def test_monitor_line_has_the_four_keys_first() -> None:
    """memory-monitor.log: timestamp, level, status, alerts, then ours; numbers in `status`."""
    line = monitor_line(
        now=0.0, level="OK", system_memory=SPEC_MEMORY._replace(swap_free_bytes=MB), alerts=[]
    )

    assert list(line) == ["timestamp", "level", "status", "alerts", "cgmem"]
    assert line["status"] == {"system_memory": system_memory_mb(SPEC_MEMORY)}
    assert line["cgmem"] == {"time": "1970-01-01T00:00:00.000000Z", "swap_free_mb": 1.0}


@given(
    st.integers(0, 1 << 50).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total)))
)
def test_system_memory_adds_up(sizes: tuple[int, int]) -> None:
    """used + available = total to the digit shown, one decimal each, 0 to 100 percent."""
    shown = system_memory_mb(SystemMemory(*sizes))

    assert list(shown) == ["total_mb", "available_mb", "used_mb", "percent"]
    assert round(shown["used_mb"] + shown["available_mb"], 1) == shown["total_mb"]
    assert 0.0 <= shown["percent"] <= 100.0
    assert shown["used_mb"] >= 0.0
    for value in shown.values():
        assert isinstance(value, float)
        assert re.fullmatch(r"\d+\.\d", json.dumps(value)) or value >= 1e16


@given(st.integers(0, 4_000_000_000 * 1_000_000))
def test_timestamps_are_datetimes_own(microseconds: int) -> None:
    """Both forms equal datetime's, always with six digits of microseconds."""
    now = microseconds / 1_000_000
    local = datetime.fromtimestamp(now).isoformat(timespec="microseconds")
    utc = datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")

    assert local_timestamp(now) == local
    assert utc_time(now) == f"{utc}Z"


def test_a_snapshot_is_bounded() -> None:
    """Commands of any length and kind make a line of some hundred bytes, without control codes."""
    process = ProcessMemory(7, ("\x1b[2J", "x" * 100_000, "\udcff\n"), 3 * MB // 2, "pss")
    shown = snapshot_mb(Snapshot(MemoryStat(anon=MB, kernel=None), (process,) * 5, partial=False))

    assert shown["memory_stat"]["anon_mb"] == 1.0
    assert shown["memory_stat"]["kernel_mb"] is None
    assert set(shown["memory_stat"]) == {
        "anon_mb", "file_mb", "shmem_mb", "kernel_mb", "slab_mb", "sock_mb",
    }  # fmt: skip
    assert shown["processes"][0]["memory_mb"] == 1.5
    assert shown["processes"][0]["command"].startswith("?[2J xxx")
    assert len(json.dumps(shown)) < 2000


def test_an_alert_line_with_its_snapshot() -> None:
    """The snapshot goes under `cgmem`; an alert without one has no such key."""
    alert = Alert("CRITICAL", "x", "threshold", 1.0, MB, MB)
    plain, full = (
        alert_line(
            told, now=0.0, subprocess_id="a", system_memory=SystemMemory(MB, MB), backend="b"
        )
        for told in (alert, alert._replace(snapshot=Snapshot()))
    )

    assert "snapshot" not in plain["cgmem"]
    assert full["cgmem"]["snapshot"] == {"partial": True, "memory_stat": None, "processes": []}
