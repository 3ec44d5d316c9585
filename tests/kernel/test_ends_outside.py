"""Ends that come from outside the budget: the machine's OOM killer, earlyoom, a person."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cgmem
from cgmem.contract import MB, Alert
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

ROOMY = {"warning": "200M", "critical": "300M", "max": "400M"}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()
    real.need_root()


@contextmanager
def spared() -> Iterator[None]:
    """Keep whoever kills for memory away from the tests themselves."""
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    own.write_text("-900")
    try:
        yield
    finally:
        own.write_text(before)


def enough_for_earlyoom(more_bytes: int) -> str:
    """Return what its -M must be so that it kills until there is so much more memory than now.

    It compares shares: -M with MemTotal, but what is available with that plus AnonPages.
    """
    text = Path("/proc/meminfo").read_text()
    kib = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", text)}
    share = (kib["MemAvailable"] + more_bytes // 1024) / (kib["MemAvailable"] + kib["AnonPages"])
    return str(int(share * kib["MemTotal"]))


def killed(
    process: cgmem.MonitoredProcess, *, by: str, patience: float = PATIENCE
) -> cgmem.Outcome:
    """Wait for its end and close its pipe."""
    outcome = process.outcome(patience)
    assert process.stdout is not None
    process.stdout.close()
    real.note(f"{by}: {outcome.message}")
    return outcome


def told(alerts: list[Alert]) -> bool:
    """Whether the kill was told, once, as none of this budget's own doing."""
    until(lambda: bool(alerts), 10)  # callbacks have a thread of their own
    kinds = [alert.kind for alert in alerts]
    return kinds == ["kill"] and "not at this budget" in alerts[0].message


def test_a_sigkill_from_outside(tmp_path: Path) -> None:
    """A person's SIGKILL is `signalled`, blames no limit, and names who else may have sent it."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **ROOMY) as supervisor:
        process = cgmem.spawn(["sleep", "600"], supervisor=supervisor)
        os.kill(process.pid, signal.SIGKILL)
        outcome = process.outcome(PATIENCE)

    assert outcome.cause == "signalled"
    assert outcome.signal == signal.SIGKILL
    assert outcome.events.oom_kill == 0
    assert not outcome.aborted
    assert outcome.warnings == ()
    assert "neither cgmem nor the kernel's OOM killer, but by a person" in outcome.message
    assert "journalctl -u earlyoom" in outcome.message


def test_earlyoom(tmp_path: Path) -> None:
    """What earlyoom kills is `signalled`, and the message names earlyoom and where it says so."""
    with real.supervising(tmp_path, tick=real.LONG_TICK, **ROOMY) as supervisor, spared():
        process = cgmem.spawn(
            real.python(real.PREY, 128), supervisor=supervisor, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        # Once the prey has gone there is more than that again, and earlyoom rests.
        enough = enough_for_earlyoom(64 * MB)
        watcher = ["earlyoom", "-M", f"{enough},{enough}", "-s", "100,100", "-r", "0"]
        with subprocess.Popen(
            watcher, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as earlyoom:
            try:
                outcome = killed(process, by="earlyoom")
            finally:
                earlyoom.kill()
            assert earlyoom.stdout is not None
            said = earlyoom.stdout.read()

    assert outcome.cause == "signalled", said
    assert f"process {outcome.pid}" in said
    assert outcome.signal == signal.SIGKILL
    assert outcome.events.oom_kill == 0
    assert not outcome.aborted
    assert "earlyoom" in outcome.message


def test_the_machines_oom_killer(tmp_path: Path) -> None:
    """A kill to save the machine is `system_oom`: told at once, no limit of anybody's blamed."""

    def by_sysrq(process: cgmem.MonitoredProcess) -> cgmem.Outcome:
        # SysRq-f: the kernel's own choice of a victim, without the wait for the memory to fill.
        Path("/proc/sysrq-trigger").write_text("f")
        return killed(process, by="SysRq-f")

    _is_system_oom(_preyed_upon(tmp_path, 32, by_sysrq))


EATER = """
import mmap, os, sys
prey = int(sys.argv[1])
open("/proc/self/oom_score_adj", "w").write("-1000")
MAP_LOCKED = 0x2000
held = []
while os.path.exists(f"/proc/{prey}/exe"):
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | MAP_LOCKED
    held.append(mmap.mmap(-1, 8 << 20, flags=flags))
"""
"""Takes the machine's memory until its prey is gone, and lets go of it at once."""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_machine_out_of_memory(tmp_path: Path) -> None:
    """The same when the machine's memory is really used up, by somebody else."""

    def by_an_eater(process: cgmem.MonitoredProcess) -> cgmem.Outcome:
        with subprocess.Popen(real.python(EATER, process.pid)) as eater:
            try:
                return killed(process, by="a full machine", patience=800)
            finally:
                eater.kill()

    _is_system_oom(_preyed_upon(tmp_path, 128, by_an_eater))


def _preyed_upon(
    tmp_path: Path, megabytes: int, kill: Callable[[cgmem.MonitoredProcess], cgmem.Outcome]
) -> cgmem.Outcome:
    """Have something of that size killed to save the machine; its outcome."""
    alerts: list[Alert] = []
    with real.supervising(tmp_path, tick=real.LONG_TICK, **ROOMY) as supervisor, spared():
        process = cgmem.spawn(
            real.python(real.PREY, megabytes),
            supervisor=supervisor,
            stdout=subprocess.PIPE,
            on_alert=lambda _, alert: alerts.append(alert),
        )
        assert process.stdout is not None
        process.stdout.readline()
        outcome = kill(process)
        assert told(alerts)
    return outcome


def _is_system_oom(outcome: cgmem.Outcome) -> None:
    assert outcome.cause == "system_oom"
    assert outcome.signal == signal.SIGKILL
    assert outcome.events.oom_kill
    assert outcome.events.oom == 0
    assert not outcome.aborted
    assert outcome.peak_mb < 400
    assert "to save the machine after" in outcome.message
    assert "the machine has" in outcome.message
    assert "own limit 400M" in outcome.message
    assert "journalctl -k" in outcome.message
