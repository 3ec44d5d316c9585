"""What filled the memory: read from stalled groups without holding up the poller."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import pytest

import cgmem
from cgmem.contract import Alert, Snapshot
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.snapshot import Snapshots
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

TICK = 0.25
LOOKS = 8
BUDGET = {"warning": "16M", "critical": "32M", "max": "64M"}

THREADED = """
import mmap, threading
held = []
def leak():
    while True:
        held.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1][::4096] = b"x" * 256
for _ in range(4):
    threading.Thread(target=leak).start()
"""
"""Four threads that map and touch: one that waits for mmap's write lock, behind a throttled fault,
holds up whoever reads smaps_rollup."""


class Watcher:
    """Looks at the clock at each of its ticks."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self, now: float) -> None:
        """A tick has come."""
        self.ticks.append(time.monotonic())

    def woken(self, now: float) -> None:
        """Never."""

    def see(self, more: int) -> bool:
        """Wait for so many more ticks."""
        enough = len(self.ticks) + more
        return until(lambda: len(self.ticks) >= enough)

    def jitter(self, since: int) -> str:
        """Return how late the ticks from number `since` on came."""
        ticks = self.ticks[since:]
        late = [after - before - TICK for before, after in itertools.pairwise(ticks)]
        return f"{statistics.median(late) * 1000:.0f} ms late, at most {max(late) * 1000:.0f}"


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_stalled_leakers_hold_up_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four stalled multi-threaded leakers: snapshots come or are partial, and the ticks go on."""
    alerts: dict[str, list[Alert]] = {}
    watcher = Watcher()
    with real.supervising(tmp_path, tick=TICK, on_stall="hold", stall_after=2, **BUDGET) as boss:
        processes = [
            cgmem.spawn(
                real.python(THREADED, "--token=hunter2"),
                supervisor=boss,
                on_alert=lambda name, alert: alerts.setdefault(name, []).append(alert),
            )
            for _ in range(4)
        ]

        def held() -> bool:
            """All are at the brake, and one has been seen to stall."""
            critical = [
                (name, alert.kind)
                for name in list(alerts)
                for alert in alerts[name]
                if alert.level == "CRITICAL"
            ]
            stalled = any(kind == "stall" for _, kind in critical)
            return stalled and len({name for name, _ in critical}) == len(processes)

        assert until(held)
        boss.poller().add(watcher, ())
        assert watcher.see(LOOKS)
        without, since = watcher.jitter(0), len(watcher.ticks)
        taken = [snapshot for _ in range(LOOKS) for snapshot in inspected(processes, watcher)]
        with_snapshots = watcher.jitter(since - 1)
        boss.poller().remove(watcher)
        for process in processes:
            process.abort(0)
        outcomes = [process.outcome(PATIENCE) for process in processes]

    told = [
        alert.snapshot for each in alerts.values() for alert in each if alert.level == "CRITICAL"
    ]
    with capsys.disabled():
        sys.stdout.write(
            f"\nfour stalled leakers: ticks are {without} without snapshots,"
            f" {with_snapshots} with four snapshots a tick;"
            f" {len(taken)} snapshots, {sum(one.partial for one in taken)} partial\n"
        )
    assert None not in told
    assert all(snapshot.memory_stat for snapshot in taken)
    log = (tmp_path / "logs" / "memory-alerts.log").read_text()
    assert "hunter2" not in log
    assert [json.loads(line)["level"] for line in log.splitlines()].count("CRITICAL") == len(told)
    for process, outcome in zip(processes, outcomes, strict=True):
        assert outcome.snapshot is not None
        assert outcome.snapshot["memory_stat"]["anon_mb"] > 1
        assert [found["pid"] for found in outcome.snapshot["processes"]] == [process.pid]
        assert "Largest when last seen: " in outcome.message
        assert "hunter2" not in outcome.message


def inspected(processes: list[MonitoredProcess], watcher: Watcher) -> list[Snapshot]:
    """Take a snapshot of each at once, as at an alert; wait for all, and for a tick."""
    snapshots = Snapshots(real.note)
    taken = [
        snapshots.take(process.supervision.scope, lambda: None)  # type: ignore[union-attr]
        for process in processes
    ]
    # A poller that waits for a read of a stalled process waits for as long as that is stalled.
    assert watcher.see(1)
    assert until(lambda: all(one.done for one in taken))
    snapshots.close()
    return [one.so_far for one in taken]


def test_the_kernels_kill_names_the_largest(tmp_path: Path) -> None:
    """The hard limit's message has who was largest at critical: at the kill all are dead."""
    code = f"""
import os, time
if os.fork() == 0:
    time.sleep(600)
time.sleep(0.5)
{real.LEAK}
"""
    with real.supervising(tmp_path, tick=TICK, stall_after=2, **BUDGET) as boss:
        process = cgmem.spawn(real.python(code, 800, "--password", "hunter2"), supervisor=boss)
        outcome = process.outcome(PATIENCE)

    assert outcome.cause == "hard_limit"
    assert outcome.snapshot is not None
    largest = outcome.snapshot["processes"][0]
    assert largest["pid"] == process.pid
    assert f"[{process.pid}] {largest['memory_mb']}MB" in outcome.message
    assert "hunter2" not in (tmp_path / "logs" / "subprocess-stats.jsonl").read_text()
